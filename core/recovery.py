"""Ends what a killed gocker left, from the plan that it had put on disk before its first step."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import gocker.planner
import gocker.steps.barrier  # which the planner imports only where it needs it, as the next
import gocker.steps.idmap  # noqa: F401
from gocker import paths
from gocker.audit import AuditLog, current_actor
from gocker.auditchain import parse_line
from gocker.auditevent import Event, rfc3339
from gocker.auditlog import read
from gocker.claim import Claim
from gocker.digest import sha256
from gocker.errors import EXIT_GOCKER_FAILED, GockerError, KernelError, StateError
from gocker.kernel.cgroupfs import kill_all
from gocker.killing import kill_everything
from gocker.lasting import Lasting, boot_id, in_this_boot, parse_lasting
from gocker.launcher import Launcher
from gocker.plan import Plan, plan_from_json
from gocker.receipt import USAGE, Report, Verdict
from gocker.steps.cgroup import ClaimCgroup, MakeCgroup, without_cgroups


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
    known = _known(claim)
    if known is not None and known.boot != boot_id():
        plan = without_cgroups(plan)
    launcher = Launcher(plan, None)
    if known is not None:
        kill_everything(known)
    for step in reversed(plan.host):
        if isinstance(step, MakeCgroup):
            if isinstance(step, ClaimCgroup) and step.is_anothers():
                launcher.ctx.strangers.add(step.path)
            else:
                kill_all(step.path, step.version)
    failures = [*launcher.remove(), *launcher.undo()]
    digest = f"sha256:{sha256(claim.plan).hexdigest()}"
    record = _Record(claim, last_step, digest, ended)
    if not failures:
        if known is not None and record.lasted():
            _run_poststop(known, launcher)
        launcher.note("container.remove")
    events = record.complete(plan.name, command, launcher.events)
    AuditLog(paths.audit_log(), current_actor(sys.argv)).write(events, container=claim.id, plan=digest)
    if failures:
        raise failures[0]
    claim.release()


def _known(claim: Claim) -> Lasting | None:
    """What was known of a container that was being deleted, or was to be of one that was being created."""
    try:
        return in_this_boot(parse_lasting(claim.known, claim.id)) if claim.known else None
    except StateError:
        return None  # it was being written: then the first process has died with its gocker


def _run_poststop(known: Lasting, launcher: Launcher) -> None:
    """The last hooks of an OCI container; what they fail with is put on the record and is no failure."""
    from gocker.steps.hooks import POSTSTOP, run_hook

    for hook in known.hooks:
        if hook.kind == POSTSTOP:
            try:
                run_hook(hook, known.spec, 0)
            except GockerError as error:
                launcher.note("hook.failed", "warning", reason=str(error))


def _read_plan(claim: Claim) -> tuple[Plan, tuple[str, ...], int]:
    """The plan as far as it can be undone, the container's command, and the index of init's last step.

    Raise StateError.
    """
    try:
        return _parse_plan(claim)
    except (StateError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        directory = claim.directory
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
        self.written = _events_of(claim)

    def complete(self, name: str, command: tuple[str, ...], done: list[Event]) -> list[Event]:
        """What is to be written: what the killed gocker owed, a beginning and an end, and `done`."""
        known = {line.get("event") for line in self.written}
        if "container.remove" in known:
            return []  # all was written, and then the killed gocker's state was still to go
        owed = _missing(owed_events(self.claim), self.written)
        known |= {event.event for event in owed}
        events = []
        started = self.claim.made()
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

    def lasted(self) -> bool:
        """Whether it had been created for good, and its end is not on the record yet."""
        known = {line.get("event") for line in self.written}
        known |= {event.event for event in owed_events(self.claim)}
        return "container.created" in known and "container.remove" not in known

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


def owed_events(claim: Claim) -> list[Event]:
    """Those that a gocker could not write, or not yet; core/engine.py and core/lifecycle.py leave them as JSON.

    Raise StateError.
    """
    try:
        return [Event(**event) for event in json.loads(claim.owed or b"[]")]
    except (ValueError, TypeError) as error:
        raise StateError("read", f"lock of {claim.id}", f"not events: {error}") from error


def unwritten(claim: Claim, events: list[Event]) -> tuple[list[Event], set[str]]:
    """Those of `events` that the log lacks, and the names of all that are in it or among them. Raise AuditError."""
    written = _events_of(claim)
    return _missing(events, written), {event.event for event in events} | {
        str(line.get("event")) for line in written
    }


def _missing(events: list[Event], written: list[dict[str, Any]]) -> list[Event]:
    there = {(line.get("timestamp"), line.get("event")) for line in written}
    return [event for event in events if (rfc3339(event.time_ns), event.event) not in there]


def _events_of(claim: Claim) -> list[dict[str, Any]]:
    """The container's events, from the log and the one that was last rotated away. Raise AuditError.

    Those of an earlier one with its id are left out: they were written before the plan was, and before this
    one's own beginning.
    """
    log = paths.audit_log()
    needle = claim.id.encode("ascii")  # to look for it costs less than to parse each line
    logs = [path for path in (f"{log}.1", log) if os.path.exists(path)]
    lines = (parse_line(line.raw) for path in logs for line in read(path) if needle in line.raw)
    found = [data for data in lines if data is not None and data.get("container") == claim.id]
    since = rfc3339(claim.made())
    later = [str(data.get("timestamp")) >= since for data in found]
    creates = (number for number, data in enumerate(found) if data.get("event") == "container.create")
    begin = next((number for number in creates if later[number]), len(found))
    while begin and later[begin - 1] and found[begin - 1].get("event") == "plugin.refused":
        begin -= 1
    return found[begin:]
