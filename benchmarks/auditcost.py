"""What the audit log costs: auditcost.py ROOTFS CONTAINERS LOG, as root; prints JSON.

`cpu_ms`: for each of so many starts by the engine, the CPU time of the thread within prepare, load and write of
the log, and what it takes to note the events. `per_second`: events that one process writes to LOG, a
container's batches over and over.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

from driver import make_spec

from gocker import engine
from gocker.audit import AuditLog, current_actor
from gocker.auditevent import Event
from gocker.paths import audit_log
from gocker.registry import Registry

_Batch = tuple[list[Event], str, str]
_REPEATS, _SECONDS = 1000, 0.3


class Measured(AuditLog):
    """Adds up what it takes, and keeps what is written."""

    def reset(self) -> None:
        """For the next container."""
        self.cpu = 0
        self.batches: list[_Batch] = []

    def prepare(self) -> None:
        """As ever."""
        begin = time.thread_time_ns()
        super().prepare()
        self.cpu += time.thread_time_ns() - begin

    def load(self) -> None:
        """As ever; within `write` it is counted there."""
        begin = time.thread_time_ns()
        super().load()
        self.cpu += time.thread_time_ns() - begin

    def write(self, events: Sequence[Event], *, container: str = "", plan: str = "") -> None:
        """As ever."""
        self.batches.append((list(events), container, plan))
        self.load()
        begin = time.thread_time_ns()
        super().write(events, container=container, plan=plan)
        self.cpu += time.thread_time_ns() - begin


def main() -> None:
    """Measure both."""
    rootfs, count, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    registry = Registry()
    log = Measured(audit_log(), current_actor(sys.argv))
    found: list[float] = []
    for number in range(count + 3):
        log.reset()
        spec = make_spec(rootfs)
        outcome = engine.run(spec, engine.plan(spec, registry), log)
        if outcome.error or outcome.report.verdict.kind != "ok":
            raise SystemExit(f"{outcome}")
        if number >= 3:
            found.append(log.cpu / 1e6)
    events = [event for batch, _, _ in log.batches for event in batch]
    noting = _noting(events)
    print(
        json.dumps(
            {
                "events": len(events),
                "cpu_ms": [one + noting for one in found],
                "per_second": _per_second(log.batches, len(events), path),
            }
        )
    )


def _noting(events: Sequence[Event]) -> float:
    """Milliseconds of CPU to make them, without what is in them."""
    begin = time.thread_time_ns()
    for _ in range(_REPEATS):
        for event in events:
            Event.now(event.event, event.level, container="")
    return (time.thread_time_ns() - begin) / 1e6 / _REPEATS


def _per_second(batches: Sequence[_Batch], each: int, path: str) -> list[float]:
    log = AuditLog(path, current_actor(sys.argv))
    rates = []
    for _ in range(10):
        begin, written = time.perf_counter(), 0
        while (took := time.perf_counter() - begin) < _SECONDS:
            for events, container, plan in batches:
                log.write(events, container=container, plan=plan)
            written += each
        rates.append(written / took)
    return rates


if __name__ == "__main__":
    main()
