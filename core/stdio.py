"""The container's standard streams: pipes or a terminal, and the signals that are passed on."""

from __future__ import annotations

import os
import select
import signal
import termios
import time
import tty
from collections.abc import Callable
from fcntl import ioctl

from gocker.errors import UsageError
from gocker.pump import Pump

_NOT_FORWARDED = {
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGCHLD,  # about gocker's own children
    signal.SIGPIPE,  # about gocker's own stdout
    signal.SIGWINCH,  # becomes a window size
    signal.SIGURG,
    *(
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGABRT,
        signal.SIGTRAP,
        signal.SIGSYS,
    ),
    *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT),  # job control of gocker's own shell
}


class Streams:
    """Without a terminal: stdout and stderr in pipes of their own, stdin in one with `-i`, else /dev/null."""

    def __init__(self, *, interactive: bool) -> None:
        self._pumps: list[Pump] = []
        self._inside: list[int] = []
        if interactive:
            read, write = os.pipe2(os.O_CLOEXEC)
            self._inside.append(read)
            self._pumps.append(Pump(os.dup(0), write, close_target=True))
        else:
            self._inside.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        for target in (1, 2):
            read, write = os.pipe2(os.O_CLOEXEC)
            self._inside.append(write)
            self._pumps.append(Pump(read, target))

    @property
    def child_fds(self) -> tuple[int, int, int]:
        """What becomes 0, 1 and 2 of the program."""
        stdin, stdout, stderr = self._inside
        return stdin, stdout, stderr

    def started(self, console: int) -> None:
        """The child has its own copies: close ours, so that the end of its output is seen."""
        assert console < 0  # noqa: S101 - only a terminal has one
        for fd in self._inside:
            os.close(fd)
        self._inside = []

    @property
    def pumps(self) -> list[Pump]:
        """Those still open."""
        return [pump for pump in self._pumps if pump.open]

    def window_changed(self) -> None:
        """Pipes have no window."""

    def finish(self) -> None:
        """All writers have ended: deliver what is left."""
        for pump in self.pumps:
            if pump.target in (1, 2):
                pump.drain()

    def close(self) -> None:
        """Give everything back, whatever happened."""
        for fd in self._inside:
            os.close(fd)
        self._inside = []
        for pump in self.pumps:
            pump.close()


class Terminal:
    """With `-t`: one pseudo-terminal; gocker's own terminal is raw while the program runs."""

    def __init__(self, *, interactive: bool) -> None:
        """Raise UsageError when input is asked for and there is no terminal to read it from."""
        if interactive and not os.isatty(0):
            raise UsageError(
                "attach terminal",
                "stdin",
                "not a terminal",
                remedy="leave out -t to pipe input, or -i for none",
            )
        self._interactive = interactive
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._saved: list[int | list[bytes | int]] | None = None
        self._master = -1
        self._pumps: list[Pump] = []

    @property
    def child_fds(self) -> tuple[int, int, int]:
        """Nothing yet: init puts its console in their place."""
        return self._null, self._null, self._null

    def started(self, console: int) -> None:
        """Take the pty master that init sent; go raw when the input is a terminal."""
        self._master = console
        self.window_changed()
        self._pumps = [Pump(os.dup(console), 1)]
        if self._interactive:
            self._saved = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSANOW)
            self._pumps.append(Pump(os.dup(0), os.dup(console), close_target=True))

    @property
    def pumps(self) -> list[Pump]:
        """Those still open."""
        return [pump for pump in self._pumps if pump.open]

    def window_changed(self) -> None:
        """Give the program the size of the terminal that gocker has, ioctl_tty(2)."""
        for fd in (0, 1, 2):
            if self._master >= 0 and os.isatty(fd):
                ioctl(self._master, termios.TIOCSWINSZ, ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8))
                return

    def finish(self) -> None:
        """The program has ended: deliver what is left on the master."""
        if self._pumps and self._pumps[0].open:
            self._pumps[0].drain()

    def close(self) -> None:
        """Restore gocker's terminal and give everything back, whatever happened."""
        if self._saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)
            self._saved = None
        for pump in self.pumps:
            pump.close()
        for fd in (self._master, self._null):
            if fd >= 0:
                os.close(fd)
        self._master = self._null = -1


class Signals:
    """While open, signals that reach gocker are kept for the program instead of acting on gocker."""

    def __init__(self) -> None:
        self.read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._old_wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._old = {
            number: signal.signal(number, lambda *_: None)
            for number in (*(signal.valid_signals() - _NOT_FORWARDED), signal.SIGWINCH)
            if signal.getsignal(number) is not None and _catchable(number)
        }

    def take(self) -> bytes:
        """The numbers of the signals that came, one byte each."""
        try:
            return os.read(self.read, 4096)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Restore what was."""
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        os.close(self.read)
        os.close(self._write)


def _catchable(number: int) -> bool:
    return number < 32 or signal.SIGRTMIN <= number <= signal.SIGRTMAX


def attend(
    streams: Streams | Terminal,
    pidfd: int,
    signals: Signals | None,
    forward: Callable[[int], None],
    deadline: float | None,
) -> bool:
    """Move bytes and pass on signals until the process behind `pidfd` ends; True when `deadline` came first.

    `deadline` is a time.monotonic() value in seconds.
    """
    while True:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if signals is not None:
            poll.register(signals.read, select.POLLIN)
        waiting = {}
        for pump in streams.pumps:
            fd, mask = pump.interest()
            waiting[fd] = pump
            poll.register(fd, mask)
        timeout = None if deadline is None else max(0, (deadline - time.monotonic()) * 1000)
        ready = poll.poll(timeout)
        if not ready and deadline is not None and time.monotonic() >= deadline:
            return True
        for fd, _ in ready:
            if fd in waiting:
                waiting[fd].step()
            elif signals is not None and fd == signals.read:
                for number in signals.take():
                    if number == signal.SIGWINCH:
                        streams.window_changed()
                    else:
                        forward(number)
        if any(fd == pidfd for fd, _ in ready):
            return False
