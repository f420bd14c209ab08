"""The plan of one more process in a container that runs: joined namespaces and cgroups, the same last steps."""

from __future__ import annotations

import os

from gocker.api import NamespaceHandler
from gocker.errors import StateError
from gocker.kernel import cgroupfs
from gocker.lasting import Group, Lasting
from gocker.model import ContainerSpec, Hierarchy
from gocker.plan import Plan, Step
from gocker.registry import Registry
from gocker.seccomp import seccomp_step
from gocker.steps import identity
from gocker.steps.cgroup import JoinCgroup, OpenCgroup
from gocker.steps.console import OpenPty
from gocker.steps.joining import LetGo, RequireProcess
from gocker.steps.launch import AttachConsole, BecomeRoot, Clone
from gocker.steps.scheduling import ResetAffinity

_PROC_NAMES = {"mount": "mnt", "network": "net"}  # below /proc/PID/ns; the others have their own


def plan_exec(
    spec: ContainerSpec,
    lasting: Lasting,
    registry: Registry,
    data_root: str,
    cgroups: tuple[str, ...] = (),
    *,
    newlines: bool = False,
) -> Plan:
    """The plan of a process with the process fields of `spec`, whose others are the container's.

    Each of `cgroups` is below the container's own, of all its controllers or, as CONTROLLER[,...]:PATH, of these; a
    later one wins. `newlines` is of OpenPty. Raise GockerError.
    """
    inside = spec.replace(rootfs=None, hooks=())
    kinds = [request.kind for request in spec.namespaces if request.mode != "host"]
    handlers = sorted((registry.namespace(kind) for kind in kinds), key=lambda handler: handler.order)
    for cgroup in cgroups:
        _check_controllers(cgroup, lasting)
    groups = [_below(group, cgroups) for group in lasting.groups]
    v1 = [group for group in groups if group.version == Hierarchy.V1.value]
    alive = RequireProcess(pid=lasting.pid, started=lasting.started, container=lasting.id)
    init: list[Step] = [JoinCgroup(path=group.path, controller=_name(group)) for group in v1]
    if "user" in kinds:
        init.append(BecomeRoot())
    if not any(spec.cpu_affinity):
        init.append(ResetAffinity())
    init += identity.first_steps(inside)
    if spec.terminal:
        init += [OpenPty(newlines=newlines), AttachConsole()]
    init += identity.last_steps(inside, seccomp_step(spec, data_root, lasting.pid), (LetGo(),))
    return Plan(
        container=lasting.id,
        name=lasting.id,
        host=tuple(OpenCgroup(path=group.path, controller=_name(group)) for group in v1),
        parent=(
            alive,
            _clone(lasting.pid, handlers, _born(groups, lasting)),
            alive,
            *identity.parent_steps(inside),
        ),
        init=tuple(init),
    )


def _clone(pid: int, handlers: list[NamespaceHandler], born: str) -> Step:
    joins = [
        (handler.name, f"/proc/{pid}/ns/{_PROC_NAMES.get(handler.name, handler.name)}", handler.flag)
        for handler in handlers
    ]
    joins.sort(key=lambda join: join[0] == "user")  # in it gocker may no longer join the others
    return Clone(kinds=(), flags=0, joins=tuple(joins), cgroup=born)


def _check_controllers(cgroup: str, lasting: Lasting) -> None:
    named, colon, _ = cgroup.partition(":")
    there = {name for group in lasting.groups for name in group.controllers}
    for name in named.split(",") if colon else ():
        if name not in there:
            remedy = f"the container's are {' '.join(sorted(there))}"
            raise StateError("join cgroup", cgroup, f"unknown controller {name}", remedy=remedy)


def _below(group: Group, cgroups: tuple[str, ...]) -> Group:
    wanted = ""
    for cgroup in cgroups:
        _refuse_climbing(cgroup)
        named, colon, path = cgroup.partition(":")
        if not colon:
            wanted = cgroup
        elif not set(named.split(",")).isdisjoint(group.controllers):
            wanted = path
    if not wanted:
        return group
    directory = f"{group.path}/{wanted.strip('/')}".rstrip("/")
    if not os.path.isdir(directory):
        reason = "ENOENT: adding pid of the new process: no such file or directory"
        raise StateError("join cgroup", directory, reason, remedy="make it first")
    return group.replace(path=directory)


def _refuse_climbing(cgroup: str) -> None:
    """Of whichever controllers: above the container's own cgroup its limits and its devices do not hold."""
    if ".." in cgroup.replace(":", "/").split("/"):
        raise StateError("join cgroup", cgroup, "has a .. in it: bad sub cgroup path")


def _name(group: Group) -> str:
    return group.controllers[0] if group.controllers else ""


def _born(groups: list[Group], lasting: Lasting) -> str:
    """The v2 directory to be born in: the first process's own where the container's is no leaf any more."""
    for group in groups:
        if group.version == Hierarchy.V2.value:
            if not cgroupfs.read_file(group.path, "cgroup.subtree_control"):
                return group.path
            return _of_first(group.path, lasting)
    return ""


def _of_first(path: str, lasting: Lasting) -> str:
    for directory in cgroupfs.below(path):
        if str(lasting.pid) in (cgroupfs.read_file(directory, "cgroup.procs") or "").split():
            return directory
    return path
