"""Steps around the clone: the clone itself, id maps, the cgroup namespace, becoming root inside."""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import signal
import sys
from typing import Any

from gocker.errors import KernelError
from gocker.kernel import mount, process
from gocker.kernel.syscalls import call, unshare
from gocker.lowering import Code
from gocker.plan import Context, Step

GO, CONSOLE, LISTENER = b"go", b"console", b"listener"
"""Packets that let init go on, carry the pty master, and memory to hand over a seccomp listener in.

core/init.py draws the protocol.
"""
PARK = "await-start"
"""The step at which a container has been created."""

_TIOCSCTTY, _TIOCSWINSZ = 0x540E, 0x5414  # asm-generic/ioctls.h: to import termios costs 0.2 ms


class Clone(Step):
    """Make the container's first process, in its new, joined and shared namespaces."""

    op = "clone"
    event = "namespace.apply"
    undoable = True

    kinds: tuple[str, ...]  # of the new namespaces, for people: ("uts", "pid")
    flags: int  # CLONE_NEW* of clone(2)
    joins: tuple[tuple[str, str, int], ...] = ()  # (kind, path, CLONE_NEW*)
    offsets: tuple[tuple[str, int, int], ...] = ()  # time_namespaces(7)
    cgroup: str = ""  # cgroup v2 directory to be born in

    def describe(self) -> str:
        """`unshare --fork --uts --pid`."""
        words = ["unshare --fork", *(f"--{kind}" for kind in self.kinds)]
        words += [f"--{clock} {seconds}.{nanos:09d}" for clock, seconds, nanos in self.offsets]
        joins = "".join(f"nsenter --{kind}={path} " for kind, path, _ in self.joins)
        born = f"  # born in {self.cgroup}" if self.cgroup else ""
        return joins + " ".join(words) + born

    def execute(self, ctx: Context) -> None:
        """Set `ctx.pid` and `ctx.pidfd`; the child goes on in `ctx.enter`, which never returns."""
        cgroup_fd = os.open(self.cgroup, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if self.cgroup else -1
        try:
            joins = tuple((path, flag) for _, path, flag in self.joins)
            ctx.pid, ctx.pidfd = ctx.clone(self.flags, joins, self.offsets, cgroup_fd)
        finally:
            if cgroup_fd >= 0:
                os.close(cgroup_fd)

    def undo(self, ctx: Context) -> None:
        """Kill and reap the child; a fresh context has none, then its cgroup is emptied instead."""
        if ctx.pidfd < 0:
            return
        try:
            process.pidfd_send_signal(ctx.pidfd, signal.SIGKILL)
            ctx.parent.wait(ctx.pid)
        except (ProcessLookupError, ChildProcessError):
            pass  # it has ended and was reaped
        os.close(ctx.pidfd)
        ctx.pidfd = -1

    def audit(self, ctx: Context) -> dict[str, Any]:
        """The namespaces by kind: `new` or the path that was joined."""
        namespaces = dict.fromkeys(self.kinds, "new") | {kind: path for kind, path, _ in self.joins}
        return {"namespaces": namespaces, "pid": ctx.pid}


class WriteKernelFile(Step):
    """Write a file below /proc or /sys from the host side, the child's pid in place of `{pid}`."""

    op = "write-kernel-file"

    path: str
    data: str

    def describe(self) -> str:
        """`echo DATA > PATH`."""
        return f"printf {self.data!r} > {self.path}"

    def execute(self, ctx: Context) -> None:
        """One open and one write; the file must be the kernel's own (SECURITY: own procfs, proved)."""
        path = self.path.replace("{pid}", str(ctx.pid))
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            _require_kernel_file(fd, path)
            os.write(fd, self.data.encode())
        finally:
            os.close(fd)


def _require_kernel_file(fd: int, path: str) -> None:
    expected = mount.PROC_MAGIC if path.startswith("/proc/") else mount.SYSFS_MAGIC
    if mount.file_system_magic(fd) != expected:
        raise KernelError("write", path, "not on the kernel's own file system", errno=errno.EXDEV)


class UnshareCgroup(Step):
    """Make the cgroup namespace; after the attach, so that its root is the container's own cgroup."""

    op = "unshare-cgroup"

    def describe(self) -> str:
        """`unshare --cgroup`."""
        return "unshare --cgroup"

    def execute(self, ctx: Context) -> None:
        """unshare(CLONE_NEWCGROUP)."""
        unshare(process.CLONE_NEWCGROUP)

    def emit(self, code: Code) -> None:
        """The same."""
        code.call("unshare", process.CLONE_NEWCGROUP)


class BecomeRoot(Step):
    """Take on uid and gid 0 of a user namespace; before that the process has no mapped ids."""

    op = "become-root"

    def describe(self) -> str:
        """`setpriv --reuid 0 --regid 0 --clear-groups`."""
        return "setpriv --reuid 0 --regid 0 --clear-groups"

    def execute(self, ctx: Context) -> None:
        """setgroups(0), setresgid, setresuid on this thread: there is no other in the child."""
        call("setgroups", 0, None)
        call("setresgid", 0, 0, 0)
        call("setresuid", 0, 0, 0)

    def emit(self, code: Code) -> None:
        """The same."""
        code.call("setgroups", 0, 0)
        code.call("setresgid", 0, 0, 0)
        code.call("setresuid", 0, 0, 0)


class AttachConsole(Step):
    """Make the pty that OpenConsole opened the terminal of the session, and send its master to the launcher."""

    op = "attach-console"

    def describe(self) -> str:
        """`exec <>/dev/console >&0 2>&0`."""
        return "exec <>/dev/console >&0 2>&0"

    def execute(self, ctx: Context) -> None:
        """TIOCSCTTY on the slave, which becomes 0, 1 and 2; the program may own it, as its login would."""
        master, slave = ctx.fds.pop("ptmx"), ctx.fds.pop("console")
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, master.to_bytes(4, sys.byteorder))
        assert ctx.channel is not None  # noqa: S101 - init has one
        ctx.channel.sendmsg([CONSOLE], [rights])
        fcntl.ioctl(slave, _TIOCSCTTY, 0)
        if ctx.window:
            fcntl.ioctl(slave, _TIOCSWINSZ, ctx.window)
        for target in (0, 1, 2):
            os.dup2(slave, target)
        os.close(slave)
        os.close(master)

    def emit(self, code: Code) -> None:
        """The same."""
        master, slave = code.fds.pop("ptmx"), code.fds.pop("console")
        code.builtin("send_fd", CONSOLE, len(CONSOLE), master)
        code.call("ioctl", slave, _TIOCSCTTY, 0)
        if code.window:
            code.call("ioctl", slave, _TIOCSWINSZ, code.data(code.window))
        for target in (0, 1, 2):
            code.call("dup3", slave, target, 0)
        for fd in (slave, master):
            code.close(fd)
            code.release(fd)
