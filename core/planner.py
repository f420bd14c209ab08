"""Turns a container spec, the installed plug-ins and the host's hierarchies into a launch plan."""

from __future__ import annotations

from gocker.api import NamespaceContext, NamespaceHandler
from gocker.cgroupplan import CgroupPlan, plan_cgroups
from gocker.errors import UsageError
from gocker.hierarchy import Hierarchies
from gocker.model import ContainerSpec, NamespaceRequest
from gocker.plan import HOST, INIT, PARENT, PHASES, REMOVE, Plan, Step
from gocker.record import Record
from gocker.recorder import KernelRecorder, Phases
from gocker.registry import PluginInfo, Registry
from gocker.rootplan import ETC_FILES, CgroupRows, file_system_steps, layer_steps
from gocker.steps import identity
from gocker.steps.exec import InstallSeccomp
from gocker.steps.host import MakeDirectory, WriteHostFile
from gocker.steps.launch import AttachConsole, BecomeRoot, Clone, UnshareCgroup
from gocker.steps.namespaces import Sysctl


class Planned(Record):
    """A plan, and what the engine needs beside it."""

    plan: Plan
    cgroups: CgroupPlan
    refused: tuple[PluginInfo, ...] = ()  # plug-ins that no run can have; this one does not need them


Handlers = list[tuple[NamespaceHandler, NamespaceRequest]]


def build_plan(
    spec: ContainerSpec,
    registry: Registry,
    hierarchies: Hierarchies,
    container_dir: str,
    seccomp: InstallSeccomp | None,
    start_socket: str = "",
) -> Planned:
    """Plan the start of `spec`; touch nothing.

    `container_dir` is its own directory for layers and /etc; `seccomp` is from gocker.seccomp;
    `start_socket` is the path of what another process starts it by: "" does so at once.

    Raise UsageError, LimitError, HierarchyError or PluginError.
    """
    phases: Phases = {phase: [] for phase in PHASES}
    handlers = _handlers(spec, registry)
    for handler, request in handlers:
        handler.set(_context(spec, request, HOST, phases))
    phases[HOST] += [*_host_files(spec, container_dir), *layer_steps(spec, container_dir)]
    cgroups = plan_cgroups(spec, registry, hierarchies, phases, start_socket)
    phases[PARENT].append(_clone(spec, handlers, cgroups.born))
    for handler, request in handlers:
        if request.mode == "private":
            handler.set_child(_context(spec, request, PARENT, phases))
    phases[PARENT] += identity.parent_steps(spec)
    _plan_init(spec, handlers, cgroups.rows, phases, container_dir)
    phases[INIT] += identity.last_steps(spec, seccomp, _waits(spec, phases, start_socket, seccomp))
    for handler, request in reversed(handlers):
        handler.remove(_context(spec, request, REMOVE, phases))
    steps = {phase: tuple(recorded) for phase, recorded in phases.items()}
    return Planned(
        plan=Plan(container=spec.id, name=spec.name, **steps), cgroups=cgroups, refused=registry.refused()
    )


def _waits(
    spec: ContainerSpec, phases: Phases, start_socket: str, seccomp: InstallSeccomp | None
) -> tuple[Step, ...]:
    """What stands between a container's creation and its start."""
    steps: tuple[Step, ...] = ()
    if start_socket:
        from gocker.steps.barrier import AwaitStart, ListenForStart
        from gocker.steps.scheduling import ResetAffinity

        phases[HOST].insert(0, ListenForStart(path=start_socket))
        steps = (ResetAffinity(), AwaitStart())
    if spec.hooks:
        from gocker.steps import hooks

        confined = seccomp.program if seccomp else b""
        steps += hooks.hook_steps(spec, hooks.START_CONTAINER, filter=confined)
    return steps


def _context(spec: ContainerSpec, request: NamespaceRequest, phase: str, phases: Phases) -> NamespaceContext:
    return NamespaceContext(spec=spec, join_path=request.path or None, kernel=KernelRecorder(phase, phases))


