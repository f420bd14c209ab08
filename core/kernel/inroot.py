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
_MOST_LINKS = 40  # as the kernel: MAXSYMLINKS
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

    What a symbolic link names is made, in the root, too. Raise OSError, GockerError.
    """
    try:
        return openat2(root, path, DIRECTORY, IN_ROOT)
    except FileNotFoundError:
        head = without_links(root, path)
    missing: list[str] = []
    while True:
        try:
            fd = openat2(root, head, DIRECTORY, PLAIN)
            break
        except FileNotFoundError:
            head, name = _split(head)
            missing.append(name)
    while missing:
        try:
            child = make_directory_entry(fd, missing.pop(), mode)
        finally:
            os.close(fd)
        fd = child
    return fd


def without_links(root: int, path: str) -> str:
    """`path` without symbolic links, `.` and `..`, as it is in the root, parts that are missing included.

    Each part is looked at by an fd that no link led to. Raise OSError.
    """
    left = list(reversed(path.split("/")))
    done: list[str] = []
    links = 0
    while left:
        part = left.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            done = done[:-1]
            continue
        text = _link_text(root, "/".join([*done, part]))
        if text is None:
            done.append(part)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if text.startswith("/"):
            done = []
        left += reversed(text.split("/"))
    return "/" + "/".join(done)


def _link_text(root: int, path: str) -> str | None:
    """Of the symbolic link at the plain `path`; None when there is something else, or nothing."""
    try:
        fd = openat2(root, path, os.O_PATH | os.O_NOFOLLOW, PLAIN)
    except FileNotFoundError:
        return None
    try:
        return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def make_directory_entry(parent: int, name: str, mode: int = 0o755) -> int:
    """An O_PATH fd of the directory `name` right in `parent`, made when missing; not a symbolic link."""
    try:  # noqa: SIM105 - contextlib is an import more
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        pass  # made by someone else, or no directory: the open tells
    return os.open(name, _DIRECTORY_ENTRY, dir_fd=parent)


def make_file(root: int, path: str, mode: int = 0o644) -> int:
    """An O_PATH fd of what is at `path` in the root; an empty file when there is nothing.

    What a symbolic link names is made, in the root, too. Raise OSError, GockerError.
    """
    try:
        return openat2(root, path, os.O_PATH, IN_ROOT)
    except FileNotFoundError:
        head, name = _split(without_links(root, path))
        parent = make_directory(root, head)
    try:
        fd = make_file_entry(parent, name, mode)
        if stat.S_ISLNK(os.fstat(fd).st_mode):  # it was put there meanwhile
            os.close(fd)
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
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
