"""CPU time: counters for the receipt, no limit."""

from __future__ import annotations

from collections.abc import Mapping

from gocker.api import Cgroup, CgroupController, CgroupReader, Resources, counter
from gocker.model import Hierarchy


class Cpuacct(CgroupController):
    """Source: kernel Documentation/admin-guide/cgroup-v1/cpuacct.rst and cgroup-v2.rst, cpu.stat."""

    api_version = (1, 0)
    name = "cpuacct"
    # On v2 every cgroup has cpu.stat, with or without the cpu controller.
    kernel_names = {Hierarchy.V1: "cpuacct", Hierarchy.V2: "cgroup"}  # noqa: RUF012 - declared ClassVar
    always = True

    def parse(self, fields: Mapping[str, str]) -> Resources:
        """It takes no limits."""
        return {}

    def set(self, group: Cgroup, resources: Resources) -> None:
        """Nothing to write."""

    def stats(self, group: CgroupReader) -> Mapping[str, int]:
        """User and system time in microseconds, exact in their sum, sampled in their ratio.

        v1 counts the whole to the nanosecond, but user and system by timer ticks, so that a short
        program has neither: the whole is split in the ticks' ratio, as the kernel itself does for v2.
        """
        if group.hierarchy is Hierarchy.V2:
            text = group.read("cpu.stat")
            user, system = counter(text, "user_usec"), counter(text, "system_usec")
        else:
            user, system = _split(
                counter(group.read("cpuacct.usage")),
                counter(group.read("cpuacct.usage_user")) or 0,
                counter(group.read("cpuacct.usage_sys")) or 0,
            )
        found = {"cpu_user_us": user, "cpu_system_us": system}
        return {name: value for name, value in found.items() if value is not None}


def _split(whole: int | None, user: int, system: int) -> tuple[int | None, int | None]:
    """`whole` nanoseconds as microseconds of (user, system); all of it user where neither was sampled."""
    if whole is None:
        return None, None
    total = whole // 1000
    system_part = total * system // (user + system) if system else 0
    return total - system_part, system_part
