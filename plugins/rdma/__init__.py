"""The rdma controller: how much of each RDMA device a container may use."""

from __future__ import annotations

from collections.abc import Mapping

from gocker.api import Cgroup, CgroupController, LimitHelp, Resources
from gocker.errors import LimitError
from gocker.limits import parse_count
from gocker.model import Hierarchy

_MOST = (1 << 31) - 1  # S32_MAX is the kernel's `max`, kernel/cgroup/rdma.c
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
_WORDS = {"hca_handles": "hca_handle", "hca_objects": "hca_object"}  # key -> as rdma.max spells it
_OCI = {"hcaHandles": "hca_handles", "hcaObjects": "hca_objects"}
_FILES = {Hierarchy.V1: "rdma.max", Hierarchy.V2: "rdma.max"}
_REMEDY = "ls /sys/class/infiniband shows the devices"


class Rdma(CgroupController):
    """Source: kernel Documentation/admin-guide/cgroup-v1/rdma.rst and cgroup-v2.rst, RDMA."""

    api_version = (1, 1)
    name = "rdma"
    kernel_names = {Hierarchy.V1: "rdma", Hierarchy.V2: "rdma"}  # noqa: RUF012 - declared ClassVar
    limits = (
        LimitHelp(
            key="rdma.hca_handles",
            example="rdma.hca_handles=mlx5_0:2",
            text="DEVICE:NUMBER for each: the most handles that may be open.",
            oci="x.rdma.hca_handles",
            files=_FILES,
        ),
        LimitHelp(
            key="rdma.hca_objects",
            example="rdma.hca_objects=mlx5_0:2000",
            text="DEVICE:NUMBER for each: the most objects that may be made.",
            oci="x.rdma.hca_objects",
            files=_FILES,
        ),
    )
    oci_paths = ("rdma",)

    def parse(self, fields: Mapping[str, str]) -> Resources:
        """`mlx5_0:2` as it is, checked."""
        resources = {}
        for key in _WORDS:
            if key in fields:
                pairs = _pairs(key, fields[key])
                resources[f"x.rdma.{key}"] = ",".join(f"{device}:{number}" for device, number in pairs)
        return resources

    def from_oci(self, part: Mapping[str, object]) -> Mapping[str, str]:
        """{"mlx5_0": {"hcaHandles": 2}} as `mlx5_0:2` of its key."""
        devices = part.get("rdma", {})
        words: dict[str, list[str]] = {}
        if not isinstance(devices, dict):
            raise LimitError("read linux.resources", "rdma", "not an object")
        for device, asked in devices.items():
            if not isinstance(asked, dict) or not asked or not asked.keys() <= _OCI.keys():
                known = " and ".join(_OCI)
                raise LimitError("read linux.resources", f"rdma.{device}", f"not an object of {known}")
            for name, number in asked.items():
                words.setdefault(_OCI[name], []).append(f"{device}:{number}")
        return {key: ",".join(texts) for key, texts in words.items()}

    def set(self, group: Cgroup, resources: Resources) -> None:
        """One line of rdma.max for each device and key; what a line does not name stays."""
        for key, word in _WORDS.items():
            for device, number in _pairs(key, str(resources.get(f"x.rdma.{key}", ""))):
                group.write(
                    "rdma.max", f"{device} {word}={number}", limit=f"rdma.{key}", row=True, remedy=_REMEDY
                )


def _pairs(key: str, text: str) -> list[tuple[str, int]]:
    pairs: dict[str, int] = {}
    for word in text.split(",") if text else ():
        device, _, number = word.rpartition(":")
        if not device or not _NAME.issuperset(device):
            raise LimitError("set limit", f"rdma.{key}={text}", f"{word!r} is not DEVICE:NUMBER")
        count = parse_count(number, f"rdma.{key}", minimum=0, maximum=_MOST)
        if pairs.setdefault(device, count) != count:
            raise LimitError("set limit", f"rdma.{key}={text}", f"{device} has two numbers")
    return list(pairs.items())
