"""Limit requests and their units, as users write them: `NAME[.KEY]=VALUE[?]`. No I/O."""

from __future__ import annotations

import re

from gocker.errors import LimitError
from gocker.record import Record

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.ASCII)
MAX_BYTES = (1 << 63) - 1  # what the kernel's page counter can hold


class LimitRequest(Record):
    """One limit that was asked for."""

    name: str  # of the controller plug-in: "memory"
    key: str  # "" for the bare name, "swap" for memory.swap
    value: str  # as the user wrote it, without the question mark
    best_effort: bool = False

    @property
    def label(self) -> str:
        """`memory` or `memory.swap`: the name in the report and in the log."""
        return f"{self.name}.{self.key}" if self.key else self.name


def parse_limit(text: str) -> LimitRequest:
    """`memory.swap=1g?` as a request; raise LimitError when it has no such shape."""
    label, equals, value = text.partition("=")
    name, _, key = label.partition(".")
    shaped = _NAME.fullmatch(name) and (not key or _KEY.fullmatch(key)) and not label.endswith(".")
    if not equals or not shaped:
        raise LimitError("parse limit", text, "not NAME[.KEY]=VALUE", remedy="for example memory=100m")
    best_effort = value.endswith("?")
    value = value.removesuffix("?")
    if not value:
        raise LimitError("parse limit", text, "the value is empty", remedy="for example memory=100m")
    return LimitRequest(name=name, key=key, value=value, best_effort=best_effort)


def parse_size(text: str, label: str) -> int:
    """`100m` as bytes: binary units b k m g t, `b` optional after a unit, case-blind, as docker.

    `label` names the limit in the error. Raise LimitError on other text and above 2**63-1.
    """
    match = _SIZE.fullmatch(text.strip().lower())
    operation, target = "set limit", f"{label}={text}"
    if not match:
        raise LimitError(
            operation,
            target,
            "not a size in bytes",
            remedy="a number and a unit of b, k, m, g or t, as in 100m",
        )
    number, unit = match.groups()
    factor = _UNITS.get(unit if len(unit) < 2 else unit.removesuffix("b").removesuffix("i"))
    if factor is None:
        raise LimitError(operation, target, f"unknown unit {unit!r}", remedy="use b, k, m, g or t")
    value = int(number) * factor if number.isdigit() else int(float(number) * factor)
    if value > MAX_BYTES:
        raise LimitError(operation, target, f"above the kernel's maximum of {MAX_BYTES} bytes")
    return value


def parse_count(text: str, label: str, *, minimum: int, maximum: int) -> int:
    """A whole decimal number within bounds; `label` names the limit in the error."""
    if not re.fullmatch(r"-?\d{1,20}", text, re.ASCII):
        raise LimitError("set limit", f"{label}={text}", "not a whole number")
    value = int(text)
    if not minimum <= value <= maximum:
        raise LimitError("set limit", f"{label}={text}", f"not in {minimum} to {maximum}")
    return value


def parse_list(text: str, label: str) -> frozenset[int]:
    """`0-2,5` (cpuset(7) list format) as a set; raise LimitError when malformed or empty."""
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part.strip(), re.ASCII)
        if not match:
            raise LimitError("set limit", f"{label}={text}", "not a list such as 0-2,5")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise LimitError("set limit", f"{label}={text}", f"the range {part} runs backwards")
        numbers.update(range(first, last + 1))
    return frozenset(numbers)


def format_list(numbers: frozenset[int]) -> str:
    """The kernel's own spelling of a list: `0-2,5`."""
    parts: list[str] = []
    ordered = sorted(numbers)
    start = 0
    for i, number in enumerate(ordered):
        if i + 1 == len(ordered) or ordered[i + 1] != number + 1:
            first = ordered[start]
            parts.append(str(first) if first == number else f"{first}-{number}")
            start = i + 1
    return ",".join(parts)
