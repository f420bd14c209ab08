"""The log of one command: the file that --log names, in lines as engines read them."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time

from gocker.cli.show import show_warning
from gocker.errors import GockerError

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC


class RuntimeLog:
    """A file, or none."""

    def __init__(self) -> None:
        """Without a file."""
        self._path = ""
        self._json = False

    def go_to(self, path: str, *, as_json: bool) -> None:
        """Log there from now on."""
        self._path, self._json = path, as_json

    def error(self, error: GockerError) -> None:
        """One line for callers that look for the C library's words, as podman and docker do."""
        message = str(error)
        if error.errno:
            words = os.strerror(error.errno)
            message = message.replace(words, words.lower())
            if words.lower() not in message:
                message = f"{message}: {words.lower()}"
        self._write("error", message)

    def warn(self, text: str) -> None:
        """Into the file, else onto stderr. Podman reads a JSON log as one document: that is for the error."""
        if not self._path:
            show_warning(text)
        elif not self._json:
            self._write("warning", text)

    def debug(self, text: str) -> None:
        """With --debug: into the file, else onto stderr."""
        if not os.environ.get("GOCKER_DEBUG"):
            return
        if self._path:
            self._write("debug", text)
        else:
            with contextlib.suppress(OSError):
                print(f'time="{_now()}" level=debug msg={json.dumps(text)}', file=sys.stderr)

    def _write(self, level: str, message: str) -> None:
        if not self._path:
            return
        now = _now()
        if self._json:
            line = json.dumps({"level": level, "msg": message, "time": now}, separators=(",", ":"))
        else:
            line = f'time="{now}" level={level} msg={json.dumps(message)}'
        with contextlib.suppress(OSError):  # stderr has it
            fd = open_log(self._path)
            try:
                os.write(fd, f"{line}\n".encode())
            finally:
                os.close(fd)


def open_log(path: str) -> int:
    """To append to; nothing waits for whoever reads a pipe. Raise OSError; ENXIO when nobody reads it, fifo(7)."""
    return os.open(path, _FLAGS, 0o644)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


LOG = RuntimeLog()
