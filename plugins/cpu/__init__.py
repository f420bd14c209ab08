"""The CPU controller's bandwidth: how much CPU time a container gets, whoever else wants some."""

from __future__ import annotations

from collections.abc import Mapping

from gocker.api import Cgroup, CgroupController, LimitHelp, Resources, Scalar, oci_text
from gocker.errors import LimitError
from gocker.limits import parse_count
from gocker.model import Hierarchy

_PERIOD = 100_000  # microseconds: default_cfs_period(), kernel/sched/fair.c
_PERIODS = (1000, 1_000_000)  # min_cfs_quota_period and max_cfs_quota_period, kernel/sched/core.c
_LEAST = 1000  # of a quota: the same
_MOST = (1 << 44) // 1000  # max_bw_quota_period_us
_REALTIME = 1 << 31  # the kernel keeps them in nanoseconds; a period above an hour is a mistake
_NANO = 10**9
_RT_REMEDY = "realtime time is given down: every cgroup above needs cpu.rt_runtime_us of at least that"
_BURST_REMEDY = "bursts need Linux 5.14 or newer, and are at most the quota"


class Cpu(CgroupController):
    """Source: kernel Documentation/scheduler/sched-bwc.rst, sched-rt-group.rst and cgroup-v2.rst, CPU."""

    api_version = (1, 1)
    name = "cpu"
    kernel_names = {Hierarchy.V1: "cpu", Hierarchy.V2: "cpu"}  # noqa: RUF012 - declared ClassVar
    limits = (
        LimitHelp(
            key="cpu",
            example="cpu=1.5",
            text="The CPU time in whole CPUs: 1.5 is one and a half; it becomes a quota of each period.",
            oci="x.cpu.cpus",
            files={Hierarchy.V1: "cpu.cfs_quota_us", Hierarchy.V2: "cpu.max"},
        ),
        LimitHelp(
            key="cpu.quota",
            example="cpu.quota=150000",
            text="Microseconds of CPU time in each period, at least 1000; -1 is no limit.",
            oci="cpu.quota",
            files={Hierarchy.V1: "cpu.cfs_quota_us", Hierarchy.V2: "cpu.max"},
        ),
        LimitHelp(
            key="cpu.period",
            example="cpu.period=100000",
            text="The period in microseconds, 1000 to 1000000; 100000 unless asked otherwise.",
            oci="cpu.period",
            files={Hierarchy.V1: "cpu.cfs_period_us", Hierarchy.V2: "cpu.max"},
        ),
        LimitHelp(
            key="cpu.burst",
            example="cpu.burst=20000",
            text="How many unused microseconds it may save up, at most the quota.",
            oci="cpu.burst",
            files={Hierarchy.V1: "cpu.cfs_burst_us", Hierarchy.V2: "cpu.max.burst"},
        ),
        LimitHelp(
            key="cpu.idle",
            example="cpu.idle=1",
            text="1 lets it run only when nothing else wants the CPU (SCHED_IDLE), 0 as usual.",
            oci="cpu.idle",
            files={Hierarchy.V1: "cpu.idle", Hierarchy.V2: "cpu.idle"},
        ),
        LimitHelp(
            key="cpu.rt_runtime",
            example="cpu.rt_runtime=10000",
            text="Microseconds of each realtime period for its realtime programs; v1 alone.",
            oci="cpu.realtimeRuntime",
            files={Hierarchy.V1: "cpu.rt_runtime_us"},
        ),
        LimitHelp(
            key="cpu.rt_period",
            example="cpu.rt_period=1000000",
            text="The realtime period in microseconds; v1 alone.",
            oci="cpu.realtimePeriod",
            files={Hierarchy.V1: "cpu.rt_period_us"},
        ),
    )
    oci_paths = (
        "cpu.quota",
        "cpu.period",
        "cpu.burst",
        "cpu.idle",
        "cpu.realtimeRuntime",
        "cpu.realtimePeriod",
    )

    def parse(self, fields: Mapping[str, str]) -> Resources:
        """Microseconds; x.cpu.cpus is in billionths, as docker has them."""
        resources: dict[str, Scalar] = {}
        for key, path, least, most in _COUNTS:
            if key in fields:
                resources[path] = parse_count(fields[key], f"cpu.{key}", minimum=least, maximum=most)
        if "quota" in fields:
            resources["cpu.quota"] = _quota(fields["quota"])
        if "" in fields:
            resources["x.cpu.cpus"] = _cpus(fields[""])
        quota, period = _bandwidth(resources)
        if "" in fields:
            _check_cpus(fields, int(quota or 0), period)
        if "burst" in fields and quota and 0 < quota < int(resources["cpu.burst"]):
            raise _refused("burst", fields["burst"], f"above the quota of {quota} microseconds")
        return resources

    def from_oci(self, part: Mapping[str, object]) -> Mapping[str, str]:
        """Zero is not set but for burst and idle, as runc has it; a negative quota is none."""
        fields = {}
        for key, path in _OCI:
            text = oci_text(path, part[path]) if path in part else ""
            if key == "quota" and text.startswith("-"):
                text = "-1"
            if text and (text != "0" or key in {"burst", "idle"}):
                fields[key] = text
        return fields

    def set(self, group: Cgroup, resources: Resources) -> None:
        """Realtime first, which takes from nobody; then the bandwidth."""
        if "cpu.idle" in resources:
            group.write(
                "cpu.idle", str(resources["cpu.idle"]), limit="cpu.idle", remedy="it needs Linux 5.15"
            )
        if group.hierarchy is Hierarchy.V1:
            self._set_realtime(group, resources)
            self._set_v1(group, resources)
        else:
            self._set_v2(group, resources)

    def _set_realtime(self, group: Cgroup, resources: Resources) -> None:
        """The period, which the kernel may refuse as long as the old runtime is too much of it."""
        runtime, period = (resources.get(f"cpu.realtime{name}") for name in ("Runtime", "Period"))
        if runtime is not None:
            group.inherit("cpu.rt_runtime_us", above=True)
        if period is not None:
            self._realtime(group, "period", period, tentative=runtime is not None)
        if runtime is not None:
            self._realtime(group, "runtime", runtime)
            if period is not None:
                self._realtime(group, "period", period)

    def _realtime(self, group: Cgroup, name: str, value: Scalar, *, tentative: bool = False) -> None:
        group.write(
            f"cpu.rt_{name}_us", str(value), limit=f"cpu.rt_{name}", tentative=tentative, remedy=_RT_REMEDY
        )

    def _set_v1(self, group: Cgroup, resources: Resources) -> None:
        """Period, burst, quota, as runc writes them (github.com/opencontainers/cgroups, fs/cpu.go).

        Of period and burst, what does not go with the old quota is written again after the new one.
        """
        quota, period = _bandwidth(resources)
        given: list[tuple[str, str, str]] = []  # label, file, value
        if "cpu.period" in resources or "x.cpu.cpus" in resources:
            label = "cpu.period" if "cpu.period" in resources else "cpu"
            given.append((label, "cpu.cfs_period_us", str(period)))
        if "cpu.burst" in resources:
            given.append(("cpu.burst", "cpu.cfs_burst_us", str(resources["cpu.burst"])))
        for label, file, value in given if quota is not None else ():
            group.write(file, value, limit=label, tentative=True)
        for label in self._quota_labels(resources):
            group.write("cpu.cfs_quota_us", str(quota), limit=label)
        for label, file, value in given:
            remedy = _BURST_REMEDY if label == "cpu.burst" else ""
            group.write(file, value, limit=label, tentative=label == "cpu", remedy=remedy)

    def _set_v2(self, group: Cgroup, resources: Resources) -> None:
        """Quota and period are one file; the burst before it in case the quota gets smaller."""
        quota, period = _bandwidth(resources)
        burst = resources.get("cpu.burst")
        if burst is not None and quota is not None:
            group.write("cpu.max.burst", str(burst), limit="cpu.burst", tentative=True)
        text = f"{'max' if quota is None or quota < 0 else quota} {period}"
        labels = self._quota_labels(resources)
        for label in [*labels, *(["cpu.period"] if "cpu.period" in resources else [])]:
            group.write("cpu.max", text, limit=label)
        if burst is not None:
            group.write("cpu.max.burst", str(burst), limit="cpu.burst", remedy=_BURST_REMEDY)
        for path in ("cpu.realtimeRuntime", "cpu.realtimePeriod"):
            if path in resources:
                key = {"cpu.realtimeRuntime": "rt_runtime", "cpu.realtimePeriod": "rt_period"}[path]
                raise _refused(key, str(resources[path]), "cgroup v2 has no realtime limits", "leave it out")

    def _quota_labels(self, resources: Resources) -> list[str]:
        return [
            label for label, path in (("cpu", "x.cpu.cpus"), ("cpu.quota", "cpu.quota")) if path in resources
        ]


