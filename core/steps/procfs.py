"""The container's own procfs, made by us and proved, before and after it is mounted."""

from __future__ import annotations

import errno
import os

from gocker.errors import GockerError, KernelError
from gocker.kernel import mount
from gocker.kernel.inroot import SAME_MOUNT, openat2
from gocker.plan import Context
from gocker.steps.options import MountOptions

PATH = "/proc"
ALWAYS = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC


def own_procfs(ctx: Context) -> int:
    """The O_PATH fd of the procfs of this process's PID namespace; detached until MountFs attaches it.

    Raise GockerError.
    """
    fd = ctx.fds.get(PATH)
    if fd is not None:
        return fd
    try:
        fd = mount.new_mount("proc", (), ALWAYS)
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


def restrict_procfs(fd: int, options: MountOptions) -> None:
    """Give the own procfs the options that were named for it, beside those that it has anyway. Raise OSError, GockerError."""
    if options.data:  # hidepid=, subset=, gid=: proc(5)
        mount.reconfigure(fd, "proc", options.data)
    attributes = (options.attributes | options.deep_attributes) & ~ALWAYS
    clear = (options.clear | options.deep_clear) & ~(ALWAYS | mount.MOUNT_ATTR_RDONLY)
    propagation = options.propagation & ~mount.MS_REC
    if attributes or clear or propagation:
        mount.set_attributes(fd, attributes, clear=clear, propagation=propagation)


def write_proc(ctx: Context, path: str, value: str) -> None:
    """Write `value` to `path` below the own procfs; links and other mounts on the way are errors."""
    fd = openat2(own_procfs(ctx), path, os.O_WRONLY | os.O_NOFOLLOW, SAME_MOUNT)
    try:
        os.write(fd, os.fsencode(value))
    finally:
        os.close(fd)
