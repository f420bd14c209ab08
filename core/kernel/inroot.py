"""Paths inside a directory that nobody trusts: opened and made by fd, never leaving it.

Two ways to read a path. In the root: symbolic links are followed, but `/` and `..` stay inside.
Plain: a symbolic link or another mount on the way is an error. Source: openat2(2).
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from gocker.errors import GockerError
from gocker.kernel.syscalls import call

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
PLAIN = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
SAME_MOUNT = PLAIN | RESOLVE_NO_XDEV

DIRECTORY = os.O_PATH | os.O_DIRECTORY
_ENTRY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY_ENTRY = _ENTRY | os.O_DIRECTORY
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_OPEN_HOW = struct.Struct("=3Q")  # struct open_how: flags, mode, resolve
_TRIES = 128  # EAGAIN means that a rename or mount raced with a `..`


def openat2(directory: int, path: str, flags: int, resolve: int) -> int:
    """Open `path`, relative to `directory` even with a leading `/`, as a close-on-exec fd.

    `flags` are O_*, `resolve` RESOLVE_*. Raise OSError.
    """
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, 0, resolve)
    name = os.fsencode(path.lstrip("/") or ".")
    for _ in range(_TRIES):
        try:
            return call("openat2", directory, name, how, len(how))
        except BlockingIOError:  # EAGAIN
            continue
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)


def make_directory(root: int, path: str, mode: int = 0o755) -> int:
    """An O_PATH fd of the directory `path` in the root, which is made with its parents when missing.

    A symbolic link that dangles is an error: what it names is not made. Raise OSError, GockerError.
    """
    missing: list[str] = []
    head = path
    while True:
        try:
            fd = openat2(root, head, DIRECTORY, IN_ROOT)
            break
        except FileNotFoundError:
            head, name = _split(head)
            missing.append(name)
    while missing:
        try:
            child = make_directory_entry(fd, missing.pop(), mode)
        except OSError as error:
            raise _dangling(path, error) from error
        finally:
            os.close(fd)
        fd = child
    return fd


def make_directory_entry(parent: int, name: str, mode: int = 0o755) -> int:
    """An O_PATH fd of the directory `name` right in `parent`, made when missing; not a symbolic link."""
    try:  # noqa: SIM105 - contextlib is an import more
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        pass  # made by someone else, or no directory: the open tells
    return os.open(name, _DIRECTORY_ENTRY, dir_fd=parent)


def make_file(root: int, path: str, mode: int = 0o644) -> int:
    """An O_PATH fd of what is at `path` in the root; an empty file when there is nothing.

    A symbolic link that dangles is an error. Raise OSError, GockerError.
    """
    try:
        return openat2(root, path, os.O_PATH, IN_ROOT)
    except FileNotFoundError:
        head, name = _split(path)
        parent = make_directory(root, head)
    try:
        fd = make_file_entry(parent, name, mode)
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            os.close(fd)
            raise _dangling(path, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))
        return fd
    finally:
        os.close(parent)


def make_file_entry(parent: int, name: str, mode: int = 0o644) -> int:
    """An O_PATH fd of the entry `name` right in `parent`, whatever it is; an empty file when missing."""
    try:
        return os.open(name, _ENTRY, dir_fd=parent)
    except FileNotFoundError:
        os.close(os.open(name, _NEW_FILE, mode, dir_fd=parent))
    return os.open(name, _ENTRY, dir_fd=parent)


def _split(path: str) -> tuple[str, str]:
    head, _, name = path.rstrip("/").rpartition("/")
    if name in {"", ".", ".."}:
        raise GockerError("make mount point", path, "not a path that can be made", errno=errno.EINVAL)
    return head, name


def _dangling(path: str, error: OSError) -> GockerError:
    if error.errno not in {errno.ENOTDIR, errno.ELOOP, errno.ENOENT}:
        return GockerError.from_os("make mount point", path, error)
    return GockerError(
        "make mount point",
        path,
        "the root file system has a symbolic link there whose target is missing",
        remedy="name the link's target instead",
        errno=error.errno or 0,
    )
