"""The container's own procfs, made by us and proved, before and after it is mounted."""

from __future__ import annotations

import errno
import os

from gocker.errors import GockerError, KernelError
from gocker.kernel import mount
from gocker.kernel.inroot import SAME_MOUNT, openat2
from gocker.plan import Context

PATH = "/proc"
_ATTRIBUTES = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC


def own_procfs(ctx: Context) -> int:
    """The O_PATH fd of the procfs of this process's PID namespace; detached until MountFs attaches it.

    Raise GockerError.
    """
    fd = ctx.fds.get(PATH)
    if fd is not None:
        return fd
    try:
        fd = mount.new_mount("proc", (), _ATTRIBUTES)
    except PermissionError as error:
        raise GockerError.from_os(
            "make file system",
            "proc",
            error,
            remedy="a user namespace needs a PID namespace of its own, and a host /proc without mounts on it",
        ) from error
    if mount.file_system_magic(fd) != mount.PROC_MAGIC:
        os.close(fd)
        raise KernelError("make file system", "proc", "it is not a procfs", errno=errno.EXDEV)
    ctx.fds[PATH] = fd
    return fd


def write_proc(ctx: Context, path: str, value: str) -> None:
    """Write `value` to `path` below the own procfs; links and other mounts on the way are errors."""
    fd = openat2(own_procfs(ctx), path, os.O_WRONLY | os.O_NOFOLLOW, SAME_MOUNT)
    try:
        os.write(fd, os.fsencode(value))
    finally:
        os.close(fd)
