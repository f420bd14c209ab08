"""The memory controller: how much memory, and memory and swap together, a container may hold.

`memory=100m` means 100 MiB and no swap beside it, wherever the kernel accounts swap at all: who
asks for a limit expects the program to end there, and a program that may swap does not. Docker
allows as much swap again; `memory.swap=200m` asks for that, `memory.swap=-1` for all the swap there is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from gocker.api import Cgroup, CgroupController, CgroupReader, LimitHelp, Resources, Scalar, counter, oci_text
from gocker.errors import LimitError
from gocker.limits import MAX_BYTES, parse_count, parse_size
from gocker.model import Hierarchy

_MINIMUM = 6 << 20  # docker's: below it not even the start of a container fits
_UNLIMITED = -1  # as the OCI runtime spec writes it
_SWAP_REMEDY = "the kernel does not account swap here: boot with swapaccount=1, or leave memory.swap out"


class Memory(CgroupController):
    """Source: kernel Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst, Memory."""

    api_version = (1, 1)
    name = "memory"
    kernel_names = {Hierarchy.V1: "memory", Hierarchy.V2: "memory"}  # noqa: RUF012 - declared ClassVar
    always = True
    limits = (
        LimitHelp(
            key="memory",
            example="memory=100m",
            text="The most memory in bytes, page cache included, at least 6m; no swap unless memory.swap allows it.",
            oci="memory.limit",
            files={Hierarchy.V1: "memory.limit_in_bytes", Hierarchy.V2: "memory.max"},
        ),
        LimitHelp(
            key="memory.swap",
            example="memory.swap=1g",
            text="The most memory and swap together in bytes; equal to memory means no swap, -1 all there is.",
            oci="memory.swap",
            files={Hierarchy.V1: "memory.memsw.limit_in_bytes", Hierarchy.V2: "memory.swap.max"},
        ),
        LimitHelp(
            key="memory.reservation",
            example="memory.reservation=64m",
            text="Bytes that are taken away last when the host runs short; not a limit.",
            oci="memory.reservation",
            files={Hierarchy.V1: "memory.soft_limit_in_bytes", Hierarchy.V2: "memory.low"},
        ),
        LimitHelp(
            key="memory.swappiness",
            example="memory.swappiness=10",
            text="How readily it is swapped, 0 to 100; v1 alone.",
            oci="memory.swappiness",
            files={Hierarchy.V1: "memory.swappiness"},
        ),
        LimitHelp(
            key="memory.oom_kill_disable",
            example="memory.oom_kill_disable=true",
            text="true stops programs that need more than the limit rather than killing one; v1 alone.",
            oci="memory.disableOOMKiller",
            files={Hierarchy.V1: "memory.oom_control"},
        ),
        LimitHelp(
            key="memory.use_hierarchy",
            example="memory.use_hierarchy=true",
            text="true counts what cgroups below hold; v2 and Linux 5.11 do nothing else.",
            oci="memory.useHierarchy",
            files={Hierarchy.V1: "memory.use_hierarchy"},
        ),
        LimitHelp(
            key="memory.kernel",
            example="memory.kernel=64m",
            text="The most kernel memory in bytes; v1 before Linux 5.16 alone.",
            oci="memory.kernel",
            files={Hierarchy.V1: "memory.kmem.limit_in_bytes"},
        ),
        LimitHelp(
            key="memory.kernel_tcp",
            example="memory.kernel_tcp=16m",
            text="The most memory for TCP buffers in bytes; v1 alone.",
            oci="memory.kernelTCP",
            files={Hierarchy.V1: "memory.kmem.tcp.limit_in_bytes"},
        ),
    )
    oci_paths = (*(row.oci for row in limits), "memory.checkBeforeUpdate")

    def parse(self, fields: Mapping[str, str]) -> Resources:
        """Bytes by OCI path; memory.swap is the sum of memory and swap, as in docker and OCI."""
        resources: dict[str, Scalar] = {}
        limit = 0
        if "" in fields:
            limit = resources["memory.limit"] = _bytes(fields[""], "memory")
        if "swap" in fields:
            resources["memory.swap"] = _swap(fields["swap"], limit)
        if "reservation" in fields:
            text = fields["reservation"]
            reservation = resources["memory.reservation"] = _bytes(text, "memory.reservation")
            if 0 < limit < reservation:
                raise _refused("memory.reservation", text, f"above the memory limit of {limit} bytes")
        if "swappiness" in fields:
            label = "memory.swappiness"
            resources[label] = parse_count(fields["swappiness"], label, minimum=0, maximum=100)
        for key, path in _SWITCHES.items():
            if key in fields:
                resources[path] = _switch(fields[key], f"memory.{key}")
        for key, path in _KERNEL.items():
            if key in fields:
                resources[path] = parse_size(fields[key], f"memory.{key}")
        return resources

    def from_oci(self, part: Mapping[str, object]) -> Mapping[str, str]:
        """Zero bytes are not set, as runc has it; below zero is no limit.

        `disableOOMKiller: false` and a swappiness of -1 are what engines write where nobody asked.
        checkBeforeUpdate is about a cgroup that holds something already: a new one passes any check.
        """
        fields = {}
        for row in self.limits:
            text = oci_text(row.oci, part[row.oci]) if row.oci in part else ""
            key = row.key.partition(".")[2]
            if key in _SWITCHES:
                asked = text and not (key == "oom_kill_disable" and text == "false")
            elif key == "swappiness":
                asked = text not in {"", "-1"}
            else:
                asked = text not in {"", "0"}
                text = _NONE[key] if text.startswith("-") else text
            if asked and text:
                fields[key] = text
        check = part.get("memory.checkBeforeUpdate", False)
        if not isinstance(check, bool):
            raise LimitError("read linux.resources", "memory.checkBeforeUpdate", "not a boolean")
        return fields

    def set(self, group: Cgroup, resources: Resources) -> None:
        """Memory before swap: the kernel refuses a sum that is below the limit.

        Where both get greater, the sum has to be first; on v1 alone, since v2 limits swap apart.
        """
        limit = int(resources.get("memory.limit", 0))
        if limit and "memory.swap" in resources and group.hierarchy is Hierarchy.V1:
            file = _FILES[Hierarchy.V1]["memory.swap"]
            group.write(file, str(resources["memory.swap"]), limit="memory.swap", tentative=True)
        if limit:
            _write(group, "memory", limit)
        if "memory.swap" in resources:
            _write_swap(group, limit, int(resources["memory.swap"]), optional=False)
        elif limit > 0:
            _write_swap(group, limit, limit, optional=True)
        if "memory.reservation" in resources:
            _write(group, "memory.reservation", int(resources["memory.reservation"]))
        _write_others(group, resources)

    def stats(self, group: CgroupReader) -> Mapping[str, int]:
        """Peak use, kills by the OOM killer, and how often the limit was met.

        v2: memory_ooms counts the times that this limit, or one below it, was the cause; with none of
        them oom_kills is the work of a limit above, or of the whole host running out.
        """
        if group.hierarchy is Hierarchy.V1:
            # Where memory and sum have one limit the sum's counter meets it first, and newer kernels
            # do not count that (page_counter.track_failcnt): a zero says nothing.
            hits = counter(group.read("memory.failcnt")) or 0
            hits += counter(group.read("memory.memsw.failcnt")) or 0
            found = {
                "memory_peak_bytes": counter(group.read("memory.max_usage_in_bytes")),
                "oom_kills": counter(group.read("memory.oom_control"), "oom_kill"),
                "memory_limit_hits": hits or None,
            }
        else:
            events = group.read("memory.events")
            found = {
                "memory_peak_bytes": counter(group.read("memory.peak")),
                "oom_kills": counter(events, "oom_kill"),
                "memory_limit_hits": counter(events, "max"),
                "memory_ooms": counter(events, "oom"),
            }
        return {name: value for name, value in found.items() if value is not None}


_UNLIMITED_TEXT = "unlimited"
_SWITCHES = {"oom_kill_disable": "memory.disableOOMKiller", "use_hierarchy": "memory.useHierarchy"}
_KERNEL = {"kernel": "memory.kernel", "kernel_tcp": "memory.kernelTCP"}
_NONE = {"": _UNLIMITED_TEXT, "reservation": _UNLIMITED_TEXT, "swap": "-1", "kernel": "", "kernel_tcp": ""}
"""What stands for no limit, by key; nothing has to be written where the kernel begins with none."""
_OOM_CONTROL = ("under_oom 0", "under_oom 0\noom_kill 0")  # how the file goes on, since Linux 4.13 with kills


def _refused(label: str, text: str, reason: str, remedy: str = "") -> LimitError:
    return LimitError("set limit", f"{label}={text}", reason, remedy=remedy)


def _switch(text: str, label: str) -> int:
    if text not in {"true", "false"}:
        raise _refused(label, text, "neither true nor false")
    return int(text == "true")


def _bytes(text: str, label: str) -> int:
    if text == _UNLIMITED_TEXT:
        return _UNLIMITED
    if text.strip().startswith("-"):
        raise _refused(label, text, "not a size in bytes", f"leave {label} out for none")
    value = parse_size(text, label)
    if value < _MINIMUM:
        raise _refused(label, text, "below the minimum of 6m", f"leave {label} out for none")
    return value


def _swap(text: str, limit: int) -> int:
    label = "memory.swap"
    if text.strip() == "-1":
        return _UNLIMITED
    if limit <= 0:
        raise _refused(
            label, text, "means nothing without memory", "add memory=, the part of the sum that is memory"
        )
    if text.strip().startswith("-"):
        raise _refused(label, text, "not a size in bytes", "-1 allows all the swap there is")
    value = parse_size(text, label)
    if value < limit:
        remedy = "it is the sum of memory and swap; equal to memory means no swap"
        raise _refused(label, text, f"below the memory limit of {limit} bytes", remedy)
    return value


def _write_swap(group: Cgroup, limit: int, total: int, *, optional: bool) -> None:
    """The sum on v1; on v2, which limits swap alone, what is left of it."""
    if group.hierarchy is Hierarchy.V2 and total != _UNLIMITED:
        if limit <= 0:
            raise _refused(
                "memory.swap", str(total), "cgroup v2 limits swap alone: memory is needed to know it"
            )
        total -= limit
    _write(group, "memory.swap", total, optional=optional, remedy=_SWAP_REMEDY)


def _write(group: Cgroup, label: str, value: int, *, optional: bool = False, remedy: str = "") -> None:
    """Write bytes; the kernel counts in pages, rounds down and calls its largest number unlimited."""
    page = os.sysconf("SC_PAGE_SIZE")
    largest = MAX_BYTES // page * page
    rounded = largest if value == _UNLIMITED else value // page * page
    if group.hierarchy is Hierarchy.V1:
        text, answer = str(value), str(rounded)
    else:
        text = "max" if value == _UNLIMITED else str(value)
        answer = "max" if rounded == largest else str(rounded)
    group.write(
        _FILES[group.hierarchy][label], text, limit=label, accept=(answer,), optional=optional, remedy=remedy
    )


def _write_others(group: Cgroup, resources: Resources) -> None:
    """What v1 alone has: on v2 it is refused by name, but for what is so there anyway."""
    for row in Memory.limits[3:]:
        if row.oci not in resources:
            continue
        text, remedy = str(resources[row.oci]), ""
        accept: tuple[str, ...] = ()
        asked = {"0": "false", "1": "true"}[text] if row.oci in _SWITCHES.values() else text
        if group.hierarchy is Hierarchy.V2:
            if row.oci == "memory.useHierarchy" and text == "1":
                continue
            raise _refused(row.key, asked, "cgroup v2 has nothing like it", f"leave {row.key} out")
        if row.oci == "memory.disableOOMKiller":
            accept = tuple(f"oom_kill_disable {text}\n{rest}" for rest in _OOM_CONTROL)
        elif row.oci in _KERNEL.values():
            page = os.sysconf("SC_PAGE_SIZE")
            accept = (str(int(text) // page * page),)
            remedy = (
                "Linux 5.16 has given up kernel memory limits: leave it out"
                if row.key == "memory.kernel"
                else ""
            )
        elif row.oci == "memory.useHierarchy":
            remedy = "since Linux 5.11 there is nothing but true"
        group.write(row.files[Hierarchy.V1], text, limit=row.key, accept=accept, remedy=remedy)


_FILES = {
    version: {row.key: row.files[version] for row in Memory.limits if version in row.files}
    for version in Hierarchy
}
