"""Puts what was done to a container that lasts on the record, or leaves it to the next gocker when that fails."""

from __future__ import annotations

import contextlib
import json

from gocker.audit import AuditLog
from gocker.auditevent import Event
from gocker.claim import Claim
from gocker.errors import AuditError
from gocker.lasting import Lasting

BEGUN = b"[]"
"""What whoever starts a container owes while that is under way."""


def write_or_owe(audit: AuditLog, events: list[Event], lasting: Lasting, claim: Claim) -> None:
    """What the log cannot take is owed to it; the container lives, so nobody is told but by the next command."""
    if claim.owed and claim.owed != BEGUN:
        from gocker.recovery import owed_events

        known = {(event.time_ns, event.event) for event in events}
        before = [event for event in owed_events(claim) if (event.time_ns, event.event) not in known]
        events = [*before, *events]
    owe(claim, events)
    with contextlib.suppress(AuditError):
        audit.write(events, container=lasting.id, plan=lasting.digest)
        claim.settle()


def owe(claim: Claim, events: list[Event]) -> None:
    """Leave them to the next gocker until they are in the log. Raise StateError."""
    claim.owe(json.dumps([event.asdict() for event in events], default=str).encode("ascii"))
