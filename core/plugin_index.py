"""The index of installed entry points on disk: what spares a start the scan of every distribution.

What the controllers declare is in it too, as soon as all were imported once, so that later starts import only
those that they need. It holds as long as the files that their classes are in are not changed.

A file is named after its key, a digest of everything that decides what a scan would find: the
Python, the gocker, and each `sys.path` entry with its modification time. What the digest cannot see
(entry points rewritten inside an existing egg-info directory) is listed in the file as `watched`
and compared. The file decides which code a root process imports, so it is believed only where
nobody else can have written it; in every other case it is as if it were not there.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from gocker import __version__
from gocker.digest import sha256
from gocker.paths import data_root
from gocker.record import Record

_FORMAT = 1
_MAX_BYTES = 1 << 20
_KEPT = 16  # files: environments that share one data directory, and each one's past
# A directory changed twice within one tick of the clock that stamps it shows one time for both. Ticks
# are up to 10 ms on ext4 and up to 2 s on vfat; a younger directory is not indexed (as in racy git).
_RACY_NS = 2_000_000_000


class Entry(Record):
    """One entry point as found; nothing of it is imported yet."""

    group: str
    name: str
    value: str  # "module:attr"
    distribution: str
    version: str
    problem: str = ""  # why it cannot even be looked at; "" when it can


class Found(Record):
    """What a scan of the installed distributions finds."""

    entries: tuple[Entry, ...]
    watched: tuple[str, ...] = ()  # metadata files whose change no `sys.path` directory shows


class Declared(Record):
    """What a start must know of every controller before it knows which ones it needs."""

    standing: tuple[str, ...]  # those that every container is in
    claims: dict[str, tuple[str, ...]]  # OCI path -> who claims it
    watched: tuple[str, ...]  # the source files that say so


def default_directory() -> str:
    """Where the index lies: GOCKER_ROOT/cache/entry-points; raise UsageError as `data_root` does."""
    return f"{data_root()}/cache/entry-points"


class PluginIndex:
    """Reads and writes one environment's index file in `directory` (mode 0700, of the effective user)."""

    def __init__(
        self,
        directory: str,
        path: Sequence[str] | None = None,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        """`path` is `sys.path` unless given; `now` is in nanoseconds since the epoch."""
        self.directory = directory
        self.watched: tuple[str, ...] = ()
        """After `read`: as it was found."""
        self.declared: Declared | None = None
        """After `read`: what the controllers declare, if that is known and current."""
        self.problem = ""
        """Why the last `read` or `write` went without the index; "" when it did not."""
        self._now = now
        self._path = sys.path if path is None else path
        self._times = self._stat_path()
        self._name = _digest(self._times) + ".json"

    def read(self) -> tuple[Entry, ...] | None:
        """The entries as last written; None when there is no index that is sound, private and current."""
        import json

        self.problem = ""
        try:
            folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                self.problem = _not_private(os.fstat(folder), self.directory)
                raw = b"" if self.problem else self._read_file(folder)
            finally:
                os.close(folder)
            return None if self.problem else self._decode(json.loads(raw))
        except OSError as error:
            self.problem = f"{error.strerror}: {self.directory}"
        except (ValueError, RecursionError):
            self.problem = f"malformed: {self.directory}/{self._name}"
        return None

    def write(self, found: Found, declared: Declared | None = None) -> bool:
        """Keep what a scan found, and what the controllers declare; False, with `problem` set, when it cannot or must not be kept.

        Never raises: without an index a start is slower, not wrong.
        """
        self.problem = self._unsettled(declared.watched if declared else ())
        if self.problem:
            return False
        import json

        data: dict[str, Any] = {
            "format": _FORMAT,
            "watched": [[path, _mtime(path)] for path in found.watched],
            "entries": [list(entry.asdict().values()) for entry in found.entries],
        }
        if declared:
            data["declared"] = {
                "watched": [[path, _mtime(path)] for path in declared.watched],
                "standing": list(declared.standing),
                "claims": {path: list(names) for path, names in declared.claims.items()},
            }
        try:
            _make_directories(self.directory)
            folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                return self._replace(folder, json.dumps(data).encode("ascii"))
            finally:
                os.close(folder)
        except OSError as error:
            self.problem = f"{error.strerror}: {self.directory}"
            return False

    def _decode(self, data: Any) -> tuple[Entry, ...] | None:
        entries = _decode(data)
        if entries is not None:
            self.watched = tuple(path for path, _ in data["watched"])
            names = {entry.name for entry in entries}
            self.declared = _decode_declared(data.get("declared"), names)
        return entries

    def _stat_path(self) -> list[tuple[str, int]]:
        """(absolute path, mtime_ns) of each entry of the path that exists, in order."""
        times = []
        for entry in self._path:
            path = entry if entry.startswith("/") else os.path.join(os.getcwd(), entry)
            mtime = _mtime(path)
            if mtime >= 0:
                times.append((path, mtime))
        return times

    def _unsettled(self, files: tuple[str, ...]) -> str:
        """Why what was found may not be what the key, and the times of `files`, stand for."""
        if self._stat_path() != self._times:
            return "the installed distributions changed during the scan"
        now = self._now()
        for path, mtime in (*self._times, *((file, _mtime(file)) for file in files)):
            if abs(now - mtime) < _RACY_NS:
                return f"{path} was changed within the last two seconds"
        return ""

    def _read_file(self, folder: int) -> bytes:
        # O_NONBLOCK: whatever stands there, a FIFO included, must not stop a start.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(self._name, flags, dir_fd=folder)
        try:
            status = os.fstat(fd)
            self.problem = _not_private(status, f"{self.directory}/{self._name}")
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
                self.problem = f"not an index: {self.directory}/{self._name}"
            return b"" if self.problem else os.read(fd, _MAX_BYTES)
        finally:
            os.close(fd)

    def _replace(self, folder: int, data: bytes) -> bool:
        status = os.fstat(folder)
        if status.st_uid != os.geteuid():
            self.problem = _not_private(status, self.directory)
            return False
        if stat.S_IMODE(status.st_mode) != 0o700:
            os.fchmod(folder, 0o700)
        draft = f"{self._name}.{os.urandom(6).hex()}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(draft, flags, 0o600, dir_fd=folder)
        try:
            try:
                os.fchmod(fd, 0o600)  # whatever the umask
                while data:
                    data = data[os.write(fd, data) :]
            finally:
                os.close(fd)
            os.rename(draft, self._name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            os.unlink(draft, dir_fd=folder)
            raise
        _prune(folder)
        return True


class ReadOnlyIndex(PluginIndex):
    """For commands that touch nothing: believes an index that is there, and makes none."""

    def write(self, found: Found, declared: Declared | None = None) -> bool:
        """Keep nothing."""
        self.problem = "not to be written"
        return False


def _digest(times: list[tuple[str, int]]) -> str:
    lines = [f"{_FORMAT} {sys.implementation.cache_tag} {sys.version} gocker {__version__}"]
    lines += [f"{mtime} {path}" for path, mtime in times]
    return sha256(os.fsencode("\0".join(lines))).hexdigest()


def _mtime(path: str) -> int:
    """In nanoseconds; -1 when there is nothing."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return -1


def _not_private(status: os.stat_result, path: str) -> str:
    """Why somebody but this user may have written it, or "".

    A second hard link would let a file of ours from elsewhere stand in for the index.
    """
    if status.st_uid != os.geteuid():
        return f"owned by uid {status.st_uid}, not {os.geteuid()}: {path}"
    if stat.S_IMODE(status.st_mode) & 0o077:
        return f"mode {stat.S_IMODE(status.st_mode):04o} lets others in: {path}"
    if stat.S_ISREG(status.st_mode) and status.st_nlink != 1:
        return f"has {status.st_nlink} hard links: {path}"
    return ""


def _decode(data: Any) -> tuple[Entry, ...] | None:
    """The entries of a file's JSON; None when a watched file changed, ValueError on another shape."""
    try:
        if data["format"] != _FORMAT:
            raise ValueError("another format")
        for path, mtime in data["watched"]:
            if type(path) is not str:
                raise ValueError("not a path")
            if _mtime(path) != mtime:
                return None
        rows = data["entries"]
        if not all(type(row) is list and len(row) == 6 and set(map(type, row)) == {str} for row in rows):
            raise ValueError("not an entry")
        return tuple([Entry(*row) for row in rows])
    except (KeyError, TypeError) as error:
        raise ValueError("another shape") from error


def _decode_declared(data: Any, installed: set[str]) -> Declared | None:
    """None when it is not known or not current, ValueError on another shape."""
    if data is None:
        return None
    try:
        watched = tuple([path for path, mtime in data["watched"] if _mtime(path) == mtime])
        claims = {path: tuple(names) for path, names in data["claims"].items()}
        standing = tuple(data["standing"])
        if len(watched) != len(data["watched"]):
            return None
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("another shape") from error
    if not installed.issuperset(standing) or not all(map(installed.issuperset, claims.values())):
        raise ValueError("names that are not installed")
    return Declared(standing, claims, watched)


def _make_directories(path: str) -> None:
    """Like makedirs, each new level 0700 (os.makedirs gives its mode to the last alone)."""
    if not os.path.isdir(path):
        _make_directories(os.path.dirname(path) or "/")
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:  # another gocker was first, or it is no directory: opening it will tell
            return


def _prune(folder: int) -> None:
    """Forget the oldest files beyond _KEPT; drafts that a kill left are among them."""
    names = os.listdir(folder)
    if len(names) <= _KEPT:
        return
    aged = []
    for name in names:
        try:
            aged.append((os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime_ns, name))
        except FileNotFoundError:  # another gocker prunes too
            continue
    for _, name in sorted(aged)[:-_KEPT]:
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            continue
