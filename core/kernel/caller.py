"""Whom this process works for: itself, or the client of a warm server, which is the parent of what it starts."""

from __future__ import annotations

import os
from typing import NoReturn

PASSED_ON = -60
"""si_code of a signal that the kernel sent the client: nobody may pass on its own codes, rt_sigqueueinfo(2)."""

_pid = 0
_channel = -1


class GivenBackError(BaseException):
    """The client had better do the command itself: no error, and for nobody but the worker to catch."""


def stand_in(pid: int, channel: int) -> None:
    """From now on this process works for `pid`, whose end of the socket `channel` closes when it ends."""
    global _pid, _channel
    _pid, _channel = pid, channel


def pid() -> int:
    """Of the process that the user started."""
    return _pid or os.getpid()


def proc() -> str:
    """Its directory in /proc."""
    return f"/proc/{_pid or 'self'}"


def channel() -> int:
    """An fd that is hung up when that process has ended; -1 when it is this one."""
    return _channel


def is_other() -> bool:
    """Whether it is another."""
    return _channel >= 0


def give_back(reason: str) -> None:
    """Do nothing in the process that the user started; else let it do the command itself, since nothing was done yet."""
    if _channel >= 0:
        _give_back(reason)


def _give_back(reason: str) -> NoReturn:
    raise GivenBackError(reason)
