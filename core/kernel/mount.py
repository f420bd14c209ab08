"""Mounting by file descriptor: the fsopen, open_tree and move_mount family, and what pivots the root.

All fds that these functions return are close-on-exec. Sources: fsopen(2), fsconfig(2), fsmount(2),
open_tree(2), move_mount(2), mount_setattr(2) and the kernel's Documentation/filesystems/mount_api.rst.
"""

from __future__ import annotations

import ctypes
import os
import struct

from gocker.errors import GockerError
from gocker.kernel.syscalls import call

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_ATIME = 0x70  # a field, not a flag: relatime is 0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

MS_BIND = 0x1000
MS_REC = 0x4000
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2

PROC_MAGIC = 0x9FA0  # statfs(2), include/uapi/linux/magic.h
SYSFS_MAGIC = 0x62656572
DEVPTS_MAGIC = 0x1CD1
TMPFS_MAGIC = 0x01021994
OVERLAY_MAGIC = 0x794C7630

_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_FSCONFIG_CMD_RECONFIGURE = 7
_FSPICK_CLOEXEC = 1
_FSPICK_EMPTY_PATH = 8
_OPEN_TREE_CLONE = 1
_MOVE_EMPTY_PATHS = 0x04 | 0x40  # MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
_MOVE_FROM_EMPTY_PATH = 0x04

_MOUNT_ATTR = struct.Struct("=4Q")  # struct mount_attr: attr_set, attr_clr, propagation, userns_fd
_FIRST_LONG = struct.Struct("=q")
_statfs_buffer = ctypes.create_string_buffer(256)  # struct statfs is 120 bytes; reused, not thread-safe
_LOG_LINES = 16  # the kernel keeps 8


def new_mount(fstype: str, options: tuple[str, ...] = (), attributes: int = 0, source: str = "") -> int:
    """A detached mount of a new file system instance, as an O_PATH fd.

    `options` are the file system's own ("size=64m", "newinstance"), `attributes` MOUNT_ATTR_*, `source` a
    device where the file system is on one; mount(8) shows it, else the type.
    Raise OSError; GockerError when the kernel said in words what it did not like.
    """
    name = fstype.encode()
    context = call("fsopen", name, _FSOPEN_CLOEXEC)
    try:
        call("fsconfig", context, _FSCONFIG_SET_STRING, b"source", os.fsencode(source) or name, 0)
        _give(context, options)
        call("fsconfig", context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return call("fsmount", context, _FSMOUNT_CLOEXEC, attributes)
    except OSError as error:
        said = _in_words(context, "make file system", fstype, error)
        if said is error:
            raise
        raise said from error
    finally:
        os.close(context)


def reconfigure(fd: int, fstype: str, options: tuple[str, ...]) -> None:
    """Change the options of the file system whose mount is behind `fd`: fspick(2).

    Raise OSError; GockerError when the kernel said in words what it did not like.
    """
    context = call("fspick", fd, b"", _FSPICK_EMPTY_PATH | _FSPICK_CLOEXEC)
    try:
        _give(context, options)
        call("fsconfig", context, _FSCONFIG_CMD_RECONFIGURE, None, None, 0)
    except OSError as error:
        said = _in_words(context, "change options of file system", fstype, error)
        if said is error:
            raise
        raise said from error
    finally:
        os.close(context)


def _give(context: int, options: tuple[str, ...]) -> None:
    for option in options:
        key, equals, value = option.partition("=")
        if equals:
            call("fsconfig", context, _FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0)
        else:
            call("fsconfig", context, _FSCONFIG_SET_FLAG, key.encode(), None, 0)


def _in_words(context: int, operation: str, fstype: str, error: OSError) -> OSError | GockerError:
    """`error` with what the kernel said of it, if it said anything."""
    words = _messages(context)
    if not words:
        return error
    wrapped = GockerError.from_os(operation, fstype, error)
    wrapped.reason = f"{wrapped.reason}: {words}"
    return wrapped


def _messages(context: int) -> str:
    """What the kernel wrote to the context's log: lines of `e text`, `w text` or `i text`."""
    lines = []
    for _ in range(_LOG_LINES):
        try:
            line = os.read(context, 1024)
        except OSError:  # ENODATA: no more of them
            break
        lines.append(line.decode("utf-8", "replace").strip()[2:])
    return "; ".join(lines)


def clone_tree(fd: int, path: bytes = b"", *, recursive: bool = False) -> int:
    """A detached copy of the mount at `path` below `fd`, as bind mounts are; `b""` is `fd` itself."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return call("open_tree", fd, path, flags | (0 if path else AT_EMPTY_PATH))


def attach(mount: int, target: int) -> None:
    """Attach the detached `mount` on the very object that the O_PATH fd `target` names; move_mount(2)."""
    call("move_mount", mount, b"", target, b"", _MOVE_EMPTY_PATHS)


def attach_at(mount: int, path: bytes, directory: int = AT_FDCWD) -> None:
    """Attach the detached `mount` at a path of the host, or right in a directory that we made.

    A symbolic link as its last part is not followed.
    """
    call("move_mount", mount, b"", directory, path, _MOVE_FROM_EMPTY_PATH)


def set_attributes(
    mount: int,
    attributes: int,
    *,
    clear: int = 0,
    propagation: int = 0,
    userns: int = 0,
    recursive: bool = False,
) -> None:
    """mount_setattr(2) on the mount behind `mount`.

    `attributes` and `clear` are MOUNT_ATTR_*, `propagation` one MS_* kind or 0, `userns` the fd of a
    user namespace for MOUNT_ATTR_IDMAP.
    """
    value = _MOUNT_ATTR.pack(attributes, clear, propagation, userns)
    call("mount_setattr", mount, b"", AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0), value, len(value))


def set_propagation(path: bytes, kind: int) -> None:
    """Change how mount events travel at `path`: MS_PRIVATE and so on, with MS_REC for all below; mount(2)."""
    call("mount", None, path, None, kind, None)


def pivot_root_here() -> None:
    """Make the working directory, a mount, the root and stack the old root on it; pivot_root(2), NOTES."""
    call("pivot_root", b".", b".")


def detach(path: bytes) -> None:
    """Lazily unmount the topmost mount at `path`, with all that is mounted below; umount2(2)."""
    call("umount2", path, MNT_DETACH)


def file_system_magic(fd: int) -> int:
    """The f_type of the file system that `fd` lies on; fstatfs(2). O_PATH fds are fine."""
    call("fstatfs", fd, _statfs_buffer)
    magic: int = _FIRST_LONG.unpack_from(_statfs_buffer)[0]
    return magic & 0xFFFFFFFF  # it is a long; the magics have 32 bits
