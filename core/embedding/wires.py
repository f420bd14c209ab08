"""A container's standard streams when another program asked for it, and that program's say over it."""

from __future__ import annotations

import _socket
import os
import signal

from gocker.errors import GockerError
from gocker.pump import Pump
from gocker.signals import ENDING, Arrival
from gocker.stdio import is_same

NULL, END, FILE, SAME = "null", "end", "file", "same"
"""Nothing; the far end of a pipe of the program's; a file of the program's; stderr into what stdout is."""


class Wires:
    """What becomes 0, 1 and 2 of the container. Files are never handed in: bytes are copied, as `gocker run` does.

    The far end of a pipe is: at its other end is the program, which made it for this.
    """

    window = b""

    def __init__(self, kinds: list[str], fds: list[int], owner: tuple[int, int] | None) -> None:
        """`fds`, one for each kind that needs one, become ours; `owner` is the root inside as the host sees it."""
        self._pumps: list[Pump] = []
        self._targets: list[int] = []
        self._inside: list[int] = []
        self._owner = owner
        left = list(fds)
        given = [left.pop(0) if kind in {END, FILE} else -1 for kind in kinds]
        self._inside.append(self._input(kinds[0], given[0]))
        self._inside.append(self._output("stdout", kinds[1], given[1]))
        joined = kinds[1:] == [FILE, FILE] and is_same(given[1], given[2])
        if joined:
            self._targets.append(given[2])
        if joined or kinds[2] == SAME:
            self._inside.append(os.dup(self._inside[1]))
        else:
            self._inside.append(self._output("stderr", kinds[2], given[2]))

    def _input(self, kind: str, fd: int) -> int:
        if kind == END:
            return fd
        if kind == NULL:
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        read, write = os.pipe2(os.O_CLOEXEC)
        self._pumps.append(Pump("stdin", fd, write, owned=True))
        return read

    def _output(self, name: str, kind: str, fd: int) -> int:
        if kind == NULL:
            return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        if kind == END:
            write = fd
        else:
            read, write = os.pipe2(os.O_CLOEXEC)
            self._targets.append(fd)
            self._pumps.append(Pump(name, read, fd))
        if self._owner is not None:
            os.fchown(write, *self._owner)
        return write

    @property
    def child_fds(self) -> tuple[int, int, int]:
        """What becomes 0, 1 and 2 of the program."""
        stdin, stdout, stderr = self._inside
        return stdin, stdout, stderr

    @property
    def pumps(self) -> list[Pump]:
        """Those still open."""
        return [pump for pump in self._pumps if pump.open]

    @property
    def outputs(self) -> list[Pump]:
        """Those still open that carry what the program wrote; none before it ran."""
        return [] if self._inside else [pump for pump in self.pumps if pump.name != "stdin"]

    @property
    def error(self) -> GockerError | None:
        """The first one."""
        return next((pump.error for pump in self._pumps if pump.error), None)

    def started(self, console: int) -> None:
        """The child has its own copies: close ours, so that the end of its output is seen."""
        while self._inside:
            os.close(self._inside.pop())

    def window_changed(self) -> None:
        """Pipes have no window."""

    def resumed(self) -> None:
        """Pipes have no state."""

    def close(self) -> None:
        """Give everything back, whatever happened."""
        self.started(-1)
        for pump in self.pumps:
            pump.close()
        while self._targets:
            os.close(self._targets.pop())


class Remote:
    """The signals that the program sends by the channel; its end, or that of its interest, is one to kill."""

    def __init__(self, channel: _socket.socket, pid: int, uid: int) -> None:
        """`pid` and `uid` are the program's, for the record."""
        self.fd = channel.fileno()
        self._channel = channel
        self._sender = pid, uid
        self._idle = -1  # what is polled once there is nothing more to come
        self._waiting: list[Arrival] = []

    def take(self) -> list[Arrival]:
        """All that came, in order, those that `ending` passed over first."""
        arrivals, self._waiting = self._waiting, []
        if self._idle >= 0:
            return arrivals
        try:
            numbers = self._channel.recv(4096, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return arrivals
        except ConnectionResetError:
            numbers = b""
        if not numbers:
            self.fd = self._idle = os.eventfd(0, os.EFD_CLOEXEC)
            numbers = bytes([signal.SIGKILL])
        return arrivals + [Arrival(number, *self._sender) for number in numbers]

    def ending(self) -> Arrival | None:
        """One that asks for an end and takes it; the others are left to `take`."""
        self._waiting = self.take()
        for index, arrival in enumerate(self._waiting):
            if arrival.number == signal.SIGKILL or arrival.number in ENDING:
                return self._waiting.pop(index)
        return Arrival(signal.SIGKILL, *self._sender) if self._idle >= 0 else None

    def close(self) -> None:
        """The channel is somebody else's."""
        if self._idle >= 0:
            os.close(self._idle)
            self._idle = -1
