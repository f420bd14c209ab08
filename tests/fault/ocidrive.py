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
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection
from typing import Any, NoReturn

import drive
from drive import Faults
from driving import (
    SLOWNESS,
    Job,
    as_command,
    chain,
    children_of,
    end_survivors,
    events,
    left_behind,
    main,
    read,
)

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
from gocker.ocicli import main as command
from gocker.plan import Plan, Step
from gocker.steps import barrier

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

    def whole() -> None:
        oci = argv[0] != "audit"
        sys.argv = ["gocker-oci", "--root", f"{wires.scratch}/oci", *argv] if oci else ["gocker", *argv]
        OciFaults(faults, wires).arm()
        command.main() if oci else gocker_command.main()

    as_command(whole, wires.scratch, output)


def call(argv: list[str], faults: list[Job], wires: Wires, number: int) -> Job:
    """One call to its end."""
    output = f"{wires.scratch}/{number}"
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        be_command(argv, faults, wires, output)
    deadline = began + 20 * SLOWNESS
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
    deadline = time.monotonic() + 3 * SLOWNESS
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
            "left": left_behind(container, scratch, "oci", [f"gocker/{container}"]),
            "events": events(scratch) if os.path.exists(f"{scratch}/log/audit.jsonl") else [],
            "chain": chain(scratch) if os.path.exists(f"{scratch}/log/audit.jsonl") else "",
            "hooks": read(f"{scratch}/hooks").split(),
        }
    finally:
        consoles.close()
        end_survivors()


if __name__ == "__main__":
    main(run_job, "0.err")
