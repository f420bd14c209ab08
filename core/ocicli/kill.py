"""`gocker-oci kill`."""

from __future__ import annotations

import signal

from gocker.errors import UsageError
from gocker.killing import send_signal
from gocker.state import State


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
    if text.isascii() and text.isdigit() and int(text) < signal.NSIG:
        return int(text)
    name, plus, offset = text.upper().partition("+")
    name = name if name.startswith("SIG") else f"SIG{name}"
    number = getattr(signal.Signals, name, None)
    if isinstance(number, signal.Signals) and (not plus or offset.isdigit()):
        total = int(number) + (int(offset) if plus else 0)
        if total < signal.NSIG:
            return total
    raise UsageError("kill", text, "no such signal", remedy="SIGTERM, TERM or 15")
