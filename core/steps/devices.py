"""The nodes and links of the container's own /dev."""

from __future__ import annotations

import errno
import os
import posixpath
import stat

from gocker import lowering
from gocker.errors import KernelError
from gocker.kernel import mount
from gocker.kernel.inroot import make_directory, make_file_entry
from gocker.lowering import ROOT, Code, Register
from gocker.plan import Context, Step
from gocker.steps.targets import emit_system_directory, system_directory

DEV = "/dev"
NULL = "/dev/null"
# Source: kernel Documentation/admin-guide/devices.txt; the set of the OCI runtime spec, config-linux.
NODES: dict[str, tuple[int, int]] = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
    "core": "/proc/kcore",
}
_NODE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NODE_MODE = stat.S_IFCHR | 0o666
_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


class MakeDevices(Step):
    """Make the devices and the links that every container has in /dev, and others that were asked for."""

    op = "make-devices"

    nodes: tuple[str, ...] = tuple(NODES)
    others: tuple[tuple[str, str, int, int, int, int, int], ...] = ()
    """(path, kind, major, minor, permission bits, uid, gid)."""

    def describe(self) -> str:
        """`mknod -m 666 /dev/{null,zero} c && ln -s ... /dev/{fd,stdin}`."""
        text = f"mknod -m 666 /dev/{{{','.join(self.nodes)}}} c && ln -s -t /dev {' '.join(_LINKS)}"
        for path, kind, major, minor, mode, _, _ in self.others:
            text += f" && mknod -m {mode:o} {path} {kind}{f' {major} {minor}' if kind != 'p' else ''}"
        return text

    def execute(self, ctx: Context) -> None:
        """A user namespace may not make devices: the host's own are bound instead, each proved."""
        if DEV not in ctx.fds:
            ctx.fds[DEV] = system_directory(ctx, DEV)
        dev = ctx.fds[DEV]
        for name in self.nodes:
            _make_node(dev, name, f"{DEV}/{name}", _NODE_MODE, NODES[name])
        for path, kind, major, minor, mode, uid, gid in self.others:
            parent, name = _parent(ctx, path)
            if _make_node(parent, name, path, _KINDS[kind] | mode, (major, minor)):
                os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
            if parent != dev:
                os.close(parent)
        for name, target in _LINKS.items():
            try:  # noqa: SIM105 - contextlib is an import more
                os.symlink(target, name, dir_fd=dev)
            except FileExistsError:
                pass  # the image's own /dev has one

    def emit(self, code: Code) -> None:
        """The same."""
        if DEV not in code.fds:
            code.fds[DEV] = emit_system_directory(code, DEV)
        dev = code.fds[DEV]
        for name in self.nodes:
            _emit_node(code, dev, name, f"{DEV}/{name}", _NODE_MODE, NODES[name])
        for path, kind, major, minor, mode, uid, gid in self.others:
            parent, name = _emit_parent(code, path)
            made = _emit_node(code, parent, name, path, _KINDS[kind] | mode, (major, minor))
            there = code.label()
            code.jump_if(made, 0, there)
            code.call("fchownat", parent, os.fsencode(name), uid, gid, lowering.SYMLINK_NOFOLLOW, path=name)
            code.place(there)
            if parent != dev:
                lowering.close(code, parent)
        for name, target in _LINKS.items():
            code.call("symlinkat", target.encode(), dev, name.encode(), path=target)
            code.catch(errno.EEXIST)


def _emit_node(
    code: Code, parent: Register, name: str, path: str, mode: int, number: tuple[int, int]
) -> Register:
    """As `_make_node`."""
    bits = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC
    words = (os.fsencode(name), os.fsencode(path), mode, os.makedev(*number), bits)
    return code.builtin("node", parent, *words, explain=lambda _: _not_this(path, mode, number))


def _emit_parent(code: Code, path: str) -> tuple[Register, str]:
    head, _, name = posixpath.normpath(path).rpartition("/")
    if head == DEV:
        return code.fds[DEV], name
    below = head.startswith(f"{DEV}/")
    directory = head.removeprefix(f"{DEV}/") if below else head or "/"
    parent = code.fds[DEV] if below else ROOT
    fd = code.builtin("directory", parent, os.fsencode(directory), 0o755, into=code.register())
    return fd, name


def _parent(ctx: Context, path: str) -> tuple[int, str]:
    """(fd of the directory, name): below the own /dev from its fd, else in the root."""
    head, _, name = posixpath.normpath(path).rpartition("/")
    if head == DEV:
        return ctx.fds[DEV], name
    if head.startswith(f"{DEV}/"):
        return make_directory(ctx.fds[DEV], head.removeprefix(f"{DEV}/")), name
    return make_directory(ctx.root, head or "/"), name


def _make_node(parent: int, name: str, path: str, mode: int, number: tuple[int, int]) -> bool:
    """Whether it was made: what was there before, or is the host's, keeps its owner."""
    try:
        os.mknod(name, mode, os.makedev(*number), dir_fd=parent)
    except FileExistsError:
        _require_node(parent, name, path, mode, number)
        return False
    except PermissionError:
        source = os.open(path, _NODE)
        _require_same(os.fstat(source), path, mode, number)
        _bind_node(source, parent, name)
        return False
    return True


