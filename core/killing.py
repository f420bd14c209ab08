"""Ends the processes of a container that lasts, paused or not, whatever its cgroups can do."""

from __future__ import annotations

import contextlib
import os
import signal

from gocker.errors import StateError
from gocker.kernel import freezer
from gocker.kernel.cgroupfs import PATIENCE, kill_all, processes
from gocker.kernel.process import has_ended, pidfd_send_signal
from gocker.lasting import Lasting, freezers, is_frozen, open_first
from gocker.model import Hierarchy


def kill_everything(lasting: Lasting) -> None:
    """SIGKILL for every process, a frozen container thawed so that they can go. Raise GockerError, OSError."""
    if is_frozen(lasting):
        signal_all(lasting, signal.SIGKILL)  # before the thaw: nothing runs on
        thaw(lasting)
    for group in lasting.groups[:1]:
        kill_all(group.path, group.version)
    with contextlib.suppress(StateError, ProcessLookupError):
        pidfd = open_first(lasting)
        try:
            pidfd_send_signal(pidfd, signal.SIGKILL)
            has_ended(pidfd, PATIENCE)
        finally:
            os.close(pidfd)


def thaw(lasting: Lasting) -> None:
    """Let what was killed while it was frozen by cgroup v1 come to its end."""
    for group in freezers(lasting):
        if group.version == Hierarchy.V1.value and freezer.is_frozen(group.path, group.version):
            freezer.thaw(group.path, group.version)


def signal_all(lasting: Lasting, number: int) -> None:
    """Send it to every process that is in the container now. Raise OSError."""
    for pid in _members(lasting):
        with contextlib.suppress(ProcessLookupError):
            _signal_one(pid, number, lasting)


def _members(lasting: Lasting) -> list[int]:
    return processes(lasting.groups[0].path) if lasting.groups else [lasting.pid]


def _signal_one(pid: int, number: int, lasting: Lasting) -> None:
    """By a pidfd, which is of the container still when it is held."""
    pidfd = os.pidfd_open(pid)
    try:
        if pid in _members(lasting):
            pidfd_send_signal(pidfd, number)
    finally:
        os.close(pidfd)
