"""The CPU controller's weight: a container's part of the CPU when others want it too."""

from __future__ import annotations

from collections.abc import Mapping

from gocker.api import Cgroup, CgroupController, LimitHelp, Resources
from gocker.limits import parse_count
from gocker.model import Hierarchy

_MINIMUM, _MAXIMUM = 2, 262144  # MIN_SHARES and MAX_SHARES, kernel/sched/sched.h
_REMEDY = "what has cpu.idle=1 has no weight: leave one of them out"


class Cpushare(CgroupController):
    """Source: kernel Documentation/scheduler/sched-design-CFS.rst and cgroup-v2.rst, CPU."""

    api_version = (1, 1)
    name = "cpushare"
    kernel_names = {Hierarchy.V1: "cpu", Hierarchy.V2: "cpu"}  # noqa: RUF012 - declared ClassVar
    limits = (
        LimitHelp(
            key="cpushare",
            example="cpushare=512",
            text="Its weight against the others, 2 to 262144; one without has 1024.",
            oci="cpu.shares",
            files={Hierarchy.V1: "cpu.shares", Hierarchy.V2: "cpu.weight"},
        ),
    )

    def parse(self, fields: Mapping[str, str]) -> Resources:
        """The v1 number of shares, which is OCI's unit too."""
        if "" not in fields:
            return {}
        return {"cpu.shares": parse_count(fields[""], "cpushare", minimum=_MINIMUM, maximum=_MAXIMUM)}

    def from_oci(self, part: Mapping[str, object]) -> Mapping[str, str]:
        """Zero, which engines write where nobody asked, is not set, as runc has it."""
        return {key: text for key, text in super().from_oci(part).items() if text != "0"}

    def set(self, group: Cgroup, resources: Resources) -> None:
        """The shares on v1, their weight on v2; both read back exactly."""
        if "cpu.shares" not in resources:
            return
        shares = int(resources["cpu.shares"])
        if group.hierarchy is Hierarchy.V1:
            group.write("cpu.shares", str(shares), limit="cpushare", remedy=_REMEDY)
        else:
            group.write("cpu.weight", str(weight(shares)), limit="cpushare", remedy=_REMEDY)


def weight(shares: int) -> int:
    """The cgroup v2 weight, 1 to 10000, of v1 shares, 2 to 262144.

    With l = log2(shares): weight = ceil(10 ** ((l*l + 125*l) / 612 - 7/34)), which takes the least, the
    default and the greatest of one to those of the other: 2 to 1, 1024 to 100, 262144 to 10000. It is
    the formula of runc since 1.3.2 (github.com/opencontainers/cgroups, utils.go,
    ConvertCPUSharesToCgroupV2Value, since 0.0.3) and of crun since 1.23 (crun.1.md, "CPU controller"),
    so that a container weighs the same whoever starts it; before, 1024 shares became 39.
    """
    if shares <= _MINIMUM:
        return 1
    if shares >= _MAXIMUM:
        return 10000
    from math import ceil, log2

    power = log2(shares)
    return ceil(10 ** ((power * power + 125 * power) / 612 - 7 / 34))
