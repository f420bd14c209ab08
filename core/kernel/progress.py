"""A number that a process shares with the children it clones, and with a file: how far a child has got."""

from __future__ import annotations

import ctypes
import os
import sys

from gocker.kernel.syscalls import call

_SIZE = 4096  # a page, or a part of one
_READ_WRITE = 0x1 | 0x2  # PROT_READ | PROT_WRITE, linux/mman.h
_SHARED, _ANONYMOUS = 0x01, 0x20  # MAP_*

HEADER = b"\xff" * 8
"""What the file begins with before there is a Progress: no step was begun."""
_NOT_KEPT = b"\xfe" + HEADER[1:]


def read_progress(data: bytes) -> int | None:
    """What a file that begins with `data` tells: the last step that was begun, or -1; None for no knowledge."""
    if len(data) < len(HEADER) or data.startswith(_NOT_KEPT):
        return None
    return int.from_bytes(data[:4], sys.byteorder, signed=True)


class Progress:
    """The last step that was begun; -1 before the first.

    To write it costs a tenth of a microsecond and no system call, so that it can be done for every step;
    it tells where a child was that can no longer speak. In a file it outlives both.
    """

    def __init__(self, fd: int = -1) -> None:
        """`fd` is of a file that begins with HEADER and may be read and written; -1 for none. Raise OSError."""
        self.fd = fd  # -1 where the memory is no file's
        self._address = self._map(fd)
        self._cell = ctypes.c_int.from_address(self._address)
        self._cell.value = -1  # which also makes the page this process's, not one of the child's memory limit

    @classmethod
    def of_memory(cls, fd: int = -1) -> Progress:
        """One that another program can map, by its `fd`: of a memfd where `fd` will not do."""
        made = cls(fd)
        if made.fd < 0:
            made.close()
            memory = os.memfd_create("gocker-progress", os.MFD_CLOEXEC)
            os.ftruncate(memory, _SIZE)
            made = cls(memory)
            made._own = memory
        return made

    _own = -1  # to close

    def _map(self, fd: int) -> int:
        if fd >= 0:
            try:
                return call("mmap", 0, _SIZE, _READ_WRITE, _SHARED, fd, 0)
            except OSError:  # some network file systems cannot
                os.pwrite(fd, _NOT_KEPT, 0)
                self.fd = -1
        return call("mmap", 0, _SIZE, _READ_WRITE, _SHARED | _ANONYMOUS, -1, 0)

    @property
    def step(self) -> int:
        """As the child left it."""
        return self._cell.value

    @step.setter
    def step(self, index: int) -> None:
        self._cell.value = index

    def close(self) -> int:
        """Give the memory back, once; return the last value."""
        last = self._cell.value
        if self._address:
            self._cell = ctypes.c_int(last)
            call("munmap", self._address, _SIZE)
            self._address = 0
            if self._own >= 0:
                os.close(self._own)
                self._own = -1
        return last
