"""The linux section of a config.json, but for its resources."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from typing import Any

from gocker.errors import UsageError
from gocker.limits import parse_list
from gocker.model import Device, IdMap, MemoryPolicy, NamespaceRequest
from gocker.oci.document import show
from gocker.oci.fields import INT64, MAX_ID, UINT32, Section, plain
from gocker.oci.idmaps import read_maps
from gocker.oci.process import cpu_list
from gocker.steps.namespaces import sysctl_parts

NAMESPACES = ("mount", "pid", "network", "uts", "ipc", "user", "cgroup", "time")
PROPAGATIONS = ("private", "slave", "shared", "unbindable")
SECCOMP = "linux.seccomp"
"""The name of the profile that a config.json brings."""

_DOMAINS = {"LINUX": 0, "LINUX32": 8}  # PER_LINUX, PER_LINUX32: personality(2)
_CLOCKS = ("monotonic", "boottime")  # time_namespaces(7)
_NO_NODES, _ANY_NODES = ("MPOL_DEFAULT", "MPOL_LOCAL"), ("MPOL_PREFERRED",)  # set_mempolicy(2)
_MAX_MAJOR, _MAX_MINOR = (1 << 12) - 1, (1 << 20) - 1  # dev_t of the kernel
_MAX_NAME = 255  # NAME_MAX
_CGROUP_PARENT = "/gocker"


def linux_fields(section: Section, *, systemd_cgroup: bool | None) -> dict[str, Any]:
    """The fields of ContainerSpec that the section speaks of. Raise UsageError."""
    namespaces = _namespaces(section)
    modes = {request.kind: request.mode for request in namespaces}
    uid_map, gid_map = _id_maps(section, modes)
    fields: dict[str, Any] = {
        "namespaces": namespaces,
        "uid_map": uid_map,
        "gid_map": gid_map,
        "time_offsets": _time_offsets(section, modes),
        "devices": tuple(_device(item) for item in section.sections("devices")),
        **_cgroup_fields(section, systemd=systemd_cgroup),
        "sysctls": _sysctls(section),
        "masked_paths": _paths(section, "maskedPaths"),
        "readonly_paths": _paths(section, "readonlyPaths"),
        "mount_label": section.text("mountLabel") or "",
        "seccomp": "unconfined",
    }
    if (seccomp := section.section("seccomp")) is not None:
        fields["seccomp"] = SECCOMP
        fields["seccomp_profile"] = json.dumps(seccomp.values, separators=(",", ":"))
    if policy := section.section("memoryPolicy"):
        fields["memory_policy"] = _memory_policy(policy)
    if (personality := section.section("personality")) is not None:
        fields["personality"] = _DOMAINS[personality.choice("domain", _DOMAINS)]
        personality.words("flags", ())
        personality.finish()
    _refuse(section)
    section.finish()
    return fields


def read_propagation(section: Section) -> str:
    """The rootfsPropagation as the model has it; engines write it with an r, too. Raise UsageError."""
    if not section.text("rootfsPropagation"):
        return ""
    words = (*PROPAGATIONS, *(f"r{word}" for word in PROPAGATIONS))
    word = section.choice("rootfsPropagation", words)
    return word if word in PROPAGATIONS else word[1:]


def read_resources(section: Section) -> Mapping[str, object]:
    """linux.resources as it is: controllers read it. Raise UsageError."""
    resources = section.section("resources")
    return {} if resources is None else resources.values


def _refuse(section: Section) -> None:
    """What a config may ask for and gocker does not have."""
    if section.section("intelRdt") is not None:
        raise section.error(
            "intelRdt", "gocker has no Intel RDT", "leave it out, and assign the container's tasks in resctrl"
        )
    devices = section.section("netDevices")
    if devices and devices.values:
        raise section.error(
            "netDevices",
            "gocker does not move network devices",
            "leave it out, and move them by a createRuntime hook: ip link set DEVICE netns PID",
        )


def _namespaces(section: Section) -> tuple[NamespaceRequest, ...]:
    requests: dict[str, NamespaceRequest] = {}
    for item in section.sections("namespaces"):
        kind = item.choice("type", NAMESPACES)
        if kind in requests:
            raise item.error("type", f"{show(kind)} is there twice")
        path = item.absolute("path") if item.text("path") else ""
        item.finish()
        requests[kind] = NamespaceRequest(kind=kind, mode="path" if path else "private", path=path)
    if "mount" not in requests:
        # Without one there would be a chroot alone: SECURITY R14.
        raise section.error(
            "namespaces", "there is no mount namespace for the root", 'add {"type": "mount"} to it'
        )
    return tuple(requests.values())


def _id_maps(section: Section, modes: Mapping[str, str]) -> tuple[tuple[IdMap, ...], tuple[IdMap, ...]]:
    maps = read_maps(section)
    mode = modes.get("user", "host")
    if mode == "private" and not maps[0]:
        raise section.error(
            "uidMappings",
            "is missing: a new user namespace needs it, and gidMappings",
            'for example [{"containerID": 0, "hostID": 100000, "size": 65536}]',
        )
    if mode == "host" and maps[0]:
        raise section.error(
            "uidMappings", "there is no user namespace", 'add {"type": "user"} to linux.namespaces'
        )
    return maps


def _time_offsets(section: Section, modes: Mapping[str, str]) -> tuple[tuple[str, int, int], ...]:
    offsets = section.section("timeOffsets")
    if offsets is None or not offsets.values:
        return ()
    if modes.get("time") != "private":
        raise section.error(
            "timeOffsets", "there is no time namespace of the container's own", 'add {"type": "time"}'
        )
    found = []
    for clock in offsets.values:
        if clock not in _CLOCKS:
            raise offsets.error(clock, "a time namespace does not have this clock", f"{' or '.join(_CLOCKS)}")
        if offset := offsets.section(clock):
            seconds = offset.number("secs", INT64) or 0
            found.append((clock, seconds, offset.number("nanosecs", (0, 999_999_999)) or 0))
            offset.finish()
    return tuple(found)


def _device(section: Section) -> Device:
    kind = section.choice("type", ("c", "b", "u", "p"))
    major = section.number("major", (0, _MAX_MAJOR), "a major number")
    minor = section.number("minor", (0, _MAX_MINOR), "a minor number")
    if kind == "p":
        major = minor = 0  # what a FIFO has
    for name, number in (("major", major), ("minor", minor)):
        if number is None:
            raise section.error(name, f"is missing: only a FIFO has none, not {kind}")
    mode = section.number("fileMode", UINT32)
    if mode is None:
        mode = 0o666
    if stat.S_IFMT(mode) | stat.S_IMODE(mode) != mode:
        raise section.error("fileMode", f"{mode} is not a file mode")
    device = Device(
        path=section.absolute("path"),
        kind=kind,
        major=major or 0,
        minor=minor or 0,
        mode=stat.S_IMODE(mode),  # some engines write the type into it, too
        uid=section.number("uid", (0, MAX_ID), "an id") or 0,
        gid=section.number("gid", (0, MAX_ID), "an id") or 0,
    )
    section.finish()
    return device


def _cgroup_fields(section: Section, *, systemd: bool | None) -> dict[str, Any]:
    """The cgroup's path, and whether systemd makes it."""
    path = section.text("cgroupsPath") or ""
    form = path.count(":") == 2 and "/" not in path
    if not (systemd or form):
        return {"cgroup_path": _cgroup_path(section, path)}
    if systemd is False:
        raise section.error(
            "cgroupsPath",
            f"{show(path)} is for systemd, which is not to make the cgroup",
            "add --systemd-cgroup; or for podman: --cgroup-manager cgroupfs",
        )
    if not form:
        raise section.error(
            "cgroupsPath", f"{show(path)} is not slice:prefix:name, as --systemd-cgroup takes it"
        )
    from gocker.oci.scope import scope_path

    section.checked("cgroupsPath", scope_path, path)
    return {"cgroup_path": scope_path(path), "scope": True}


