"""Ends the processes of a container that lasts, paused or not, whatever its cgroups can do."""

from __future__ import annotations

import contextlib
import os
import signal

from gocker.errors import KernelError, StateError
from gocker.kernel import freezer
from gocker.kernel.cgroupfs import PATIENCE, kill_all, processes
from gocker.kernel.process import has_ended, pidfd_send_signal
from gocker.lasting import Lasting, boot_id, freezers, is_frozen, lives, open_first, read_lasting
from gocker.model import Hierarchy
from gocker.state import State


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
    if lasting.groups:
        return processes(lasting.groups[0].path)
    return [lasting.pid] if lives(lasting) else []


def _signal_one(pid: int, number: int, lasting: Lasting) -> None:
    """By a pidfd, which is of the container still when it is held."""
    pidfd = os.pidfd_open(pid)
    try:
        if pid in _members(lasting):
            pidfd_send_signal(pidfd, number)
    finally:
        os.close(pidfd)


def send_signal(container: str, number: int, state: State, *, everybody: bool = False) -> None:
    """Signal the first process, or every process of the container. Raise GockerError.

    SIGKILL ends everybody, as it does in a PID namespace whose first process goes, and thaws what is frozen
    by cgroup v1, where no signal would reach it.
    """
    lasting = read_lasting(state, container)
    if everybody:
        signal_all(lasting, number)
    elif number == signal.SIGKILL and lasting.boot == boot_id() and not lives(lasting) and _members(lasting):
        # The first process shared its PID namespace, and went before the others.
        signal_all(lasting, number)
    else:
        pidfd = _open_to_signal(lasting)
        try:
            if number == signal.SIGKILL and not _is_first(lasting.pid):
                signal_all(lasting, number)
            pidfd_send_signal(pidfd, number)
        except ProcessLookupError as error:
            if number != signal.SIGKILL:
                raise _not_running("kill container", container) from error
        except OSError as error:
            raise KernelError.from_os("kill container", container, error) from error
        finally:
            os.close(pidfd)
    if number == signal.SIGKILL:
        thaw(lasting)


def _is_first(pid: int) -> bool:
    """Whether it is process 1 of a PID namespace, whose end is that of all others in it. Source: proc_pid_status(5)."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            ids = next((line.split() for line in file if line.startswith("NSpid:")), [])
    except (FileNotFoundError, ProcessLookupError):
        return True  # nobody is left to be killed by it
    return ids[-1:] == ["1"]


def _open_to_signal(lasting: Lasting) -> int:
    try:
        return open_first(lasting)
    except StateError as error:
        raise _not_running("kill container", lasting.id) from error


def _not_running(operation: str, container: str) -> StateError:
    return StateError(operation, container, "container not running")
