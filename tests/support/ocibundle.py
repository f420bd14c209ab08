"""Configs of the OCI for tests: the least that starts, and one that has every field that gocker follows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gocker.errors import UsageError
from gocker.limits import LimitRequest
from gocker.model import ContainerSpec
from gocker.oci.process import read_process
from gocker.oci.spec import read_config

GRANTABLE = frozenset({"CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SYS_ADMIN"})
BUNDLE = "/run/bundle"


def minimal(**members: Any) -> dict[str, Any]:
    """A config that starts, with members set or, when None, left out."""
    config: dict[str, Any] = {
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["sh"]},
        "linux": {"namespaces": [{"type": "mount"}]},
        **members,
    }
    return {name: value for name, value in config.items() if value is not None}


def process(**members: Any) -> dict[str, Any]:
    """A minimal config with these members of its process."""
    return minimal(process={"cwd": "/", "args": ["sh"], **members})


def linux(*kinds: str, **members: Any) -> dict[str, Any]:
    """A minimal config with these namespaces beside the mount one, and these members of linux."""
    namespaces = [{"type": kind} for kind in ("mount", *kinds)]
    return minimal(linux={"namespaces": namespaces, **members})


def mount(**members: Any) -> dict[str, Any]:
    """A minimal config with one mount, a tmpfs unless said otherwise."""
    return minimal(mounts=[{"destination": "/mnt", "type": "tmpfs", **members}])


def mapping(inside: int, outside: int, size: int) -> dict[str, int]:
    return {"containerID": inside, "hostID": outside, "size": size}


def no_limits(resources: Mapping[str, object], annotations: Mapping[str, str]) -> tuple[LimitRequest, ...]:
    """Nothing is dealt out."""
    return ()


def read(config: object, **options: Any) -> ContainerSpec:
    """The spec of a config."""
    return read_all(config, **options)[0]


def read_all(config: object, **options: Any) -> tuple[ContainerSpec, tuple[str, ...]]:
    """The spec of a config, and the warnings."""
    data = config if isinstance(config, bytes) else json.dumps(config).encode()
    options = {"limits": no_limits, "grantable": GRANTABLE, **options}
    return read_config(data, container="c0ffee", bundle=BUNDLE, **options)


def read_exec(process: object) -> dict[str, Any]:
    """The fields of a process.json."""
    return read_process(json.dumps(process).encode(), grantable=GRANTABLE)[0]


def refusal(config: object, **options: Any) -> str:
    """What the error says; an AssertionError when there is none."""
    try:
        spec = read(config, **options)
    except UsageError as error:
        return str(error)
    raise AssertionError(f"read as {spec}")


def full() -> dict[str, Any]:
    """Every field that gocker follows, each with a value that is not the default, in the first item of its list."""
    config: dict[str, Any] = json.loads(json.dumps(_full()))  # no list that stands in two places
    return config


def _full() -> dict[str, Any]:
    ids = [mapping(0, 100_000, 1000), mapping(1000, 200_000, 64_536)]
    hook = {"path": "/bin/hook", "args": ["hook", "x"], "env": ["A=1"], "timeout": 5}
    kinds = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
    return {
        "ociVersion": "1.3.0",
        "process": _full_process(),
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "box",
        "domainname": "example.test",
        "mounts": [
            {
                "destination": "/data",
                "type": "none",
                "source": "/srv/data",
                "options": ["rbind", "rro", "rprivate", "ridmap"],
                "uidMappings": ids,
                "gidMappings": ids,
            },
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        ],
        "hooks": {kind: [hook] for kind in kinds},
        "annotations": {"com.example.key": "value", "dev.gocker.limit.pids": "9"},
        "linux": {
            "namespaces": [
                {"type": "network", "path": "/run/netns/blue"},
                *({"type": kind} for kind in ("mount", "pid", "ipc", "uts", "user", "cgroup", "time")),
            ],
            "uidMappings": ids,
            "gidMappings": ids,
            "timeOffsets": {"monotonic": {"secs": 5, "nanosecs": 7}, "boottime": {"secs": -3, "nanosecs": 1}},
            "devices": [
                {
                    "type": "c",
                    "path": "/dev/fuse",
                    "major": 10,
                    "minor": 229,
                    "fileMode": 0o640,
                    "uid": 3,
                    "gid": 4,
                }
            ],
            "cgroupsPath": "/pods/c0ffee",
            "resources": {"pids": {"limit": 9}},
            "sysctl": {"kernel.shmmax": "65536"},
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
            "rootfsPropagation": "slave",
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
            "mountLabel": "system_u:object_r:container_file_t:s0",
            "personality": {"domain": "LINUX32", "flags": []},
            "memoryPolicy": {
                "mode": "MPOL_BIND",
                "nodes": "0-1",
                "flags": ["MPOL_F_STATIC_NODES"],
            },
        },
    }


def _full_process() -> dict[str, Any]:
    names = ["CAP_CHOWN", "CAP_KILL"]
    return {
        "terminal": True,
        "consoleSize": {"height": 24, "width": 80},
        "cwd": "/work",
        "env": ["PATH=/bin", "TERM=xterm"],
        "args": ["sh", "-c", "true"],
        "user": {"uid": 1000, "gid": 1001, "umask": 0o77, "additionalGids": [5, 6]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}],
        "apparmorProfile": "box",
        "capabilities": dict.fromkeys(
            ("bounding", "effective", "permitted", "inheritable", "ambient"), names
        ),
        "noNewPrivileges": True,
        "oomScoreAdj": 100,
        "scheduler": {
            "policy": "SCHED_DEADLINE",
            "nice": 1,
            "priority": 0,
            "flags": ["SCHED_FLAG_RESET_ON_FORK"],
            "runtime": 1_000_000,
            "deadline": 2_000_000,
            "period": 3_000_000,
        },
        "selinuxLabel": "system_u:system_r:container_t:s0",
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "execCPUAffinity": {"initial": "0", "final": "0-1"},
    }
