"""A hold on one container's run-time state: what this gocker may do with it while nobody else does."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gocker import statefiles as files
from gocker.kernel.progress import HEADER, read_progress

if TYPE_CHECKING:
    from gocker.state import State

own: set[str] = set()
"""Paths of the containers that this process itself has claims on: none of them is abandoned, and to
open and close the lock of one would drop its record lock."""


class Claim:
    """A container that this gocker answers for: its lock is ours until `release` or `close`."""

    def __init__(
        self,
        state: State,
        container: str,
        name: str,
        plan: bytes,
        lock: int,
        *,
        record: bytes = HEADER,
        busy: bool = False,
    ) -> None:
        """`name` is "" when another gocker made the container; `lock` is an fd and becomes ours."""
        self.id = container
        self.name = name
        self.plan = plan
        self.owed = files.last_line(record[len(HEADER) :])  # what the gocker that made it last gave to `owe`
        self.progress = read_progress(record)  # how far its first process got
        self.fd = -1  # of the file that begins with the first process's progress, of a new container
        self.known = b""  # of one that is abandoned: what was to be known of it, or had been
        self.busy = busy  # the lock is not ours after all
        self._state = state
        self._lock = lock
        own.add(state._path(container))

    def owe(self, events: bytes) -> None:
        """Leave `events`, a line, to the next gocker, should this one not get to write them to the audit log.

        It takes 2 us: one write(2), of which a kill leaves all or what `_last_line` does not take. Raise
        StateError.
        """
        try:
            os.lseek(self._lock, 0, os.SEEK_END)  # the progress stays
            files.write(self._lock, b"\n%b\n" % events)
        except OSError as error:
            raise self._state._error("write state of", self.id, error) from error
        self.owed = events

    def settle(self) -> None:
        """Nothing is owed any more. Raise StateError."""
        try:
            os.ftruncate(self._lock, len(HEADER))
        except OSError as error:
            raise self._state._error("write state of", self.id, error) from error
        self.owed = b""

    def look(self) -> int | None:
        """How far the first process has got by now, as `progress`. Raise StateError."""
        try:
            return read_progress(os.pread(self._lock, len(HEADER), 0))
        except OSError as error:
            raise self._state._error("read state of", self.id, error) from error

    def made(self) -> int:
        """When the container's plan was put on disk, in ns. Raise OSError."""
        return os.stat(f"{self._state._path(self.id)}/plan.json").st_mtime_ns

    @property
    def directory(self) -> str:
        """Where all this is."""
        return self._state._path(self.id)

    def describe(self, description: bytes) -> None:
        """Put down what will be known of the container once it lasts: `last` follows. Raise StateError."""
        with self._directory("write state of") as directory:
            files.unlink(files.NEW_LASTS, directory)
            files.write_file(directory, files.NEW_LASTS, description)

    def last(self, description: bytes = b"") -> None:
        """Let the container outlive this gocker, or change what is known of one that does. Raise StateError.

        Without a `description` it is the one that `describe` put down, or that `end` took from it.
        """
        if description:
            self.describe(description)
        with self._directory("write state of") as directory:
            os.rename(files.NEW_LASTS, files.LASTS, src_dir_fd=directory, dst_dir_fd=directory)

    def end(self) -> None:
        """It lasts no more: until `release` it is this gocker's, and of the next one if this one is killed.

        Nothing happens to one that does not last. Raise StateError.
        """
        with self._directory("write state of") as directory, contextlib.suppress(FileNotFoundError):
            os.rename(files.LASTS, files.NEW_LASTS, src_dir_fd=directory, dst_dir_fd=directory)

    @contextlib.contextmanager
    def _directory(self, operation: str) -> Iterator[int]:
        directory = self._state._directory(self.id)
        try:
            yield directory
        except OSError as error:
            raise self._state._error(operation, self.id, error) from error
        finally:
            os.close(directory)

    def release(self) -> None:
        """Forget the container, of which nothing is left to undo. Once done, this does nothing more.

        Raise StateError when its files cannot be removed; the lock is given up all the same, so that
        a later gocker tries again.
        """
        if self._lock < 0 or self.busy:
            return
        try:
            self._give_up_name()
            containers = self._state._open("containers")
            try:
                files.remove(self.id, containers)
            finally:
                os.close(containers)
        except FileNotFoundError:
            pass  # somebody has removed the state directory: nothing is left of it
        except OSError as error:
            raise self._state._error("remove state of", self.id, error) from error
        finally:
            self.close()

    def close(self) -> None:
        """Give up the lock alone: the next `abandoned` finds the container."""
        if self._lock >= 0:
            lock, self._lock = self._lock, -1
            own.discard(self._state._path(self.id))
            if self.busy:
                os.close(lock)
            else:
                files.unlock_and_close(lock)
            if self.fd >= 0:
                fd, self.fd = self.fd, -1
                os.close(fd)

    def _give_up_name(self) -> None:
        try:
            names = self._state._open("names")
        except FileNotFoundError:
            return
        try:
            fcntl.flock(names, fcntl.LOCK_EX)
            for name in (self.name,) if self.name else os.listdir(names):
                if files.link(names, name) == self.id:
                    files.unlink(name, names)
        finally:
            files.unlock_and_close(names)
