"""What a part of the suite comes to: tables, and why it was left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from timing import Series


class Skipped(Exception):  # noqa: N818 - no error
    """The part cannot be measured here; the text says why."""


@dataclass
class Table:
    """Contenders that did the same work."""

    key: str  # PART or PART.WORK
    title: str
    series: list[Series]
    base: str  # the contender that ratios are to
    notes: dict[str, str] = field(default_factory=dict)  # by contender: what it does not do
    unit: str = "ms"
    left_out: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """With a row for each contender that has samples."""
        found = {one.name: one for one in self.series if one.values}
        base = found.get(self.base)
        return {
            "title": self.title,
            "unit": self.unit,
            "base": self.base,
            "rows": [one.row(base, self.notes.get(one.name, "")) for one in found.values()],
            "left_out": self.left_out,
        }
