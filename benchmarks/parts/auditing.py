"""What the audit log costs, per container and per event."""

from __future__ import annotations

import json
import subprocess
import sys

from bench import HERE, Bench
from result import Table
from timing import Series


def measure(bench: Bench) -> list[Table]:
    """One process, each container with all its events."""
    place = bench.place("audit")
    argv = [sys.executable, str(HERE / "auditcost.py"), str(bench.rootfs), str(bench.rounds(80))]
    done = subprocess.run([*argv, f"{place}/log/audit.jsonl"], stdout=subprocess.PIPE, check=True)
    said = json.loads(done.stdout)
    note = f"{said['events']} events, noted, chained, written under the lock; no peer has such a log"
    return [
        Table(
            "audit.container",
            "CPU of the audit log for one container in process",
            [Series("audit", said["cpu_ms"])],
            "audit",
            {"audit": note},
            unit="ms of CPU",
        ),
        Table(
            "audit.rate",
            "events that one process writes, in a container's batches",
            [Series("audit", said["per_second"])],
            "audit",
            unit="events/s",
        ),
    ]
