"""The audit log as it is written: events become chained JSON lines, whole under concurrent writers.

The engine collects `Event`s while a container starts (about half a microsecond each) and hands
them over in batches; structlog is loaded for the first of those, not before. The format, the guarantees and
their limits are in docs/audit.md.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from gocker.auditchain import Head, parse_head, resume
from gocker.auditevent import Chain, Event, load_structlog, make_logger
from gocker.errors import AuditError
from gocker.kernel import caller
from gocker.paths import audit_log as default_path

__all__ = ["AuditLog", "Event", "current_actor", "default_path", "load_structlog", "mask_environment"]

MASK = "***"
_NO_ID = 4294967295  # (uid_t) -1: no login, in /proc/PID/loginuid
_SHORT_FLAGS = "itdPq"  # options without a value, which may stand before -e in one argument
_FREE = 64 << 10  # bytes; the events of one container take a few KiB
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_ELSEWHERE = "or name another file in GOCKER_AUDIT_LOG"
_REMEDIES = {
    errno.ENOSPC: f"free space on that file system {_ELSEWHERE}",
    errno.EDQUOT: f"free space within the quota {_ELSEWHERE}",
    errno.EROFS: f"mount it writable {_ELSEWHERE}",
    errno.EACCES: f"run as root {_ELSEWHERE}",
    errno.EPERM: f"look at lsattr {_ELSEWHERE}",
    errno.ELOOP: f"a symbolic link is not followed: move it away {_ELSEWHERE}",
}


def current_actor(argv: Sequence[str], loginuid: str = "") -> dict[str, Any]:
    """Who acts: `argv` is gocker's own, with the values of -e and --env masked here.

    `loginuid` is the file that says who logged in, that of the process which the user started unless given.
    """
    return {
        "uid": os.getuid(),
        "loginuid": _loginuid(loginuid or f"{caller.proc()}/loginuid"),
        "pid": caller.pid(),
        "command": mask_environment(argv),
    }


def _loginuid(path: str) -> int | None:
    """The user who logged in, through su and sudo: proc_pid_loginuid(5); None when nobody did."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # a kernel without CONFIG_AUDIT, or no /proc
        return None
    try:
        text = os.read(fd, 32)
    finally:
        os.close(fd)
    return int(text) if text.isdigit() and int(text) != _NO_ID else None


def mask_environment(argv: Sequence[str]) -> list[str]:
    """`argv` with `***` for what `-e NAME=VALUE` and its other spellings give as VALUE.

    Nothing here knows where gocker's options end and the container's command begins, so that
    arguments of the command that look alike are masked too; `--` ends it.
    """
    masked: list[str] = []
    arguments = iter(argv)
    for argument in arguments:
        if argument == "--":
            return [*masked, argument, *arguments]
        split = _after_env(argument)
        if not split:
            masked.append(argument)
        elif split < len(argument):
            masked.append(argument[:split] + _masked(argument[split:]))
        else:
            masked += [argument, *map(_masked, itertools.islice(arguments, 1))]
    return masked


def _after_env(argument: str) -> int:
    """Where the value begins in `-eA=b`, `-ite`, `--env=A=b`; 0 for any other argument."""
    if argument.startswith("--"):
        return {"--env": 5, "--env=": 6}.get(argument[:6], 0)
    flags = argument[1:]
    rest = flags.lstrip(_SHORT_FLAGS)
    return len(argument) - len(rest) + 1 if argument[:1] == "-" and rest[:1] == "e" else 0


def _masked(assignment: str) -> str:
    name, equals, _ = assignment.partition("=")
    return name + equals + (MASK if equals else "")


