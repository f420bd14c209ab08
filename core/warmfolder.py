"""The folder of the warm server in the state directory: its socket, and the lock that says whether it lives.

GOCKER_STATE/warm/lock    record lock (fcntl(2)) of the server, which no child of it inherits; says who it is
GOCKER_STATE/warm/socket  where its workers listen
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import struct
from typing import Any

from gocker.errors import StateError
from gocker.record import Record

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of fcntl(2), on 64-bit
_LOCK = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST = 4096  # bytes of the lock's content


class Server(Record):
    """What a server says of itself."""

    pid: int
    version: str
    program: str  # the client that it works for
    started: int  # seconds since the epoch
    idle_timeout: float  # seconds


class WarmFolder:
    """The folder below one state directory."""

    def __init__(self, state: str) -> None:
        """`state` is an absolute path, as of paths.state_root()."""
        self.path = f"{state}/warm"
        self.socket = f"{self.path}/socket"
        self._lock = -1

    def take(self) -> bool:
        """Make it and become its server; False when there is one. Raise StateError."""
        try:
            os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.path, 0o700)
            self._check()
            while True:
                fd = os.open(f"{self.path}/lock", _LOCK | os.O_CREAT, 0o600)
                try:
                    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    os.close(fd)
                    if error.errno in {errno.EAGAIN, errno.EACCES}:
                        return False
                    raise
                if os.fstat(fd).st_nlink:  # else one that has just gone removed it
                    break
                os.close(fd)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.socket)  # of one that was killed
        except OSError as error:
            raise StateError.from_os("make folder of the warm server", self.path, error) from error
        self._lock = fd
        return True

    def _check(self) -> None:
        """Others could stand in for the server."""
        info = os.lstat(self.path)
        for place, status in (
            (os.path.dirname(self.path), os.stat(os.path.dirname(self.path))),
            (self.path, info),
        ):
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                raise StateError(
                    "use folder of the warm server",
                    place,
                    "others own it or may write to it",
                    remedy="chown and chmod 0700 it, or set GOCKER_STATE to a directory of your own",
                )
        if info.st_mode & 0o7777 != 0o700:
            os.chmod(self.path, 0o700)

    def describe(self, server: Server) -> None:
        """Say who is at work. Only after `take`."""
        os.pwrite(self._lock, json.dumps(server.asdict()).encode("ascii"), 0)

    def release(self) -> None:
        """Take all away, and the lock last but one: a server that comes meanwhile makes its own."""
        for name in ("socket", "lock"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.path}/{name}")
        with contextlib.suppress(OSError):  # another server's is in it
            os.rmdir(self.path)
        self.forget()

    def forget(self) -> None:
        """Let go of it, in a child of the server."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def server(self) -> tuple[int, Server | None]:
        """(pid of the server, what it says of itself); (0, None) when there is none. Raise StateError."""
        try:
            fd = os.open(f"{self.path}/lock", _LOCK)
        except FileNotFoundError:
            return 0, None
        except OSError as error:
            raise StateError.from_os("look for the warm server in", self.path, error) from error
        try:
            query = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, query))
            if kind == fcntl.F_UNLCK:
                return 0, None
            return int(pid), _parse(os.pread(fd, _MOST, 0))
        finally:
            os.close(fd)


def _parse(data: bytes) -> Server | None:
    try:
        fields: dict[str, Any] = json.loads(data)
        return Server(**fields)
    except (ValueError, TypeError):  # it is just starting
        return None
