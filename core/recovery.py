"""Ends what a killed gocker left, from the plan that it had put on disk before its first step."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

import gocker.steps.host  # noqa: F401 - so that a plan can name its steps
from gocker import paths
from gocker.audit import AuditLog, current_actor
from gocker.auditchain import parse_line
from gocker.auditevent import rfc3339
from gocker.auditlog import read
from gocker.digest import sha256
from gocker.errors import EXIT_GOCKER_FAILED, GockerError
from gocker.kernel.cgroupfs import kill_all
from gocker.launcher import Launcher
from gocker.plan import plan_from_json
from gocker.receipt import USAGE, Report, Verdict
from gocker.state import Claim
from gocker.steps.cgroup import MakeCgroup


def recover(claim: Claim) -> str:
    """Undo an abandoned container; return a line about it."""
    try:
        _recover(claim)
    except GockerError as error:
        return f"container {claim.id} of a killed gocker is left for later: {error}"
    return f"container {claim.id} of a killed gocker was removed"


def _recover(claim: Claim) -> None:
    data = json.loads(claim.plan)
    plan = plan_from_json(data)
    digest = f"sha256:{sha256(claim.plan).hexdigest()}"
    launcher = Launcher(plan, None)
    for step in reversed(plan.host):
        if isinstance(step, MakeCgroup):
            kill_all(step.path, step.version)
    _note_missing(launcher, claim, data, digest)
    failures = [*launcher.remove(), *launcher.undo()]
    if not failures:
        claim.release()
        launcher.note("container.remove")
    audit = AuditLog(paths.audit_log(), current_actor(sys.argv))
    audit.write(launcher.events, container=claim.id, plan=digest)
    if failures:
        raise failures[0]


def _note_missing(launcher: Launcher, claim: Claim, plan: dict[str, Any], digest: str) -> None:
    """Put down what the killed gocker owed: whoever reads the log finds a beginning and an end."""
    known = _events_of(claim.id)
    command = tuple(plan["phases"]["init"][-1].get("argv", ()))
    if "container.create" not in known:
        launcher.note("container.create", "warning", name=plan["name"], command=command, recovered=True)
    if "container.exit" in known:
        return
    ran = "container.start" in known
    verdict = Verdict(
        kind="signal" if ran else "setup-failed",
        code=128 + signal.SIGKILL if ran else EXIT_GOCKER_FAILED,
        signal="SIGKILL" if ran else None,
        detail="gocker was killed, and the container was ended by the next one",
    )
    report = Report(
        container=claim.id,
        name=plan["name"],
        command=command,
        plan=digest,
        started=rfc3339(os.stat(f"{paths.state_root()}/containers/{claim.id}/plan.json").st_mtime_ns),
        finished=rfc3339(time.time_ns()),
        verdict=verdict,
        usage=dict.fromkeys(USAGE),
        limits={},
    )
    launcher.note("container.exit", "warning", report=report.to_json(), recovered=True)


def _events_of(container: str) -> set[str]:
    """The events that the log has of the container."""
    log = paths.audit_log()
    lines = (parse_line(line.raw) for line in read(log)) if os.path.exists(log) else ()
    return {str(data["event"]) for data in lines if data and data.get("container") == container}
