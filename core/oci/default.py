"""The config.json that `spec` writes: a shell in the bundle's rootfs, with what docker gives a container."""

from __future__ import annotations

from typing import Any

from gocker.defaults import MASKED_PATHS, READONLY_PATHS
from gocker.kernel.caps import DOCKER_DEFAULT
from gocker.model import OCI_VERSION

_SAFE = ("nosuid", "noexec", "nodev")


def default_config(rootless: tuple[int, int] | None = None, *, cgroups: bool = True) -> dict[str, Any]:
    """The document, as JSON types.

    `rootless` is the (uid, gid) on the host that root of the container is to be: it then has a user namespace,
    the host's network, and no limits. `cgroups` is whether it has a cgroup namespace: runc's and crun's
    have one where cgroup v2 is alone, and who changes such a document counts on that.
    """
    return {
        "ociVersion": OCI_VERSION,
        "process": _process(),
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "gocker",
        "mounts": _mounts(rootless=rootless is not None),
        "linux": _linux(rootless, cgroups=cgroups),
    }


def _process() -> dict[str, Any]:
    return {
        "terminal": True,
        "user": {"uid": 0, "gid": 0},
        "args": ["sh"],
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
        "cwd": "/",
        "capabilities": {name: list(DOCKER_DEFAULT) for name in ("bounding", "effective", "permitted")},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": True,
    }


def _mounts(*, rootless: bool) -> list[dict[str, Any]]:
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    if not rootless:
        pts.append("gid=5")  # tty; one id is mapped alone else
    sys = _mount("/sys", "sysfs", "sysfs", *_SAFE, "ro")
    if rootless:  # sysfs belongs to the owner of the network namespace
        sys = _mount("/sys", "none", "/sys", "rbind", *_SAFE, "ro")
    return [
        _mount("/proc", "proc", "proc", *_SAFE),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", *pts),
        _mount("/dev/shm", "tmpfs", "shm", *_SAFE, "mode=1777", "size=65536k"),  # noqa: S108 - inside
        _mount("/dev/mqueue", "mqueue", "mqueue", *_SAFE),
        sys,
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", *_SAFE, "relatime", "ro"),
    ]


def _mount(destination: str, fstype: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": fstype, "source": source, "options": list(options)}


def _linux(rootless: tuple[int, int] | None, *, cgroups: bool) -> dict[str, Any]:
    kinds = ["pid", "ipc", "uts", "mount", "network" if rootless is None else "user"]
    if cgroups:
        kinds.append("cgroup")
    linux: dict[str, Any] = {"namespaces": [{"type": kind} for kind in kinds]}
    if rootless is None:
        linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    else:
        for name, number in zip(("uidMappings", "gidMappings"), rootless, strict=True):
            linux[name] = [{"containerID": 0, "hostID": number, "size": 1}]
    return {**linux, "maskedPaths": list(MASKED_PATHS), "readonlyPaths": list(READONLY_PATHS)}
