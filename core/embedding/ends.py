"""The program's ends of a container's pipes: what it writes, and what it is given, moved as poll(2) says."""

from __future__ import annotations

import os
import select

_CHUNK = 64 << 10


class Collector:
    """Keeps what comes out of a pipe. It never blocks."""

    def __init__(self, fd: int) -> None:
        """`fd` becomes ours."""
        os.set_blocking(fd, False)
        self.fd = fd
        self.mask = select.POLLIN
        self._parts: list[bytes] = []

    @property
    def data(self) -> bytes:
        """All that has come so far."""
        self._parts = [b"".join(self._parts)]
        return self._parts[0]

    def step(self) -> bool:
        """Take what is there; whether there may be more at once."""
        try:
            part = os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return False
        if part:
            self._parts.append(part)
            return True
        self.close()
        return False

    def drain(self) -> None:
        """Its writers are dead: take the rest, and no more than that, whoever else has the pipe open."""
        while self.fd >= 0 and self.step():
            pass
        self.close()

    def close(self) -> None:
        """Once."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class Feeder:
    """Writes what a program is given to read, as fast as it reads. It never blocks."""

    def __init__(self, fd: int, data: bytes) -> None:
        """`fd` becomes ours."""
        os.set_blocking(fd, False)
        self.fd = fd
        self.mask = select.POLLOUT
        self._left = memoryview(data)
        if not data:
            self.close()

    def step(self) -> bool:
        """Write what the pipe takes; a program that has closed its stdin gets no more."""
        try:
            written = os.write(self.fd, self._left)
        except BlockingIOError:
            return False
        except BrokenPipeError:
            self.close()
            return False
        self._left = self._left[written:]
        if not self._left:
            self.close()
        return False

    def drain(self) -> None:
        """Nobody reads any more."""
        self.close()

    def close(self) -> None:
        """Once: the program sees the end of its input."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
