"""What is done to a container while it lives: it is paused and resumed, its processes are listed."""

from __future__ import annotations

from gocker.audit import AuditLog
from gocker.auditevent import Event
from gocker.errors import HierarchyError, KernelError, StateError
from gocker.kernel import cgroupfs, freezer
from gocker.lasting import PAUSED, STOPPED, Lasting, freezers, read_lasting, status_of
from gocker.model import Hierarchy
from gocker.owing import write_or_owe
from gocker.state import State


def pause(container: str, state: State, audit: AuditLog) -> None:
    """Stop every process of the container where it is; return once all have. Raise GockerError."""
    audit.prepare()
    claim = state.lasting(container)
    try:
        lasting = read_lasting(state, container)
        status = status_of(lasting, state)
        if status == PAUSED:
            raise StateError("pause container", container, "it is paused already")
        if status == STOPPED:
            raise StateError("pause container", container, "container not running")
        groups = freezers(lasting)
        if not groups:
            raise HierarchyError(
                "pause container",
                container,
                "it is in no freezer cgroup",
                remedy="mount cgroup2 or the v1 freezer and create it again",
            )
        try:
            freezer.freeze(groups[0].path, groups[0].version)
        except OSError as error:
            raise KernelError.from_os("pause container", container, error) from error
        write_or_owe(audit, [Event.now("container.pause")], lasting, claim)
    finally:
        claim.close()


def resume(container: str, state: State, audit: AuditLog) -> None:
    """Let the processes of a paused container go on. Raise GockerError."""
    audit.prepare()
    claim = state.lasting(container)
    try:
        lasting = read_lasting(state, container)
        if status_of(lasting, state) != PAUSED:
            raise StateError("resume container", container, "container not paused")
        try:
            for group in freezers(lasting):
                if freezer.is_frozen(group.path, group.version):
                    freezer.thaw(group.path, group.version)
        except OSError as error:
            raise KernelError.from_os("resume container", container, error) from error
        write_or_owe(audit, [Event.now("container.resume")], lasting, claim)
    finally:
        claim.close()


def pids_of(container: str, state: State) -> list[int]:
    """The processes of the container, by their ids here, sorted. Raise GockerError when it has stopped."""
    lasting = read_lasting(state, container)
    if status_of(lasting, state) == STOPPED:
        raise StateError("list processes of", container, "container not running")
    if not lasting.groups:
        return [lasting.pid]
    return sorted(cgroupfs.processes(lasting.groups[0].path))


def usage_places(lasting: Lasting) -> dict[str, tuple[str, Hierarchy]]:
    """(directory, version) by plug-in name, and of cgroup v2 under the name `cgroup`."""
    found: dict[str, tuple[str, Hierarchy]] = {}
    for group in lasting.groups:
        version = Hierarchy(group.version)
        for name in group.controllers:
            found[name] = (group.path, version)
        if version is Hierarchy.V2:
            found["cgroup"] = (group.path, version)
    return found
