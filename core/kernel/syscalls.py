"""System calls that Python's os module lacks: one table of numbers, one caller, thin functions.

Everything is bound through `ctypes.PyDLL`, which keeps the GIL held over the call: a child made by
a raw clone3 then owns the interpreter, and no call here blocks for long.
"""

from __future__ import annotations

import ctypes
import os

_MACHINE = os.uname().machine

# Sources: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h (arm64).
# From clone3's neighbourhood on (424 and up) all architectures share one number.
_X86_64 = {
    "mmap": 9,
    "munmap": 11,
    "madvise": 28,
    "mount": 165,
    "umount2": 166,
    "pivot_root": 155,
    "sethostname": 170,
    "setdomainname": 171,
    "setns": 308,
    "unshare": 272,
    "capget": 125,
    "capset": 126,
    "prctl": 157,
    "keyctl": 250,
    "seccomp": 317,
    "execveat": 322,
    "getcwd": 79,
    "setresuid": 117,
    "setresgid": 119,
    "setgroups": 116,
    "mknodat": 259,
    "fstatfs": 138,
    "prlimit64": 302,
    "bpf": 321,
    "rt_sigprocmask": 14,
    "rt_sigtimedwait": 128,
    "signalfd4": 289,
    "kcmp": 312,
    "sched_setattr": 314,
    "ioprio_set": 251,
    "set_mempolicy": 238,
    "personality": 135,
}
_AARCH64 = {
    "mmap": 222,
    "munmap": 215,
    "madvise": 233,
    "mount": 40,
    "umount2": 39,
    "pivot_root": 41,
    "sethostname": 161,
    "setdomainname": 162,
    "setns": 268,
    "unshare": 97,
    "capget": 90,
    "capset": 91,
    "prctl": 167,
    "keyctl": 219,
    "seccomp": 277,
    "execveat": 281,
    "getcwd": 17,
    "setresuid": 147,
    "setresgid": 149,
    "setgroups": 159,
    "mknodat": 33,
    "fstatfs": 44,
    "prlimit64": 261,
    "bpf": 280,
    "rt_sigprocmask": 135,
    "rt_sigtimedwait": 137,
    "signalfd4": 74,
    "kcmp": 272,
    "sched_setattr": 274,
    "ioprio_set": 30,
    "set_mempolicy": 237,
    "personality": 92,
}
_COMMON = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
}
_TABLES = {"x86_64": _X86_64, "aarch64": _AARCH64}
NUMBERS = {**_TABLES.get(_MACHINE, {}), **_COMMON}
"""System call numbers of this machine."""

_libc = ctypes.PyDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_get_errno = ctypes.get_errno
_long = ctypes.c_long
_char_p = ctypes.c_char_p


def call(name: str, *args: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Do the system call `name`; ints are passed as longs, bytes as pointers, None as NULL.

    Raise OSError with the errno. Source: syscall(2).
    """
    number = NUMBERS.get(name)
    if number is None:
        raise OSError(38, f"no system call number for {name} on {_MACHINE}")
    result: int = _syscall(_long(number), *[_long(a) if type(a) is int else a for a in args])
    if result == -1:
        error = _get_errno()
        raise OSError(error, os.strerror(error))
    return result


def setns(fd: int, flag: int) -> None:
    """Join the namespace behind `fd`, which must be of kind `flag` (CLONE_NEW*); setns(2)."""
    call("setns", fd, flag)


def unshare(flags: int) -> None:
    """Leave the namespaces `flags` for new ones; unshare(2)."""
    call("unshare", flags)


def sethostname(name: bytes) -> None:
    """Set the UTS namespace's hostname, at most 64 bytes; sethostname(2)."""
    call("sethostname", name, len(name))


def setdomainname(name: bytes) -> None:
    """Set the UTS namespace's NIS domain name, at most 64 bytes; setdomainname(2)."""
    call("setdomainname", name, len(name))


def prctl(option: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    """prctl(2) with whole-number arguments."""
    return call("prctl", option, a, b, c, d)
