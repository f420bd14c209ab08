"""Resource limits of a process: names, docker's --ulimit notation, prlimit."""

from __future__ import annotations

import ctypes
import struct

from gocker.errors import UsageError
from gocker.kernel.syscalls import call
from gocker.model import Rlimit

# include/uapi/asm-generic/resource.h, the same on x86-64 and arm64. The index is the number.
NAMES = (
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
)
NUMBERS = {name: number for number, name in enumerate(NAMES)}
UNLIMITED = (1 << 64) - 1  # RLIM_INFINITY
_DIGITS = len(str(UNLIMITED))
_PAIR = struct.Struct("=2Q")  # struct rlimit64: soft, hard


def parse_ulimit(text: str) -> Rlimit:
    """`nofile=1024:4096` as docker's --ulimit takes it; raise UsageError.

    One value stands for both; -1 is unlimited. Values are in the units of getrlimit(2).
    """
    name, equals, values = text.partition("=")
    name = name.lower().removeprefix("rlimit_")
    if name not in NUMBERS:
        remedy = f"one of {' '.join(sorted(NAMES))}"
        raise UsageError("parse ulimit", text, f"no resource is called {name!r}", remedy=remedy)
    soft_text, colon, hard_text = values.partition(":")
    if not equals or not soft_text or (colon and not hard_text):
        raise UsageError("parse ulimit", text, "not NAME=SOFT[:HARD]", remedy="for example nofile=1024:4096")
    soft = _parse_value(text, soft_text)
    hard = _parse_value(text, hard_text) if colon else soft
    if soft > hard:
        raise UsageError("parse ulimit", text, "the soft limit is above the hard limit")
    return Rlimit(name=name, soft=soft, hard=hard)


def _parse_value(text: str, value: str) -> int:
    if value in {"-1", "unlimited"}:
        return UNLIMITED
    if not (value.isascii() and value.isdigit()) or len(value) > _DIGITS or int(value) > UNLIMITED:
        raise UsageError(
            "parse ulimit", text, f"{value!r} is not a whole number", remedy="-1 means unlimited"
        )
    return int(value)


def format_value(value: int) -> str:
    """A limit as prlimit(1) writes it."""
    return "unlimited" if value == UNLIMITED else str(value)


def get_rlimit(pid: int, name: str) -> tuple[int, int]:
    """(soft, hard) of `pid`, 0 for this process; prlimit(2)."""
    old = ctypes.create_string_buffer(_PAIR.size)
    call("prlimit64", pid, NUMBERS[name], None, old)
    soft, hard = _PAIR.unpack(old.raw)
    return soft, hard


def set_rlimit(pid: int, name: str, soft: int, hard: int) -> None:
    """Set both limits of `pid`, 0 for this process; raise OSError. Source: prlimit(2)."""
    call("prlimit64", pid, NUMBERS[name], _PAIR.pack(soft, hard), None)
