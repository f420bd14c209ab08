"""The cgroup part of a plan: which controllers a container is in, where, and with what limits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

from gocker.api import CgroupController
from gocker.errors import HierarchyError, LimitError, PluginError
from gocker.hierarchy import Hierarchies, Place
from gocker.limits import LimitRequest
from gocker.model import ContainerSpec, Hierarchy
from gocker.plan import HOST, INIT, REMOVE
from gocker.record import Record
from gocker.recorder import GroupRecorder, Phases
from gocker.registry import Registry
from gocker.rootplan import CgroupRows
from gocker.steps.cgroup import (
    ClaimCgroup,
    EnableControllers,
    JoinCgroup,
    MakeCgroup,
    OpenCgroup,
    RemoveCgroup,
    TakeCgroup,
    TryControllers,
)

GOCKER_CGROUP = "gocker"
"""Every container's cgroup is gocker/ID below the parent that was asked for, or the root."""
DEVICES = "devices"
"""The plug-in that keeps containers off the host's devices."""


class Joined(Record):
    """A controller that the container is in, and what its limits and counters need."""

    plugin: CgroupController
    place: Place
    path: str  # host directory
    requests: dict[str, LimitRequest]  # by label
    values: dict[str, str]  # by key: what was asked, and the defaults
    firm: bool  # false: nobody needs it, `ContainerSpec.joins` alone


class CgroupPlan(Record):
    """The outcome, beside the steps."""

    joined: tuple[Joined, ...]
    born: str  # cgroup v2 directory of the clone, or ""
    kill: tuple[tuple[str, str], ...]  # (directory, version), the best one to kill from first
    rows: CgroupRows  # what the container sees at /sys/fs/cgroup
    bare: tuple[
        tuple[str, tuple[str, ...]], ...
    ]  # (directory, kernel names) of v1 where no plug-in has anything to do
    unbound: dict[str, str]  # best-effort limits that nothing here can set, and why


def plan_cgroups(
    spec: ContainerSpec, registry: Registry, hierarchies: Hierarchies, phases: Phases, owner: str = ""
) -> CgroupPlan:
    """Append the cgroup steps to the host, parent and remove phases.

    `owner` is what a container that outlives its gocker is told from all others by.
    """
    cgroup = cgroup_of(spec)
    asked = by_controller(spec.limits)
    unbound: dict[str, str] = {}
    joined: list[Joined] = []
    _drop_unknown(asked, registry, unbound)
    firm = _names(spec, asked, registry)
    for name in sorted({*firm, *_joins(spec, registry)}):
        plugin = registry.controller(name)
        requests = asked.get(name, {})
        check_keys(plugin, requests)
        place = hierarchies.place_of(plugin.kernel_names)
        if place is None or place.readonly:
            refuse_absent(plugin, hierarchies, requests, unbound)
            continue
        given = {request.key: request.value for request in requests.values()}
        joined.append(
            Joined(
                plugin=plugin,
                place=place,
                path=place.directory(cgroup),
                requests=requests,
                values={**(plugin.defaults if spec.default_limits else {}), **given},
                firm=name in firm,
            )
        )
    # Roll-back meets last what is made first: cgroup v2 can kill all at once, v1 pids can stop forks.
    joined.sort(
        key=lambda one: (one.place.version is Hierarchy.V2, one.plugin.name == "pids", one.plugin.name)
    )
    _require_device_filter(spec, registry, joined)
    bare = _bare(joined, hierarchies, cgroup) if spec.joins else ()
    make = _maker(spec, owner or spec.id)
    for place, path in bare:
        phases[HOST].append(make(path=path, base=place.mountpoint, version="v1"))
        name = place.controller
        phases[HOST].append(OpenCgroup(path=path, controller=name))
        phases[INIT].append(JoinCgroup(path=path, controller=name))
        phases[REMOVE].append(RemoveCgroup(path=path, base=place.mountpoint, controller=name, version="v1"))
    born = _make(joined, hierarchies, cgroup, phases, make)
    for one in joined:
        recorder = _recorder(one, phases)
        one.plugin.set(recorder, one.plugin.parse(one.values))
        one.plugin.apply(recorder)
    for one in reversed(joined):
        recorder = _recorder(one, phases)
        one.plugin.remove(recorder)
    kill = [(one.path, one.place.version.value) for one in joined if one.place.version is Hierarchy.V1]
    kill.sort(key=lambda place: "/pids/" not in place[0])  # the pids directory can stop forks first
    kill += [(path, Hierarchy.V1.value) for _, path in bare]
    if born:
        kill.insert(0, (born, Hierarchy.V2.value))
    rows = _rows([(one.place, one.path) for one in joined], bare, hierarchies.v2 if born else None, born)
    return CgroupPlan(
        joined=tuple(joined),
        born=born,
        kill=tuple(kill),
        rows=rows,
        unbound=unbound,
        bare=tuple((path, _free_names(place, registry)) for place, path in bare),
    )


