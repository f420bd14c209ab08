"""The birth of a container's first process: directly by clone3, or by way of a helper that joins first.

    launcher                       helper                        first process
       | clone3() ------------------>|
       |                             | setns(joins), unshare(time), offsets
       |                             | clone3(CLONE_PARENT) ---------->| returns Born(pid=0)
       |<-------- pid or errno ------|
       |                             | _exit
       | pidfd_open(pid)

The helper is needed because a process cannot be put into another user, PID or time namespace and
come back. CLONE_PARENT makes the launcher the parent of the first process all the same.
"""

from __future__ import annotations

import os
import signal
import struct

from gocker.kernel import process
from gocker.kernel.syscalls import setns, unshare

Join = tuple[str, int]  # (path of the namespace, CLONE_NEW* flag)
Offset = tuple[str, int, int]  # (clock, seconds, nanoseconds)

_REPLY = struct.Struct("=ii")  # pid, errno


def spawn(
    flags: int, joins: tuple[Join, ...], offsets: tuple[Offset, ...], cgroup_fd: int = -1
) -> tuple[int, int]:
    """Return (pid, pidfd) in the launcher and (0, -1) in the container's first process.

    `flags` are the CLONE_NEW* of new namespaces, CLONE_NEWTIME included; `joins` are entered in the
    order given. The first process starts with every signal blocked: gocker's handlers are not its own.
    Raise OSError.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = -1
    try:
        if joins or flags & process.CLONE_NEWTIME:
            pid, pidfd = _spawn_joined(flags, joins, offsets, cgroup_fd)
        else:
            pid, pidfd = process.clone(flags, cgroup_fd=cgroup_fd)
    finally:
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid, pidfd


def _spawn_joined(
    flags: int, joins: tuple[Join, ...], offsets: tuple[Offset, ...], cgroup_fd: int
) -> tuple[int, int]:
    fds = [_open_namespace(path) for path, _ in joins]
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        helper, helper_fd = process.clone(0)
        if helper == 0:
            try:
                return _join_and_clone(flags, joins, fds, offsets, cgroup_fd, write)
            except OSError as error:
                os.write(write, _REPLY.pack(0, error.errno or 5))
                os._exit(1)
        os.close(helper_fd)
        os.close(write)
        write = -1
        reply = os.read(read, _REPLY.size)
        os.waitpid(helper, 0)
    finally:
        for fd in (*fds, read, write):
            if fd >= 0:
                os.close(fd)
    if len(reply) != _REPLY.size:
        raise OSError(5, "the joining helper died")
    pid, number = _REPLY.unpack(reply)
    if number:
        raise OSError(number, os.strerror(number))
    return pid, os.pidfd_open(pid)


def _join_and_clone(
    flags: int,
    joins: tuple[Join, ...],
    fds: list[int],
    offsets: tuple[Offset, ...],
    cgroup_fd: int,
    reply: int,
) -> tuple[int, int]:
    for fd, (_, flag) in zip(fds, joins, strict=True):
        setns(fd, flag)
    if flags & process.CLONE_NEWTIME:
        unshare(process.CLONE_NEWTIME)
        if offsets:
            text = "".join(f"{clock} {seconds} {nanos}\n" for clock, seconds, nanos in offsets)
            _write("/proc/self/timens_offsets", text)
    pid, pidfd = process.clone(flags & ~process.CLONE_NEWTIME | process.CLONE_PARENT, cgroup_fd=cgroup_fd)
    if pid == 0:
        for fd in (*fds, reply):
            os.close(fd)
        return 0, -1
    os.close(pidfd)
    os.write(reply, _REPLY.pack(pid, 0))
    os._exit(0)


def _open_namespace(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
