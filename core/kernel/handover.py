"""Memory that two processes share to hand over an fd when the one that has it may make no system call."""

from __future__ import annotations

import ctypes
import os

from gocker.errors import KernelError
from gocker.kernel.syscalls import call

_SIZE = 4096
_READ_WRITE, _SHARED = 0x1 | 0x2, 0x01  # PROT_*, MAP_*; linux/mman.h
_CELLS = 8  # two numbers, then a text
_MAX_TEXT = 8 << 20
_MOST_LOOKS = 1 << 28  # some ten seconds


class Handover:
    """The number of the fd + 1, and whether the other has it; both begin as 0. A text goes along."""

    def __init__(self, fd: int) -> None:
        """`fd` is of a memfd that `new` has made. Raise OSError."""
        self._fd = fd
        self._address = call("mmap", 0, _SIZE, _READ_WRITE, _SHARED, fd, 0)
        self._number = ctypes.c_int.from_address(self._address)
        self._taken = ctypes.c_int.from_address(self._address + 4)

    @classmethod
    def new(cls, text: bytes) -> Handover:
        """With a close-on-exec memfd of its own. Raise OSError."""
        fd = os.memfd_create("gocker-handover", os.MFD_CLOEXEC)
        os.ftruncate(fd, _CELLS + len(text))
        while text:
            text = text[os.pwrite(fd, text, os.fstat(fd).st_size - len(text)) :]
        return cls(fd)

    @property
    def fd(self) -> int:
        """Of the memory, for the other process."""
        return self._fd

    def text(self) -> bytes:
        """What went along. Raise KernelError."""
        size = os.fstat(self._fd).st_size - _CELLS
        if not 0 <= size <= _MAX_TEXT:
            raise KernelError("read handover", "", f"{size} bytes")
        return os.pread(self._fd, size, _CELLS)

    def give(self, number: int, most: int = _MOST_LOOKS) -> bool:
        """Offer the fd `number` and wait until the other has it, without one system call; False when it does not come.

        `most` is how often to look. A seccomp filter may forbid all calls, and an asking one would ask a listener that nobody has yet.
        """
        self._number.value = number + 1
        taken = self._taken
        return any(taken.value for _ in range(most))

    @property
    def number(self) -> int:
        """What was offered, -1 for nothing yet."""
        return self._number.value - 1

    def take(self) -> None:
        """Let the giver go on."""
        self._taken.value = 1

    def close(self) -> None:
        """Give the memory back, once, and the fd."""
        self._number = self._taken = ctypes.c_int(0)
        call("munmap", self._address, _SIZE)
        os.close(self._fd)
