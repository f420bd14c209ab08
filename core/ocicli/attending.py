"""What stays with a process in the foreground: signals passed on, a terminal, its exit status."""

from __future__ import annotations

import contextlib
import os
import struct
import termios
import tty
from collections.abc import Iterator

from gocker.kernel import native
from gocker.kernel.process import pidfd_send_signal
from gocker.model import ContainerSpec
from gocker.signals import GONE, Arrival, Signals
from gocker.stdio import Attached, Inherited, attend, deliver


class Attendant:
    """Gocker's side of one process."""

    def __init__(self, streams: Attached, signals: Signals) -> None:
        """Both become its own."""
        self._streams = streams
        self._signals = signals
        self.stdio = streams.child_fds
        self.window = streams.window

    def wait(self, pid: int, pidfd: int, console: int) -> int:
        """The exit status of the process, 128 + n for a signal; `console` is its pty master, or -1. Raise GockerError."""

        def forward(arrival: Arrival) -> None:
            if arrival.number == GONE:
                os._exit(1)  # as it ends when it is killed itself: the process goes on
            with contextlib.suppress(ProcessLookupError):
                pidfd_send_signal(pidfd, arrival.number)

        self._streams.started(console)
        attend(self._streams, pidfd, self._signals, forward, None)
        deliver(self._streams.outputs, self._signals)
        status = os.waitstatus_to_exitcode(native.parent().wait(pid)[0])
        return status if status >= 0 else 128 - status


@contextlib.contextmanager
def attend_to(spec: ContainerSpec, *, terminal: bool) -> Iterator[Attendant]:
    """Be there before it starts; `terminal` says that gocker's own is its terminal."""
    streams: Attached = Inherited()
    if terminal:
        from gocker.console import Terminal

        streams = Terminal(interactive=spec.interactive and os.isatty(0))
    try:
        signals = Signals()
        try:
            yield Attendant(streams, signals)
        finally:
            signals.close()
    finally:
        streams.close()


def keep_newlines(console: int) -> None:
    """Let lines end as the program ends them where stdout is no terminal, as with runc: its own would add CR."""
    if not os.isatty(1):
        mode = termios.tcgetattr(console)
        mode[tty.OFLAG] &= ~termios.ONLCR
        termios.tcsetattr(console, termios.TCSANOW, mode)


def window_of(spec: ContainerSpec) -> bytes:
    """A struct winsize of process.consoleSize, b"" without one; ioctl_tty(2)."""
    rows, columns = spec.console_size
    return struct.pack("=4H", rows, columns, 0, 0) if rows or columns else b""
