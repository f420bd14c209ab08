"""Copies bytes from one fd to another under poll(2), never ahead of the reader: back-pressure."""

from __future__ import annotations

import _socket
import errno
import os
import select
import stat
from collections.abc import Callable

from gocker.errors import GockerError, KernelError

_SPLICE = 1 << 20  # at most; a pipe holds 64 KiB unless someone made it larger, pipe(7)
_COPY = 64 << 10
_SAFE_WRITE = select.PIPE_BUF  # a pipe that polls writable takes this much without blocking
_NONBLOCK = 2  # SPLICE_F_NONBLOCK, splice(2)
_GONE = (errno.EPIPE, errno.ECONNRESET)

Write = Callable[[memoryview], int]


class Pump:
    """One direction. Moves pages with splice(2) where the kernel can, else copies through a buffer.

    A description that others share (gocker's own standard streams are the caller's) is never made
    non-blocking, and never written so much that the write could block.
    """

    def __init__(
        self,
        name: str,
        source: int,
        target: int,
        *,
        owned: bool = False,
        at_end: Callable[[], None] | None = None,
    ) -> None:
        """`name` is the stream's, for errors. `source` is closed at the end, `target` when `owned`.

        `owned` says that nobody else has the target's description. `at_end` is called after the end.
        """
        self.name = name
        self.source = source
        self.target = target
        self.open = True
        self.error: GockerError | None = None  # why bytes were lost, when not by the reader's own will
        self._owned = owned
        self._at_end = at_end
        self._pending = memoryview(b"")
        self._splice: bool | None = None  # None until the first byte: most runs have none to move
        self._full = False
        self._write: Write | None = None
        self._release: Callable[[], object] | None = None  # of what `_write` uses

    def interest(self) -> tuple[int, int]:
        """(fd, poll mask) of what the pump waits for: the target while it is full, else the source."""
        if self._pending or self._full:
            return self.target, select.POLLOUT
        return self.source, select.POLLIN

    def step(self) -> None:
        """Move some bytes; called when `interest` is ready. Closes itself at the end of either side."""
        if self._splice is None:
            self._splice = _takes_pages(self.target)
        if self._splice:
            self._move()
        elif self._pending:
            self._flush()
        else:
            self._fill()

    def drain(self) -> None:
        """The writers are dead: move what the target takes at once; close when nothing is left."""
        while self.open:
            fd, mask = self.interest()
            poll = select.poll()
            poll.register(fd, mask)
            if poll.poll(0):
                self.step()
            elif fd == self.source:
                self.close()
            else:
                return

    def _move(self) -> None:
        try:
            moved = os.splice(self.source, self.target, _SPLICE, flags=_NONBLOCK)
        except BlockingIOError:
            # Either side may be meant: the source polled ready, so unless it is a spurious wake-up the
            # target is full; waiting for a target that is ready costs one round.
            self._full = not self._full
        except BrokenPipeError:
            self.close()
        except OSError:
            # A terminal, an O_APPEND file; or a real error, which copying assigns to its side.
            self._splice = self._full = False
        else:
            self._full = False
            if moved == 0:
                self.close()

    def _fill(self) -> None:
        try:
            data = os.read(self.source, _COPY)
        except BlockingIOError:
            return
        except OSError as error:
            # A terminal reads so once nobody is at its other end, ioctl_tty(2).
            hung_up = error.errno == errno.EIO and os.isatty(self.source)
            if not hung_up and error.errno not in _GONE:
                self.error = KernelError.from_os("read", self.name, error)
            data = b""
        self._pending = memoryview(data)
        if not data:
            self.close()

    def _flush(self) -> None:
        if self._write is None:
            self._write = self._writer()
        try:
            written = self._write(self._pending)
        except BlockingIOError:
            return
        except OSError as error:
            hung_up = error.errno == errno.EIO and os.isatty(self.target)
            if not hung_up and error.errno not in _GONE:
                self.error = KernelError.from_os("write", self.name, error)
            self.close()
            return
        self._pending = self._pending[written:]

    def _writer(self) -> Write:
        """The way to write to the target that cannot block, or not once it polls writable."""
        target, mode = self.target, os.fstat(self.target).st_mode
        if self._owned:
            os.set_blocking(target, False)
            return lambda data: os.write(target, data)
        if stat.S_ISREG(mode):
            return lambda data: os.write(target, data)
        if stat.S_ISSOCK(mode):
            socket = _socket.socket(fileno=target)
            self._release = socket.detach
            return lambda data: socket.send(data, _socket.MSG_DONTWAIT)
        if os.isatty(target):
            # A description of our own: a stopped terminal (^S) must not stop gocker too.
            try:
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                own = os.open(f"/proc/self/fd/{target}", flags)
            except OSError:
                pass  # another's, or no /proc: small writes, then
            else:
                self._release = lambda: os.close(own)
                return lambda data: os.write(own, data)
        return lambda data: os.write(target, data[:_SAFE_WRITE])

    def close(self) -> None:
        """Stop; what a reader or writer on the far side sees is the end of the pipe."""
        if not self.open:
            return
        self.open = False
        if self._release is not None:
            self._release()
        os.close(self.source)
        if self._owned:
            os.close(self.target)
        if self._at_end is not None:
            self._at_end()


def _takes_pages(target: int) -> bool:
    """Whether a splice to it either is quick or does not block: not so for sockets and terminals."""
    info = os.fstat(target)
    null = stat.S_ISCHR(info.st_mode) and info.st_rdev == os.makedev(1, 3)
    return null or stat.S_ISFIFO(info.st_mode) or stat.S_ISREG(info.st_mode)
