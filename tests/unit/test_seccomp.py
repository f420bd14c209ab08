"""Seccomp profiles read, compiled and cached; what a filter answers is asked by interpreting it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from bpf import ALLOW, KILL_PROCESS, ask, errno
from hypothesis import given
from hypothesis import strategies as st

from gocker import seccomp, seccompcompile
from gocker.errors import GockerError, KernelError, UsageError
from gocker.kernel import caps
from gocker.kernel import seccomp as kernel
from gocker.model import ContainerSpec, plain_capabilities
from gocker.seccompprofile import MAX_BYTES, Profile, parse_profile

EPERM, ENOSYS = errno(1), errno(38)
MACHINES = ["x86_64", "aarch64"]
DEFAULT = Path(seccomp.__file__).resolve().parent / "data" / "seccomp-default.json"
ALL = caps.NAMES

pytestmark = pytest.mark.skipif(
    subprocess.run(
        [sys.executable, "-c", "import ctypes; ctypes.CDLL('libseccomp.so.2')"], check=False
    ).returncode
    != 0,
    reason="libseccomp.so.2 is missing: apt-get install libseccomp2",
)


def compiled(
    machine: str, capabilities: tuple[str, ...] = caps.DOCKER_DEFAULT, *, strict: bool = True
) -> bytes:
    profile = parse_profile(DEFAULT.read_bytes(), "default", machine)
    return seccompcompile.compile_profile(profile, capabilities, machine, "6.1.0", strict=strict)


@pytest.fixture(scope="module", params=MACHINES)
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def program(machine: str) -> bytes:
    return compiled(machine)


def number(name: str, machine: str) -> int:
    value = kernel.syscall_number(name, machine)
    return seccompcompile._NEWER[name] if value is None else value


@pytest.mark.parametrize(
    "name", ["read", "openat", "execve", "mmap", "futex", "ptrace", "close_range", "mseal", "statmount"]
)
def test_what_programs_need_is_allowed(name: str, machine: str, program: bytes) -> None:
    assert ask(program, machine, number(name, machine)) == ALLOW


REFUSED = [
    "keyctl",
    "add_key",
    "request_key",
    "mount",
    "unshare",
    "setns",
    "bpf",
    "perf_event_open",
    "reboot",
]
REFUSED += [
    "init_module",
    "kexec_load",
    "open_by_handle_at",
    "userfaultfd",
    "io_uring_setup",
    "swapon",
    "chroot",
]


@pytest.mark.parametrize("name", [name for name in REFUSED if name != "chroot"])
def test_what_reaches_beyond_the_container_is_refused(name: str, machine: str, program: bytes) -> None:
    assert ask(program, machine, number(name, machine)) == EPERM


FOREIGN = {"x86_64": "x86", "aarch64": "arm"}


@pytest.mark.parametrize("call", [0, 1, 4, 11, 102, 500])
def test_calls_of_another_abi_kill_the_process(call: int, machine: str, program: bytes) -> None:
    assert ask(program, FOREIGN[machine], call) == KILL_PROCESS


@pytest.mark.parametrize("call", [0, 1, 59, 512, 545])
def test_x32_calls_are_not_there(call: int) -> None:
    assert ask(compiled("x86_64"), "x86_64", call | 1 << 30) == ENOSYS


@pytest.mark.parametrize("call", [467, 468, 500, 1000, 0x3FFFFFFF, 0xFFFFFFFF])
def test_calls_newer_than_the_profile_are_not_there(call: int, machine: str, program: bytes) -> None:
    assert ask(program, machine, call) == ENOSYS


@pytest.mark.parametrize("command", [0x5412, 0x541C])
@pytest.mark.parametrize("upper", [0, 1 << 32, 0xFFFFFFFF << 32])
def test_typing_into_a_terminal_is_refused_whatever_the_upper_half(
    command: int, upper: int, machine: str, program: bytes
) -> None:
    assert ask(program, machine, number("ioctl", machine), [0, upper | command]) == EPERM


@pytest.mark.parametrize("command", [0, 0x5401, 0x5411, 0x5413, 0x541B, 0x541D, 0x80045430])
def test_other_ioctls_are_allowed(command: int, machine: str, program: bytes) -> None:
    assert ask(program, machine, number("ioctl", machine), [0, command]) == ALLOW


@pytest.mark.parametrize("capability_set", [ALL, caps.DOCKER_DEFAULT, ()])
def test_no_capability_opens_terminals_or_other_abis(capability_set: tuple[str, ...], machine: str) -> None:
    program = compiled(machine, capability_set)
    assert ask(program, machine, number("ioctl", machine), [0, 0x5412]) == EPERM
    assert ask(program, FOREIGN[machine], 1) == KILL_PROCESS
    assert ask(program, machine, number("keyctl", machine)) == EPERM


@pytest.mark.parametrize(
    ("family", "answer"), [(1, ALLOW), (2, ALLOW), (10, ALLOW), (16, ALLOW), (17, ALLOW)]
)
@pytest.mark.parametrize("upper", [0])
def test_usual_socket_families_are_allowed(
    family: int, answer: int, upper: int, machine: str, program: bytes
) -> None:
    assert ask(program, machine, number("socket", machine), [family | upper]) == answer


@pytest.mark.parametrize("family", [12, 38, 40])
@pytest.mark.parametrize("upper", [0, 1 << 32])
def test_the_kernels_crypto_and_other_odd_families_are_refused(
    family: int, upper: int, machine: str, program: bytes
) -> None:
    assert ask(program, machine, number("socket", machine), [family | upper]) == EPERM


@pytest.mark.parametrize("flag", [1 << bit for bit in (17, 25, 26, 27, 28, 29, 30)])
def test_clone_makes_no_namespace(flag: int, machine: str, program: bytes) -> None:
    clone = number("clone", machine)
    assert ask(program, machine, clone, [17]) == ALLOW
    assert ask(program, machine, clone, [0x3D0F00]) == ALLOW  # a thread
    assert ask(program, machine, clone, [17 | flag]) == EPERM
    assert ask(compiled(machine, ALL), machine, clone, [17 | flag]) == ALLOW


def test_clone3_whose_flags_cannot_be_seen_is_not_there(machine: str, program: bytes) -> None:
    assert ask(program, machine, number("clone3", machine)) == ENOSYS
    assert ask(compiled(machine, ALL), machine, number("clone3", machine)) == ALLOW


@pytest.mark.parametrize(
    ("capability", "names"),
    [
        ("CAP_SYS_ADMIN", ["mount", "setns", "bpf"]),
        ("CAP_SYS_PTRACE", ["kcmp", "pidfd_getfd"]),
        ("CAP_SYS_TIME", ["clock_settime", "settimeofday"]),
        ("CAP_SYS_NICE", ["mbind"]),
        ("CAP_SYSLOG", ["syslog"]),
        ("CAP_BPF", ["bpf"]),
        ("CAP_PERFMON", ["perf_event_open"]),
        ("CAP_DAC_READ_SEARCH", ["open_by_handle_at"]),
        ("CAP_SYS_CHROOT", ["chroot"]),
    ],
)
def test_a_capability_brings_its_calls(capability: str, names: list[str], machine: str) -> None:
    without, given_it = compiled(machine, ()), compiled(machine, (capability,))
    for name in names:
        call = number(name, machine)
        assert (ask(without, machine, call), ask(given_it, machine, call)) == (EPERM, ALLOW)


@pytest.mark.parametrize("argument", [0, 2, 12, 0x7E020000, 1 << 40])
def test_the_preamble_changes_no_answer_of_libseccomps_own_filter(
    argument: int, machine: str, program: bytes
) -> None:
    plain = compiled(machine, strict=False)
    for call in range(467):
        if call != number("ioctl", machine):
            assert ask(program, machine, call, [argument] * 6) == ask(plain, machine, call, [argument] * 6), (
                call
            )


def test_the_default_filter_is_short(machine: str, program: bytes) -> None:
    """The kernel walks it once for each call there is when it is installed."""
    assert len(program) // 8 < 200


@given(st.sets(st.integers(0, 600), max_size=300))
def test_ranges_allow_exactly_their_numbers(numbers: set[int]) -> None:
    code = [kernel.load(0), *seccompcompile._allow_ranges(numbers), kernel.answer(EPERM)]
    program = b"".join(code)
    for call in range(602):
        assert ask(program, "x86_64", call) == (ALLOW if call in numbers else EPERM)


def test_many_lone_numbers_are_no_tree_but_right() -> None:
    numbers = set(range(0, 400, 2))
    program = b"".join([kernel.load(0), *seccompcompile._allow_ranges(numbers), kernel.answer(EPERM)])
    assert [ask(program, "x86_64", call) == ALLOW for call in range(401)] == [
        c in numbers for c in range(401)
    ]


def read(profile: Any, machine: str = "x86_64") -> Profile:
    return parse_profile(json.dumps(profile).encode(), "p.json", machine)


def custom(
    profile: dict[str, Any], machine: str = "x86_64", capabilities: tuple[str, ...] = (), release: str = "6.1"
) -> bytes:
    return seccompcompile.compile_profile(
        read(profile, machine), capabilities, machine, release, strict=False
    )


ERRNO_ALL: dict[str, Any] = {"defaultAction": "SCMP_ACT_ERRNO"}


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (None, "profile: not an object"),
        ([], "profile: not an object"),
        ({}, "defaultAction: not a text"),
        ({"defaultAction": "SCMP_ACT_PERHAPS"}, "unknown action SCMP_ACT_PERHAPS"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "listenerPath: SCMP_ACT_NOTIFY needs one"),
        ({**ERRNO_ALL, "defaultErrnoRet": True}, "defaultErrnoRet: not a whole number from 0 to 4095"),
        ({**ERRNO_ALL, "defaultErrnoRet": 5000}, "defaultErrnoRet: not a whole number from 0 to 4095"),
        ({**ERRNO_ALL, "syscalls": {}}, "syscalls: not a list"),
        ({**ERRNO_ALL, "syscalls": [1]}, "syscalls[0]: not an object"),
        ({**ERRNO_ALL, "syscalls": [{"names": ["read"]}]}, "syscalls[0].action: not a text"),
        (
            {**ERRNO_ALL, "syscalls": [{"names": [1], "action": "SCMP_ACT_ALLOW"}]},
            "syscalls[0].names: not a text",
        ),
        (
            {**ERRNO_ALL, "syscalls": [{"name": "read", "names": ["x"], "action": "SCMP_ACT_ALLOW"}]},
            "syscalls[0]: has both name and names",
        ),
        (
            {**ERRNO_ALL, "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]},
            "listenerPath: SCMP_ACT_NOTIFY needs one",
        ),
        (
            {**ERRNO_ALL, "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "unless": 1}]},
            "syscalls[0].unless: gocker does not know this key",
        ),
        (
            {
                **ERRNO_ALL,
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"os": 1}}],
            },
            "syscalls[0].includes.os: gocker does not know this key",
        ),
        (
            {
                **ERRNO_ALL,
                "syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "x"}}],
            },
            "minKernel: not a version such as 4.8",
        ),
        (
            {
                **ERRNO_ALL,
                "syscalls": [
                    {"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}
                ],
            },
            "args[0].index: not a whole number from 0 to 5",
        ),
        (
            {
                **ERRNO_ALL,
                "syscalls": [
                    {"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "op": "EQUALS"}]}
                ],
            },
            "unknown comparison EQUALS",
        ),
        (
            {
                **ERRNO_ALL,
                "syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [{"op": "SCMP_CMP_EQ"}]}],
            },
            "args[0]: has no index",
        ),
        (
            {**ERRNO_ALL, "architectures": ["SCMP_ARCH_X86"], "archMap": [{}]},
            "archMap: stands beside architectures",
        ),
        ({**ERRNO_ALL, "flags": ["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}, "NEW_LISTENER is not supported"),
        ({**ERRNO_ALL, "listenerPath": "run/x"}, "listenerPath: not an absolute path"),
        ({**ERRNO_ALL, "listenerPath": "/" + "x" * 107}, "of at most 107 bytes"),
        ({**ERRNO_ALL, "listenerPath": 5}, "listenerPath: not a text"),
        ({**ERRNO_ALL, "listenerMetadata": "x"}, "listenerMetadata: stands without a listenerPath"),
        ({"defaultAction": "SCMP_ACT_KILL", "defaultErrnoRet": 1}, "SCMP_ACT_KILL has no errno"),
        (
            {**ERRNO_ALL, "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1}]},
            "syscalls[0].action: SCMP_ACT_ALLOW has no errno",
        ),
        ({**ERRNO_ALL, "surprise": 1}, "profile.surprise: gocker does not know this key"),
    ],
)
def test_a_bad_profile_is_refused_and_the_place_is_named(profile: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(profile)
    assert message in str(caught.value)
    assert "p.json" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\xff", "not JSON"),
        (b"[" * 65 + b"]" * 65, "more than 64 levels deep"),
        (b'{"a":' * 100_000, "more than 64 levels deep"),
        (b" " * (MAX_BYTES + 1), "larger than 4 MiB"),
    ],
)
def test_a_file_that_is_no_profile_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_profile(data, "p.json", "x86_64")


def test_brackets_in_texts_are_not_depth() -> None:
    profile = {**ERRNO_ALL, "comment": '["\\' * 100}
    assert read(profile).rules == ()


ACTIONS = {
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": errno(1),
    "SCMP_ACT_TRACE": 0x7FF00001,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": ALLOW,
}


@pytest.mark.parametrize(("action", "answer"), ACTIONS.items())
def test_every_action_reaches_the_filter(action: str, answer: int) -> None:
    default = "SCMP_ACT_ALLOW" if action == "SCMP_ACT_ERRNO" else "SCMP_ACT_ERRNO"
    program = custom({"defaultAction": default, "syscalls": [{"names": ["mkdir"], "action": action}]})
    assert ask(program, "x86_64", 83) == answer
    assert ask(program, "x86_64", 82) == (ALLOW if default == "SCMP_ACT_ALLOW" else EPERM)


def test_an_errno_of_ones_own_is_answered() -> None:
    rule = {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    program = custom({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 22, "syscalls": [rule]})
    assert (ask(program, "x86_64", 83), ask(program, "x86_64", 82)) == (errno(95), errno(22))
    assert ask(program, "x86_64", 999) == errno(22)  # asked for: no ENOSYS of gocker's own


def test_without_a_default_errno_calls_newer_than_the_profile_are_not_there() -> None:
    program = custom({**ERRNO_ALL, "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ALLOW"}]})
    assert [ask(program, "x86_64", call) for call in (82, 83, 84)] == [EPERM, ALLOW, ENOSYS]


@pytest.mark.parametrize(
    ("op", "value", "two", "yes", "no"),
    [
        ("EQ", 5, 0, 5, 6),
        ("NE", 5, 0, 6, 5),
        ("LT", 5, 0, 4, 5),
        ("LE", 5, 0, 5, 6),
        ("GE", 5, 0, 5, 4),
        ("GT", 5, 0, 1 << 40, 5),
        ("MASKED_EQ", 0xF0, 0x50, 0x5A, 0x6A),
    ],
)
def test_arguments_are_compared(op: str, value: int, two: int, yes: int, no: int) -> None:
    argument = {"index": 1, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": two}
    rule = {"names": ["mkdir"], "action": "SCMP_ACT_ALLOW", "args": [argument]}
    program = custom({**ERRNO_ALL, "syscalls": [rule]})
    assert ask(program, "x86_64", 83, [0, yes]) == ALLOW
    assert ask(program, "x86_64", 83, [0, no]) == EPERM


def test_several_arguments_must_all_hold_and_one_compared_twice_need_hold_once() -> None:
    def rule(*pairs: tuple[int, int]) -> dict[str, Any]:
        arguments = [{"index": i, "op": "SCMP_CMP_EQ", "value": value} for i, value in pairs]
        return {
            **ERRNO_ALL,
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ALLOW", "args": arguments}],
        }

    both = custom(rule((0, 1), (1, 2)))
    assert [ask(both, "x86_64", 83, pair) for pair in ([1, 2], [1, 3], [0, 2])] == [ALLOW, EPERM, EPERM]
    either = custom(rule((0, 1), (0, 2)))
    assert [ask(either, "x86_64", 83, [value]) for value in (1, 2, 3)] == [ALLOW, ALLOW, EPERM]


@pytest.mark.parametrize(
    ("conditions", "capabilities", "release", "applies"),
    [
        ({"includes": {"caps": ["CAP_A", "CAP_B"]}}, ("CAP_A", "CAP_B"), "6.1", True),
        ({"includes": {"caps": ["CAP_A", "CAP_B"]}}, ("CAP_A",), "6.1", False),
        ({"excludes": {"caps": ["CAP_A", "CAP_B"]}}, ("CAP_A",), "6.1", False),
        ({"excludes": {"caps": ["CAP_A"]}}, ("CAP_C",), "6.1", True),
        ({"includes": {"arches": ["amd64"]}}, (), "6.1", True),
        ({"includes": {"arches": ["arm64"]}}, (), "6.1", False),
        ({"excludes": {"arches": ["amd64"]}}, (), "6.1", False),
        ({"includes": {"minKernel": "4.8"}}, (), "4.8.0-1-amd64", True),
        ({"includes": {"minKernel": "4.8"}}, (), "4.7.9", False),
        ({"includes": {"minKernel": "4.8"}}, (), "6.18.44-fc", True),
        ({"excludes": {"minKernel": "4.8"}}, (), "6.1", False),
        ({"excludes": {"minKernel": "4.8"}}, (), "4.4", True),
        ({"includes": {}, "excludes": None, "comment": "x", "args": None}, (), "6.1", True),
    ],
)
def test_docker_conditions_decide_whether_a_rule_applies(
    conditions: dict[str, Any], capabilities: tuple[str, ...], release: str, applies: bool
) -> None:
    rule = {"names": ["mkdir"], "action": "SCMP_ACT_ALLOW", **conditions}
    profile = read({**ERRNO_ALL, "syscalls": [rule]})
    assert len(seccompcompile.applying_rules(profile, capabilities, "x86_64", release)) == applies


def test_a_custom_profile_may_let_in_another_abi() -> None:
    rules = [{"names": ["mkdir"], "action": "SCMP_ACT_ALLOW"}]
    given_it = custom(
        {**ERRNO_ALL, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": rules}
    )
    mapped = custom(
        {
            **ERRNO_ALL,
            "archMap": [
                {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
                {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
            ],
            "syscalls": rules,
        }
    )
    without = custom({**ERRNO_ALL, "syscalls": rules})
    assert [ask(program, "x86", 39) for program in (given_it, mapped, without)] == [
        ALLOW,
        ALLOW,
        KILL_PROCESS,
    ]
    assert [ask(program, "x86_64", 83) for program in (given_it, mapped, without)] == [ALLOW] * 3


def test_names_that_nobody_knows_are_left_out() -> None:
    program = custom(
        {**ERRNO_ALL, "syscalls": [{"names": ["mkdir", "frobnicate"], "action": "SCMP_ACT_ALLOW"}]}
    )
    assert ask(program, "x86_64", 83) == ALLOW


def test_a_name_newer_than_the_library_is_known_all_the_same() -> None:
    program = custom({**ERRNO_ALL, "syscalls": [{"names": ["removexattrat"], "action": "SCMP_ACT_ALLOW"}]})
    assert [ask(program, "x86_64", call) for call in (465, 466, 467)] == [EPERM, ALLOW, ENOSYS]


def test_names_newer_than_the_library_and_another_abi_go_together() -> None:
    rules = [{"names": ["mkdir", "removexattrat"], "action": "SCMP_ACT_ALLOW"}]
    program = custom({**ERRNO_ALL, "architectures": ["SCMP_ARCH_X86"], "syscalls": rules})
    assert [ask(program, "x86_64", call) for call in (83, 465, 466)] == [ALLOW, EPERM, ALLOW]
    assert ask(program, "x86", 39) == ALLOW


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(UsageError, match="x86_64 and aarch64 only"):
        seccompcompile.compile_profile(read(ERRNO_ALL), (), "riscv64", "6.1", strict=True)


def test_an_unknown_abi_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown architecture vax"):
        custom({**ERRNO_ALL, "architectures": ["SCMP_ARCH_VAX"]})


def test_flags_are_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(
        json.dumps({**ERRNO_ALL, "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]})
    )
    for _ in range(2):  # compiled, then cached
        found = seccomp.seccomp_filter(str(path), (), f"{tmp_path}/data")
        assert found
        assert found.flags == 2


def test_a_missing_libseccomp_is_an_error_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_LIBRARY", "libseccomp-of-nobody.so.2")
    with pytest.raises(
        KernelError, match="apt-get install libseccomp2, or --security-opt seccomp=unconfined"
    ):
        seccomp.seccomp_filter("default", (), "")


def test_unconfined_is_no_filter() -> None:
    assert seccomp.seccomp_filter("unconfined", caps.DOCKER_DEFAULT, "") is None
    assert (
        seccomp.seccomp_step(ContainerSpec(id="x", name="x", argv=("a",), seccomp="unconfined"), "") is None
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "ENOENT"),
        (lambda path: path.mkdir(), "not a regular file"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.write_bytes(b" " * (MAX_BYTES + 1)), "larger than 4 MiB"),
        (lambda path: path.write_text("null"), "not an object"),
    ],
)
def test_a_profile_file_that_cannot_be_used_is_named(make: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    make(path)
    with pytest.raises(GockerError, match=message) as caught:
        seccomp.seccomp_filter(str(path), (), str(tmp_path))
    assert str(path) in str(caught.value)


def cache_files(root: Path) -> list[Path]:
    return sorted((root / "cache/seccomp").iterdir())


def test_the_plan_shows_the_digest_and_not_the_program(tmp_path: Path) -> None:
    spec = ContainerSpec(id="x", name="x", argv=("a",), capabilities=plain_capabilities(caps.DOCKER_DEFAULT))
    step = seccomp.seccomp_step(spec, str(tmp_path))
    assert step
    shown = step.to_json()
    assert shown == {
        "op": "seccomp",
        "profile": "default",
        "digest": step.digest,
        "instructions": len(step.program) // 8,
        "flags": 0,
    }
    json.dumps(shown)
    assert "seccomp --profile default" in step.describe()


def test_a_second_start_neither_compiles_nor_loads_libseccomp(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from gocker import seccomp\n"
        f"found = seccomp.seccomp_filter('default', ('CAP_KILL',), {str(tmp_path)!r})\n"
        "maps = open('/proc/self/maps').read()\n"
        "print(found.digest, 'gocker.seccompcompile' in sys.modules, 'libseccomp' in maps)\n"
    )
    first, second = (
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    )
    assert first[1:] == ["True", "True"]
    assert second == [first[0], "False", "False"]


def test_the_cache_is_gockers_alone(tmp_path: Path) -> None:
    seccomp.seccomp_filter("default", (), str(tmp_path))
    (file,) = cache_files(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_what_a_filter_depends_on_makes_another_file(tmp_path: Path) -> None:
    copy = tmp_path / "p.json"
    copy.write_bytes(DEFAULT.read_bytes())
    seccomp.seccomp_filter("default", (), str(tmp_path))
    seccomp.seccomp_filter("default", ("CAP_KILL",), str(tmp_path))
    seccomp.seccomp_filter(str(copy), (), str(tmp_path))
    assert len(cache_files(tmp_path)) == 3
    copy.write_bytes(DEFAULT.read_bytes() + b"\n")
    seccomp.seccomp_filter(str(copy), (), str(tmp_path))
    assert len(cache_files(tmp_path)) == 4


def chmod(path: Path) -> None:
    path.chmod(0o644)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flood(path: Path) -> None:
    path.write_bytes(bytes(4 + 8 * 4097))


def link(path: Path) -> None:
    other = path.with_name("other")
    path.rename(other)
    path.symlink_to(other)


def hard_link(path: Path) -> None:
    os.link(path, path.with_name("other"))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def give_away(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: a file is given to another user")
    os.chown(path, 12345, 12345)


@pytest.mark.parametrize("spoil", [chmod, grow, empty, flood, link, hard_link, pipe, give_away])
def test_an_odd_cache_file_is_compiled_anew(spoil: Any, tmp_path: Path) -> None:
    good = seccomp.seccomp_filter("default", (), str(tmp_path))
    (file,) = cache_files(tmp_path)
    poison = kernel.answer(ALLOW)
    if spoil in {chmod, link, hard_link, give_away}:  # what it holds would be taken if it were trusted
        file.write_bytes(bytes(4) + poison)
    spoil(file)
    assert seccomp.seccomp_filter("default", (), str(tmp_path)) == good
    healed = os.lstat(file)
    assert (healed.st_mode, healed.st_nlink, healed.st_uid) == (0o100600, 1, os.geteuid())
    assert file.read_bytes()[4:] == (good.program if good else b"")


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o770])
def test_a_cache_directory_that_others_may_enter_is_not_used(mode: int, tmp_path: Path) -> None:
    directory = tmp_path / "cache/seccomp"
    directory.mkdir(parents=True)
    directory.chmod(mode)
    assert seccomp.seccomp_filter("default", (), str(tmp_path))
    assert not list(directory.iterdir())


def test_a_cache_directory_that_is_a_link_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "else").mkdir(mode=0o700)
    (tmp_path / "cache/seccomp").symlink_to(tmp_path / "else")
    assert seccomp.seccomp_filter("default", (), str(tmp_path))
    assert not list((tmp_path / "else").iterdir())


def test_a_data_directory_that_cannot_be_made_costs_the_cache_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert seccomp.seccomp_filter("default", (), f"{tmp_path}/file")


def test_a_filter_that_the_kernel_would_not_take_is_refused(tmp_path: Path) -> None:
    values = [{"index": 0, "op": "SCMP_CMP_EQ", "value": i * 7919} for i in range(5000)]
    path = tmp_path / "p.json"
    path.write_text(
        json.dumps(
            {**ERRNO_ALL, "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ALLOW", "args": values}]}
        )
    )
    with pytest.raises(UsageError, match="instructions, the kernel takes 4096"):
        seccomp.seccomp_filter(str(path), (), "")


def test_a_further_start_gets_the_same_step_until_the_profile_changes(tmp_path: Path) -> None:
    path = tmp_path / "p.json"

    def step(action: str | None = None) -> object:
        if action:
            path.write_text(json.dumps({"defaultAction": action}))
        spec = ContainerSpec(id="x", name="x", argv=("a",), seccomp=str(path))
        return seccomp.seccomp_step(spec, str(tmp_path))

    first = step("SCMP_ACT_ALLOW")
    assert step() is not first  # too new to be told from what it may become
    time.sleep(seccomp._RACY / 1e9 + 0.1)
    kept = step()
    assert step() is kept
    assert kept == first
    assert step("SCMP_ACT_LOG") != first
