"""Limit requests and their units, as users write them: `NAME[.KEY]=VALUE[?]`. No I/O."""

from __future__ import annotations

from gocker.errors import LimitError
from gocker.record import Record

# Checked without `re`: to compile the patterns took 0.25 ms of every start.
_DIGITS = frozenset("0123456789")
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz")
_ALNUM = _DIGITS | _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_NAME = _LOWER | _DIGITS | {"_"}
_KEY = _ALNUM | {"_", "."}
_SHIFTS = {"": 0, "b": 0}
for _power, _unit in enumerate("kmgt", 1):
    _SHIFTS |= dict.fromkeys((_unit, f"{_unit}b", f"{_unit}i", f"{_unit}ib"), 10 * _power)
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
    named = name[:1] in _LOWER and _NAME.issuperset(name)
    keyed = not key or (key[0] in _ALNUM and _KEY.issuperset(key))
    if not (equals and named and keyed) or label.endswith("."):
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
    operation, target = "set limit", f"{label}={text}"
    body = text.strip().lower() if text.isascii() else ""
    number = body.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = body[len(number) :]
    whole, dot, fraction = number.rstrip().partition(".")
    if not whole.isdigit() or not (fraction.isdigit() or not dot):
        raise LimitError(
            operation,
            target,
            "not a size in bytes",
            remedy="a number and a unit of b, k, m, g or t, as in 100m",
        )
    shift = _SHIFTS.get(unit)
    if shift is None:
        raise LimitError(operation, target, f"unknown unit {unit!r}", remedy="use b, k, m, g or t")
    whole = whole.lstrip("0") or "0"
    if len(whole) <= 19:  # int() refuses thousands of digits
        # In whole numbers: a float has 53 bits and ends at 1e308. Digits past the fortieth cannot
        # matter, since the multiples of 1/2**40 have no more.
        fraction = fraction[:40] or "0"
        value: int = (int(whole) << shift) + (int(fraction) << shift) // 10 ** len(fraction)
        if value <= MAX_BYTES:
            return value
    raise LimitError(operation, target, f"above the kernel's maximum of {MAX_BYTES} bytes")


def parse_count(text: str, label: str, *, minimum: int, maximum: int) -> int:
    """A whole decimal number within bounds; `label` names the limit in the error."""
    digits = text.removeprefix("-")
    if not digits or not _DIGITS.issuperset(digits):
        raise LimitError("set limit", f"{label}={text}", "not a whole number")
    # int() refuses thousands of digits, and no limit of the kernel has more than twenty.
    value = int(text) if len(digits) <= 20 else None
    if value is None or not minimum <= value <= maximum:
        raise LimitError("set limit", f"{label}={text}", f"not in {minimum} to {maximum}")
    return value


def parse_list(text: str, label: str) -> frozenset[int]:
    """`0-2,5` (cpuset(7) list format) as a set; raise LimitError when malformed or empty."""
    numbers: set[int] = set()
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        ends = (low, high) if dash else (low,)
        if not all(0 < len(end) <= 5 and _DIGITS.issuperset(end) for end in ends):
            raise LimitError("set limit", f"{label}={text}", "not a list such as 0-2,5")
        first, last = int(ends[0]), int(ends[-1])
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
