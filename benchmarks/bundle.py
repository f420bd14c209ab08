"""OCI bundles with what `gocker run --limit memory=100m` gives a container."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gocker
from gocker.defaults import MASKED_PATHS, READONLY_PATHS
from gocker.kernel.caps import docker_capabilities

MEMORY = 100 << 20
NAMESPACES = ("pid", "mount", "uts", "ipc", "network", "cgroup")
_HARDENED = ["nosuid", "noexec", "nodev"]


def write_bundle(bundle: Path, rootfs: Path, argv: Sequence[str], *, seccomp: bool) -> Path:
    """Make `bundle` with a config.json."""
    bundle.mkdir(parents=True)
    (bundle / "config.json").write_text(json.dumps(_config(rootfs, argv, seccomp=seccomp)))
    return bundle


def _config(rootfs: Path, argv: Sequence[str], *, seccomp: bool) -> dict[str, Any]:
    """What `docker run -m 100m` writes, but for what it makes on the host: no overlay, no /etc files."""
    capabilities = list(docker_capabilities((), (), privileged=False))
    linux: dict[str, Any] = {
        "resources": {
            "devices": [{"allow": False, "access": "rwm"}],
            "memory": {"limit": MEMORY, "swap": MEMORY},
            "pids": {"limit": 4096},
        },
        "namespaces": [{"type": name} for name in NAMESPACES],
        "maskedPaths": list(MASKED_PATHS),
        "readonlyPaths": list(READONLY_PATHS),
    }
    if seccomp:
        linux["seccomp"] = _seccomp(capabilities)
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(argv),
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "noNewPrivileges": True,
        },
        "root": {"path": str(rootfs), "readonly": False},
        "hostname": "bench",
        "mounts": [
            _mount("/proc", "proc", []),
            _mount("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
            _mount(
                "/dev/pts",
                "devpts",
                ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
            _mount("/dev/shm", "tmpfs", [*_HARDENED, "mode=1777", "size=65536k"]),
            _mount("/dev/mqueue", "mqueue", _HARDENED),
            _mount("/sys", "sysfs", [*_HARDENED, "ro"]),
            _mount("/sys/fs/cgroup", "cgroup", [*_HARDENED, "ro"]),
        ],
        "linux": linux,
    }


def _mount(target: str, kind: str, options: list[str]) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": kind, "options": options}


def _seccomp(capabilities: list[str]) -> dict[str, Any]:
    """The same profile, docker's conditions applied as docker does before it writes config.json."""
    text = (Path(gocker.__file__).parent / "data/seccomp-default.json").read_text()
    profile = json.loads(text)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    kernel = tuple(map(int, os.uname().release.split(".")[:2]))

    def holds(condition: dict[str, Any]) -> list[bool]:
        return [
            *(set(condition[key]) <= {*capabilities} for key in ("caps",) if condition.get(key)),
            *(machine in condition[key] for key in ("arches",) if condition.get(key)),
            *(
                kernel >= tuple(map(int, condition[key].split(".")))
                for key in ("minKernel",)
                if condition.get(key)
            ),
        ]

    rules = []
    for rule in profile["syscalls"]:
        if all(holds(rule.get("includes", {}))) and not any(holds(rule.get("excludes", {}))):
            kept = ("names", "action", "errnoRet", "args")
            rules.append({key: rule[key] for key in kept if rule.get(key) is not None})
    own = {"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}[machine]
    defaults = {key: profile[key] for key in ("defaultAction", "defaultErrnoRet") if key in profile}
    return {**defaults, "architectures": [own], "syscalls": rules}