def _cgroup_path(section: Section, path: str) -> str:
    """Absolute below the mount point of each hierarchy; a relative one lies below gocker's own (SECURITY R15)."""
    if not path:
        return ""
    parts = plain(path).split("/")[1:]
    for part in parts:
        if part == ".." or len(part.encode()) > _MAX_NAME or not part.isprintable():
            raise section.error("cgroupsPath", f"{show(part)} in it is not the name of a cgroup")
    whole = plain(path if path.startswith("/") else f"{_CGROUP_PARENT}/{path}")
    if whole in {"/", _CGROUP_PARENT}:
        raise section.error("cgroupsPath", f"{show(path)} has other containers in it", "a path of its own")
    return whole


def _sysctls(section: Section) -> tuple[tuple[str, str], ...]:
    pairs = section.pairs("sysctl")
    for name in pairs:
        section.checked("sysctl", sysctl_parts, name)
    return tuple(pairs.items())


def _paths(section: Section, name: str) -> tuple[str, ...]:
    paths = section.texts(name)
    for index, path in enumerate(paths):
        if not path.startswith("/"):
            raise section.error(name, f"{show(path)} is not an absolute path", index=index)
    return tuple(dict.fromkeys(map(plain, paths)))


def _memory_policy(section: Section) -> MemoryPolicy:
    try:
        return _read_policy(section)
    except UsageError as error:
        name = error.target.removeprefix(section.path).strip(".").partition("[")[0].removesuffix("s")
        error.reason = f"{error.reason}: invalid memory policy {name}"
        raise


def _read_policy(section: Section) -> MemoryPolicy:
    from gocker.kernel.mempolicy import FLAGS, MODES

    mode = section.choice("mode", MODES)
    nodes = cpu_list(section, "nodes")
    if nodes and mode in _NO_NODES:
        count = len(parse_list(nodes, "nodes"))
        raise section.error("nodes", f"{mode} takes none: mode requires 0 nodes but got {count}")
    if not nodes and mode not in {*_NO_NODES, *_ANY_NODES}:
        raise section.error("nodes", f"{mode} needs at least one")
    policy = MemoryPolicy(mode=mode, nodes=nodes, flags=section.words("flags", FLAGS))
    section.finish()
    return policy
