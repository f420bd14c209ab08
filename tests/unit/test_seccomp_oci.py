"""linux.seccomp of a config.json: read, compiled, cached, and what its filter answers."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bpf import ALLOW, ask
from bpf import errno as refuses

from gocker import seccomp, seccompcompile
from gocker.errors import UsageError
from gocker.kernel import seccomp as kernel
from gocker.model import ContainerSpec
from gocker.seccompprofile import Profile, parse_profile
from gocker.steps.exec import InstallSeccomp
from gocker.steps.seccomplistener import InstallWithListener

pytestmark = pytest.mark.skipif(
    subprocess.run(
        [sys.executable, "-c", "import ctypes; ctypes.CDLL('libseccomp.so.2')"], check=False
    ).returncode
    != 0,
    reason="libseccomp.so.2 is missing: apt-get install libseccomp2",
)

MKDIR, GETPID, PERSONALITY = 83, 39, 135  # x86-64
EPERM, ENOSYS = refuses(errno.EPERM), refuses(errno.ENOSYS)
AGENT = "/run/agent.sock"


def read(profile: dict[str, Any], machine: str = "x86_64") -> Profile:
    return parse_profile(json.dumps(profile).encode(), "linux.seccomp", machine, oci=True)


def compiled(profile: dict[str, Any], machine: str = "x86_64") -> bytes:
    return seccompcompile.compile_profile(read(profile, machine), (), machine, "6.1", strict=False)


def rule(*names: str, action: str = "SCMP_ACT_ERRNO", **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": action, **more}


def allowing(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(rules), **more}


ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050001,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00001,
    "SCMP_ACT_LOG": 0x7FFC0000,
}


@pytest.mark.parametrize(("action", "answer"), ACTIONS.items())
def test_each_action_is_what_the_kernel_knows_it_by(action: str, answer: int) -> None:
    profile = allowing(rule("mkdir", action=action), listenerPath=AGENT)
    assert ask(compiled(profile), "x86_64", MKDIR) == answer
    assert ask(compiled(profile), "x86_64", GETPID) == ALLOW


@pytest.mark.parametrize(("action", "answer"), ACTIONS.items())
def test_each_action_can_be_the_default(action: str, answer: int) -> None:
    profile = {
        "defaultAction": action,
        "syscalls": [rule("getpid", "seccomp", action="SCMP_ACT_ALLOW")],
        "listenerPath": AGENT,
    }
    assert ask(compiled(profile), "x86_64", MKDIR) == answer
    assert ask(compiled(profile), "x86_64", GETPID) == ALLOW


@pytest.mark.parametrize("action", ["SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"])
def test_an_errno_goes_with_the_actions_that_have_one(action: str) -> None:
    profile = {"defaultAction": action, "defaultErrnoRet": 6, "syscalls": [rule("mkdir", errnoRet=28)]}
    program = compiled(profile)
    assert ask(program, "x86_64", GETPID) & 0xFFFF == 6
    assert ask(program, "x86_64", MKDIR) == refuses(28)


COMPARISONS = [
    ("SCMP_CMP_NE", 5, 0, {4, 6}, {5}),
    ("SCMP_CMP_LT", 5, 0, {0, 4}, {5, 6}),
    ("SCMP_CMP_LE", 5, 0, {4, 5}, {6, 1 << 63}),
    ("SCMP_CMP_EQ", 5, 0, {5}, {4, 1 << 32 | 5}),
    ("SCMP_CMP_GE", 5, 0, {5, 6, 1 << 40}, {4}),
    ("SCMP_CMP_GT", 5, 0, {6, 1 << 32}, {5}),
    ("SCMP_CMP_MASKED_EQ", 0xF0, 0x50, {0x50, 0x5F, 0x150}, {0x60, 0x05}),
    ("SCMP_CMP_EQ", (1 << 64) - 1, 0, {(1 << 64) - 1}, {(1 << 32) - 1}),
]


@pytest.mark.parametrize(("op", "value", "second", "yes", "no"), COMPARISONS)
def test_each_comparison_holds_for_what_it_says(
    op: str, value: int, second: int, yes: set[int], no: set[int]
) -> None:
    args = [{"index": 2, "op": op, "value": value, "valueTwo": second}]
    program = compiled(allowing(rule("mkdir", args=args)))
    assert {ask(program, "x86_64", MKDIR, (0, 0, argument)) for argument in yes} == {EPERM}
    assert {ask(program, "x86_64", MKDIR, (0, 0, argument)) for argument in no} == {ALLOW}


def test_all_comparisons_of_a_rule_must_hold_and_one_of_two_on_one_argument() -> None:
    both = [{"index": i, "op": "SCMP_CMP_EQ", "value": i + 1} for i in (0, 1)]
    either = [{"index": 0, "op": "SCMP_CMP_EQ", "value": value} for value in (1, 8)]
    program = compiled(allowing(rule("mkdir", args=both), rule("personality", args=either)))
    assert [ask(program, "x86_64", MKDIR, args) for args in ((1, 2), (1, 3), (0, 2))] == [EPERM, ALLOW, ALLOW]
    assert [ask(program, "x86_64", PERSONALITY, (a,)) for a in (1, 8, 2)] == [EPERM, EPERM, ALLOW]


def test_names_that_nobody_knows_are_passed_over() -> None:
    program = compiled(allowing(rule("no_such_call", "mkdir", "open_by_magic")))
    assert ask(program, "x86_64", MKDIR) == EPERM


@pytest.mark.parametrize(
    ("default", "answer"),
    [
        ({"defaultAction": "SCMP_ACT_ERRNO"}, ENOSYS),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1}, ENOSYS),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38}, ENOSYS),
        ({"defaultAction": "SCMP_ACT_KILL"}, ENOSYS),
        ({"defaultAction": "SCMP_ACT_TRAP"}, ENOSYS),
        ({"defaultAction": "SCMP_ACT_LOG"}, 0x7FFC0000),
        ({"defaultAction": "SCMP_ACT_TRACE"}, 0x7FF00001),
        ({"defaultAction": "SCMP_ACT_ALLOW"}, ALLOW),
    ],
)
def test_what_is_newer_than_the_profile_is_not_there_where_the_default_refuses(
    default: dict[str, Any], answer: int
) -> None:
    program = compiled({**default, "syscalls": [rule("getpid", action="SCMP_ACT_ALLOW"), rule("mkdir")]})
    assert ask(program, "x86_64", 999) == answer


ARCHITECTURES = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]


def test_of_the_architectures_those_that_the_machine_has_are_let_in() -> None:
    everything = [*ARCHITECTURES, "SCMP_ARCH_S390X", "SCMP_ARCH_MIPS", "SCMP_ARCH_RISCV64"]
    assert read(allowing(architectures=everything)).foreign == ("x86", "x32")
    assert read(allowing(architectures=everything), "aarch64").foreign == ("arm",)
    assert read(allowing()).foreign == ()


def test_the_calls_of_an_emulated_abi_are_compared_by_its_own_numbers() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [rule("getpid", action="SCMP_ACT_ALLOW")],
    }
    closed, opened = compiled(profile), compiled({**profile, "architectures": ARCHITECTURES})
    assert ask(closed, "x86", 20) == 0x80000000  # getpid there; the whole ABI kills
    assert ask(opened, "x86", 20) == ALLOW
    assert ask(opened, "x86", 39) == EPERM
    assert ask(opened, "x86_64", 1 << 30 | GETPID) == ALLOW  # x32
    assert ask(closed, "x86_64", 1 << 30 | GETPID) == ENOSYS


def test_an_architecture_that_nobody_has_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown architecture vax"):
        read(allowing(architectures=["SCMP_ARCH_VAX"]))


FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}


@pytest.mark.parametrize(("flag", "bit"), FLAGS.items())
def test_each_flag_reaches_the_kernel(flag: str, bit: int) -> None:
    assert read(allowing(flags=[flag])).flags == bit


def spec(profile: dict[str, Any]) -> ContainerSpec:
    text = json.dumps(profile)
    return ContainerSpec(id="x", name="x", argv=("x",), seccomp="linux.seccomp", seccomp_profile=text)


def step(profile: dict[str, Any], root: str = "") -> InstallSeccomp:
    made = seccomp.seccomp_step(spec(profile), root)
    assert made
    return made


def test_a_profile_of_a_config_is_the_filter_and_has_its_name() -> None:
    made = step(allowing(rule("mkdir")))
    assert type(made) is InstallSeccomp
    assert made.profile == "linux.seccomp"
    assert ask(made.program, os.uname().machine, kernel.syscall_number("mkdirat", "x86_64") or 0) == ALLOW
    assert made.describe().startswith("seccomp --profile linux.seccomp")


NOTIFYING = allowing(
    rule("mkdir", "mkdirat", action="SCMP_ACT_NOTIFY"),
    listenerPath=AGENT,
    listenerMetadata="who",
    flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
)


def test_a_filter_that_asks_gets_a_listener_from_the_cache_too(tmp_path: Path) -> None:
    first, second = (step(NOTIFYING, f"{tmp_path}/data") for _ in range(2))
    assert len(list((tmp_path / "data/cache/seccomp").iterdir())) == 1
    assert isinstance(first, InstallWithListener)
    assert first == second
    assert (first.listener, first.metadata, first.flags) == (AGENT, "who", kernel.NEW_LISTENER | 32)
    assert first.describe().endswith(f", asks {AGENT}")
    shown = first.to_json()
    assert "program" not in shown
    assert shown["op"] == "seccomp-listener"


def test_who_listens_is_told_though_nothing_is_asked() -> None:
    made = step({**NOTIFYING, "syscalls": [rule("mkdir")]})
    assert isinstance(made, InstallWithListener)
    assert made.flags & kernel.NEW_LISTENER


def test_without_a_listener_there_is_nothing_to_wait_for() -> None:
    silent = {name: value for name, value in NOTIFYING.items() if not name.startswith("listener")}
    made = step({**silent, "syscalls": [rule("mkdir")]})
    assert (type(made), made.flags) == (InstallSeccomp, 0)


def test_one_text_is_two_filters_as_a_file_and_in_a_config(tmp_path: Path) -> None:
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 22, "syscalls": [rule("mkdir")]}
    path = tmp_path / "p.json"
    path.write_text(json.dumps(profile))
    of_file = seccomp.seccomp_filter(str(path), (), f"{tmp_path}/data")
    assert of_file
    machine = os.uname().machine
    assert ask(of_file.program, machine, 999) == refuses(22)
    assert ask(step(profile, f"{tmp_path}/data").program, machine, 999) == ENOSYS
