"""Signal masks and signalfd(2) in single calls: the signal module makes an enum member of every number."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable

from gocker.kernel.syscalls import call

BLOCK, SETMASK = 0, 2  # SIG_BLOCK and SIG_SETMASK
ALL = (1 << 64) - 1
SIGINFO_SIZE = 128  # struct signalfd_siginfo
_SFD_NONBLOCK_CLOEXEC = 0o2004000
_SET = struct.Struct("=Q")  # the kernel's sigset_t on 64-bit machines
_SIGINFO = struct.Struct("=IiiII108x")  # ssi_signo, ssi_errno, ssi_code, ssi_pid, ssi_uid


def mask_of(numbers: Iterable[int]) -> int:
    """The set of signal `numbers` as an integer, bit n-1 for signal n."""
    mask = 0
    for number in numbers:
        mask |= 1 << (number - 1)
    return mask


def change_mask(how: int, mask: int) -> int:
    """Change the calling thread's mask by BLOCK or SETMASK; return the old one. Source: rt_sigprocmask(2)."""
    old = ctypes.create_string_buffer(_SET.size)
    call("rt_sigprocmask", how, _SET.pack(mask), old, _SET.size)
    return int(_SET.unpack(old.raw)[0])


def signal_fd(mask: int) -> int:
    """A non-blocking, close-on-exec fd that reads the signals of `mask`, which are blocked; signalfd(2)."""
    return call("signalfd4", -1, _SET.pack(mask), _SET.size, _SFD_NONBLOCK_CLOEXEC)


def parse_siginfo(data: bytes) -> list[tuple[int, int, int, int]]:
    """(signal, si_code, pid, uid) of each struct signalfd_siginfo in `data`; si_code <= 0 is a process's doing."""
    return [(number, code, pid, uid) for number, _, code, pid, uid in _SIGINFO.iter_unpack(data)]
