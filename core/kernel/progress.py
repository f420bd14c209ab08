"""A number in memory that a process shares with the children it clones: how far a child has got."""

from __future__ import annotations

import ctypes

from gocker.kernel.syscalls import call

_SIZE = 4096  # a page, or a part of one
_READ_WRITE = 0x1 | 0x2  # PROT_READ | PROT_WRITE, linux/mman.h
_SHARED_ANONYMOUS = 0x01 | 0x20  # MAP_SHARED | MAP_ANONYMOUS


class Progress:
    """The last step that was begun; -1 before the first.

    To write it costs a tenth of a microsecond and no system call, so that it can be done for every step;
    it tells where a child was that can no longer speak.
    """

    def __init__(self) -> None:
        """Raise OSError."""
        self._address = call("mmap", 0, _SIZE, _READ_WRITE, _SHARED_ANONYMOUS, -1, 0)
        self._cell = ctypes.c_int.from_address(self._address)
        self._cell.value = -1  # which also makes the page this process's, not one of the child's memory limit

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
        return last
