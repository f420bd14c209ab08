"""A warm gocker-oci that breaks on command: one job is a few calls of it, in order, some of them with a fault.

As drive.py, whose ways it goes: a fork for each call, with the faults armed in it. What breaks in a process
inside cannot say so by a descriptor, since a created container keeps none: it does by some shared memory.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Collection
from typing import Any, NoReturn

import drive
from drive import Faults, chain, children_of, end_survivors, events, outliving, read, warm_up

import gocker.cli.audit
import gocker.cli.group
import gocker.cli.start
import gocker.oci.spec
import gocker.ocicli.common
import gocker.ocicli.create
import gocker.ocicli.delete
import gocker.ocicli.exec
import gocker.ocicli.kill
import gocker.ocicli.list
import gocker.ocicli.recover
import gocker.ocicli.start
import gocker.ocicli.state
import gocker.settling
from gocker import claim, execing, launcher, lifecycle, state
from gocker.cli import main as gocker_command
from gocker.kernel import syscalls
from gocker.ocicli import main as command
from gocker.plan import Plan, Step
from gocker.steps import barrier

Job = dict[str, Any]
_SLOWNESS = float(os.environ.get("GOCKER_TEST_SLOWNESS", "1"))
_PR_SET_CHILD_SUBREAPER = 36
_TRAPPED, _GO_ON = b"\1", b"\2"


class Wires(drive.Wires):
    """What joins the processes of a job to the driver: one byte, and the directory of the job."""

    def __init__(self, scratch: str) -> None:
        self.scratch = scratch
        self.memory = mmap.mmap(-1, 4096)

    def wait(self) -> None:
        """Say that its time has come, and wait until something was done about it."""
        self.memory[:1] = _TRAPPED
        while self.memory[:1] == _TRAPPED:
            time.sleep(0.0005)


class OciFaults(Faults):
    """The faults of one call."""

    def act(self, fault: Job) -> None:
        if fault["act"].startswith("kill"):
            if fault["act"] == "kill" and os.getpid() == self.own_pid:
                os.kill(self.own_pid, signal.SIGKILL)
            assert isinstance(self.wires, Wires)
            self.wires.wait()
        else:
            super().act(fault)

    def arm(self) -> None:
        self._arm_plans()
        places: dict[str, tuple[Any, str]] = {
            "claim": (state.State, "create"),
            "describe": (claim.Claim, "describe"),
            "last": (claim.Claim, "last"),
            "end": (claim.Claim, "end"),
            "owe": (claim.Claim, "owe"),
            "settle": (claim.Claim, "settle"),
            "release": (claim.Claim, "release"),
            "let-go": (launcher.Launcher, "release"),
            "connect": (barrier, "connect"),
            "adopt": (launcher.Launcher, "adopt"),
            "await": (launcher.Launcher, "await_program"),
            "pid-file": (gocker.ocicli.create, "write_pid_file"),
            "audit": (gocker.audit.AuditLog, "write"),
            "killing": (lifecycle, "kill_everything"),
        }
        calls: dict[str, tuple[Any, str]] = {
            "create-call": (lifecycle, "create"),
            "start-call": (lifecycle, "start"),
            "delete-call": (lifecycle, "delete"),
            "exec-call": (gocker.ocicli.exec, "execute"),
            "recovery-call": (gocker.ocicli.recover, "recover_abandoned"),
        }
        for fault in self.faults:
            point = fault["point"]
            if point in places:
                place, name = places[point]
                setattr(place, name, self.around(getattr(place, name), fault, fault.get("index", 0)))
            elif point in calls:
                self._arm_calls(*calls[point], fault["index"])

    def _arm_plans(self) -> None:
        """Of create, of exec, and that which a later call reads."""

        def armed(make: Callable[..., Any], get: Callable[[Any], Plan], kind: str) -> Callable[..., Any]:
            def made(*args: Any, **kwargs: Any) -> Any:
                result = make(*args, **kwargs)
                self._arm_plan(get(result), kind)
                return result

            return made

        lifecycle.plan = armed(lifecycle.plan, lambda planned: planned.plan, "step")
        execing.plan_exec = armed(execing.plan_exec, lambda planned: planned, "step")  # type: ignore[attr-defined]
        lifecycle.plan_from_json = armed(lifecycle.plan_from_json, lambda planned: planned, "")  # type: ignore[attr-defined]

    def _arm_plan(self, whole: Plan, kind: str) -> None:
        started = [*whole.host, *whole.parent, *whole.init]
        steps: dict[str, list[Step]] = {"undo": started, "remove": list(whole.remove)}
        if kind == "step":
            steps[kind] = started
            facts = {
                "total": whole.total,
                "ops": [step.op for step in started],
                "before": len(whole.host) + len(whole.parent),
                "undoable": [number for number, _, step in whole.numbered() if step.undoable],
                "removals": len(whole.remove),
            }
            with open(f"{self.wires.scratch}/plan", "w", encoding="utf-8") as file:
                json.dump(facts, file)
        for fault in self.faults:
            if fault["point"] in steps:
                step = steps[fault["point"]][fault["index"] - 1]
                verb = "undo" if fault["point"] == "undo" else "execute"
                step.__dict__[verb] = self.around(getattr(step, verb), fault)


def be_command(argv: list[str], faults: list[Job], wires: Wires, output: str) -> NoReturn:
    """The fork: `audit` is gocker's, all others are verbs of gocker-oci."""
    status = 99
    try:
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        for target, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{output}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), target)
        os.environ.update(
            GOCKER_STATE=f"{wires.scratch}/state", GOCKER_AUDIT_LOG=f"{wires.scratch}/log/audit.jsonl"
        )
        oci = argv[0] != "audit"
        sys.argv = ["gocker-oci", "--root", f"{wires.scratch}/oci", *argv] if oci else ["gocker", *argv]
        OciFaults(faults, wires).arm()
        command.main() if oci else gocker_command.main()
    except SystemExit as leave:
        status = leave.code if isinstance(leave.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def call(argv: list[str], faults: list[Job], wires: Wires, number: int) -> Job:
    """One call to its end."""
    output = f"{wires.scratch}/{number}"
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        be_command(argv, faults, wires, output)
    deadline = began + 20 * _SLOWNESS
    acts = {fault["act"] for fault in faults}
    pidfd = os.pidfd_open(pid)
    hung = False
    while not has_ended(pid):
        if wires.memory[:1] == _TRAPPED:
            if "kill" in acts:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                select.select([pidfd], [], [])
            elif "kill-first" in acts:
                os.kill(int(read(f"{wires.scratch}/pid")), signal.SIGKILL)
            elif "kill-child" in acts:
                for child in children_of(pid):
                    os.kill(child, signal.SIGKILL)
            wires.memory[:1] = _GO_ON
        if time.monotonic() > deadline:
            hung = True
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        select.select([pidfd], [], [], 0.001 if acts else 0.005)
    os.close(pidfd)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return {
        "status": 1000 if hung else 128 - code if code < 0 else code,
        "out": read(f"{output}.out"),
        "err": read(f"{output}.err"),
        "seconds": time.monotonic() - began,
        "calls": int(read(f"{wires.scratch}/calls") or 0),
    }


def settle(count: int) -> None:
    """Wait until no more than `count` processes are left, what was orphaned among them."""
    deadline = time.monotonic() + 3 * _SLOWNESS
    while len(children_of(os.getpid())) > count and time.monotonic() < deadline:
        for child in children_of(os.getpid()):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)
        time.sleep(0.002)


