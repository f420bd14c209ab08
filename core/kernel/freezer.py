"""The freezer on cgroup v1 and v2: stops every process below a directory where it is, and lets them go on."""

from __future__ import annotations

import errno
import os
import time

from gocker.errors import KernelError
from gocker.kernel.cgroupfs import PATIENCE, read_file, write_file
from gocker.model import Hierarchy

_NAP_FIRST, _NAP_LAST = 0.0005, 0.02  # seconds between two looks, doubling
_LOOKS = 20  # of v1, before it is let go and frozen anew


def can_freeze(path: str, version: str) -> bool:
    """Whether the directory has the freezer's files; on v2 all but the root have, since Linux 5.2."""
    return os.path.exists(f"{path}/{_file(version)}")


def is_frozen(path: str, version: str) -> bool:
    """Whether somebody asked for it, whether or not each process has stopped. Raise OSError."""
    if version == Hierarchy.V2.value:
        return read_file(path, "cgroup.freeze") == "1"
    return read_file(path, "freezer.self_freezing") == "1"


def freeze(path: str, version: str, patience: float = PATIENCE) -> None:
    """Return once every process below `path` has stopped.

    Raise KernelError when one has not after `patience` seconds; then all go on. Source: kernel
    Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst and cgroup-v2.rst, cgroup.freeze.
    """
    deadline = time.monotonic() + patience
    nap = _NAP_FIRST
    look = 0
    try:
        _write(path, version, frozen=True)
        while not _has_stopped(path, version):
            if time.monotonic() > deadline:
                raise KernelError(  # noqa: TRY301
                    "freeze cgroup",
                    path,
                    f"a process has not stopped after {patience:g} s",
                    remedy="see their state in /proc/PID/status: D waits for a device",
                    errno=errno.EBUSY,
                )
            time.sleep(nap)
            nap = min(2 * nap, _NAP_LAST)
            look += 1
            if version == Hierarchy.V1.value:
                # A process that was forked or moved meanwhile is only caught by another write; what waits
                # for one that is frozen already (vfork, ptrace) is only freed by a thaw in between.
                if look % _LOOKS == 0:
                    _write(path, version, frozen=False)
                _write(path, version, frozen=True)
    except BaseException:
        thaw(path, version)
        raise


def thaw(path: str, version: str) -> None:
    """Let them go on; a directory that is gone is fine. Raise OSError."""
    try:
        _write(path, version, frozen=False)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENODEV}:
            raise


def _file(version: str) -> str:
    return "cgroup.freeze" if version == Hierarchy.V2.value else "freezer.state"


def _write(path: str, version: str, *, frozen: bool) -> None:
    if version == Hierarchy.V2.value:
        write_file(path, "cgroup.freeze", "1" if frozen else "0")
    else:
        write_file(path, "freezer.state", "FROZEN" if frozen else "THAWED")


def _has_stopped(path: str, version: str) -> bool:
    if version == Hierarchy.V1.value:
        return read_file(path, "freezer.state") == "FROZEN"
    return "frozen 1" in (read_file(path, "cgroup.events") or "").split("\n")
