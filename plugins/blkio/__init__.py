"""Block I/O: counters for the receipt, no limit."""

from __future__ import annotations

from collections.abc import Mapping

from gocker.api import Cgroup, CgroupController, CgroupReader, Resources
from gocker.model import Hierarchy

_V1_FILE = "blkio.throttle.io_service_bytes_recursive"


class Blkio(CgroupController):
    """Source: kernel Documentation/admin-guide/cgroup-v1/blkio-controller.rst and cgroup-v2.rst, IO."""

    api_version = (1, 0)
    name = "blkio"
    kernel_names = {Hierarchy.V1: "blkio", Hierarchy.V2: "io"}  # noqa: RUF012 - declared ClassVar
    always = True

    def parse(self, fields: Mapping[str, str]) -> Resources:
        """It takes no limits yet."""
        return {}

    def set(self, group: Cgroup, resources: Resources) -> None:
        """Nothing to write."""

    def stats(self, group: CgroupReader) -> Mapping[str, int]:
        """Bytes read from and written to block devices, all of them together; the page cache is none.

        v1 since Linux 6.10 (commit a3166c51702b) counts only for devices where some cgroup has a throttle:
        a file without devices says nothing.
        """
        if group.hierarchy is Hierarchy.V1:
            pairs = _v1_pairs(group.read(_V1_FILE))
            names = {"Read": "io_read_bytes", "Write": "io_write_bytes"}
        else:
            pairs = _v2_pairs(group.read("io.stat"))
            names = {"rbytes": "io_read_bytes", "wbytes": "io_write_bytes"}
        if pairs is None:
            return {}
        totals = dict.fromkeys(names.values(), 0)
        for name, value in pairs:
            if name in names and value.isdecimal():
                totals[names[name]] += int(value)
        return totals


def _v1_pairs(text: str | None) -> list[tuple[str, str]] | None:
    """`8:0 Read 4096` a line, and `Total 4096` last."""
    fields = [line.split() for line in (text or "").splitlines()]
    return [(words[1], words[2]) for words in fields if len(words) == 3] or None


def _v2_pairs(text: str | None) -> list[tuple[str, str]] | None:
    """`8:0 rbytes=4096 wbytes=0 rios=1 ...` a line; no line before the first I/O."""
    if text is None:
        return None
    words = [word.partition("=") for line in text.splitlines() for word in line.split()[1:]]
    return [(name, value) for name, _, value in words]
