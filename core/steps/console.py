"""The container's terminal: a pty of its own devpts, at /dev/console inside."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios

from gocker import lowering
from gocker.errors import KernelError
from gocker.kernel import mount
from gocker.kernel.inroot import DIRECTORY, IN_ROOT, SAME_MOUNT, make_file_entry, openat2
from gocker.lowering import Code, NotLoweredError, Register
from gocker.plan import Context, Step
from gocker.steps.devices import DEV

PTS = "/dev/pts"
CONSOLE, PTMX = "console", "ptmx"  # keys of ctx.fds
# asm-generic/ioctls.h; the same on x86-64 and arm64.
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
_OFLAG = 1  # in what tcgetattr returns
_UNLOCKED = struct.pack("=i", 0)


class OpenConsole(Step):
    """Make a pty pair; the slave becomes /dev/console, both wait in `ctx.fds`: "console" and "ptmx"."""

    op = "open-console"

    def describe(self) -> str:
        """`open /dev/pts/ptmx && mount --bind /dev/pts/0 /dev/console`."""
        return "open /dev/pts/ptmx && mount --bind /dev/pts/0 /dev/console"

    def execute(self, ctx: Context) -> None:
        """The slave is had from the master, never by a name that the image could have planted."""
        if PTS not in ctx.fds:
            raise KernelError("open console", PTS, "no devpts is mounted there", errno=errno.ENODEV)
        slave = _open_pair(ctx, openat2(ctx.fds[PTS], "ptmx", os.O_RDWR | os.O_NOCTTY, SAME_MOUNT))
        bound = mount.clone_tree(slave)
        target = make_file_entry(ctx.fds[DEV], "console", 0o600)
        mount.attach(bound, target)
        os.close(target)
        os.close(bound)

    def emit(self, code: Code) -> None:
        """The same."""
        if PTS not in code.fds:
            raise NotLoweredError("no devpts is mounted")  # and so it fails
        flags = os.O_RDWR | os.O_NOCTTY
        slave = _emit_pair(code, lowering.openat2(code, code.fds[PTS], "ptmx", flags, SAME_MOUNT))
        bound = lowering.clone_tree(code, slave)
        target = code.builtin("file_entry", code.fds[DEV], b"console", 0o600, into=code.register())
        lowering.attach(code, bound, target)
        lowering.close(code, target, bound)


class OpenPty(Step):
    """Make a pty pair of a container's own devpts, for one more process in it."""

    op = "open-pty"

    newlines: bool = (
        False  # lines end as the program ends them, as with runc into a pipe: a terminal would add CR
    )

    def describe(self) -> str:
        """`open /dev/pts/ptmx`."""
        return "open /dev/pts/ptmx"

    def execute(self, ctx: Context) -> None:
        """What is opened must be on a devpts, whatever the container has put there (SECURITY R5)."""
        root = os.open("/", DIRECTORY | os.O_CLOEXEC)
        try:
            master = openat2(root, f"{PTS}/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK, IN_ROOT)
        finally:
            os.close(root)
        os.set_blocking(master, True)
        slave = _open_pair(ctx, master)
        if self.newlines:
            mode = termios.tcgetattr(slave)
            mode[_OFLAG] &= ~termios.ONLCR
            termios.tcsetattr(slave, termios.TCSANOW, mode)

    @property
    def lowers(self) -> bool:
        """Not the modes of the line."""
        return not self.newlines

    def emit(self, code: Code) -> None:
        """The same."""
        root = lowering.open_root(code)
        flags = os.O_RDWR | os.O_NOCTTY
        master = lowering.openat2(code, root, f"{PTS}/ptmx", flags | os.O_NONBLOCK, IN_ROOT)
        lowering.close(code, root)
        code.call("fcntl", master, fcntl.F_SETFL, flags)
        _emit_pair(code, master)


def _not_on_devpts(what: str) -> KernelError:
    return KernelError("open console", what, "it is not on a devpts", errno=errno.EXDEV)


def _emit_pair(code: Code, master: Register) -> Register:
    """As `_open_pair`."""
    code.fds[PTMX] = master
    lowering.require_magic(code, master, mount.DEVPTS_MAGIC, _not_on_devpts("/dev/pts/ptmx"))
    code.call("ioctl", master, _TIOCSPTLCK, code.data(_UNLOCKED))
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    slave = code.fds[CONSOLE] = code.call("ioctl", master, _TIOCGPTPEER, flags, into=code.register())
    lowering.require_magic(code, slave, mount.DEVPTS_MAGIC, _not_on_devpts("its slave"))
    return slave


def _open_pair(ctx: Context, master: int) -> int:
    """The slave of `master`; both are left in `ctx.fds`."""
    ctx.fds[PTMX] = master
    if mount.file_system_magic(master) != mount.DEVPTS_MAGIC:
        raise _not_on_devpts("/dev/pts/ptmx")
    fcntl.ioctl(master, _TIOCSPTLCK, _UNLOCKED)
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    ctx.fds[CONSOLE] = slave
    if mount.file_system_magic(slave) != mount.DEVPTS_MAGIC:
        raise _not_on_devpts("its slave")
    return slave
