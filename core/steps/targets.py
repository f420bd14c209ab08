"""Where inside the new root a mount goes: system directories strictly, the user's targets in the root.

A step that mounts something of gocker's own leaves the mount's fd in `ctx.fds` under its path
("/proc", "/dev/pts"). What lies below is opened from that fd, so that no name that the image
controls is on the way.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat

from gocker import lowering
from gocker.errors import GockerError
from gocker.kernel import mount
from gocker.kernel.inroot import (
    DIRECTORY,
    IN_ROOT,
    PLAIN,
    SAME_MOUNT,
    make_directory,
    make_directory_entry,
    make_file,
    openat2,
)
from gocker.lowering import PROC_INODE, ROOT, STAT_INO, Code, Register
from gocker.plan import Context
from gocker.steps.procfs import PATH as PROC


def anchor(ctx: Context, path: str) -> tuple[int, str, int]:
    """(fd to start from, the rest of `path`, RESOLVE_*) for a path that must not be redirected.

    Starts at the nearest mount of gocker's own above `path`, else at the root.
    """
    head, _, rest = path.rpartition("/")
    while head:
        fd = ctx.fds.get(head)
        if fd is not None:
            return fd, rest, SAME_MOUNT
        head, _, name = head.rpartition("/")
        rest = f"{name}/{rest}"
    return ctx.root, rest, PLAIN


def emit_anchor(code: Code, path: str) -> tuple[Register, str, int]:
    """As `anchor`."""
    head, _, rest = path.rpartition("/")
    while head:
        fd = code.fds.get(head)
        if fd is not None:
            return fd, rest, SAME_MOUNT
        head, _, name = head.rpartition("/")
        rest = f"{name}/{rest}"
    return ROOT, rest, PLAIN


def emit_system_directory(code: Code, path: str) -> Register:
    """As `system_directory`."""
    fd, rest, resolve = emit_anchor(code, path)
    target = code.register()
    if fd == ROOT:
        resolve = SAME_MOUNT
    elif "/" not in rest:
        return code.builtin("directory_entry", fd, os.fsencode(rest), 0o755, into=target)
    missing, elsewhere, done = code.label(), code.label(), code.label()
    with code.explained(lambda error, _: _explained(path, error)):
        lowering.openat2(code, fd, rest, DIRECTORY, resolve, into=target)
    code.catch(errno.ENOENT, missing)
    code.catch(errno.EXDEV, elsewhere)
    code.jump(done)
    code.place(elsewhere)
    lowering.openat2(code, fd, rest, DIRECTORY, PLAIN, into=target)
    code.jump(done)
    code.place(missing)
    head, _, name = path.rpartition("/")
    parent = emit_system_directory(code, head) if head else fd
    code.builtin("directory_entry", parent, os.fsencode(name), 0o755, into=target)
    if head:
        lowering.close(code, parent)
    code.place(done)
    return target


def _explained(path: str, error: Exception) -> Exception:
    if not isinstance(error, OSError) or error.errno not in {errno.ELOOP, errno.ENOTDIR}:
        return error
    return GockerError(
        "mount on",
        path,
        "it must be mounted on ordinary directory, and the root file system has something else there",
        remedy=f"make {path} a plain directory in the image",
        errno=error.errno,
    )


def system_directory(ctx: Context, path: str) -> int:
    """An O_PATH fd of the directory `path`, made when missing; no part of it may be a symbolic link."""
    fd, rest, resolve = anchor(ctx, path)
    if fd == ctx.root:
        resolve = SAME_MOUNT
    elif "/" not in rest:
        return make_directory_entry(fd, rest)  # in a file system that is new and our own
    try:
        return openat2(fd, rest, DIRECTORY, resolve)
    except FileNotFoundError:
        head, _, name = path.rpartition("/")
        if not head:
            return make_directory_entry(fd, name)
        parent = system_directory(ctx, head)
        try:
            return make_directory_entry(parent, name)
        finally:
            os.close(parent)
    except OSError as error:
        if error.errno == errno.EXDEV:  # a mount of the spec's, or in a copy of the host's own /sys
            return openat2(fd, rest, DIRECTORY, PLAIN)
        explained = _explained(path, error)
        if explained is error:
            raise
        raise explained from error


def user_target(ctx: Context, path: str, *, directory: bool) -> int:
    """An O_PATH fd of the user's mount target: links are followed in the root, missing parts are made.

    /proc, what is in it and the root itself are refused however the path gets there.
    """
    fd = (make_directory if directory else make_file)(ctx.root, path)
    try:
        _check_target(ctx, fd, path, directory=directory)
    except BaseException:
        os.close(fd)
        raise
    return fd


def emit_user_target(code: Code, path: str, *, directory: bool, into: Register | None = None) -> Register:
    """As `user_target`."""
    fd = code.register() if into is None else into
    kind, mode = ("directory", 0o755) if directory else ("file", 0o644)
    code.builtin(kind, ROOT, os.fsencode(path), mode, into=fd)
    emit_refuse_proc(code, fd, path)
    status = lowering.fstat(code, fd)
    if path != "/":
        same, other = code.label(), code.label()
        lowering.jump_if_same_file(code, status, lowering.fstat(code, ROOT), same)
        code.jump(other)
        code.place(same)
        code.fail(_is_root(path))
        code.place(other)
    fits = code.label()
    lowering.jump_if_directory(code, status, fits, other=not directory)
    error = _other_kind(path, directory=directory)
    code.fail(error, error.errno)
    code.place(fits)
    return fd


def emit_bind_target(code: Code, path: str, source: Register) -> Register:
    """As `bind_target`."""
    status = lowering.fstat(code, source)
    plain = posixpath.normpath(path)
    if plain == PROC:
        lowering.require_magic(code, source, mount.PROC_MAGIC, _no_procfs(path))
        fine = code.label()
        code.jump_if(code.load(status + STAT_INO, 8), PROC_INODE, fine)
        code.fail(_no_procfs(path))
        code.place(fine)
        return emit_system_directory(code, PROC)
    target = code.register()
    is_directory, done = code.label(), code.label()
    lowering.jump_if_directory(code, status, is_directory)
    believed = plain.removeprefix(f"{PROC}/")
    if believed in _BELIEFS and PROC in code.fds:
        flags = os.O_PATH | os.O_NOFOLLOW
        lowering.openat2(code, code.fds[PROC], believed, flags, SAME_MOUNT, into=target)
    elif plain.startswith(f"{PROC}/"):
        code.fail(_in_proc(path))
    else:
        emit_user_target(code, path, directory=False, into=target)
    code.jump(done)
    code.place(is_directory)
    if plain.startswith(f"{PROC}/"):
        code.fail(_in_proc(path))
    else:
        emit_user_target(code, path, directory=True, into=target)
    code.place(done)
    return target


def emit_put_on(code: Code, fd: Register, target: Register, path: str) -> None:
    """As `put_on`."""
    lowering.attach(code, fd, target)
    if path == "/":
        code.close(ROOT)
        code.set(ROOT, fd)
    else:
        code.close(fd)


def emit_refuse_proc(code: Code, fd: Register, path: str) -> None:
    """As `refuse_proc`."""
    lowering.require_magic(code, fd, mount.PROC_MAGIC, _in_proc(path), other=True)


def mode_there(ctx: Context, path: str) -> int | None:
    """The permission bits of what the root has at `path`; None when there is nothing."""
    try:
        fd = openat2(ctx.root, path, os.O_PATH, IN_ROOT)
    except FileNotFoundError:
        return None
    try:
        return stat.S_IMODE(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def bind_target(ctx: Context, path: str, source: int) -> int:
    """An O_PATH fd of where the mount behind `source` goes.

    Of /proc only another procfs may take the place, and of what is in it only files that say what the
    container should believe of its machine, each a plain file of the own procfs.
    """
    directory = stat.S_ISDIR(os.fstat(source).st_mode)
    plain = posixpath.normpath(path)
    if plain == PROC:
        root = mount.file_system_magic(source) == mount.PROC_MAGIC and os.fstat(source).st_ino == _PROC_ROOT
        if not root:
            raise _no_procfs(path)
        return system_directory(ctx, PROC)
    if plain.removeprefix(f"{PROC}/") in _BELIEFS and PROC in ctx.fds and not directory:
        return openat2(ctx.fds[PROC], plain.removeprefix(f"{PROC}/"), os.O_PATH | os.O_NOFOLLOW, SAME_MOUNT)
    if plain.startswith(f"{PROC}/"):
        raise _in_proc(path)
    return user_target(ctx, path, directory=directory)


_BELIEFS = frozenset(
    [
        "cpuinfo",
        "diskstats",
        "loadavg",
        "meminfo",
        "slabinfo",
        "stat",
        "swaps",
        "sys/crypto/fips_enabled",
        "sys/kernel/ns_last_pid",
        "uptime",
    ]
)
"""What lxcfs and others mount over; source: runc, checkProcMount."""
_PROC_ROOT = 1  # inode; PROC_ROOT_INO of the kernel's include/linux/proc_fs.h


def _check_target(ctx: Context, fd: int, path: str, *, directory: bool) -> None:
    refuse_proc(fd, path)
    status, top = os.fstat(fd), os.fstat(ctx.root)
    if path != "/" and (status.st_dev, status.st_ino) == (top.st_dev, top.st_ino):
        raise _is_root(path)
    if stat.S_ISDIR(status.st_mode) != directory:
        raise _other_kind(path, directory=directory)


def _is_root(path: str) -> GockerError:
    return GockerError("mount on", path, "it leads to the root itself")


def _other_kind(path: str, *, directory: bool) -> GockerError:
    kinds = "a directory onto a file" if directory else "a file onto a directory"
    return GockerError("mount on", path, f"{kinds} cannot be mounted", errno=errno.ENOTDIR)


def _no_procfs(path: str) -> GockerError:
    return GockerError("mount on", path, "only a procfs may be there")


def _in_proc(path: str) -> GockerError:
    return GockerError("mount on", path, "it is in /proc, which must stay the container's own")


def put_on(ctx: Context, fd: int, target: int, path: str) -> None:
    """Attach the mount behind `fd`, which becomes the root's where `path` is the root, else is closed."""
    mount.attach(fd, target)
    if path == "/":
        os.close(ctx.root)
        ctx.root = fd
    else:
        os.close(fd)


def refuse_proc(fd: int, path: str) -> None:
    """Raise GockerError when `fd` is on a procfs: `path` got there by way of a link."""
    if mount.file_system_magic(fd) == mount.PROC_MAGIC:
        raise _in_proc(path)