def together(words: list[str], wires: Wires, index: int) -> list[Job]:
    """Several calls at once, with `and` between them."""
    argvs = [text.split("\0") for text in "\0".join(words).split("\0and\0")]
    began = time.monotonic()
    pids = []
    for number, argv in enumerate(argvs):
        pids.append(os.fork())
        if pids[-1] == 0:
            be_command(argv, [], wires, f"{wires.scratch}/{index}-{number}")
    ended = []
    for number, pid in enumerate(pids):
        while not has_ended(pid, pids):
            time.sleep(0.001)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said = {name: read(f"{wires.scratch}/{index}-{number}.{name}") for name in ("out", "err")}
        ended.append({"status": status, **said, "seconds": time.monotonic() - began, "calls": 0})
    return ended


def has_ended(pid: int, others: Collection[int] = ()) -> bool:
    """Whether it can be waited for; whoever is none of `others` is reaped: a zombie holds its cgroup."""
    for child in children_of(os.getpid()):
        if child != pid and child not in others:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def run_job(job: Job, scratch: str) -> Job:
    """The calls of a job, and what is left after them."""
    os.makedirs(f"{scratch}/log")
    wires = Wires(scratch)
    container = f"faulty-{os.getpid()}-{os.path.basename(scratch)}"  # another sweep may be at work here
    consoles = socket.socket(socket.AF_UNIX)
    try:
        consoles.bind(f"{scratch}/console")
        consoles.listen()
        calls = []
        for index, (argv, faults) in enumerate(job["calls"]):
            wires.memory[:1] = b"\0"
            words = [text.replace("{id}", container).replace("{scratch}", scratch) for text in argv]
            if words[0] == "settle":
                settle(int(words[1]))
            elif "and" in words:
                calls += together(words, wires, index)
            else:
                calls.append(call(words, faults, wires, index))
        return {
            "id": container,
            "calls": calls,
            "plan": json.loads(read(f"{scratch}/plan") or "{}"),
            "left": left_behind(container, scratch),
            "events": events(scratch) if os.path.exists(f"{scratch}/log/audit.jsonl") else [],
            "chain": chain(scratch) if os.path.exists(f"{scratch}/log/audit.jsonl") else "",
            "hooks": read(f"{scratch}/hooks").split(),
        }
    finally:
        consoles.close()
        end_survivors()


def left_behind(container: str, scratch: str) -> list[str]:
    left = outliving()
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        lines = file.read().splitlines()
    left += [f"mount {line.split()[4]}" for line in lines if scratch in line or container in line]
    for line in lines:
        mountpoint, kind = line.split()[4], line.partition(" - ")[2].split()[0]
        path = f"{mountpoint}/gocker/{container}"
        if kind in {"cgroup", "cgroup2"} and os.path.exists(path):
            left.append(f"cgroup {path}")
    for directory in ("containers", "names"):
        if os.path.isdir(f"{scratch}/oci/{directory}"):
            left += [f"state {directory}/{name}" for name in os.listdir(f"{scratch}/oci/{directory}")]
    return left


def main() -> None:
    base = sys.argv[1]
    os.environ["GOCKER_ROOT"] = f"{base}/data"
    syscalls.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    warm_up()
    for number, line in enumerate(sys.stdin):
        scratch = f"{base}/{number}"
        try:
            answer = run_job(json.loads(line), scratch)
        except Exception:
            answer = {"broken": traceback.format_exc() + read(f"{scratch}/0.err")}
        shutil.rmtree(scratch, ignore_errors=True)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
