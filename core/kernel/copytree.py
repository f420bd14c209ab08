"""Copies a directory tree that nobody trusts into one of gocker's own: by fd, in one mount, following no link."""

from __future__ import annotations

import errno
import os
import stat

from gocker.kernel.inroot import SAME_MOUNT, openat2

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PART = 1 << 20  # bytes at a time
_MOST = 100_000  # entries: what is copied lies in memory


def copy_tree(source: int, target: int) -> None:
    """Copy what is in the directory behind `source` to that behind `target`, with owners and modes.

    Both fds may be O_PATH. Mount points below `source` are left out, and so are devices and sockets. Raise OSError.
    """
    pending = [""]
    count = 0
    while pending:
        path = pending.pop()
        here, there = (openat2(fd, path or ".", _DIRECTORY, SAME_MOUNT) for fd in (source, target))
        try:
            for name in os.listdir(here):
                count += 1
                if count > _MOST:
                    raise OSError(errno.ENOSPC, f"more than {_MOST} entries")
                if _copy_entry(here, there, name):
                    pending.append(f"{path}/{name}".lstrip("/"))
            _copy_owner(os.fstat(here), there)
        finally:
            os.close(here)
            os.close(there)


def _copy_entry(here: int, there: int, name: str) -> bool:
    """Copy one; True when it is a directory that was made, and whose content is still to come."""
    status = os.stat(name, dir_fd=here, follow_symlinks=False)
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR:
        if status.st_dev != os.fstat(here).st_dev:
            return False
        os.mkdir(name, 0o700, dir_fd=there)
        return True
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=here), name, dir_fd=there)
    elif kind == stat.S_IFIFO:
        os.mkfifo(name, stat.S_IMODE(status.st_mode), dir_fd=there)
    elif kind == stat.S_IFREG:
        _copy_file(here, there, name)
        return False
    else:
        return False
    os.chown(name, status.st_uid, status.st_gid, dir_fd=there, follow_symlinks=False)
    return False


def _copy_file(here: int, there: int, name: str) -> None:
    source = os.open(name, _READ, dir_fd=here)
    try:
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode):
            return  # it was exchanged
        target = os.open(name, _NEW, 0o600, dir_fd=there)
        try:
            while os.sendfile(target, source, None, _PART):
                pass
            _copy_owner(status, target)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _copy_owner(status: os.stat_result, target: int) -> None:
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