def _handlers(spec: ContainerSpec, registry: Registry) -> Handlers:
    """The handlers of the kinds that the spec speaks of, in their order."""
    pairs = [(registry.namespace(request.kind), request) for request in spec.namespaces]
    return sorted(pairs, key=lambda pair: (pair[0].order, pair[0].name))


def _clone(spec: ContainerSpec, handlers: Handlers, born: str) -> Clone:
    """New namespaces come with the clone, but for the cgroup one: its root would be the launcher's cgroup."""
    new = [handler for handler, request in handlers if request.mode == "private" and handler.name != "cgroup"]
    flags = 0
    for handler in new:
        flags |= handler.flag
    joins = [(handler.name, request.path, handler.flag) for handler, request in handlers if request.path]
    # The user namespace last: in it gocker may no longer join those that the first one owns.
    joins.sort(key=lambda join: join[0] == "user")
    return Clone(
        kinds=tuple(handler.name for handler in new),
        flags=flags,
        joins=tuple(joins),
        offsets=spec.time_offsets,
        cgroup=born,
    )


def _host_files(spec: ContainerSpec, directory: str) -> list[Step]:
    """The container's own directory: overlay layers and /etc files."""
    if spec.rootfs is None:
        return []
    layers = () if spec.rootfs.writable else ("upper", "work")
    names = (*layers, "etc") if spec.etc else layers
    steps: list[Step] = [MakeDirectory(path=directory, private=True)] if names else []
    steps += [MakeDirectory(path=f"{directory}/{name}", mode=0o755) for name in names]
    if not spec.etc:
        return steps
    hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    if spec.hostname:
        hosts += f"127.0.1.1\t{spec.hostname}\n"
    files = {"hosts": hosts, "hostname": f"{spec.hostname}\n", "resolv.conf": _resolv_conf(spec)}
    steps += [WriteHostFile(path=f"{directory}/etc/{name}", text=files[name]) for name in ETC_FILES]
    return steps


def _resolv_conf(spec: ContainerSpec) -> str:
    """The host's resolver where the container has the host's network; else there is none to ask."""
    if spec.namespace("network").mode == "host":
        try:
            with open("/etc/resolv.conf", encoding="utf-8", errors="surrogateescape") as file:
                return file.read(1 << 16)
        except FileNotFoundError:
            return ""
    return ""


def _plan_init(
    spec: ContainerSpec, handlers: Handlers, rows: CgroupRows, phases: Phases, directory: str
) -> None:
    """Everything inside, in the order of SECURITY R9; `phases` already has the joins of v1 cgroups."""
    steps = phases[INIT]
    modes = {handler.name: request.mode for handler, request in handlers}
    if modes.get("user", "host") != "host":
        steps.append(BecomeRoot())
    steps += identity.first_steps(spec)
    if modes.get("cgroup") == "private":
        steps.append(UnshareCgroup())
    for handler, request in handlers:
        if request.mode == "private":
            handler.apply(_context(spec, request, INIT, phases))
    _plan_sysctls(spec, handlers, steps)
    steps += file_system_steps(spec, directory, rows)
    if spec.terminal:
        steps.append(AttachConsole())


def _plan_sysctls(spec: ContainerSpec, handlers: Handlers, steps: list[Step]) -> None:
    for name, value in spec.sysctls:
        owners = [handler for handler, _ in handlers if name.replace("/", ".").startswith(handler.sysctls)]
        if not owners:
            raise UsageError(
                "set sysctl", f"{name}={value}", "it is not per namespace: it would change the host"
            )
        kind = owners[0].name
        if spec.namespace(kind).mode != "private":
            raise UsageError(
                "set sysctl", f"{name}={value}", f"the {kind} namespace is not the container's own"
            )
        if name.replace("/", ".") == "kernel.hostname":
            raise UsageError(
                "set sysctl",
                f"{name}={value}",
                "the hostname has a setting of its own",
                remedy="set it by hostname",
            )
        steps.append(Sysctl(name=name, value=value))
