"""Processes: clone3 with namespaces, pidfds and their signals, waiting with resource usage."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import struct
import time
from fcntl import ioctl

from gocker.kernel.syscalls import NUMBERS, call

CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
_KCMP_FILE = 0
_NS_GET_NSTYPE = 0xB703  # linux/nsfs.h; ioctl_ns(2)
_LOOKS = 50  # a millisecond apart

_CLONE_ARGS = struct.Struct("=11Q")  # struct clone_args, version 2 of clone(2): 88 bytes


def clone(flags: int, *, cgroup_fd: int = -1) -> tuple[int, int]:
    """Fork into new namespaces; return (pid, pidfd), or (0, -1) in the child.

    `flags` are CLONE_NEW* and CLONE_PARENT; a `cgroup_fd` >= 0 is a cgroup v2 directory that the
    child is born in. The caller must be single-threaded or end the child in execve. Source: clone(2).
    """
    pidfd = ctypes.c_int(-1)
    flags |= CLONE_PIDFD
    if cgroup_fd >= 0:
        flags |= CLONE_INTO_CGROUP
    exit_signal = 0 if flags & CLONE_PARENT else signal.SIGCHLD
    args = _CLONE_ARGS.pack(
        flags, ctypes.addressof(pidfd), 0, 0, exit_signal, 0, 0, 0, 0, 0, max(cgroup_fd, 0)
    )
    pid = call("clone3", args, len(args))
    return pid, pidfd.value if pid else -1


def require_kind(fd: int, path: str, flag: int) -> None:
    """Raise OSError unless `fd` is a namespace of the kind `flag` (CLONE_NEW*), and no mount namespace of our own."""
    try:
        same = ioctl(fd, _NS_GET_NSTYPE) == flag
    except OSError:
        same = False  # ENOTTY: no namespace at all
    if not same:
        raise OSError(errno.EINVAL, "not a namespace of this kind:", path)
    if flag == CLONE_NEWNS and os.path.samestat(os.fstat(fd), os.stat("/proc/self/ns/mnt")):
        # Its root would be pivoted away from under the host.
        raise OSError(errno.EINVAL, "it is gocker's own mount namespace:", path)


def pidfd_send_signal(pidfd: int, number: int) -> None:
    """Signal the process behind `pidfd`; raise ProcessLookupError when it has ended."""
    signal.pidfd_send_signal(pidfd, number)


def has_ended(pidfd: int, patience: float = 0.0) -> bool:
    """Whether the process behind `pidfd` has ended, waiting `patience` seconds for it; nothing is reaped."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(patience * 1000))


def start_time(pid: int) -> int:
    """Clock ticks after boot at which `pid` started: field 22 of /proc/PID/stat, proc_pid_stat(5)."""
    fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(fd, 4096)
    finally:
        os.close(fd)
    return int(text[text.rindex(b")") + 2 :].split()[19])


def same_description(one: int, other: int) -> bool:
    """Whether two fds share one open file, offset and all; False also where kcmp(2) may not be asked."""
    pid = os.getpid()
    try:
        return call("kcmp", pid, pid, _KCMP_FILE, one, other) == 0
    except OSError:
        return False  # not in this kernel, or a filter's no


def disposes(pid: int, number: int) -> bool:
    """Whether `pid` catches, ignores or waits for signal `number`; if not, its default action follows.

    Of a first process, whose default actions the kernel leaves out (pid_namespaces(7)), it would not even
    be noticed. In doubt True. Source: proc_pid_status(5), proc_pid_syscall(5). Raise OSError.
    """
    defaults = 0
    # A look is not enough: shells block all signals for a moment when they fork; what sigtimedwait(2) waits
    # for is not blocked meanwhile (do_sigtimedwait in the kernel's signal.c), as tini and dumb-init do.
    for _ in range(_LOOKS):
        waits = _read(pid, "syscall").startswith(b"%d " % NUMBERS["rt_sigtimedwait"])
        lines = [line.split(b":\t") for line in _read(pid, "status").split(b"\n") if line.startswith(b"Sig")]
        blocked, ignored, caught = (int(dict(lines)[name], 16) for name in (b"SigBlk", b"SigIgn", b"SigCgt"))
        if waits or (ignored | caught) >> (number - 1) & 1:
            return True
        if not blocked >> (number - 1) & 1:
            defaults += 1
            if defaults == 2:
                return False
        time.sleep(0.001)
    return True


def _read(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()
