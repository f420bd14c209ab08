"""The features document: what a config.json may ask gocker for, by its own tables, whatever this host has."""

from __future__ import annotations

import json
from typing import Any

from gocker import __version__
from gocker.errors import GockerError
from gocker.kernel.caps import NAMES
from gocker.kernel.mempolicy import FLAGS, MODES
from gocker.kernel.seccomp import COMPARE
from gocker.model import OCI_VERSION
from gocker.oci.hooks import KINDS
from gocker.oci.linux import NAMESPACES
from gocker.oci.mounts import known_options
from gocker.ociresources import ANNOTATION
from gocker.seccompprofile import parse_profile

_OLDEST = "1.0.0"
# OCI runtime spec, config-linux, Seccomp: as of libseccomp 2.6.
_ACTIONS = ("ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "NOTIFY", "TRACE", "TRAP")
_ARCHES = (
    *("AARCH64", "ARM", "LOONGARCH64", "M68K", "MIPS", "MIPS64", "MIPS64N32", "MIPSEL", "MIPSEL64"),
    *("MIPSEL64N32", "PARISC", "PARISC64", "PPC", "PPC64", "PPC64LE", "RISCV64", "S390", "S390X"),
    *("SH", "SHEB", "X32", "X86", "X86_64"),
)
_FLAGS = ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV")


def features() -> dict[str, Any]:
    """The document, as JSON types. Source: OCI runtime spec 1.3, features and features-linux."""
    return {
        "ociVersionMin": _OLDEST,
        "ociVersionMax": OCI_VERSION,
        "hooks": list(KINDS),
        "mountOptions": sorted(known_options()),
        "linux": {
            "namespaces": sorted(NAMESPACES),
            "capabilities": list(NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": False, "rdma": True},
            "seccomp": _seccomp(),
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "memoryPolicy": {"modes": list(MODES), "flags": list(FLAGS)},
            "intelRdt": {"enabled": False, "schemata": False, "monitoring": False},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": False},
        },
        "annotations": {"dev.gocker.version": __version__},
        "potentiallyUnsafeConfigAnnotations": [ANNOTATION],
    }


def _seccomp() -> dict[str, Any]:
    flags = [name for flag in _FLAGS if _accepted(flags=[name := f"SECCOMP_FILTER_FLAG_{flag}"])]
    return {
        "enabled": True,
        "actions": [name for action in _ACTIONS if _has_action(name := f"SCMP_ACT_{action}")],
        "operators": sorted(f"SCMP_CMP_{name}" for name in COMPARE),
        "archs": [f"SCMP_ARCH_{name}" for name in _ARCHES],
        "knownFlags": flags,
        "supportedFlags": flags,
    }


def _has_action(name: str) -> bool:
    listener = {"listenerPath": "/run/agent"} if name == "SCMP_ACT_NOTIFY" else {}
    return _accepted(syscalls=[{"names": ["getcwd"], "action": name}], **listener)


def _accepted(**members: Any) -> bool:
    """Whether the reader of profiles takes these: it is asked, so that the two never differ."""
    profile = {"defaultAction": "SCMP_ACT_ALLOW", **members}
    try:
        parse_profile(json.dumps(profile).encode(), "features", "x86_64")
    except GockerError:
        return False
    return True
