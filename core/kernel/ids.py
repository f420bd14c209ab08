"""Who and where this process is: user and group ids, working directory, what it passes on through exec.

Raw system calls on purpose: libc's setresuid asks all threads that it believes in to follow, and
after a raw clone3 it believes in the launcher's.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Sequence
from fcntl import F_GETFD, FD_CLOEXEC, fcntl

from gocker.errors import KernelError
from gocker.kernel.syscalls import call, prctl

PR_SET_PDEATHSIG, PR_GET_PDEATHSIG = 1, 2
PR_SET_KEEPCAPS = 8
PR_SET_NO_NEW_PRIVS = 38
CLOSE_RANGE_CLOEXEC = 4
MAX_FD = 0xFFFFFFFF
PATH_MAX = 4096


def set_ids(uid: int, gid: int, groups: Sequence[int]) -> None:
    """Become `uid` and `gid` with the supplementary `groups`, keeping the permitted capabilities.

    The order is SECURITY R9's: setgroups, setresgid, setresuid. The signal that comes when the parent
    dies is kept too: the kernel drops it when ids change. Raise OSError, KernelError.
    """
    signal = ctypes.create_string_buffer(4)
    prctl(PR_GET_PDEATHSIG, ctypes.addressof(signal))
    prctl(PR_SET_KEEPCAPS, 1)
    call("setgroups", len(groups), struct.pack(f"={len(groups)}I", *groups))
    call("setresgid", gid, gid, gid)
    call("setresuid", uid, uid, uid)
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3:
        raise not_taken(f"{uid}:{gid}")
    prctl(PR_SET_PDEATHSIG, int.from_bytes(signal.raw, sys.byteorder))


def not_taken(who: str) -> KernelError:
    """What is said where the kernel says yes, and the ids are others."""
    return KernelError("set ids", who, "the kernel said yes and did not")


def set_no_new_privileges() -> None:
    """No exec from here on gives a privilege; PR_SET_NO_NEW_PRIVS(2const)."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def raw_getcwd() -> bytes:
    """What the kernel says, without libc's second thoughts: `(unreachable)/...` outside the root.

    Source: getcwd(2), NOTES on the C library and the kernel.
    """
    buffer = ctypes.create_string_buffer(PATH_MAX)
    call("getcwd", buffer, PATH_MAX)
    return buffer.value


def close_on_exec_from(first: int) -> None:
    """Let exec close every fd from `first` on; close_range(2), Linux 5.11."""
    call("close_range", first, MAX_FD, CLOSE_RANGE_CLOEXEC)


def outlives_exec(fd: int) -> bool:
    """Whether `fd` is open and not close-on-exec. All that Python opens is; what it was started with cannot be."""
    try:
        return not fcntl(fd, F_GETFD) & FD_CLOEXEC
    except OSError:
        return False


def close_all_but(keep: set[int]) -> None:
    """Close every other fd; close_range(2)."""
    first = 0
    for fd in sorted(keep):
        if fd > first:
            call("close_range", first, fd - 1, 0)
        first = fd + 1
    call("close_range", first, MAX_FD, 0)
