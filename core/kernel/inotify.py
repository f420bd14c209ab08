"""Watches over directories, by inotify(7)."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

_libc = ctypes.CDLL(None, use_errno=True)
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # IN_NONBLOCK, IN_CLOEXEC
# linux/inotify.h: MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE, DELETE_SELF, MOVE_SELF
_CHANGES = 0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800
_ONLYDIR = 0x01000000
_EVENT = struct.Struct("=iIII")  # wd, mask, cookie, length of the name


def watch(directories: Iterable[str]) -> int:
    """A non-blocking fd that polls readable once something in one of them changed. Raise OSError."""
    fd = _checked(_libc.inotify_init1(_FLAGS), "inotify")
    try:
        for path in directories:
            _checked(_libc.inotify_add_watch(fd, os.fsencode(path), _CHANGES | _ONLYDIR), path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def names_of(fd: int) -> list[bytes]:
    """Take the changes that came: the name of what was changed, b"" for a directory itself."""
    try:
        data = os.read(fd, 1 << 16)
    except BlockingIOError:
        return []
    names, at = [], 0
    while at < len(data):
        _, _, _, length = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        names.append(data[at : at + length].rstrip(b"\0"))
        at += length
    return names


def _checked(result: int, path: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result
