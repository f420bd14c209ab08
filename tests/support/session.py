"""A person at a terminal: a pty with a program on it, keys pressed, what the screen shows, its settings."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from typing import Any

from command import SLOWNESS


class Session:
    """`argv` as the leader of a session that has a terminal of `rows` and `columns`.

    `stdin`, `stdout` and `stderr` replace the terminal where they are given.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        rows: int = 24,
        columns: int = 80,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.screen = b""
        self._master, slave = pty.openpty()
        self.resize(rows, columns)
        self.before = self.settings()
        fds = [slave if fd is None else fd for fd in (stdin, stdout, stderr)]
        self.process = subprocess.Popen(
            argv,
            stdin=fds[0],
            stdout=fds[1],
            stderr=fds[2],
            env={**os.environ, **(env or {})},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads here
        )
        self._slave = slave  # open, so that the settings can be read after the end

    def settings(self) -> list[Any]:
        """What tcgetattr(3) says of the terminal; the same at both ends."""
        return list(termios.tcgetattr(self._master))

    def is_raw(self) -> bool:
        """Whether keys go through as they are: no line editing, no echo, no signals."""
        flags = termios.tcgetattr(self._master)[3]
        return not flags & (termios.ICANON | termios.ECHO | termios.ISIG)

    def restore(self) -> None:
        """Give it the settings that it had in the beginning."""
        termios.tcsetattr(self._master, termios.TCSANOW, self.before)

    def resize(self, rows: int, columns: int) -> None:
        """Give the window another size; the kernel sends SIGWINCH."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("=4H", rows, columns, 0, 0))

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._master, keys.encode())

    def expect(self, text: str, patience: float = 20) -> str:
        """Read until the screen has shown `text` since the last call; return what came up to it."""
        wanted, deadline = text.encode(), time.monotonic() + patience * SLOWNESS
        while wanted not in self.screen:
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"no {text!r} in {self.screen!r}, exit status {self.process.poll()}")
        shown, _, self.screen = self.screen.partition(wanted)
        return (shown + wanted).decode(errors="surrogateescape")

    def wait(self, patience: float = 20) -> int:
        """Its exit status; reads the screen meanwhile."""
        deadline = time.monotonic() + patience * SLOWNESS
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"it goes on: {self.screen!r}")
            self._read(0.02)
        while self._read(0):
            pass
        return self.process.returncode

    def wait_until_raw(self) -> None:
        """Until gocker has the terminal."""
        deadline = time.monotonic() + 20 * SLOWNESS
        while not self.is_raw():
            assert time.monotonic() < deadline, "never raw"
            assert self.process.poll() is None, self.screen
            self._read(0.01)

    def hang_up(self) -> None:
        """Close the window."""
        for fd in (self._slave, self._master):
            if fd >= 0:
                os.close(fd)
        self._slave = self._master = -1

    def close(self) -> None:
        """End what still runs, and give the terminal back."""
        self.hang_up()
        try:
            self.process.wait(5 * SLOWNESS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _read(self, patience: float) -> bool:
        if not select.select([self._master], [], [], max(0, patience))[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:
            return False
        self.screen += data
        return bool(data)
