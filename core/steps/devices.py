"""The nodes and links of the container's own /dev."""

from __future__ import annotations

import errno
import os
import stat

from gocker.errors import KernelError
from gocker.kernel import mount
from gocker.kernel.inroot import make_file_entry
from gocker.plan import Context, Step

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


class MakeDevices(Step):
    """Make the character devices and the links in the tmpfs that is mounted on /dev."""

    op = "make-devices"

    nodes: tuple[str, ...] = tuple(NODES)

    def describe(self) -> str:
        """`mknod -m 666 /dev/{null,zero} c && ln -s ... /dev/{fd,stdin}`."""
        return f"mknod -m 666 /dev/{{{','.join(self.nodes)}}} c && ln -s -t /dev {' '.join(_LINKS)}"

    def execute(self, ctx: Context) -> None:
        """A user namespace may not make devices: the host's own are bound instead, each proved."""
        dev = ctx.fds[DEV]
        for name in self.nodes:
            major, minor = NODES[name]
            try:
                os.mknod(name, _NODE_MODE, os.makedev(major, minor), dir_fd=dev)
            except PermissionError:
                _bind_node(dev, name)
        for name, target in _LINKS.items():
            os.symlink(target, name, dir_fd=dev)


class AttachNull(Step):
    """Make the container's own null device stdin: root inside could change the mode of the host's."""

    op = "attach-null"

    def describe(self) -> str:
        """`exec </dev/null`."""
        return "exec </dev/null"

    def execute(self, ctx: Context) -> None:
        """Where /dev is a mount of the user's, with whatever in it, an empty pipe reads the same."""
        if DEV in ctx.fds:
            os.close(open_node("null", ctx.fds[DEV]))
            fd = os.open("null", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=ctx.fds[DEV])
        else:
            fd, write = os.pipe2(os.O_CLOEXEC)
            os.close(write)
        os.dup2(fd, 0)
        os.close(fd)


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
        reason = f"it is not character device {number[0]}:{number[1]}"
        raise KernelError("open device", path, reason, errno=errno.ENODEV)
    return fd


def _bind_node(dev: int, name: str) -> None:
    source = open_node(f"/dev/{name}")
    target = make_file_entry(dev, name)
    bound = mount.clone_tree(source)
    mount.attach(bound, target)
    for fd in (source, target, bound):
        os.close(fd)
