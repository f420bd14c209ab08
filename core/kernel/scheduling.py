"""How the kernel shares out processors and disks to a process: policies, priorities, CPUs."""

from __future__ import annotations

import ctypes
import struct

from gocker.kernel.syscalls import call

# include/uapi/linux/sched.h
POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,  # reserved: no kernel has it
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
# include/uapi/linux/ioprio.h
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
IO_LEVELS = 8
NICE = range(-20, 20)

_SCHED_ATTR = struct.Struct("=IIQiI3Q")  # struct sched_attr as of Linux 3.14, its size first
_IOPRIO_WHO_PROCESS, _IOPRIO_CLASS_SHIFT = 1, 13


def set_scheduler(
    pid: int,
    policy: int,
    flags: int = 0,
    nice: int = 0,
    priority: int = 0,
    times: tuple[int, int, int] = (0, 0, 0),
) -> None:
    """Set policy and parameters of `pid`, 0 for this process; `times` are runtime, deadline and period in ns.

    Raise OSError. Source: sched_setattr(2).
    """
    data = _SCHED_ATTR.pack(_SCHED_ATTR.size, policy, flags, nice, priority, *times)
    attributes = ctypes.create_string_buffer(data, len(data))  # the kernel writes its own size on E2BIG
    call("sched_setattr", pid, attributes, 0)


def set_io_priority(pid: int, kind: int, level: int) -> None:
    """Set class and level of `pid`'s I/O, 0 for this process. Raise OSError. Source: ioprio_set(2)."""
    call("ioprio_set", _IOPRIO_WHO_PROCESS, pid, kind << _IOPRIO_CLASS_SHIFT | level)
