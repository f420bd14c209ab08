"""Reads a config.json into the container spec that `gocker run` builds: there is one way from a spec to a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gocker.limits import LimitRequest
from gocker.model import ContainerSpec, Hook, Rootfs, Scheduler
from gocker.oci.document import parse_document, show
from gocker.oci.fields import Section, below
from gocker.oci.linux import linux_fields, read_propagation, read_resources
from gocker.oci.mounts import read_mounts
from gocker.oci.process import own_capabilities, process_fields

Limits = Callable[[Mapping[str, object], Mapping[str, str]], tuple[LimitRequest, ...]]
"""Deals linux.resources and the annotations out to the controllers."""

_JOINS = ("cpu", "cpuset", "freezer")
"""What `update` and `pause` need, beside what every container is in."""
_VERSION_PARTS = 3
_OTHER_PLATFORMS = ("windows", "solaris", "zos", "freebsd")


def read_config(
    data: bytes,
    *,
    container: str,
    bundle: str,
    limits: Limits,
    systemd_cgroup: bool | None = False,
    process_required: bool = True,
    for_exec: bool = False,
    grantable: frozenset[str] | None = None,
) -> tuple[ContainerSpec, tuple[str, ...]]:
    """(the spec, warnings) of the config.json `data`, for the container with this id.

    `bundle` is the absolute host path of its directory, `systemd_cgroup` whether systemd is to make the cgroup,
    None when the form of cgroupsPath says so.
    A config without a process is refused, unless `process_required` is false: its argv is then empty and
    `start` has to refuse it. `for_exec` keeps process.execCPUAffinity, which is for other processes than the
    first one. `grantable` are the capabilities that can be given here, None for all that this
    process has. Unknown members are ignored with a warning.

    Raise UsageError, and what `limits` raises. Source: OCI runtime spec 1.3, config and config-linux.
    """
    root = Section(parse_document(data, "read config.json"), "", "read config.json", [])
    _check_version(root)
    annotations = _annotations(root)
    linux = root.section("linux") or Section({}, "linux", root.operation, root.warnings)
    propagation = read_propagation(linux)
    resources = read_resources(linux)
    fields = linux_fields(linux, systemd_cgroup=systemd_cgroup)
    modes = {request.kind: request.mode for request in fields["namespaces"]}
    user = modes.get("user", "host")
    rootfs = _rootfs(root, bundle, propagation)
    fields["mounts"] = read_mounts(
        root,
        bundle,
        (fields["uid_map"], fields["gid_map"]),
        joined=modes.get("user") == "path",
        rootfs=rootfs.lower,
    )
    if user == "path":
        fields |= {"uid_map": (), "gid_map": ()}  # it has its own; those of the config were for mounts
    fields |= _process(root, grantable, mapped=user != "host", required=process_required)
    if not for_exec:
        fields.pop("cpu_affinity", None)
    fields |= _names(root, modes)
    spec = ContainerSpec(
        id=container,
        name=container,
        bundle=bundle,
        default_limits=False,
        rootfs=rootfs,
        limits=limits(resources, annotations),
        joins=_joins(fields.get("scheduler")),
        hooks=_hooks(root),
        labels=tuple(annotations.items()),
        interactive=True,  # stdin is the caller's
        **fields,
    )
    _other_platforms(root)
    root.finish()
    return spec, tuple(root.warnings)


def _joins(scheduler: Scheduler | None) -> tuple[str, ...]:
    """A new cpu cgroup of v1 has no real-time budget, so that nothing in it gets such a policy: cgroups(7)."""
    realtime = scheduler is not None and scheduler.policy in {"SCHED_FIFO", "SCHED_RR"}
    return tuple(name for name in _JOINS if not (realtime and name == "cpu"))


def _check_version(root: Section) -> None:
    """1.x of SemVer 2.0: what is backward compatible within a major version."""
    text = root.word("ociVersion")
    core, dash, pre = text.partition("+")[0].partition("-")
    numbers = core.split(".")
    good = len(numbers) == _VERSION_PARTS and all(map(_is_number, numbers))
    if not good or (dash and not pre) or not text.isascii() or not text.isprintable():
        raise root.error("ociVersion", f"{show(text)} is not a version such as 1.3.0")
    if numbers[0] != "1":
        raise root.error("ociVersion", f"{show(text)} is not of version 1 of the specification")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and (text == "0" or not text.startswith("0"))


def _annotations(root: Section) -> dict[str, str]:
    annotations = root.pairs("annotations")
    if "" in annotations:
        raise root.error("annotations", "one has an empty name")
    return annotations


def _hooks(root: Section) -> tuple[Hook, ...]:
    if root.get("hooks") is None:
        return ()
    from gocker.oci.hooks import read_hooks

    return read_hooks(root)


def _rootfs(root: Section, bundle: str, propagation: str) -> Rootfs:
    section = root.section("root")
    if section is None:
        raise root.error("root", "is missing", 'for example {"path": "rootfs"}')
    rootfs = Rootfs(
        lower=below(bundle, section.word("path")),
        writable=True,
        readonly=section.flag("readonly") or False,
        nodev=False,
        recursive=True,
        mapped=False,
        propagation=propagation,
    )
    section.finish()
    return rootfs


def _process(
    root: Section, grantable: frozenset[str] | None, *, mapped: bool, required: bool
) -> dict[str, Any]:
    """Nothing that is not asked for: root without a capability, and no_new_privileges as the config has it."""
    fields: dict[str, Any] = {"argv": (), "user": "0:0", "no_new_privileges": False}
    section = root.section("process")
    if section is None:
        if required:
            raise root.error("process", "is missing", "args and cwd are needed to start")
        return fields
    can = own_capabilities(mapped=mapped) if grantable is None else grantable
    return fields | process_fields(section, can)


def _names(root: Section, modes: Mapping[str, str]) -> dict[str, Any]:
    names = {}
    for name in ("hostname", "domainname"):
        names[name] = text = root.text(name) or ""
        if text and modes.get("uts", "host") == "host":
            raise root.error(
                name,
                "there is no UTS namespace, it would be the host's",
                'add {"type": "uts"} to linux.namespaces',
            )
        if text and modes["uts"] == "path":
            root.warn(name, "not set, since the UTS namespace that is joined has one")
            names[name] = ""
    return names


def _other_platforms(root: Section) -> None:
    if root.section("vm") is not None:
        raise root.error("vm", "gocker does not start virtual machines", "leave it out")
    for name in _OTHER_PLATFORMS:
        if root.section(name) is not None:
            root.warn(name, "for another platform, ignored")
