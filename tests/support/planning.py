"""Plans for hosts that exist only as texts, with gocker's own plug-ins and made-up ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from mounting import all_mounts

from gocker.api import Cgroup, CgroupController, LimitHelp, NamespaceContext, NamespaceHandler, Resources
from gocker.defaults import MASKED_PATHS, READONLY_PATHS
from gocker.hierarchy import Hierarchies, Place, resolve
from gocker.kernel.caps import docker_capabilities
from gocker.limits import parse_limit
from gocker.model import ContainerSpec, Hierarchy, NamespaceRequest, Rootfs, plain_capabilities
from gocker.planner import Planned, build_plan
from gocker.plugin_index import Entry, Found, ReadOnlyIndex
from gocker.registry import CONTROLLERS, GROUPS, NAMESPACES, Registry
from gocker.steps.exec import InstallSeccomp

CORPUS = Path(__file__).parents[1] / "unit" / "mountinfo"
V1, HYBRID, MEMORY_ON_V2, V2 = (
    "centos-7-v1",
    "ubuntu-18.04-hybrid",
    "systemd-hybrid-memory-on-v2",
    "debian-12-systemd",
)
"""One host for each way in which controllers are spread over the versions."""
DIRECTORY = "/var/lib/gocker/containers/c0ffee"
PRIVATE = ("mount", "uts", "ipc", "pid", "network", "cgroup")
SECCOMP = InstallSeccomp(
    profile="default", digest="sha256:" + "5e" * 32, instructions=7, flags=0, program=b""
)


class Demo(CgroupController):
    """A stranger's controller, on v2 alone."""

    api_version = (1, 0)
    name = "demo"
    kernel_names = {Hierarchy.V2: "misc"}  # noqa: RUF012 - declared ClassVar
    limits = (LimitHelp("demo", "demo=5", "A limit.", "x.demo.n", {Hierarchy.V2: "misc.max"}),)

    def parse(self, fields: Mapping[str, str]) -> Resources:
        return {"x.demo.n": fields[""]} if "" in fields else {}

    def set(self, group: Cgroup, resources: Resources) -> None:
        for value in resources.values():
            group.write("misc.max", str(value), limit="demo")

    def apply(self, group: Cgroup) -> None:
        group.attach()


class Late(NamespaceHandler):
    """A stranger's namespace that asks for something in each phase."""

    api_version = (1, 0)
    name = "late"
    flag = 0x80
    order = 99
    sysctls = ("late.",)

    def set(self, ctx: NamespaceContext) -> None:
        ctx.kernel.write_file("/proc/late", "host")

    def set_child(self, ctx: NamespaceContext) -> None:
        ctx.kernel.write_file("/proc/{pid}/late", f"child of {ctx.join_path}")

    def apply(self, ctx: NamespaceContext) -> None:
        ctx.kernel.sysctl("late.born", "1")

    def remove(self, ctx: NamespaceContext) -> None:
        ctx.kernel.write_file("/proc/late", "gone")


DEMO = Entry(CONTROLLERS, "demo", "planning:Demo", "gocker-demo", "1.0")
LATE = Entry(NAMESPACES, "late", "planning:Late", "gocker-late", "1.0")


def host(name: str) -> Hierarchies:
    """The hierarchies of a host of the corpus."""
    sections: dict[str, str] = {}
    title = ""
    for line in (CORPUS / f"{name}.txt").read_text("utf-8").splitlines(keepends=True):
        if line.startswith("### "):
            title = line[4:].strip()
        sections[title] = "" if line.startswith("### ") else sections.get(title, "") + line
    texts = {key.partition(" ")[2]: text for key, text in sections.items() if key.startswith("controllers ")}
    return resolve(sections["mountinfo"], sections["cgroup"], texts)


def place(controller: str, version: Hierarchy, mountpoint: str = "", *, readonly: bool = False) -> Place:
    """One place, apart from all others."""
    return Place(controller, version, mountpoint or f"/cg/{controller}", "/", "/", readonly, ())


def registry(*more: Entry, without: Iterable[str] = ()) -> Registry:
    """gocker's own plug-ins but for the names in `without`, and `more`; nothing is read from an index."""
    own = metadata.distribution("gocker").entry_points
    entries = [
        Entry(point.group, point.name, point.value, "gocker", "0")
        for point in own
        if point.group in GROUPS and point.name not in without
    ]
    return Registry(discover=lambda: Found((*entries, *more)), index=ReadOnlyIndex(""))


def namespaces(*kinds: str, **modes: str) -> tuple[NamespaceRequest, ...]:
    """Private ones of `kinds`; `modes` are `host` or a path, by kind."""
    others = [
        NamespaceRequest(kind=kind, mode="path", path=mode)
        if mode.startswith("/")
        else NamespaceRequest(kind=kind, mode=mode)
        for kind, mode in modes.items()
    ]
    return (*(NamespaceRequest(kind=kind) for kind in kinds if kind not in modes), *others)


def spec(*limits: str, **changes: Any) -> ContainerSpec:
    """A plain container, as `gocker run` makes one; the default mounts come before those in `changes`."""
    values: dict[str, Any] = {
        "id": "c0ffee",
        "name": "web",
        "argv": ("sh", "-c", "exit 3"),
        "rootfs": Rootfs(lower="/var/lib/gocker/images/rootfs/sha256-1"),
        "image": "base",
        "hostname": "web",
        "env": (("PATH", "/bin"), ("HOSTNAME", "web")),
        "namespaces": namespaces(*PRIVATE),
        "limits": tuple(map(parse_limit, limits)),
        "etc": True,
        "capabilities": plain_capabilities(docker_capabilities((), (), privileged=False)),
        "masked_paths": MASKED_PATHS,
        "readonly_paths": READONLY_PATHS,
    }
    values |= changes
    values["mounts"] = all_mounts(
        values["namespaces"],
        changes.get("mounts", ()),
        gid_map=changes.get("gid_map", ()),
        privileged=changes.get("privileged", False),
    )
    return ContainerSpec(**values)


def plan(container: ContainerSpec, where: Hierarchies, plugins: Registry | None = None) -> Planned:
    """The plan of `container`."""
    return build_plan(container, plugins or registry(), where, DIRECTORY, SECCOMP)