def _require_node(parent: int, name: str, path: str, mode: int, number: tuple[int, int]) -> None:
    """What the image or a mount has there must be the very device."""
    _require_same(os.stat(name, dir_fd=parent, follow_symlinks=False), path, mode, number)


def _require_same(status: os.stat_result, path: str, mode: int, number: tuple[int, int]) -> None:
    kind = stat.S_IFMT(mode)
    there = (os.major(status.st_rdev), os.minor(status.st_rdev))
    if stat.S_IFMT(status.st_mode) == kind and (stat.S_ISFIFO(kind) or there == number):
        return
    raise _not_this(path, mode, number)


def _not_this(path: str, mode: int, number: tuple[int, int]) -> KernelError:
    kind = stat.S_IFMT(mode)
    what = "character" if stat.S_ISCHR(kind) else "block"
    reason = (
        "something else is there"
        if stat.S_ISFIFO(kind)
        else f"it is not {what} device {number[0]}:{number[1]}"
    )
    return KernelError("make device", path, reason, errno=errno.EEXIST)


class RemountDevReadonly(Step):
    """Make /dev read-only, as its mount has it: until all that belongs there is there it could not be."""

    op = "dev-readonly"

    def describe(self) -> str:
        """`mount -o remount,bind,ro /dev`."""
        return f"mount -o remount,bind,ro {DEV}"

    def execute(self, ctx: Context) -> None:
        """Of the mount alone: what is mounted below keeps its own mode."""
        mount.set_attributes(ctx.fds[DEV], mount.MOUNT_ATTR_RDONLY)

    def emit(self, code: Code) -> None:
        """The same."""
        lowering.set_attributes(code, code.fds[DEV], mount.MOUNT_ATTR_RDONLY)


class AttachNull(Step):
    """Make the container's own null device stdin: root inside could change the mode of the host's."""

    op = "attach-null"

    def describe(self) -> str:
        """`exec </dev/null`."""
        return "exec </dev/null"

    def execute(self, ctx: Context) -> None:
        """Where /dev is a mount of the user's, with whatever in it, an empty pipe reads the same."""
        fd = _open_null(ctx)
        if fd < 0:
            fd, write = os.pipe2(os.O_CLOEXEC)
            os.close(write)
        os.dup2(fd, 0)
        os.close(fd)

    def emit(self, code: Code) -> None:
        """The same."""
        fd = code.register()
        empty, have = code.label(), code.label()
        if DEV in code.fds:
            lowering.close(code, emit_open_node(code, "null", code.fds[DEV]))
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            code.call("openat", code.fds[DEV], b"null", flags, 0, into=fd, path="null")
            code.catch(errno.EPERM, empty)
            code.catch(errno.EACCES, empty)
            code.jump(have)
        code.place(empty)
        ends = code.data(8)
        code.call("pipe2", ends, os.O_CLOEXEC)
        code.load(ends, 4, into=fd)
        code.close(code.load(ends + 4, 4))
        code.place(have)
        code.call("dup3", fd, 0, 0)
        lowering.close(code, fd)


def _open_null(ctx: Context) -> int:
    """The own /dev's null device, opened; -1 where there is none, or no device in there can be opened."""
    if DEV not in ctx.fds:
        return -1
    os.close(open_node("null", ctx.fds[DEV]))
    try:
        return os.open("null", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=ctx.fds[DEV])
    except PermissionError:  # nodev
        return -1


def null_device(ctx: Context) -> int:
    """An O_PATH fd of the null device that masks are made of: the own /dev's, else the host's.

    Raise KernelError unless it is character device 1:3.
    """
    fd = ctx.fds.get(NULL)
    if fd is None:
        fd = open_node("null", ctx.fds[DEV]) if DEV in ctx.fds else open_node(NULL)
        ctx.fds[NULL] = fd
    return fd


def open_node(path: str, directory: int | None = None) -> int:
    """An O_PATH fd of one of `NODES`; raise KernelError when another thing is there."""
    fd = os.open(path, _NODE, dir_fd=directory)
    status = os.fstat(fd)
    number = NODES[path.rpartition("/")[2]]
    if not stat.S_ISCHR(status.st_mode) or (os.major(status.st_rdev), os.minor(status.st_rdev)) != number:
        os.close(fd)
        raise _no_device(path, number)
    return fd


def _no_device(path: str, number: tuple[int, int]) -> KernelError:
    reason = f"it is not character device {number[0]}:{number[1]}"
    return KernelError("open device", path, reason, errno=errno.ENODEV)


def emit_null_device(code: Code) -> Register:
    """As `null_device`."""
    fd = code.fds.get(NULL)
    if fd is None:
        inside = DEV in code.fds
        fd = emit_open_node(code, "null", code.fds[DEV]) if inside else emit_open_node(code, NULL)
        code.fds[NULL] = fd
    return fd


def emit_open_node(code: Code, path: str, directory: int = mount.AT_FDCWD) -> Register:
    """As `open_node`."""
    number = NODES[path.rpartition("/")[2]]
    device = os.makedev(*number)
    return code.builtin(
        "open_node",
        directory,
        path.encode(),
        device,
        into=code.register(),
        explain=lambda _: _no_device(path, number),
    )


def _bind_node(source: int, parent: int, name: str) -> None:
    target = make_file_entry(parent, name)
    bound = mount.clone_tree(source)
    mount.set_attributes(bound, mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC)
    mount.attach(bound, target)
    for fd in (source, target, bound):
        os.close(fd)
