"""The container's standard streams as pipes, and the watch over a container while its program runs."""

from __future__ import annotations

import os
import select
import signal
import stat
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from gocker.errors import GockerError
from gocker.kernel import caller
from gocker.kernel.process import same_description
from gocker.pump import Pump
from gocker.signals import Arrival, Arrivals

_LONG = 86_400_000  # milliseconds: poll(2) takes no more than 2**31-1


class Attached(Protocol):
    """What joins a container to gocker's own standard streams: `Streams`, or a terminal."""

    window: bytes

    @property
    def child_fds(self) -> tuple[int, int, int]:
        """What init makes 0, 1 and 2 of."""

    @property
    def pumps(self) -> list[Pump]:
        """Those still open."""

    @property
    def outputs(self) -> list[Pump]:
        """Those still open that carry what the program wrote."""

    @property
    def error(self) -> GockerError | None:
        """Why bytes were lost, when not by the reader's own will."""

    def started(self, console: int) -> None:
        """The program runs; `console` is the fd that init sent, or -1."""

    def window_changed(self) -> None:
        """Gocker's terminal has another size."""

    def resumed(self) -> None:
        """Gocker goes on after a stop."""

    def close(self) -> None:
        """Give everything back, whatever happened."""


class Streams:
    """stdout and stderr in pipes of their own, stdin in one with `-i`, else /dev/null.

    One pipe for both outputs where gocker's are one and the same (a terminal, `2>&1`): what the program
    writes stays in its order.
    """

    window = b""

    def __init__(
        self,
        *,
        interactive: bool,
        owner: tuple[int, int] | None = None,
        targets: tuple[int, int, int] = (0, 1, 2),
        end_stdout: bool = False,
    ) -> None:
        """`owner` is the (uid, gid) on the host of the container's root, where that is not ours.

        `targets` are gocker's stdin, stdout and stderr. With `end_stdout` ours ends when the program
        closes its own, as if there were no gocker between.
        """
        self._pumps: list[Pump] = []
        self._inside: list[int] = []
        self._owner = owner
        stdin, stdout, stderr = targets
        if interactive:
            read, write = self._pipe()
            self._inside.append(read)
            self._pumps.append(Pump("stdin", os.dup(stdin), write, owned=True))
        else:
            self._inside.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        read, write = self._pipe()
        self._inside.append(write)
        at_end = (lambda: _end_output(stdout)) if end_stdout else None
        self._pumps.append(Pump("stdout", read, stdout, at_end=at_end))
        if is_same(stdout, stderr):
            self._inside.append(os.dup(write))
        else:
            read, write = self._pipe()
            self._inside.append(write)
            self._pumps.append(Pump("stderr", read, stderr))

    def _pipe(self) -> tuple[int, int]:
        read, write = os.pipe2(os.O_CLOEXEC)
        if self._owner is not None:
            os.fchown(write, *self._owner)  # of the pipe: both ends are one inode
        return read, write

    @property
    def child_fds(self) -> tuple[int, int, int]:
        """What becomes 0, 1 and 2 of the program."""
        stdin, stdout, stderr = self._inside
        return stdin, stdout, stderr

    def started(self, console: int) -> None:
        """The child has its own copies: close ours, so that the end of its output is seen."""
        for fd in self._inside:
            os.close(fd)
        self._inside = []

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

    def window_changed(self) -> None:
        """Pipes have no window."""

    def resumed(self) -> None:
        """Pipes have no state."""

    def close(self) -> None:
        """Give everything back, whatever happened."""
        self.started(-1)
        for pump in self.pumps:
            pump.close()


class Inherited:
    """Gocker's own streams, which the process gets as they are."""

    window = b""
    child_fds = (0, 1, 2)
    error: GockerError | None = None

    @property
    def pumps(self) -> list[Pump]:
        """None: no byte goes by way of gocker."""
        return []

    outputs = pumps

    def started(self, console: int) -> None:
        """Nothing to close."""

    def window_changed(self) -> None:
        """The process hears of it from its own terminal."""

    def resumed(self) -> None:
        """Nothing was changed."""

    def close(self) -> None:
        """Nothing was opened."""


def _end_output(fd: int) -> None:
    """Close our end and keep the number taken: the reader of a pipe sees the end of it."""
    null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, fd)
    os.close(null)
    caller.end_output(fd)


def is_same(one: int, other: int) -> bool:
    """Whether what is written to either ends up in one place, in the order in which it was written."""
    first, second = os.fstat(one), os.fstat(other)
    if (first.st_dev, first.st_ino) != (second.st_dev, second.st_ino):
        return False
    # Two descriptions of a file have two offsets.
    return not stat.S_ISREG(first.st_mode) or same_description(one, other)


def attend(
    streams: Attached,
    pidfd: int,
    signals: Arrivals | None,
    forward: Callable[[Arrival], None],
    deadline: float | None,
) -> bool:
    """Move bytes and pass on signals until the process behind `pidfd` ends; True when `deadline` came first.

    `deadline` is a time.monotonic() value in seconds.
    """
    if signals is not None:
        _pass_on(streams, signals, forward)  # what came before
    while True:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if signals is not None:
            poll.register(signals.fd, select.POLLIN)
        waiting = {}
        for pump in streams.pumps:
            fd, mask = pump.interest()
            waiting[fd] = pump
            poll.register(fd, mask)
        timeout = None if deadline is None else min(max(0, (deadline - time.monotonic()) * 1000), _LONG)
        ended = False
        for fd, _ in poll.poll(timeout):
            if fd in waiting:
                waiting[fd].step()
            elif fd == pidfd:
                ended = True
            elif signals is not None:
                _pass_on(streams, signals, forward)
        if ended:
            return False
        if deadline is not None and time.monotonic() >= deadline:
            return True


def _pass_on(streams: Attached, signals: Arrivals, forward: Callable[[Arrival], None]) -> None:
    for arrival in signals.take():
        if arrival.number == signal.SIGWINCH:
            streams.window_changed()
        elif arrival.number == signal.SIGCONT:
            streams.resumed()
        else:
            forward(arrival)


def drain(outputs: Sequence[Pump]) -> None:
    """The writers are dead: deliver what is left as far as the readers take it at once."""
    for pump in outputs:
        pump.drain()


def deliver(outputs: Sequence[Pump], signals: Arrivals | None) -> Arrival | None:
    """Deliver all that is left, however slow the readers are; return the signal that put an end to that."""
    drain(outputs)
    while left := [pump for pump in outputs if pump.open]:
        poll = select.poll()
        for pump in left:
            poll.register(*pump.interest())
        if signals is not None:
            poll.register(signals.fd, select.POLLIN)
            if arrival := signals.ending():
                return arrival
        poll.poll()
        drain(left)
    return None
