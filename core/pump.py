"""Copies bytes from one fd to another under poll(2), never ahead of the reader: back-pressure."""

from __future__ import annotations

import errno
import os
import select

_CHUNK = 64 << 10
_SAFE_WRITE = select.PIPE_BUF  # a pipe that polls writable takes this much without blocking
_NONBLOCK = 2  # SPLICE_F_NONBLOCK, splice(2)
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.EIO)


class Pump:
    """One direction. Moves pages with splice where the kernel can, else copies through a buffer.

    Neither fd is made non-blocking: the destination's file description belongs to the caller too.
    """

    def __init__(self, source: int, target: int, *, close_target: bool = False) -> None:
        """`source` is always closed at the end; `target` only when told, as a container's stdin is."""
        self.source = source
        self.target = target
        self._close_target = close_target
        self._pending = b""
        self._splice = True
        self._wait_target = False
        self.open = True

    def interest(self) -> tuple[int, int]:
        """(fd, poll mask) of what the pump waits for: the target while it is full, else the source."""
        if self._pending or self._wait_target:
            return self.target, select.POLLOUT
        return self.source, select.POLLIN

    def step(self) -> None:
        """Move some bytes; called when `interest` is ready. Closes itself at the end of either side."""
        try:
            if self._pending:
                self._flush()
            elif self._splice:
                self._move()
            else:
                self._fill()
        except OSError as error:
            if error.errno not in _GONE:
                raise
            self.close()

    def _move(self) -> None:
        try:
            moved = os.splice(self.source, self.target, _CHUNK, flags=_NONBLOCK)
        except BlockingIOError:
            # Either side may be meant: the source polled ready, so unless it is a spurious wake-up the
            # target is full; waiting for a target that is ready costs one round.
            self._wait_target = not self._wait_target
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOSYS):
                raise
            self._splice = self._wait_target = False  # a terminal or an O_APPEND file
            return
        self._wait_target = False
        if moved == 0:
            self.close()

    def _fill(self) -> None:
        self._pending = os.read(self.source, _CHUNK)
        if self._pending:
            return
        self.close()

    def _flush(self) -> None:
        written = os.write(self.target, self._pending[:_SAFE_WRITE])
        self._pending = self._pending[written:]

    def drain(self) -> None:
        """The writers are dead: move what is left, waiting for the target as long as it takes."""
        poll = select.poll()
        poll.register(self.source, select.POLLIN)
        while self.open and (self._pending or self._wait_target or poll.poll(0)):
            fd, mask = self.interest()
            if mask == select.POLLOUT:
                waiter = select.poll()
                waiter.register(fd, mask)
                waiter.poll()
            self.step()
        self.close()

    def close(self) -> None:
        """Stop; what a reader or writer on the far side sees is the end of the pipe."""
        if self.open:
            self.open = False
            os.close(self.source)
            if self._close_target:
                os.close(self.target)
