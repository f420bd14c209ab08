"""A warm gocker that breaks on command: reads jobs as JSON lines, answers each with what came of it.

For every job it forks, arms the faults in the fork and calls the command's own main() there. A fork
takes 2 ms where a cold start takes 60, so that hundreds of steps can be swept. gocker itself has no hooks
for this: a step of the plan gets another `execute` on the instance, other places another function.

This process is a subreaper: whatever outlives a killed gocker becomes its child and can be seen.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from fcntl import F_DUPFD, fcntl
from typing import Any, NoReturn

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
    outliving,
    read,
)

import gocker.cli.audit
import gocker.cli.group
import gocker.cli.plugins
import gocker.cli.start
import gocker.recovery
from gocker import audit, claim, engine, images, launcher, plan, registry, state
from gocker.cli import main as command
from gocker.errors import AuditError, ExecError, GockerError
from gocker.kernel import process, spawn, syscalls
from gocker.lowering import Code, can_lower
from gocker.plan import Step
from gocker.planner import Planned

Fault = dict[str, Any]

_HIGH = 100  # where a fork keeps its fds to the driver: init uses the low ones
_WARM = (
    audit,
    gocker.cli.audit,
    gocker.cli.plugins,
    gocker.cli.start,
    gocker.recovery,
    images,
    plan,
    registry,
)


class Wires:
    """What joins a fork to the driver: it says `trap` and waits for its end."""

    def __init__(self, scratch: str) -> None:
        self.said, self.trap = os.pipe()
        self.hold, self.never = os.pipe()
        self.scratch = scratch

    def into_fork(self) -> None:
        self.trap = fcntl(self.trap, F_DUPFD, _HIGH)
        self.hold = fcntl(self.hold, F_DUPFD, _HIGH)

    def close(self) -> None:
        for fd in (self.said, self.trap, self.hold, self.never):
            os.close(fd)


# --- in the fork --------------------------------------------------------------------------------------


class Faults:
    """The faults of one job, armed in a gocker that is about to run."""

    def __init__(self, faults: list[Fault], wires: Wires) -> None:
        self.faults = faults
        self.wires = wires
        self.own_pid = os.getpid()

    def act(self, fault: Fault) -> None:
        """What a fault does once its time has come."""
        kind = fault["act"]
        if kind == "fail":
            raise OSError(errno.EDOM, os.strerror(errno.EDOM))
        if kind == "fail-on-purpose":
            raise GockerError("break", "it", "as the test wants it", remedy="none")
        if kind == "fail-exec":
            raise ExecError("exec", "it", "EACCES: as the test wants it", errno=errno.EACCES)
        if kind == "fail-audit":
            raise AuditError("write audit log", "it", "ENOSPC: as the test wants it", errno=errno.ENOSPC)
        if kind == "hog":
            bytearray(200 << 20)
        if kind == "bug":
            raise ZeroDivisionError("a bug")
        if kind == "kill" and os.getpid() == self.own_pid:
            os.kill(self.own_pid, signal.SIGKILL)
        if kind == "kill-helper" and os.getpid() != self.own_pid:
            os.kill(os.getpid(), signal.SIGKILL)
        # In a process inside: nobody there can kill the launcher, and pid 1 not even itself.
        os.write(self.wires.trap, b"x")
        if kind != "kill-and-go-on":
            os.read(self.wires.hold, 1)

    def around(self, function: Callable[..., Any], fault: Fault, index: int = 0) -> Callable[..., Any]:
        """`function`, with the fault before or after its index-th call; 0 is each."""
        calls = 0

        def broken(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            due = index in {0, calls}
            if due and fault["when"] == "before":
                self.act(fault)
            result = function(*args, **kwargs)
            # Of a clone only the parent is meant: nobody can kill the child, which is not armed yet.
            if due and fault["when"] == "after" and not (fault["point"] == "clone" and result[0] == 0):
                self.act(fault)
            return result

        return broken

    def arm(self) -> None:
        """What is not a step of the plan."""
        places: dict[str, tuple[Any, str]] = {
            "create": (state.State, "create"),
            "await": (launcher.Launcher, "await_program"),
            "attend": (engine, "attend"),
            "end": (engine._Run, "_kill"),
            "release": (claim.Claim, "release"),
            "audit": (audit.AuditLog, "write"),
            "owe": (claim.Claim, "owe"),
            "setns": (spawn, "setns"),
            "unshare": (spawn, "unshare"),
            "clone": (process, "clone"),
        }
        for fault in self.faults:
            if fault["point"] in places:
                place, name = places[fault["point"]]
                setattr(place, name, self.around(getattr(place, name), fault, fault.get("index", 0)))
            elif fault["point"] == "call":  # of the launcher, from its claim on
                self._arm_calls(engine, "run", fault["index"])
            elif fault["point"] == "recovery-call":
                self._arm_calls(gocker.cli.group, "recover_abandoned", fault["index"])
        original = engine.plan

        def plan(*args: Any, **kwargs: Any) -> Planned:
            planned = original(*args, **kwargs)
            self._arm_steps(planned)
            self._tell(planned)
            return planned

        engine.plan = plan

    def _arm_steps(self, planned: Planned) -> None:
        whole = planned.plan
        started = [*whole.host, *whole.parent, *whole.init]
        steps: dict[str, list[Step]] = {"step": started, "undo": started, "remove": list(whole.remove)}
        for fault in self.faults:
            if fault["point"] in steps:
                step = steps[fault["point"]][fault["index"] - 1]
                verb = "undo" if fault["point"] == "undo" else "execute"
                lowered = verb == "execute" and any(step is one for one in whole.init) and can_lower(step)
                step.__dict__[verb] = self.around(getattr(step, verb), fault)
                if lowered and not step.at_host:
                    self._arm_lowered(step, fault)

    def _arm_lowered(self, step: Step, fault: Fault) -> None:
        """The same for the native executor, which runs what a step emits."""
        emit = step.emit

        def broken(code: Code) -> None:
            if fault["when"] == "before":
                self._emit(code, fault)
            emit(code)
            if fault["when"] == "after":
                self._emit(code, fault)

        step.__dict__["emit"] = broken
        step.__dict__["template"] = lambda _: object()  # nobody else's

    def _emit(self, code: Code, fault: Fault) -> None:
        kind = fault["act"]
        if kind.startswith("fail") or kind == "bug":
            try:
                self.act(fault)
            except Exception as error:
                if isinstance(error, OSError):
                    code.builtin("fail", error.errno or 0, 0)
                else:
                    code.fail(error)
        elif kind == "hog":
            size, read_write, private_anonymous, populate = 200 << 20, 3, 0x22, 23  # MADV_POPULATE_WRITE
            place = code.call("mmap", 0, size, read_write, private_anonymous, -1, 0)
            code.call("madvise", place, size, populate)
        else:
            code.call("write", self.wires.trap, b"x", 1)
            if kind != "kill-and-go-on":
                code.call("read", self.wires.hold, code.data(8), 1)

    def _arm_calls(self, place: Any, name: str, index: int) -> None:
        """SIGKILL before the index-th call into the kernel that this process makes in a function."""
        calls = 0
        system_call = syscalls.call.__code__

        def count(frame: Any, event: str, function: Any) -> None:
            nonlocal calls
            entered = event == "call" and frame.f_code is system_call
            if not entered:
                module = getattr(function, "__module__", "") if event == "c_call" else ""
                entered = module in {"posix", "_posix", "fcntl", "_socket", "_signal", "signal"} or (
                    event == "c_call" and type(getattr(function, "__self__", None)).__name__ == "socket"
                )
            if entered and os.getpid() == self.own_pid:
                calls += 1
                if calls == index:
                    os.kill(self.own_pid, signal.SIGKILL)

        original = getattr(place, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            sys.setprofile(count)
            try:
                return original(*args, **kwargs)
            finally:
                sys.setprofile(None)
                with open(f"{self.wires.scratch}/calls", "w", encoding="ascii") as file:
                    file.write(str(calls))

        setattr(place, name, watched)

    def _tell(self, planned: Planned) -> None:
        whole = planned.plan
        facts = {
            "id": whole.container,
            "total": whole.total,
            "ops": {phase: [step.op for step in steps] for phase, steps in whole.phases()},
            "undoable": [number for number, _, step in whole.numbered() if step.undoable],
        }
        with open(f"{self.wires.scratch}/plan", "w", encoding="utf-8") as file:
            json.dump(facts, file)


def be_gocker(argv: list[str], faults: list[Fault], wires: Wires, output: str) -> NoReturn:
    """The fork: the command, with its output in files."""

    def whole() -> None:
        wires.into_fork()
        sys.argv = ["gocker", *argv]
        Faults(faults, wires).arm()
        command.main()

    as_command(whole, wires.scratch, output)


# --- the driver ---------------------------------------------------------------------------------------


def run_job(job: Job, scratch: str) -> dict[str, Any]:
    """One gocker, broken as the job says, the next one, and what is left."""
    os.makedirs(f"{scratch}/log")
    wires = Wires(scratch)
    try:
        for name, text in job.get("before", {}).items():
            with open(f"{scratch}/{name}", "w", encoding="utf-8") as file:
                file.write(text)
        argv = [
            text.replace("{scratch}", scratch).replace("{parent}", parent_of(scratch)) for text in job["args"]
        ]
        status = broken_run(argv, job, wires)
        facts = {"id": "no container was planned", **json.loads(read(f"{scratch}/plan") or "{}")}
        survivors = outliving() if job.get("settle") else []
        began = time.monotonic()
        following = []
        for number, (argv, faults) in enumerate(job.get("next", ())):
            code = in_fork(argv, faults, wires, f"{scratch}/next{number}")
            following.append({"status": code, "err": read(f"{scratch}/next{number}.err")})
        return {
            **facts,
            "status": status,
            "out": read(f"{scratch}/run.out"),
            "err": read(f"{scratch}/run.err"),
            "survivors": survivors,
            "next": following,
            "next_seconds": time.monotonic() - began,
            "left": left_behind(
                facts["id"], scratch, "state", (f"gocker/{facts['id']}", parent_of(scratch)), data=True
            ),
            "events": events(scratch),
            "chain": chain(scratch),
            "calls": int(read(f"{scratch}/calls") or 0),
        }
    finally:
        wires.close()
        end_survivors()


def broken_run(argv: list[str], job: Job, wires: Wires) -> int:
    pid = os.fork()
    if pid == 0:
        if "executor" in job:
            os.environ["GOCKER_EXECUTOR"] = job["executor"]
        be_gocker(argv, job.get("faults", []), wires, f"{wires.scratch}/run")
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(wires.said, select.POLLIN)
    deadline = time.monotonic() + 20 * SLOWNESS
    kill_at = time.monotonic() + job["kill_after"] if "kill_after" in job else deadline
    try:
        while True:
            ready = {fd for fd, _ in poll.poll(max(0, (kill_at - time.monotonic()) * 1000))}
            if wires.said in ready:
                os.read(wires.said, 1)
                child = any(fault["act"] == "kill-child" for fault in job["faults"])
                for victim in children_of(pid) if child else [pid]:
                    os.kill(victim, signal.SIGKILL)
            elif pidfd in ready:
                return wait_for(pid)
            else:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                status = wait_for(pid)
                return status if "kill_after" in job else 1000  # hung
    finally:
        os.close(pidfd)


def in_fork(argv: list[str], faults: list[Fault], wires: Wires, output: str) -> int:
    pid = os.fork()
    if pid == 0:
        be_gocker(argv, faults, wires, output)
    return wait_for(pid)


def wait_for(pid: int) -> int:
    """The exit status of `pid`, as a shell has it; orphans that came to this subreaper are reaped on the way."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code


def parent_of(scratch: str) -> str:
    """A cgroup of this job's own, for --cgroup-parent."""
    driver, number = scratch.split("/")[-2:]
    return f"faulty-{driver}-{number}"


if __name__ == "__main__":
    main(run_job, "run.err")