class AuditLog:
    """An append-only file of chained JSON lines. Nothing is open or locked between two writes."""

    def __init__(self, path: str, actor: Mapping[str, Any]) -> None:
        """`path` as from default_path(), `actor` as from current_actor()."""
        self.path = path
        self.actor = actor
        self._logger: Any = None
        self._chain = Chain()

    def prepare(self) -> None:
        """Fail now, with AuditError, where `write` would: no file, no permission, a full disk."""
        try:
            fd = self._open()
            try:
                os.close(self._open_head())
                room = os.fstatvfs(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise self._error(error) from error
        free = room.f_bavail if os.geteuid() else room.f_bfree
        if room.f_blocks and free * room.f_frsize < _FREE:  # 0 blocks: no accounting
            raise self._error(OSError(errno.ENOSPC, "less than 64 KiB are free"))

    def load(self) -> None:
        """Import structlog now rather than with the first `write`; raise AuditError when it is not there."""
        if self._logger is None:
            self._logger = make_logger(self._chain, self.actor)

    def write(self, events: Sequence[Event], *, container: str = "", plan: str = "") -> None:
        """Append `events` in order, in one write(2), under the log's lock.

        `container` is the id and `plan` the digest that they belong to, "" for none. After AuditError
        none of them is in the log. Whole lines and their order survive SIGKILL; the page
        cache is not flushed, so a crash of the machine may lose the last seconds.
        """
        if not events:
            return
        self.load()
        try:
            fd = self._open()
            try:
                head_fd = self._open_head()
                try:
                    self._append(fd, head_fd, events, container, plan)
                finally:
                    os.close(head_fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise self._error(error) from error

    def _append(self, fd: int, head_fd: int, events: Sequence[Event], container: str, plan: str) -> None:
        size = os.fstat(fd).st_size
        head = parse_head(os.pread(head_fd, 256, 0))
        start = resume(fd, size, head)
        chain = self._chain
        chain.start(start.seq, start.hash)
        if start.size < size:
            os.ftruncate(fd, start.size)
        before = Head(start.seq, start.size, start.hash)
        if before != head:
            os.pwrite(head_fd, before.pack(), 0)
        own = self._logger.bind(container="", plan="")
        if start.damage:
            own.write(Event.now("audit.damaged", "error", reason=start.damage))
        if start.repaired:
            own.write(Event.now("audit.repaired", "warning", reason=start.repaired))
        logger = self._logger.bind(container=container, plan=plan)
        for event in events:
            logger.write(event)
        data = start.prefix + b"".join(chain.lines)
        try:
            _write_all(fd, data)
            os.pwrite(head_fd, Head(chain.seq, start.size + len(data), chain.prev).pack(), 0)
        except OSError as error:
            try:
                os.ftruncate(fd, start.size)
            except OSError as second:
                error.add_note(f"the half-written batch stays in the log: {second}")
            raise

    def _open(self) -> int:
        """The log, made if need be, locked. Close it to unlock."""
        while True:
            try:
                fd = os.open(self.path, _OPEN | os.O_APPEND | os.O_CREAT, 0o600)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
                fd = os.open(self.path, _OPEN | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                if self._locked(fd):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _locked(self, fd: int) -> bool:
        opened = os.fstat(fd)
        if not stat.S_ISREG(opened.st_mode):
            raise AuditError("open audit log", self.path, "not a regular file", remedy=_ELSEWHERE[3:])
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            named = os.lstat(self.path)
        except FileNotFoundError:
            return False  # rotated away while this process waited
        return os.path.samestat(opened, named)

    def _open_head(self) -> int:
        return os.open(self.path + ".head", _OPEN | os.O_CREAT, 0o600)

    def _error(self, error: OSError) -> AuditError:
        remedy = _REMEDIES.get(error.errno or 0, f"make it writable {_ELSEWHERE}")
        wrapped = AuditError.from_os("write audit log", self.path, error, remedy=remedy)
        for note in getattr(error, "__notes__", ()):
            wrapped.add_note(note)
        return wrapped  # type: ignore[return-value]


def _write_all(fd: int, data: bytes) -> None:
    """write(2) until all is written: a short write is followed by the error that cut it short."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, data[written:])
