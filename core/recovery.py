"""Ends what a killed gocker left, from the plan that it had put on disk before its first step."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import gocker.planner  # noqa: F401 - so that a plan can name its steps
from gocker import paths
from gocker.audit import AuditLog, current_actor
from gocker.auditchain import parse_line
from gocker.auditevent import Event, rfc3339
from gocker.auditlog import read
from gocker.digest import sha256
from gocker.errors import EXIT_GOCKER_FAILED, GockerError, KernelError, StateError
from gocker.kernel.cgroupfs import kill_all
from gocker.launcher import Launcher
from gocker.plan import Plan, plan_from_json
from gocker.receipt import USAGE, Report, Verdict
from gocker.state import Claim
from gocker.steps.cgroup import MakeCgroup


def recover(claim: Claim) -> str:
    """Undo an abandoned container; return a line about it.

    First all of it is ended and taken back, then that is put on the record, then its state goes: killed
    in between, or unable to go on, this leaves the rest to the next call, which repeats what is
    harmless to repeat and writes no event twice.
    """
    try:
        if claim.busy:
            raise StateError("lock", claim.id, "a process of it still holds the lock")
        _recover(claim)
    except GockerError as error:
        return f"container {claim.id} of a killed gocker is left for later: {error}"
    except OSError as error:
        failed = KernelError.from_os("remove", claim.id, error)
        return f"container {claim.id} of a killed gocker is left for later: {failed}"
    return f"container {claim.id} of a killed gocker was removed"


def _recover(claim: Claim) -> None:
    ended = time.time_ns()
    plan, command, last_step = _read_plan(claim)
    launcher = Launcher(plan, None)
    for step in reversed(plan.host):
        if isinstance(step, MakeCgroup):
            kill_all(step.path, step.version)
    failures = [*launcher.remove(), *launcher.undo()]
    if not failures:
        launcher.note("container.remove")
    digest = f"sha256:{sha256(claim.plan).hexdigest()}"
    record = _Record(claim, last_step, digest, ended)
    events = record.complete(plan.name, command, launcher.events)
    AuditLog(paths.audit_log(), current_actor(sys.argv)).write(events, container=claim.id, plan=digest)
    if failures:
        raise failures[0]
    claim.release()


def _read_plan(claim: Claim) -> tuple[Plan, tuple[str, ...], int]:
    """The plan as far as it can be undone, the container's command, and the index of init's last step.

    Raise StateError.
    """
    try:
        return _parse_plan(claim)
    except (StateError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        directory = f"{paths.state_root()}/containers/{claim.id}"
        reason = str(error) if isinstance(error, StateError) else f"not a plan: {error}"
        remedy = (
            "use the version of gocker that wrote it; or end it by hand: its cgroups and its directory in "
            f"{paths.data_root()}/containers bear its id, and at last rm -r {directory}"
        )
        raise StateError("read", f"{directory}/plan.json", reason, remedy=remedy) from error


def _parse_plan(claim: Claim) -> tuple[Plan, tuple[str, ...], int]:
    data = json.loads(claim.plan)
    plan = plan_from_json(data)
    if plan.container != claim.id:
        raise StateError("read plan", plan.container, "it is another container's")
    init = data["phases"]["init"]
    return plan, tuple(map(str, init[-1].get("argv", ()))), len(init) - 1


class _Record:
    """What the audit log has of a container, and what it lacks."""

    def __init__(self, claim: Claim, last_step: int, digest: str, ended: int) -> None:
        """`last_step` is the index of init's; `ended` the time in ns at which all was ended. Raise AuditError."""
        self.claim = claim
        self.last_step = last_step
        self.digest = digest
        self.ended = ended
        self.written = _events_of(claim.id)

    def complete(self, name: str, command: tuple[str, ...], done: list[Event]) -> list[Event]:
        """What is to be written: what the killed gocker owed, a beginning and an end, and `done`."""
        written = {(line.get("timestamp"), line.get("event")) for line in self.written}
        known = {line.get("event") for line in self.written}
        if "container.remove" in known:
            return []  # all was written, and then the killed gocker's state was still to go
        owed = [event for event in self._owed() if (rfc3339(event.time_ns), event.event) not in written]
        known |= {event.event for event in owed}
        events = []
        started = os.stat(f"{paths.state_root()}/containers/{self.claim.id}/plan.json").st_mtime_ns
        if "container.create" not in known:
            data = {"name": name, "command": command, "recovered": True}
            events.append(Event(started, "container.create", "warning", data))
        events += owed
        if "container.exit" not in known:
            report = self._report(name, command, started, self._verdict("container.start" in known))
            data = {"report": report.to_json(), "recovered": True}
            events.append(Event(self.ended, "container.exit", "warning", data))
        removed = {line.get("path") for line in self.written if line.get("event") == "controller.remove"}
        removed |= {event.data.get("path") for event in owed if event.event == "controller.remove"}
        for event in done:
            repeated = event.event == "controller.remove" and event.data.get("path") in removed
            if not repeated and not (event.event == "container.remove" and event.event in known):
                events.append(event)
        return events

    def _owed(self) -> list[Event]:
        """The events that the killed gocker could not write, or not yet; core/engine.py leaves them as JSON."""
        try:
            return [Event(**event) for event in json.loads(self.claim.owed or b"[]")]
        except (ValueError, TypeError) as error:
            raise StateError("read", f"lock of {self.claim.id}", f"not events: {error}") from error

    def _verdict(self, ran: bool) -> Verdict:
        """What is known of the end of a program whose gocker left no report: nothing, if it ran at all."""
        progress = self.claim.progress
        if ran:
            how = "the program was killed with it, or had ended just before, how is not known"
        elif progress is None or progress >= self.last_step:
            how = "the program was about to start, whether it ran is not known"
        else:
            return Verdict(
                "setup-failed", EXIT_GOCKER_FAILED, None, "gocker was killed before the program started"
            )
        return Verdict("unknown", None, None, f"gocker was killed: {how}")

    def _report(self, name: str, command: tuple[str, ...], started: int, verdict: Verdict) -> Report:
        return Report(
            container=self.claim.id,
            name=name,
            command=command,
            plan=self.digest,
            started=rfc3339(started),
            finished=rfc3339(self.ended),
            verdict=verdict,
            usage=dict.fromkeys(USAGE),
            limits={},
        )


def _events_of(container: str) -> list[dict[str, Any]]:
    """The container's events, from the log and the one that was last rotated away. Raise AuditError."""
    log = paths.audit_log()
    needle = container.encode("ascii")  # to look for it costs less than to parse each line
    logs = [path for path in (f"{log}.1", log) if os.path.exists(path)]
    lines = (parse_line(line.raw) for path in logs for line in read(path) if needle in line.raw)
    return [data for data in lines if data is not None and data.get("container") == container]
