"""Whom this process works for: itself, or the client of a warm server, which is the parent of what it starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn

PASSED_ON = -60
"""si_code of a signal that the kernel sent the client: nobody may pass on its own codes, rt_sigqueueinfo(2)."""

_pid = 0
_channel = -1
_end_output: Callable[[int], object] = bool


class GivenBackError(BaseException):
    """The client had better do the command itself: no error, and for nobody but the worker to catch."""


def stand_in(pid: int, channel: int, end_output: Callable[[int], object]) -> None:
    """From now on this process works for `pid`, whose end of the socket `channel` closes when it ends.

    `end_output` puts /dev/null in the place of one of its fds.
    """
    global _pid, _channel, _end_output
    _pid, _channel, _end_output = pid, channel, end_output


def pid() -> int:
    """Of the process that the user started."""
    return _pid or os.getpid()


def proc() -> str:
    """Its directory in /proc."""
    return f"/proc/{_pid or 'self'}"


def channel() -> int:
    """An fd that is hung up when that process has ended; -1 when it is this one."""
    return _channel


def end_output(fd: int) -> None:
    """That process, where it is another, holds the stream `fd` open no longer."""
    _end_output(fd)


def is_other() -> bool:
    """Whether it is another."""
    return _channel >= 0


def give_back(reason: str) -> None:
    """Do nothing in the process that the user started; else let it do the command itself, since nothing was done yet."""
    if _channel >= 0:
        _give_back(reason)


def _give_back(reason: str) -> NoReturn:
    raise GivenBackError(reason)
