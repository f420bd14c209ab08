"""Capabilities: their names, docker's sets of them, and the calls that take them away."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable

from gocker.errors import KernelError, UsageError
from gocker.kernel.syscalls import call, prctl

# include/uapi/linux/capability.h: the index is the number.
NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
NUMBERS = {name: number for number, name in enumerate(NAMES)}
DOCKER_DEFAULT = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SYS_CHROOT",
    "CAP_MKNOD",
    "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
)
"""What docker gives without being asked; source: its documentation, "Runtime privilege"."""

_VERSION_3 = 0x20080522  # of capset(2): two 32-bit words a set
_HEADER = struct.Struct("=Ii")
_DATA = struct.Struct("=6I")  # effective, permitted, inheritable: low words, then high words
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 47, 2, 4
_MAX = 63  # what two words can hold


def last_cap() -> int:
    """The highest capability of this kernel: /proc/sys/kernel/cap_last_cap, capabilities(7)."""
    fd = os.open("/proc/sys/kernel/cap_last_cap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(fd, 16))
    finally:
        os.close(fd)


def capability_name(text: str) -> str:
    """`net_admin` or `CAP_NET_ADMIN` as CAP_NET_ADMIN; raise UsageError when there is none."""
    name = text.upper()
    if not name.startswith("CAP_"):
        name = f"CAP_{name}"
    if name not in NUMBERS:
        remedy = "capsh --print and capabilities(7) list them; ALL means all"
        raise UsageError("parse capability", text, "no such capability", remedy=remedy)
    return name


def docker_capabilities(add: Iterable[str], drop: Iterable[str], *, privileged: bool) -> tuple[str, ...]:
    """The set that docker's --cap-add, --cap-drop and --privileged give, in kernel order.

    ALL in `drop` starts from nothing, ALL in `add` from all that there are; a name in both is given.
    `privileged` gives all whatever the others say. All is what the kernel has and gocker's own
    bounding set holds, so that gocker works inside a container. Raise UsageError.
    """
    added, dropped = list(add), list(drop)
    add_all, drop_all = _take_all(added), _take_all(dropped)
    plus = {capability_name(text) for text in added}
    minus = {capability_name(text) for text in dropped}
    if privileged:
        chosen = _bounding()
    elif add_all:
        chosen = _bounding() - minus | plus
    elif drop_all:
        chosen = plus
    else:
        chosen = (set(DOCKER_DEFAULT) - minus) | plus
    return tuple(name for name in NAMES if name in chosen)


def _bounding() -> set[str]:
    return {name for number, name in enumerate(NAMES[: last_cap() + 1]) if prctl(_PR_CAPBSET_READ, number)}


def _take_all(names: list[str]) -> bool:
    """Whether ALL is among `names`; it is taken out."""
    rest = [name for name in names if name.upper() not in {"ALL", "CAP_ALL"}]
    found = len(rest) != len(names)
    names[:] = rest
    return found


def drop_bounding(keep: Iterable[str]) -> None:
    """Take everything but `keep` out of the bounding set; needs CAP_SETPCAP. Raise OSError, KernelError.

    Source: PR_CAPBSET_DROP(2const). A kernel with capabilities that gocker cannot name loses them too.
    """
    numbers = {NUMBERS[name] for name in keep}
    for number in range(_MAX + 1):
        if number in numbers:
            continue
        try:
            prctl(_PR_CAPBSET_DROP, number)
        except OSError as error:
            if error.errno == errno.EINVAL and number:  # above the last that this kernel has
                missing = [n for n in sorted(numbers) if n > number]
                if missing:
                    raise not_in_kernel(missing[0]) from error
                return
            raise


def not_in_kernel(number: int) -> KernelError:
    """What is said of a capability that is to be kept and is not there."""
    return KernelError("keep capability", NAMES[number], "this kernel does not have it", errno=errno.EINVAL)


def set_capabilities(
    effective: Iterable[str],
    permitted_set: Iterable[str],
    inheritable: Iterable[str] = (),
    ambient: Iterable[str] = (),
) -> None:
    """Make these the sets of this process, by CAP_ names.

    Raise KernelError when this process lacks one of them. Source: capset(2), PR_CAP_AMBIENT(2const).
    """
    kept = tuple(permitted_set)
    header, data = sets(effective, kept, inheritable)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    try:
        call("capset", header, data)
        for name in ambient:
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, NUMBERS[name], 0, 0)
    except PermissionError as error:
        raise refused(kept, permitted(), error) from error


def sets(
    effective: Iterable[str], permitted_set: Iterable[str], inheritable: Iterable[str]
) -> tuple[bytes, bytes]:
    """The two structures of capset(2), by CAP_ names."""
    masks = [_mask(names) for names in (effective, permitted_set, inheritable)]
    low, high = ([mask & 0xFFFFFFFF for mask in masks], [mask >> 32 for mask in masks])
    return _HEADER.pack(_VERSION_3, 0), _DATA.pack(*low, *high)


def refused(kept: Iterable[str], have: Iterable[str], error: OSError) -> KernelError:
    """What is said when a process that has `have` cannot make `kept` its own."""
    kept, have = tuple(kept), set(have)
    lacking = [name for name in kept if name not in have]
    return KernelError(
        "set capabilities",
        ",".join(lacking or kept),
        "gocker itself does not have it" if lacking else "the sets contradict each other",
        remedy="start gocker with it, or leave it out by --cap-drop" if lacking else "see capabilities(7)",
        errno=error.errno or 0,
    )


def _mask(names: Iterable[str]) -> int:
    return sum(1 << NUMBERS[name] for name in names)


def permitted() -> set[str]:
    """The names in this process's permitted set; capget(2)."""
    data = ctypes.create_string_buffer(_DATA.size)
    call("capget", _HEADER.pack(_VERSION_3, 0), data)
    words = _DATA.unpack(data.raw)
    mask = words[1] | words[4] << 32
    return {name for number, name in enumerate(NAMES) if mask >> number & 1}