_COUNTS = (
    ("period", "cpu.period", *_PERIODS),
    ("burst", "cpu.burst", 0, _MOST),
    ("idle", "cpu.idle", 0, 1),
    ("rt_runtime", "cpu.realtimeRuntime", -1, _REALTIME),
    ("rt_period", "cpu.realtimePeriod", 1, _REALTIME),
)
_OCI = (*((key, path) for key, path, _, _ in _COUNTS), ("quota", "cpu.quota"))


def _refused(key: str, text: str, reason: str, remedy: str = "") -> LimitError:
    return LimitError("set limit", f"cpu.{key}={text}" if key else f"cpu={text}", reason, remedy=remedy)


def _quota(text: str) -> int:
    quota = parse_count(text, "cpu.quota", minimum=-1, maximum=_MOST)
    if 0 <= quota < _LEAST:
        raise _refused(
            "quota", text, f"below the kernel's minimum of {_LEAST} microseconds", "-1 is no limit"
        )
    return quota


def _cpus(text: str) -> int:
    """`1.5` in billionths, at most nine decimals; exact, since a quota is compared with what it becomes."""
    whole, dot, fraction = text.partition(".")
    digits = (whole + fraction).isascii() and (whole + fraction).isdigit()
    if not digits or (dot and not fraction) or len(whole) > 9 or len(fraction) > 9:
        raise _refused("", text, "not a number of CPUs", "for example cpu=1.5")
    return int(whole or "0") * _NANO + int(fraction.ljust(9, "0"))


def _bandwidth(resources: Resources) -> tuple[int | None, int]:
    """(quota, or None when nothing says it, period), in microseconds."""
    period = int(resources.get("cpu.period", _PERIOD))
    if "x.cpu.cpus" in resources:
        return int(resources["x.cpu.cpus"]) * period // _NANO, period
    return (int(resources["cpu.quota"]) if "cpu.quota" in resources else None), period


def _check_cpus(fields: Mapping[str, str], quota: int, period: int) -> None:
    text = fields[""]
    if not _LEAST <= quota <= _MOST:
        least = _LEAST / period
        raise _refused("", text, f"a quota of {quota} microseconds is out of range", f"at least {least:g}")
    if "quota" in fields and int(fields["quota"]) != quota:
        raise _refused(
            "quota", fields["quota"], f"cpu={text} says {quota} microseconds", "ask for one of them"
        )