def cgroup_of(spec: ContainerSpec) -> str:
    """The container's cgroup, below the mount point of each hierarchy."""
    return spec.cgroup_path or f"/{GOCKER_CGROUP}/{spec.id}"


def _recorder(one: Joined, phases: Phases) -> GroupRecorder:
    return GroupRecorder(
        one.plugin.name, one.place.version, one.path, one.place.mountpoint, one.requests, phases
    )


def _names(spec: ContainerSpec, asked: dict[str, dict[str, LimitRequest]], registry: Registry) -> set[str]:
    """Of the controllers with a limit and of the standing ones; all devices are a privileged container's."""
    names = {*asked, *registry.standing_controllers()}
    if spec.privileged:
        names -= {DEVICES} - asked.keys()
    return names


def _joins(spec: ContainerSpec, registry: Registry) -> set[str]:
    """What nobody set a limit of and the container is in all the same; one that is refused is left out."""
    names = set()
    for name in {*spec.joins} & {*registry.controller_names()}:
        with suppress(PluginError):
            registry.controller(name)
            names.add(name)
    return names


def _require_device_filter(spec: ContainerSpec, registry: Registry, joined: list[Joined]) -> None:
    """Who can make device nodes reads the host's disks, unless a filter says no (SECURITY R15).

    It is a plug-in like others, but no start may go without because it is refused or the host lacks
    its controller. In a user namespace of its own a container cannot make nodes.
    """
    able = "CAP_MKNOD" in spec.capabilities.bounding and spec.namespace("user").mode != "private"
    if spec.privileged or not able or any(one.plugin.name == DEVICES for one in joined):
        return
    registry.controller(DEVICES)  # says why when it is missing or refused
    raise HierarchyError(
        "filter devices",
        spec.name,
        "no devices hierarchy and no cgroup2 file system here can be written",
        remedy="--cap-drop MKNOD, or mount -t cgroup2 none /sys/fs/cgroup",
    )


Maker = Callable[..., MakeCgroup]


def _maker(spec: ContainerSpec, owner: str) -> Maker:
    """The step that makes a cgroup: one that the caller of an OCI runtime named may be there already."""
    if not spec.joins:
        return MakeCgroup
    return partial(TakeCgroup if spec.cgroup_path else ClaimCgroup, owner=owner)


def _bare(joined: list[Joined], hierarchies: Hierarchies, cgroup: str) -> tuple[tuple[Place, str], ...]:
    """The other v1 hierarchies that can be written, those without a controller too, and the path in each.

    A cpuset takes no process before somebody has filled it.
    """
    taken = {one.place.mountpoint for one in joined}
    found: dict[str, Place] = {}
    for place in hierarchies.entries:
        names = {place.controller, *place.comounted}
        if place.version is Hierarchy.V1 and not place.readonly and "cpuset" not in names:
            found.setdefault(place.mountpoint, place)
    return tuple((place, place.directory(cgroup)) for top, place in found.items() if top not in taken)


def _free_names(place: Place, registry: Registry) -> tuple[str, ...]:
    """The kernel's names of what is in the hierarchy, but for those that a plug-in answers to."""
    return tuple(sorted({place.controller, *place.comounted} - {*registry.controller_names()}))


