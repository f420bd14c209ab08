"""Removal of a directory tree that a container may have filled: by fd, level by level, in one mount."""

from __future__ import annotations

import contextlib
import errno
import os

from gocker.kernel.syscalls import call

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_XDEV = 0x01  # RESOLVE_NO_XDEV, linux/openat2.h: bind mounts of the same file system count too
_HOW = b"".join(word.to_bytes(8, "little") for word in (_FLAGS, 0, _NO_XDEV))  # struct open_how
_RESCANS = 100  # of directories that something still fills


class _Level:
    """A directory on the way down: its name, its identity, and what in it is yet to go."""

    def __init__(self, name: str, fd: int, pending: list[str]) -> None:
        self.name = name
        self.identity = _identity(fd)
        self.pending = pending


def remove_tree(parent: int | str, name: str) -> None:
    """Remove `name` and all below it; fine when it, or a part of it, is already gone.

    `parent` is the fd or the path of the directory that holds it. Symbolic links are removed, never
    followed; only one directory is open at a time, however deep the tree is. A mount point below is
    refused with EBUSY (EXDEV if it became one meanwhile), so that what is mounted there stays whole. Raise OSError that names
    the path below `parent`. Source: openat2(2).
    """
    if name in {"", ".", ".."} or "/" in name:
        raise ValueError(f"not the name of a directory entry: {name!r}")
    try:
        here = os.dup(parent) if isinstance(parent, int) else os.open(parent, _FLAGS)
    except FileNotFoundError:
        return
    levels = [_Level("", here, [name])]  # of `parent` only `name` is of interest
    rescans = _RESCANS
    emptied = False  # whether we have just come up from the directory that is next to go
    try:
        while levels[0].pending:
            pending = levels[-1].pending
            if not pending:
                levels.pop()
                here = _move(here, "..")
                _require(here, levels[-1].identity)
                emptied = True
                continue
            if _remove(here, pending[-1]):
                pending.pop()
            else:
                rescans = _count_down(rescans) if emptied else rescans
                try:
                    here = _move(here, pending[-1])
                except FileNotFoundError:
                    continue  # gone since; the next look sees it
                levels.append(_Level(pending[-1], here, _remove_files(here)))
            emptied = False
    except OSError as error:
        at = "/".join([*(level.name for level in levels[1:]), *levels[-1].pending[-1:]])
        raise OSError(error.errno, error.strerror, at) from error
    finally:
        os.close(here)


def _move(directory: int, name: str) -> int:
    """Open `name` in `directory` in its place."""
    fd = call("openat2", directory, os.fsencode(name), _HOW, len(_HOW))
    os.close(directory)
    return fd


def _remove(directory: int, name: str) -> bool:
    """Whether `name` is gone; False when it is a directory with something in it."""
    try:
        os.rmdir(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        _unlink(directory, name)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            return False
        raise
    return True


def _remove_files(directory: int) -> list[str]:
    """Remove all but the directories in `directory`; return these."""
    directories = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            else:
                _unlink(directory, entry.name)
    return directories


def _unlink(directory: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _require(fd: int, identity: tuple[int, int]) -> None:
    """That `..` led to where we came from: else the directory was moved, and what is here is not ours."""
    if _identity(fd) != identity:
        raise OSError(errno.ESTALE, "was moved while it was removed")


def _count_down(rescans: int) -> int:
    if rescans == 0:
        raise OSError(errno.ENOTEMPTY, "is filled as fast as it is emptied")
    return rescans - 1
