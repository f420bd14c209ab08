"""What core/state.py does to files: locks, whole files, directories that appear and go complete."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import time

from gocker.errors import StateError
from gocker.kernel.progress import HEADER

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
LOCK = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_LOCK = LOCK | os.O_CREAT | os.O_EXCL  # readable, too: it is mapped
PATIENCE = 5.0  # seconds to wait for a killed gocker's child to end, and for another's recovery
NAP_FIRST, NAP_LAST = 0.0005, 0.02  # seconds between two looks, doubling
START = "start"
"""The socket in a container's directory by which it is started once it has been created."""
LASTS, NEW_LASTS = "state.json", ".state.json"
"""What is known of a container that lasts; under the other name of one that does not yet, or no more."""
_FILES = (NEW_LASTS, LASTS, "plan.json", START, "lock")  # of a container, in the order of their removal
_FLOCK = struct.Struct("hhqqi4x")  # struct flock of fcntl(2), on 64-bit


def appear(containers: int, container: str, plan: bytes) -> tuple[int, int]:
    """Make the directory of a container with all that is in it; return the fd of its lock, held, and one to map.

    A mapping is a reference to what was opened: one of the lock would be held as long as the first process lives.
    """
    hidden = f".{container}"
    in_use = StateError("create container", container, "this id is in use", remedy="choose another id")
    fcntl.flock(containers, fcntl.LOCK_SH)  # the caller ends it
    try:
        os.mkdir(hidden, 0o700, dir_fd=containers)
    except FileExistsError as error:
        raise in_use from error
    lock = record = -1
    try:
        directory = os.open(hidden, DIRECTORY, dir_fd=containers)
        try:
            lock = os.open("lock", _NEW_LOCK, 0o600, dir_fd=directory)
            record = os.open("lock", LOCK, dir_fd=directory)  # to close it later would end the record lock
            fcntl.flock(lock, fcntl.LOCK_EX)
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # EAGAIN on NFS, which has only one kind
            write(lock, HEADER)
            write_file(directory, "plan.json", plan)
        finally:
            os.close(directory)
        os.rename(hidden, container, src_dir_fd=containers, dst_dir_fd=containers)
    except BaseException as error:
        remove(hidden, containers)
        for fd in (lock, record):
            if fd >= 0:
                os.close(fd)
        if isinstance(error, OSError) and error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            raise in_use from error
        raise
    return lock, record


def lasts(containers: int, container: str) -> bool:
    """Whether the container of that id lasts: it has a state.json."""
    try:
        os.stat(f"{container}/{LASTS}", dir_fd=containers, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def surely_lasts(containers: int, container: str) -> bool:
    """The same in half the time; False means nothing yet: any error is one."""
    return os.access(f"{container}/{LASTS}", os.F_OK, dir_fd=containers)


def owes(containers: int, container: str) -> bool:
    """Whether its lock holds more than the progress: something was begun, and not all of it was put on the record."""
    try:
        info = os.stat(f"{container}/lock", dir_fd=containers, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return info.st_size > len(HEADER)


def lock_if_free(fd: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Whether it could be locked at once; flock(2)."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_when_orphaned(fd: int) -> bool | None:
    """Lock it, waiting if its gocker is gone; None when that one lives, False when it takes too long."""
    deadline = time.monotonic() + PATIENCE
    nap = NAP_FIRST
    while not lock_if_free(fd):
        if has_record_lock(fd):
            return None
        if time.monotonic() > deadline:
            return False
        time.sleep(nap)
        nap = min(2 * nap, NAP_LAST)
    return True


def has_record_lock(fd: int) -> bool:
    """Whether another process has one on it: F_GETLK, fcntl(2)."""
    answer = fcntl.fcntl(fd, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    kind: int = _FLOCK.unpack(answer)[0]
    return kind != fcntl.F_UNLCK


def unlock_and_close(fd: int) -> None:
    """Closing alone would leave the lock with a process that was forked in between."""
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def write_file(directory: int, name: str, data: bytes) -> None:
    """Write a new file of 0600."""
    fd = os.open(name, _NEW_FILE, 0o600, dir_fd=directory)
    try:
        write(fd, data)
    finally:
        os.close(fd)


def write(fd: int, data: bytes) -> None:
    """All of it, however many calls it takes."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def read_lock(fd: int) -> bytes:
    """All that is in the file behind `fd`, wherever its offset is."""
    data = b""
    while part := os.pread(fd, 1 << 16, len(data)):
        data += part
    return data


def last_line(data: bytes) -> bytes:
    """The last one that is whole, empty ones apart."""
    *lines, _ = data.split(b"\n")
    return next((line for line in reversed(lines) if line), b"")


def read_file(directory: int, name: str) -> bytes | None:
    """All that is in a file; None when there is none."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    with open(fd, "rb", buffering=0) as file:
        return file.read()


def sweep(containers: int, hidden: list[str]) -> None:
    """Remove what a gocker that was killed within `create` has left, unless one is in there now."""
    if not lock_if_free(containers):
        return
    try:
        for entry in hidden:
            remove(entry, containers)
    finally:
        fcntl.flock(containers, fcntl.LOCK_UN)


def remove(entry: str, containers: int) -> None:
    """Remove a container's directory with the files that we put there; nothing else."""
    try:
        directory = os.open(entry, DIRECTORY, dir_fd=containers)
    except FileNotFoundError:
        return
    try:
        for name in _FILES:
            unlink(name, directory)
    finally:
        os.close(directory)
    with contextlib.suppress(FileNotFoundError):  # another gocker found it without a lock
        os.rmdir(entry, dir_fd=containers)


def rmdir(entry: str, containers: int) -> None:
    """Remove a container's directory if it is empty; what others put there is theirs."""
    try:
        os.rmdir(entry, dir_fd=containers)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST}:
            raise


def unlink(entry: str, directory: int) -> None:
    """Remove it; fine when it is not there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(entry, dir_fd=directory)


def link(directory: int, name: str) -> str:
    """The text of a symbolic link; "" when there is none."""
    try:
        return os.readlink(name, dir_fd=directory)
    except FileNotFoundError:
        return ""
    except OSError as error:
        if error.errno == errno.EINVAL:
            return ""
        raise