def _make(joined: list[Joined], hierarchies: Hierarchies, cgroup: str, phases: Phases, make: Maker) -> str:
    """One directory for each hierarchy; on v2 always one, for cgroup.kill. Return that one or ""."""
    made: set[str] = set()
    for one in joined:
        if one.place.version is Hierarchy.V1 and one.path not in made:
            made.add(one.path)
            phases[HOST].append(make(path=one.path, base=one.place.mountpoint, version="v1"))
    unified = hierarchies.v2
    if unified is None or unified.readonly:
        return ""
    path, base = unified.directory(cgroup), unified.mountpoint
    phases[HOST].append(make(path=path, base=base, version="v2"))
    here = [one for one in joined if one.place.version is Hierarchy.V2]
    wanted = {one.plugin.kernel_names[Hierarchy.V2] for one in here if one.firm} - {"cgroup"}
    if wanted:
        phases[HOST].append(EnableControllers(path=path, base=base, controllers=tuple(sorted(wanted))))
    more = {one.plugin.kernel_names[Hierarchy.V2] for one in here if not one.firm} - {"cgroup"} - wanted
    for name in sorted(more):  # apart: one that cannot be had must not cost the others
        phases[HOST].append(TryControllers(path=path, base=base, controllers=(name,)))
    phases[REMOVE].append(RemoveCgroup(path=path, base=base, controller="cgroup", version="v2"))
    return path


def _rows(
    joined: list[tuple[Place, str]], bare: tuple[tuple[Place, str], ...], unified: Place | None, born: str
) -> CgroupRows:
    """The hierarchies that the container has a directory of its own in, by the names of their mounts here."""
    rows: dict[str, tuple[str, str, tuple[str, ...], str]] = {}
    for place, path in (*joined, *bare):
        if place.version is Hierarchy.V1:
            name = place.mountpoint.rpartition("/")[2]
            options = (place.controller, *place.comounted)
            if all(option.startswith("name=") for option in options):
                options = ("none", *options)
            rows[place.mountpoint] = (name, "cgroup", options, path)
    if unified is not None:
        rows[unified.mountpoint] = ("unified" if rows else "", "cgroup2", (), born)
    return tuple(rows.values())


def _drop_unknown(
    asked: dict[str, dict[str, LimitRequest]], registry: Registry, unbound: dict[str, str]
) -> None:
    """A best-effort limit whose controller is not installed does not bind; any other one is an error later."""
    for name in [name for name in asked if name not in registry.controller_names()]:
        requests = asked[name]
        if all(request.best_effort for request in requests.values()):
            unbound.update(dict.fromkeys(requests, f"no controller plug-in {name} is installed"))
            del asked[name]


def check_keys(plugin: CgroupController, requests: dict[str, LimitRequest]) -> None:
    """Refuse a key that the plug-in does not declare: it would be dropped in silence."""
    for label, request in requests.items():
        if not any(entry.takes(label) for entry in plugin.limits):
            takes = ", ".join(sorted(entry.key for entry in plugin.limits)) or "no limit"
            raise LimitError("set limit", f"{label}={request.value}", f"unknown; {plugin.name} takes {takes}")


def by_controller(limits: Iterable[LimitRequest]) -> dict[str, dict[str, LimitRequest]]:
    """The requests by name of the controller, then by label. Raise LimitError for one asked twice with two values."""
    asked: dict[str, dict[str, LimitRequest]] = {}
    for request in limits:
        other = asked.setdefault(request.name, {}).setdefault(request.label, request)
        if other.value != request.value:
            raise LimitError(
                "set limit",
                request.label,
                f"asked twice, as {other.value} and as {request.value}",
                remedy="ask once",
            )
    return asked


def refuse_absent(
    plugin: CgroupController,
    hierarchies: Hierarchies,
    requests: dict[str, LimitRequest],
    unbound: dict[str, str],
) -> None:
    """Nothing was asked, or best effort only: go on without. Else say what the host lacks."""
    names = list(dict.fromkeys(plugin.kernel_names.values()))
    for request in requests.values():
        if request.best_effort:
            unbound[request.label] = f"this host has no {' or '.join(names)} controller that can be written"
            continue
        plugin.parse({request.key: request.value})  # a value that is wrong anywhere is said first
        for name in names:
            hierarchies.require(name)
        raise HierarchyError(
            "set limit",
            f"{request.label}={request.value}",
            f"{plugin.name} does not support the cgroup version that carries {names[0]} here",
        )
