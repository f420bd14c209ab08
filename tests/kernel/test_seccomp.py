"""Seccomp filters in force: refused calls are really made, by a program inside."""

from __future__ import annotations

import json
import os
import platform
import pty
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from firstprocess import Outcome, keep_only, launch, program

from gocker import seccomp
from gocker.kernel import caps
from gocker.kernel.process import CLONE_NEWPID
from gocker.model import ContainerSpec, plain_capabilities
from gocker.plan import Context, Step
from gocker.steps.capabilities import DropBounding, NoNewPrivileges, SetCapabilities
from gocker.steps.exec import InstallSeccomp
from gocker.steps.identity import SetSid
from gocker.steps.users import SetUser

KEYCTL, IOCTL, SOCKET = (250, 16, 41) if platform.machine() == "x86_64" else (219, 29, 198)
PROBE = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*args):
    ctypes.set_errno(0)
    result = libc.syscall(*[ctypes.c_long(arg) for arg in args])
    return errno.errorcode.get(ctypes.get_errno(), 'ok') if result == -1 else 'ok'
"""


def step(profile: str = "default", capabilities: tuple[str, ...] = caps.DOCKER_DEFAULT) -> InstallSeccomp:
    spec = ContainerSpec(
        id="x", name="x", argv=("x",), seccomp=profile, capabilities=plain_capabilities(capabilities)
    )
    made = seccomp.seccomp_step(spec, "")
    assert made
    return made


def probe(script: str, *steps: Step, stdin: int | None = None, init: bool = False, flags: int = 0) -> Outcome:
    """Run a Python program after `steps`."""
    return launch(
        [*steps, *program(sys.executable, "-S", "-c", PROBE + script, init=init)], stdin=stdin, flags=flags
    )


CALLS = f"print(call({KEYCTL}, 0, -3, 0), call({SOCKET}, 38, 5, 0), call({SOCKET}, 2, 1, 0), call(999))"


def test_keyctl_and_af_alg_are_refused_and_unknown_calls_are_not_there() -> None:
    before = probe(CALLS).text.split()
    after = probe(CALLS, NoNewPrivileges(), step()).text.split()
    assert before[0] != "EPERM"
    assert before[1] != "EPERM"
    assert after == ["EPERM", "EPERM", "ok", "ENOSYS"]


def test_a_terminal_cannot_be_typed_into() -> None:
    tiocsti = (
        "buffer = ctypes.create_string_buffer(b'x')\n"
        "address = ctypes.addressof(buffer)\n"
        f"print(call({IOCTL}, 0, 0x5412, address), call({IOCTL}, 0, 0x100005412, address),"
        f" call({IOCTL}, 0, 0x541C, address), call({IOCTL}, 0, 0x5413, address))"
    )
    master, slave = pty.openpty()
    try:
        free = probe(tiocsti, stdin=slave).text.split()
        held = probe(tiocsti, NoNewPrivileges(), step(), stdin=slave).text.split()
    finally:
        os.close(master)
        os.close(slave)
    assert free[0] == free[1] == "ok"  # root may, and the upper half of the command is not looked at
    assert held[:3] == ["EPERM", "EPERM", "EPERM"]
    assert held[3] != "EPERM"  # TIOCGWINSZ


INT80 = (
    "import mmap\n"
    "page = mmap.mmap(-1, 4096, prot=7)\n"
    "page.write(bytes.fromhex('b814000000cd80c3'))\n"  # mov $20 (getpid), %eax; int $0x80; ret
    "address = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
    "print(ctypes.CFUNCTYPE(ctypes.c_long)(address)() == os.getpid(), flush=True)\n"
)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86-64 machine: int 0x80 is its")
def test_a_call_of_the_i386_abi_kills() -> None:
    free = probe(INT80)
    if free.code == 128 + signal.SIGSEGV:
        pytest.skip("needs a kernel with IA32_EMULATION")
    assert free.lines == ["True"]
    held = probe(INT80, NoNewPrivileges(), step())
    assert (held.code, held.output) == (128 + signal.SIGSYS, b"")


def test_status_says_that_a_filter_is_in_force() -> None:
    outcome = launch([NoNewPrivileges(), step(), *program("cat", "/proc/self/status")])
    assert (outcome.field("Seccomp"), outcome.field("Seccomp_filters"), outcome.field("NoNewPrivs")) == (
        "2",
        "1",
        "1",
    )


@pytest.mark.parametrize("user", ["0:0", "65534:65534"])
def test_without_no_new_privs_the_filter_goes_in_and_sys_admin_is_gone(user: str) -> None:
    keep = ("CAP_CHOWN",)
    outcome = launch(
        [
            DropBounding(keep=keep),
            SetUser(user=user),
            SetCapabilities(effective=keep, permitted=keep, until_filter=True),
            step(capabilities=keep),
            *program("cat", "/proc/self/status"),
        ]
    )
    assert (outcome.field("Seccomp"), outcome.field("NoNewPrivs")) == ("2", "0")
    effective = 1 if user == "0:0" else 0  # CAP_CHOWN is bit 0
    assert {outcome.field(name) for name in ("CapInh", "CapAmb")} == {"0000000000000000"}
    assert [int(outcome.field(name), 16) for name in ("CapPrm", "CapEff", "CapBnd")] == [
        effective,
        effective,
        1,
    ]


def test_without_either_the_kernel_refuses_and_the_remedy_is_named() -> None:
    keep = ("CAP_CHOWN",)
    outcome = launch([DropBounding(keep=keep), SetUser(), keep_only(keep), step(), *program("true")])
    assert outcome.failed["op"] == "seccomp"
    assert outcome.failed["errno"] == "EACCES"
    assert outcome.failed["remedy"] == "--security-opt no-new-privileges"


@pytest.mark.parametrize("init", [False, True])
def test_common_programs_work_under_the_filter(init: bool) -> None:
    script = "import subprocess, threading; t = threading.Thread(target=print, args=('thread',)); t.start(); t.join(); "
    script += "print(subprocess.run(['sh', '-c', 'echo $((1 + 1)) | cat; date >/dev/null; ls / >/dev/null'], check=True).returncode)"
    outcome = launch(
        [NoNewPrivileges(), step(), *program(sys.executable, "-S", "-c", script, init=init)],
        flags=CLONE_NEWPID,
    )
    assert (outcome.code, sorted(outcome.lines)) == (0, ["0", "2", "thread"])


def test_a_custom_profile_is_in_force(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    rules = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
    outcome = launch([NoNewPrivileges(), step(str(path)), *program("mkdir", f"{tmp_path}/new")])
    assert outcome.code == 1
    assert "No space left on device" in outcome.text
    assert not (tmp_path / "new").exists()


SPARSE = [
    "execve",
    "execveat",
    "fcntl",
    "write",
    "exit_group",
    "exit",
    "brk",
    "mmap",
    "mprotect",
    "munmap",
    "read",
]
SPARSE += [
    "openat",
    "open",
    "close",
    "newfstatat",
    "fstat",
    "stat",
    "access",
    "faccessat",
    "arch_prctl",
    "pread64",
]
SPARSE += [
    "set_tid_address",
    "set_robust_list",
    "rseq",
    "prlimit64",
    "getrandom",
    "lseek",
    "fadvise64",
    "statx",
]
SPARSE += ["lstat", "close_range"]


def test_a_profile_that_kills_for_what_the_stub_does_not_need_lets_the_program_run(tmp_path: Path) -> None:
    """Between the filter and the program there are execveat, fcntl and execve, and nothing else."""
    path = tmp_path / "p.json"
    rules = [{"names": SPARSE, "action": "SCMP_ACT_ALLOW"}]
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": rules}))
    steps = program("/bin/echo", "ran")
    outcome = launch([NoNewPrivileges(), Find(), steps[0], step(str(path)), steps[1]])
    assert (outcome.code, outcome.text) == (0, "ran\n")


class Find(Step):
    """FindProgram for what `program` runs."""

    op = "test-find"

    def execute(self, ctx: Context) -> None:
        from gocker.steps.program import FindProgram

        FindProgram(name="/bin/echo").execute(ctx)


def test_a_session_without_the_callers_terminal_is_led() -> None:
    outcome = launch([SetSid(), *program("cat", "/proc/self/stat")])
    fields: list[Any] = outcome.text.rsplit(")", 1)[1].split()
    pid, group, session, tty = outcome.text.split()[0], fields[2], fields[3], fields[4]
    assert (group, session, tty) == (pid, pid, "0")
