"""`gocker-oci kill`."""

from __future__ import annotations

import signal

from gocker.errors import UsageError
from gocker.killing import send_signal
from gocker.state import State

_MAX_DIGITS = 4  # with some zeros in front


def command(root: str, *, arguments: tuple[str, ...], all: bool, regex: bool) -> int:  # noqa: A002 - the option's name
    """Signal it; SIGTERM unless another is named."""
    container, *rest = arguments
    if regex:
        raise UsageError("kill", "--regex", "not there", remedy="name each container")
    number = signal_number(rest[0] if rest else "TERM")
    send_signal(container, number, State(root), everybody=all)
    return 0


def signal_number(text: str) -> int:
    """Of `0`, which asks whether it is there, `9`, `KILL`, `SIGKILL` or `SIGRTMIN+3`. Raise UsageError."""
    if (number := _number(text)) >= 0:
        return number
    name, plus, offset = text.upper().partition("+")
    name = name if name.startswith("SIG") else f"SIG{name}"
    base = getattr(signal.Signals, name, None)
    if isinstance(base, signal.Signals):
        above = _number(offset) if plus else 0
        if above >= 0 and base + above < signal.NSIG:
            return base + above
    raise UsageError("kill", text, "no such signal", remedy="SIGTERM, TERM or 15")


def _number(text: str) -> int:
    """Below the count of signals, in ASCII digits of which no number has more than a few; -1 for any other text."""
    if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and int(text) < signal.NSIG:
        return int(text)
    return -1
