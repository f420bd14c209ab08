"""The hugetlb controller: how many bytes of huge pages a container may use, by page size."""

from __future__ import annotations

import os
from collections.abc import Mapping

from gocker.api import Cgroup, CgroupController, CgroupReader, LimitHelp, Resources, counter
from gocker.errors import LimitError
from gocker.limits import MAX_BYTES, parse_size
from gocker.model import Hierarchy

_SYSFS = "/sys/kernel/mm/hugepages"
_COMMON = (2 << 20, 1 << 30)  # where sysfs cannot be read: x86-64's, and arm64's with pages of 4 KiB


def page_sizes(sysfs: str = _SYSFS) -> tuple[int, ...]:
    """The sizes of the kernel's huge pages in bytes, ascending.

    `sysfs` holds a directory for each, such as hugepages-2048kB. Source: kernel
    Documentation/admin-guide/mm/hugetlbpage.rst.
    """
    try:
        names = os.listdir(sysfs)
    except OSError:
        return _COMMON
    numbers = [name.removeprefix("hugepages-").removesuffix("kB") for name in names]
    return tuple(sorted(int(number) << 10 for number in numbers if number.isdecimal())) or _COMMON


def label(size: int) -> str:
    """`2MB`: how the kernel spells a page size in the names of the cgroup's files (mm/hugetlb_cgroup.c)."""
    for unit, factor in (("GB", 1 << 30), ("MB", 1 << 20)):
        if size >= factor:
            return f"{size // factor}{unit}"
    return f"{size >> 10}KB"


SIZES = {label(size): size for size in page_sizes()}


class Hugetlb(CgroupController):
    """Source: kernel Documentation/admin-guide/cgroup-v1/hugetlb.rst and cgroup-v2.rst, HugeTLB."""

    api_version = (1, 1)
    name = "hugetlb"
    kernel_names = {Hierarchy.V1: "hugetlb", Hierarchy.V2: "hugetlb"}  # noqa: RUF012 - declared ClassVar
    limits = tuple(
        LimitHelp(
            key=f"hugetlb.{key}",
            example=f"hugetlb.{key}={max(size, 64 << 20) >> 20}m",
            text=f"The most bytes in huge pages of {key}, rounded down to whole ones; 0 means none.",
            oci=f"hugepageLimits.{key}",
            files={
                Hierarchy.V1: f"hugetlb.{key}.limit_in_bytes",
                Hierarchy.V2: f"hugetlb.{key}.max",
            },
        )
        for key, size in SIZES.items()
    )
    oci_paths = ("hugepageLimits",)

    def from_oci(self, part: Mapping[str, object]) -> Mapping[str, str]:
        """[{"pageSize": "2MB", "limit": 209715200}] as the field `2MB`."""
        rows = part.get("hugepageLimits", [])
        fields: dict[str, str] = {}
        for row in rows if isinstance(rows, list) else [rows]:
            known = isinstance(row, dict) and row.keys() == {"pageSize", "limit"}
            size, limit = (row["pageSize"], row["limit"]) if isinstance(row, dict) and known else ("", "")
            if type(size) is not str or type(limit) is not int:
                raise _unreadable(f"{row!r} is not an object of pageSize and limit")
            if fields.setdefault(size, str(limit)) != str(limit):
                raise _unreadable(f"{size} is there twice")
        return fields

    def parse(self, fields: Mapping[str, str]) -> Resources:
        """Bytes by page size, as they were asked for: the kernel does the rounding."""
        return {f"hugepageLimits.{key}": _bytes(key, text) for key, text in fields.items()}

    def set(self, group: Cgroup, resources: Resources) -> None:
        """One file for each size. The kernel answers with whole pages, and with `max` for all there are."""
        for row in self.limits:
            if row.oci not in resources:
                continue
            size = SIZES[row.key.removeprefix("hugetlb.")]
            asked = int(resources[row.oci])
            pages = asked // size * size
            unlimited = ("max",) if pages + size > MAX_BYTES else ()
            group.write(
                row.files[group.hierarchy],
                str(asked),
                limit=row.key,
                accept=(str(pages), *unlimited),
                remedy="the pages themselves are reserved with sysctl vm.nr_hugepages",
            )

    def stats(self, group: CgroupReader) -> Mapping[str, int]:
        """How often the limit was hit, and on v1 the greatest use; v2 does not keep it."""
        found = {}
        for key in SIZES:
            if group.hierarchy is Hierarchy.V1:
                hits = counter(group.read(f"hugetlb.{key}.failcnt"))
                found[f"hugetlb_{key}_peak_bytes"] = counter(group.read(f"hugetlb.{key}.max_usage_in_bytes"))
            else:
                hits = counter(group.read(f"hugetlb.{key}.events"), "max")
            found[f"hugetlb_{key}_limit_hits"] = hits
        return {name: value for name, value in found.items() if value is not None}


def _unreadable(reason: str) -> LimitError:
    return LimitError("read linux.resources", "hugepageLimits", reason)


def _bytes(key: str, text: str) -> int:
    name = f"hugetlb.{key}"
    size = SIZES.get(key)
    if size is None:
        raise LimitError(
            "set limit",
            f"{name}={text}",
            f"this kernel has no huge pages of {key}" if key else "the size of the pages is missing",
            remedy=" or ".join(f"hugetlb.{known}={text}" for known in SIZES),
        )
    value = parse_size(text, name)
    if 0 < value < size:
        raise LimitError(
            "set limit",
            f"{name}={text}",
            f"less than one page of {key}",
            remedy="0 means none at all",
        )
    return value
