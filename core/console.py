"""The terminal of `-t`: gocker's side of the container's pty, and the state of gocker's own terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import termios
import tty

from gocker.errors import GockerError, UsageError
from gocker.pump import Pump

_TIOCGPTPEER = 0x5441  # asm-generic/ioctls.h; the same on x86-64 and arm64


class Terminal:
    """One pseudo-terminal for all three streams; gocker's own passes bytes on unchanged while the program runs."""

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
        self._own = 0 if interactive else 1  # gocker's terminal
        self._saved: list[int | list[bytes | int]] | None = None
        self._master = self._slave = -1
        self._pumps: list[Pump] = []
        self.window = _window()

    @property
    def child_fds(self) -> tuple[int, int, int]:
        """Nothing yet: init puts its console in their place."""
        return self._null, self._null, self._null

    def started(self, console: int) -> None:
        """Take the pty master that init sent; take over gocker's own terminal."""
        self._master = console
        # Held open: a program may close its terminal and open it again, and EIO is no end meanwhile.
        flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
        self._slave = fcntl.ioctl(console, _TIOCGPTPEER, flags)
        if _window() != self.window:
            self.window_changed()
        self._pumps = [Pump("terminal", os.dup(console), 1)]
        with contextlib.suppress(termios.error):  # not a terminal; or it hung up: the pump sees that, too
            self._saved = termios.tcgetattr(self._own)
            self._take_over()
        if self._interactive:
            stdin = Pump("stdin", os.dup(0), os.dup(console), owned=True, at_end=self._hang_up)
            self._pumps.append(stdin)

    @property
    def pumps(self) -> list[Pump]:
        """Those still open."""
        return [pump for pump in self._pumps if pump.open]

    @property
    def outputs(self) -> list[Pump]:
        """That of what the program wrote."""
        return [pump for pump in self.pumps if pump.name != "stdin"]

    @property
    def error(self) -> GockerError | None:
        """The first one."""
        return next((pump.error for pump in self._pumps if pump.error), None)

    def window_changed(self) -> None:
        """Give the program the size of the terminal that gocker has; ioctl_tty(2)."""
        self.window = _window()
        if self.window and self._master >= 0:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, self.window)

    def resumed(self) -> None:
        """The shell that gocker was stopped in has set the terminal its own way."""
        if self._saved is not None:
            with contextlib.suppress(termios.error):
                self._take_over()
        self.window_changed()

    def _take_over(self) -> None:
        """Keys go to the program as they are; what it writes has been through its own terminal already."""
        if self._interactive:
            tty.setraw(self._own, termios.TCSANOW)
        else:
            mode = termios.tcgetattr(self._own)
            mode[tty.OFLAG] &= ~termios.OPOST
            termios.tcsetattr(self._own, termios.TCSANOW, mode)

    def _hang_up(self) -> None:
        """Gocker's terminal has gone (raw, it has no key for an end): so goes the program's."""
        for pump in self.outputs:
            pump.drain()
            pump.close()
        self._close_pty()

    def _close_pty(self) -> None:
        for fd in (self._master, self._slave):
            if fd >= 0:
                os.close(fd)
        self._master = self._slave = -1

    def close(self) -> None:
        """Restore gocker's terminal and give everything back, whatever happened."""
        if self._saved is not None:
            # At once: to wait for the output (TCSADRAIN) could be for ever, and it is written as it should be.
            with contextlib.suppress(termios.error):  # it has hung up
                termios.tcsetattr(self._own, termios.TCSANOW, self._saved)
            self._saved = None
        for pump in self.pumps:
            pump.close()
        self._close_pty()
        if self._null >= 0:
            os.close(self._null)
            self._null = -1


def _window() -> bytes:
    """The struct winsize of the first of gocker's streams that is a terminal, b"" when none is."""
    for fd in (0, 1, 2):
        if os.isatty(fd):
            return fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8)
    return b""
