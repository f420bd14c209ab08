"""The cpuset controller: which CPUs and memory nodes a container may use."""

from __future__ import annotations

from collections.abc import Mapping

from gocker.api import Cgroup, CgroupController, LimitHelp, Resources, Scalar
from gocker.limits import format_list, parse_list
from gocker.model import Hierarchy

_CPUS, _MEMS = "cpuset.cpus", "cpuset.mems"
_REMEDIES = {
    _CPUS: "only CPUs in /sys/devices/system/cpu/online, and those the cgroup above has, can be given",
    _MEMS: "only nodes in /sys/devices/system/node/has_memory, and those the cgroup above has, can be given",
}


class Cpuset(CgroupController):
    """Source: cpuset(7); kernel Documentation/admin-guide/cgroup-v2.rst, Cpuset."""

    api_version = (1, 1)
    name = "cpuset"
    kernel_names = {Hierarchy.V1: "cpuset", Hierarchy.V2: "cpuset"}  # noqa: RUF012 - declared ClassVar
    limits = (
        LimitHelp(
            key="cpuset",
            example="cpuset=0-1,3",
            text="The CPUs it may run on.",
            oci="cpu.cpus",
            files={Hierarchy.V1: _CPUS, Hierarchy.V2: _CPUS},
        ),
        LimitHelp(
            key="cpuset.mems",
            example="cpuset.mems=0",
            text="The memory nodes it may allocate from.",
            oci="cpu.mems",
            files={Hierarchy.V1: _MEMS, Hierarchy.V2: _MEMS},
        ),
    )

    def parse(self, fields: Mapping[str, str]) -> Resources:
        """Lists in the kernel's own spelling, so that they read back as they were written."""
        resources: dict[str, Scalar] = {}
        if "" in fields:
            resources["cpu.cpus"] = format_list(parse_list(fields[""], "cpuset"))
        if "mems" in fields:
            resources["cpu.mems"] = format_list(parse_list(fields["mems"], "cpuset.mems"))
        return resources

    def from_oci(self, part: Mapping[str, object]) -> Mapping[str, str]:
        """An empty list, which engines write where nobody asked, is not set."""
        return {key: text for key, text in super().from_oci(part).items() if text}

    def set(self, group: Cgroup, resources: Resources) -> None:
        """v1 files are born empty, and no process gets in until both are filled.

        v2 takes any list and quietly falls back to the CPUs of the cgroup above when it has none of
        those: only cpuset.cpus.effective says what holds.
        """
        v1 = group.hierarchy is Hierarchy.V1
        if v1:
            group.inherit(_CPUS)
            group.inherit(_MEMS)
        for label, file, path in (("cpuset", _CPUS, "cpu.cpus"), ("cpuset.mems", _MEMS, "cpu.mems")):
            if path in resources:
                value = format_list(parse_list(str(resources[path]), label))
                verify = "" if v1 else f"{file}.effective"
                group.write(file, value, limit=label, verify=verify, remedy=_REMEDIES[file])
