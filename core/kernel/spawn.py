"""The birth of a container's first process: directly by clone3, or by way of a helper that joins first.

    launcher                       helper                        first process
       | clone3() ------------------>|
       |                             | setns(joins), unshare(time), offsets
       |                             | clone3(CLONE_PARENT) ---------->| setns(cgroup), enter()
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
from collections.abc import Callable
from typing import NoReturn

from gocker.errors import EXIT_GOCKER_FAILED
from gocker.kernel import process
from gocker.kernel.sigmask import ALL, BLOCK, SETMASK, change_mask
from gocker.kernel.syscalls import prctl, setns, unshare

Join = tuple[str, int]  # (path of the namespace, CLONE_NEW* flag)
Offset = tuple[str, int, int]  # (clock, seconds, nanoseconds)

_REPLY = struct.Struct("=ii")  # pid, errno


def spawn(
    enter: Callable[[], NoReturn],
    flags: int,
    joins: tuple[Join, ...] = (),
    offsets: tuple[Offset, ...] = (),
    cgroup_fd: int = -1,
) -> tuple[int, int]:
    """Make a process that goes on in `enter`; return its (pid, pidfd).

    `flags` are the CLONE_NEW* of new namespaces, CLONE_NEWTIME included; `joins` are entered in the
    order given. The first process starts with every signal blocked: gocker's handlers are not its own.
    It is not dumpable from birth, since that is inherited: so the caller is not from here on, either,
    which as root it does not notice. Source: PR_SET_DUMPABLE(2const). Raise OSError.
    """
    prctl(process.PR_SET_DUMPABLE, 0)
    mask = change_mask(BLOCK, ALL)
    try:
        if joins or flags & process.CLONE_NEWTIME:
            return _spawn_joined(enter, flags, joins, offsets, cgroup_fd)
        pid, pidfd = process.clone(flags, cgroup_fd=cgroup_fd)
        if pid == 0:
            _go_on(enter)
        return pid, pidfd
    finally:
        change_mask(SETMASK, mask)


def _go_on(enter: Callable[[], NoReturn]) -> NoReturn:
    """Whatever happens, a child never returns into the code of its parent."""
    try:
        enter()
    finally:
        os._exit(EXIT_GOCKER_FAILED)


def _spawn_joined(
    enter: Callable[[], NoReturn],
    flags: int,
    joins: tuple[Join, ...],
    offsets: tuple[Offset, ...],
    cgroup_fd: int,
) -> tuple[int, int]:
    opened: list[int] = []
    try:
        for path, flag in joins:
            opened.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            process.require_kind(opened[-1], path, flag)
        namespaces = tuple((fd, flag) for fd, (_, flag) in zip(opened, joins, strict=True))
        read, write = os.pipe2(os.O_CLOEXEC)
        opened += [read, write]
        launcher = os.getpid()
        helper, helper_fd = process.clone(0)
        if helper == 0:
            _go_on(lambda: _join_and_clone(enter, flags, namespaces, offsets, cgroup_fd, write, launcher))
        os.close(helper_fd)
        os.close(opened.pop())
        reply = os.read(read, _REPLY.size)
        os.waitpid(helper, 0)
    finally:
        for fd in opened:
            os.close(fd)
    if len(reply) != _REPLY.size:
        raise OSError(5, "the helper that joins namespaces died")
    pid, number = _REPLY.unpack(reply)
    if number:
        raise OSError(number, os.strerror(number))
    return pid, os.pidfd_open(pid)


def _join_and_clone(
    enter: Callable[[], NoReturn],
    flags: int,
    namespaces: tuple[tuple[int, int], ...],
    offsets: tuple[Offset, ...],
    cgroup_fd: int,
    reply: int,
    launcher: int,
) -> NoReturn:
    """The helper; all its fds are close-on-exec, so the first process may keep them until then."""
    prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:  # it ended before that was in force
        os._exit(EXIT_GOCKER_FAILED)
    try:
        for fd, flag in namespaces:
            if flag != process.CLONE_NEWCGROUP:
                setns(fd, flag)
        if flags & process.CLONE_NEWTIME:
            unshare(process.CLONE_NEWTIME)
            if offsets:
                _write_offsets(offsets)
        pid, _ = process.clone(flags & ~process.CLONE_NEWTIME | process.CLONE_PARENT, cgroup_fd=cgroup_fd)
    except OSError as error:
        os.write(reply, _REPLY.pack(0, error.errno or 5))
        os._exit(1)
    if pid == 0:
        os.close(reply)
        _go_on(lambda: _enter_below(enter, namespaces))
    os.write(reply, _REPLY.pack(pid, 0))
    os._exit(0)


def _enter_below(enter: Callable[[], NoReturn], namespaces: tuple[tuple[int, int], ...]) -> NoReturn:
    """Join a cgroup namespace last, in its cgroup: `nsdelegate` lets nobody be born in it from outside.

    Source: cgroup_attach_permissions() of clone3(2) answers ENOENT for a way across the root of the namespace.
    """
    for fd, flag in namespaces:
        if flag == process.CLONE_NEWCGROUP:
            setns(fd, flag)
    enter()


def _write_offsets(offsets: tuple[Offset, ...]) -> None:
    """One line a clock; the namespace takes them until its first process is in. Source: time_namespaces(7)."""
    fd = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, "".join(f"{clock} {seconds} {nanos}\n" for clock, seconds, nanos in offsets).encode())
    finally:
        os.close(fd)
