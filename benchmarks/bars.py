"""What the suite must show, each within one run of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bar:
    """A row of a table held against another row of it, or against a number."""

    work: str
    table: str
    row: str
    base: str  # the row that it is held against; "" for none: then the median itself counts
    bound: float
    least: bool = False  # `bound` is the least that is good, not the most

    def judge(self, tables: Mapping[str, Any], skipped: Mapping[str, str]) -> dict[str, Any]:
        """What was measured, and whether that is good; `met` is None when it was not measured."""
        said: dict[str, Any] = {
            "work": self.work,
            "table": self.table,
            "row": self.row,
            "base": self.base,
            "bound": self.bound,
            "least": self.least,
            "measured": None,
            "met": None,
            "reason": "",
        }
        table = tables.get(self.table)
        rows = {row["name"]: row for row in table["rows"]} if table else {}
        if self.row in rows and (not self.base or self.base in rows):
            value = rows[self.row]["median"] / (rows[self.base]["median"] if self.base else 1)
            said["measured"] = value
            said["met"] = value >= self.bound if self.least else value <= self.bound
        else:
            missing = self.base if self.row in rows else self.row
            why = skipped.get(self.table.partition(".")[0])
            left = " ".join(table["left_out"]) if table else ""
            said["reason"] = why or left or f"no row {missing}"
        return said


_VERBS = ("exec", "create", "start", "state", "kill", "delete")
BARS = (
    Bar("gocker run, cold, against runc run", "cold", "gocker", "runc", 1.5),
    Bar("gocker run, warm, against crun run", "warm", "gocker warm", "crun", 0.8),
    Bar("podman with gocker-oci, warm, against podman with crun", "podman", "gocker-oci warm", "crun", 1.0),
    Bar("engine, native, in process, against start.c", "inprocess", "engine native", "C", 1.5),
    Bar(
        "engine, native, in process, against subprocess.run(crun)",
        "inprocess",
        "engine native",
        "subprocess crun",
        0.5,
    ),
    Bar("gocker.run against subprocess.run(crun)", "inprocess", "gocker.run", "subprocess crun", 0.5),
    *(
        Bar(f"gocker-oci {verb}, warm, against crun {verb}", f"verbs.{verb}", "gocker-oci warm", "crun", 1.0)
        for verb in _VERBS
    ),
    Bar(
        "8 at a time, containers/s: gocker.run against crun",
        "together",
        "gocker.run",
        "crun",
        2.0,
        least=True,
    ),
    Bar("CPU of all events of one container, ms", "audit.container", "audit", "", 0.5),
    Bar("start with 1,000 containers against none, cold", "growth.cold", "1000", "none", 1.2),
    Bar("start with 1,000 containers against none, warm", "growth.warm", "1000", "none", 1.2),
    Bar("start with 1,000 containers against none, in process", "growth.inprocess", "1000", "none", 1.2),
)
