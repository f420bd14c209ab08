"""Filters of a config.json in force: each action as a program inside meets it, and a listener that is asked."""

from __future__ import annotations

import json
import platform
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from firstprocess import Outcome, launch, program
from launching import Ran, run, spec
from seccompagent import Agent

from gocker import seccomp
from gocker.errors import StepError
from gocker.kernel import seccomp as kernel
from gocker.plan import Step
from gocker.steps.capabilities import NoNewPrivileges

PERSONALITY, MKDIRAT, GETCWD = (135, 258, 79) if platform.machine() == "x86_64" else (92, 34, 17)
PROBE = """
import ctypes, errno, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*args):
    ctypes.set_errno(0)
    result = libc.syscall(*[ctypes.c_long(arg) for arg in args])
    return errno.errorcode.get(ctypes.get_errno(), str(result)) if result == -1 else str(result)
"""


def rule(*names: str, action: str = "SCMP_ACT_ERRNO", **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": action, **more}


def allowing(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(rules), **more}


def step(profile: dict[str, Any]) -> Step:
    container = spec("x", seccomp="linux.seccomp", seccomp_profile=json.dumps(profile))
    made = seccomp.seccomp_step(container, "")
    assert made
    return made


def probe(script: str, *rules: dict[str, Any], **more: Any) -> Outcome:
    """Run a Python program under a profile that allows all but what the rules say."""
    steps = [NoNewPrivileges(), step(allowing(*rules, **more))]
    return launch([*steps, *program(sys.executable, "-S", "-c", PROBE + script)])


ASK = f"print(call({PERSONALITY}, 0xffffffff), flush=True)"


def test_without_a_rule_the_call_is_made() -> None:
    assert probe(ASK).lines == ["0"]


@pytest.mark.parametrize(("number", "name"), [(None, "EPERM"), (28, "ENOSPC"), (38, "ENOSYS")])
def test_errno(number: int | None, name: str) -> None:
    more: dict[str, Any] = {} if number is None else {"errnoRet": number}
    assert probe(ASK, rule("personality", **more)).lines == [name]


@pytest.mark.parametrize("action", ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS"])
def test_kill(action: str) -> None:
    outcome = probe(ASK, rule("personality", action=action))
    assert (outcome.code, outcome.output) == (128 + signal.SIGSYS, b"")


@pytest.mark.parametrize(
    ("action", "survives"), [("SCMP_ACT_KILL_THREAD", True), ("SCMP_ACT_KILL_PROCESS", False)]
)
def test_kill_of_a_thread_is_not_that_of_the_process(action: str, survives: bool) -> None:
    script = (
        "import threading\n"
        f"threading.Thread(target=lambda: call({PERSONALITY}, 0xffffffff), daemon=True).start()\n"
        "import time; time.sleep(0.3)\n"
        "os.write(1, b'still there\\n'); os._exit(0)\n"
    )
    # The thread ends with the interpreter's lock released, as it is in every call of a CDLL.
    outcome = probe(script, rule("personality", action=action))
    assert (outcome.text == "still there\n") is survives
    assert outcome.code == (0 if survives else 128 + signal.SIGSYS)


def test_trap_is_a_signal_that_can_be_caught() -> None:
    script = "signal.signal(signal.SIGSYS, lambda *_: print('caught', flush=True))\n" + ASK
    assert probe(script, rule("personality", action="SCMP_ACT_TRAP")).lines[0] == "caught"
    assert probe(ASK, rule("personality", action="SCMP_ACT_TRAP")).code == 128 + signal.SIGSYS


def test_trace_without_a_tracer_is_no_such_call() -> None:
    assert probe(ASK, rule("personality", action="SCMP_ACT_TRACE")).lines == ["ENOSYS"]


def test_trace_tells_a_tracer_the_number() -> None:
    script = f"""
child = os.fork()
if child == 0:
    libc.ptrace(0, 0, 0, 0)  # PTRACE_TRACEME
    os.kill(os.getpid(), signal.SIGSTOP)
    call({PERSONALITY}, 0xffffffff)
    os._exit(0)
os.waitpid(child, 0)
libc.ptrace(0x4200, child, 0, ctypes.c_void_p(0x80))  # PTRACE_SETOPTIONS, PTRACE_O_TRACESECCOMP
libc.ptrace(7, child, 0, 0)  # PTRACE_CONT
_, status = os.waitpid(child, 0)
told = ctypes.c_ulong()
libc.ptrace(0x4201, child, 0, ctypes.byref(told))  # PTRACE_GETEVENTMSG
print(status >> 8 == (signal.SIGTRAP | 7 << 8), told.value)
os.kill(child, signal.SIGKILL)
"""
    assert probe(script, rule("personality", action="SCMP_ACT_TRACE", errnoRet=77)).lines == ["True 77"]


def test_log_lets_the_call_through() -> None:
    outcome = probe(ASK, rule("personality", action="SCMP_ACT_LOG"), flags=["SECCOMP_FILTER_FLAG_LOG"])
    assert outcome.lines == ["0"]


def test_an_argument_decides() -> None:
    script = f"print(*(call({PERSONALITY}, value) for value in (0xffffffff, 8, 0)))"
    args = [{"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 0x8, "valueTwo": 0x8}]
    bit_set = probe(script, rule("personality", args=args)).lines[0].split()
    assert bit_set[:2] == ["EPERM", "EPERM"]
    assert bit_set[2] == "0"


def test_a_flag_that_the_kernel_takes() -> None:
    flags = ["SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"]
    assert probe(ASK, rule("personality"), flags=flags).lines == ["EPERM"]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return f"{tmp_path}/agent"


def asked(profile: dict[str, Any], script: str, **changes: Any) -> Ran:
    container = spec(
        sys.executable,
        "-S",
        "-c",
        PROBE + script,
        seccomp="linux.seccomp",
        seccomp_profile=json.dumps(profile),
        **changes,
    )
    return run(container, seccomp=seccomp.seccomp_step(container, ""))


def test_notify_asks_who_listens(path: str) -> None:
    agent = Agent(path, lambda number, args: 28 if args[0] == 8 else None)
    agent.start()
    profile = allowing(
        rule("personality", action="SCMP_ACT_NOTIFY"), listenerPath=path, listenerMetadata="for you"
    )
    script = f"print(call({PERSONALITY}, 8), call({PERSONALITY}, 0xffffffff))"
    ran = asked(profile, script, bundle="/b", labels=(("key", "value"),))
    agent.join(10)
    assert (ran.code, ran.output) == (0, "ENOSPC 0\n")
    assert agent.calls == [PERSONALITY, PERSONALITY]
    assert agent.more == b""
    assert agent.state == {
        "ociVersion": "1.3.0",
        "fds": ["seccompFd"],
        "pid": ran.pid,
        "metadata": "for you",
        "state": {
            "ociVersion": "1.3.0",
            "id": "c0ffee",
            "status": "creating",
            "pid": ran.pid,
            "bundle": "/b",
            "annotations": {"key": "value"},
        },
    }


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_each_call_to_the_exec_may_be_asked_about(path: str, no_new_privileges: bool) -> None:
    """Also those that others would pass the listener on by: between filter and listener there is no call."""
    agent = Agent(path, lambda number, args: None)
    agent.start()
    profile = {
        "defaultAction": "SCMP_ACT_NOTIFY",
        "listenerPath": path,
        "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
    }
    container = spec(
        "/bin/echo",
        "ran",
        seccomp="linux.seccomp",
        seccomp_profile=json.dumps(profile),
        no_new_privileges=no_new_privileges,
    )
    ran = run(container, seccomp=seccomp.seccomp_step(container, ""))
    agent.join(10)
    assert (ran.code, ran.output) == (0, "ran\n")
    execveat, execve = (322, 59) if platform.machine() == "x86_64" else (281, 221)
    assert agent.calls[: agent.calls.index(execve)].count(execveat) == 1


@pytest.mark.parametrize("action", ["SCMP_ACT_KILL_PROCESS", "SCMP_ACT_ERRNO"])
def test_a_filter_may_forbid_all_that_init_speaks_by(action: str) -> None:
    """It says that it is ready before, and nothing after."""
    profile = allowing(rule("sendto", "sendmsg", "recvfrom", "recvmsg", action=action))
    container = spec("/bin/busybox", "true", seccomp="x", seccomp_profile=json.dumps(profile))
    assert run(container, seccomp=seccomp.seccomp_step(container, "")).code == 0


def test_the_program_does_not_get_the_listener(path: str) -> None:
    agent = Agent(path, lambda number, args: None)
    agent.start()
    profile = allowing(rule("personality", action="SCMP_ACT_NOTIFY"), listenerPath=path)
    assert asked(profile, "print(sorted(os.listdir('/proc/self/fd')))").output == "['0', '1', '2', '3']\n"


def test_nobody_listens_and_nothing_runs(path: str) -> None:
    profile = allowing(rule("personality", action="SCMP_ACT_NOTIFY"), listenerPath=path)
    with pytest.raises(StepError, match=f"pass seccomp listener on to {path}: ENOENT"):
        asked(profile, "print('ran')")


def test_a_filter_that_cannot_be_installed_does_not_wait_for_its_listener(path: str) -> None:
    profile = allowing(rule("personality", action="SCMP_ACT_NOTIFY"), listenerPath=path)
    container = spec("true", seccomp="linux.seccomp", seccomp_profile=json.dumps(profile))
    made = seccomp.seccomp_step(container, "")
    assert made
    with pytest.raises(StepError, match=r"seccomp --profile linux\.seccomp .*EINVAL"):
        run(container, seccomp=made.replace(program=b"\0" * kernel.INSTRUCTION_SIZE))
