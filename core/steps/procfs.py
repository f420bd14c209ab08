"""The container's own procfs, made by us and proved, before and after it is mounted."""

from __future__ import annotations

import errno
import os

from gocker import lowering
from gocker.errors import GockerError, KernelError
from gocker.kernel import mount
from gocker.kernel.inroot import SAME_MOUNT, openat2
from gocker.lowering import Code, Data, Label, NotLoweredError, Register
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
        raise _refused(error) from error
    if mount.file_system_magic(fd) != mount.PROC_MAGIC:
        os.close(fd)
        raise _no_procfs()
    ctx.fds[PATH] = fd
    return fd


def _refused(error: Exception, _: object = None) -> Exception:
    if not isinstance(error, PermissionError):
        return error
    return GockerError.from_os(
        "make file system",
        "proc",
        error,
        remedy="a user namespace needs a PID namespace of its own, and a host /proc without mounts on it",
    )


def _no_procfs() -> KernelError:
    return KernelError("make file system", "proc", "it is not a procfs", errno=errno.EXDEV)


def restrict_procfs(fd: int, options: MountOptions) -> None:
    """Give the own procfs the options that were named for it, beside those that it has anyway. Raise OSError, GockerError."""
    if options.data:  # hidepid=, subset=, gid=: proc(5)
        mount.reconfigure(fd, "proc", options.data)
    attributes = (options.attributes | options.deep_attributes) & ~ALWAYS
    clear = (options.clear | options.deep_clear) & ~(ALWAYS | mount.MOUNT_ATTR_RDONLY)
    propagation = options.propagation & ~mount.MS_REC
    if attributes or clear or propagation:
        mount.set_attributes(fd, attributes, clear=clear, propagation=propagation)


def emit_own_procfs(code: Code) -> Register:
    """As `own_procfs`."""
    fd = code.fds.get(PATH)
    if fd is not None:
        return fd
    with code.explained(_refused):
        fd = lowering.new_mount(code, "proc", (), ALWAYS)
    lowering.require_magic(code, fd, mount.PROC_MAGIC, _no_procfs())
    code.fds[PATH] = fd
    return fd


def emit_write_proc(code: Code, path: str | Data, value: str, missing: Label | None = None) -> None:
    """As `write_proc`; to `missing` where there is no such file. Data is where the path is."""
    proc = emit_own_procfs(code)
    flags = os.O_WRONLY | os.O_NOFOLLOW
    where = path if isinstance(path, Data) else os.fsencode(path)
    fd = code.builtin("open_in", proc, where, flags, SAME_MOUNT, into=code.register())
    if missing is not None:
        code.catch(errno.ENOENT, missing)
    lowering.write_text(code, fd, os.fsencode(value))
    lowering.close(code, fd)


def emit_restrict_procfs(code: Code, fd: Register, options: MountOptions) -> None:
    """As `restrict_procfs`."""
    if options.data:
        raise NotLoweredError("options of a procfs")
    attributes = (options.attributes | options.deep_attributes) & ~ALWAYS
    clear = (options.clear | options.deep_clear) & ~(ALWAYS | mount.MOUNT_ATTR_RDONLY)
    propagation = options.propagation & ~mount.MS_REC
    if attributes or clear or propagation:
        lowering.set_attributes(code, fd, attributes, clear=clear, propagation=propagation)


def write_proc(ctx: Context, path: str, value: str) -> None:
    """Write `value` to `path` below the own procfs; links and other mounts on the way are errors."""
    fd = openat2(own_procfs(ctx), path, os.O_WRONLY | os.O_NOFOLLOW, SAME_MOUNT)
    try:
        os.write(fd, os.fsencode(value))
    finally:
        os.close(fd)
