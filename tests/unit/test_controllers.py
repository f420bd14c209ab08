"""The built-in controllers: which text becomes which value in which kernel file."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from gocker.api import CgroupController, Resources, counter
from gocker.errors import LimitError
from gocker.model import Hierarchy
from gocker.plugins.blkio import Blkio, io_weight
from gocker.plugins.cpu import Cpu
from gocker.plugins.cpuacct import Cpuacct
from gocker.plugins.cpuset import Cpuset
from gocker.plugins.cpushare import Cpushare, weight
from gocker.plugins.devices import RULES, Devices
from gocker.plugins.memory import Memory
from gocker.plugins.pids import Pids
from gocker.plugins.unified import Unified
from gocker.testing import FakeCgroup

V1, V2 = Hierarchy.V1, Hierarchy.V2
PAGE = os.sysconf("SC_PAGE_SIZE")
EFFECTIVE = {"cpuset.cpus.effective": "0-3", "cpuset.mems.effective": "0"}

Make = Callable[..., FakeCgroup]


@pytest.fixture
def make(tmp_path: os.PathLike[str]) -> Make:
    """A fake cgroup of a controller, without the files named in `lacking`."""

    def build(plugin: CgroupController, version: Hierarchy, *lacking: str) -> FakeCgroup:
        files = {row.files[version]: "" for row in plugin.limits if version in row.files} | (
            EFFECTIVE if version is V2 else {}
        )
        kept = {name: text for name, text in files.items() if name not in lacking}
        return FakeCgroup(f"{os.fspath(tmp_path)}/{len(os.listdir(tmp_path))}", version, kept)

    return build


def writes(make: Make, plugin: CgroupController, version: Hierarchy, **fields: str) -> list[tuple[str, str]]:
    group = make(plugin, version)
    plugin.set(group, plugin.parse({"" if key == "bare" else key: text for key, text in fields.items()}))
    return group.writes


def error(plugin: CgroupController, **fields: str) -> str:
    with pytest.raises(LimitError) as caught:
        plugin.parse({"" if key == "bare" else key: text for key, text in fields.items()})
    return str(caught.value)


class TestMemory:
    def test_100m_becomes_memory_max_without_swap_on_v2(self, make: Make) -> None:
        assert writes(make, Memory(), V2, bare="100m") == [
            ("memory.max", "104857600"),
            ("memory.swap.max", "0"),
        ]

    def test_100m_becomes_both_limits_on_v1_memory_first(self, make: Make) -> None:
        assert writes(make, Memory(), V1, bare="100m") == [
            ("memory.limit_in_bytes", "104857600"),
            ("memory.memsw.limit_in_bytes", "104857600"),
        ]

    @pytest.mark.parametrize(
        ("version", "file"), [(V1, "memory.memsw.limit_in_bytes"), (V2, "memory.swap.max")], ids=["v1", "v2"]
    )
    def test_a_kernel_that_does_not_account_swap_is_fine_unless_swap_was_asked_for(
        self, make: Make, version: Hierarchy, file: str
    ) -> None:
        plugin = Memory()
        group = make(plugin, version, file)
        plugin.set(group, plugin.parse({"": "100m"}))
        assert group.effective == {"memory": "104857600"}
        with pytest.raises(LimitError, match="swapaccount=1"):
            plugin.set(group, plugin.parse({"": "100m", "swap": "200m"}))

    def test_swap_is_the_sum_on_v1_and_the_rest_on_v2(self, make: Make) -> None:
        assert ("memory.memsw.limit_in_bytes", str(300 << 20)) in writes(
            make, Memory(), V1, bare="100m", swap="300m"
        )
        assert ("memory.swap.max", str(200 << 20)) in writes(make, Memory(), V2, bare="100m", swap="300m")

    @pytest.mark.parametrize(
        ("version", "write"),
        [(V1, ("memory.memsw.limit_in_bytes", "-1")), (V2, ("memory.swap.max", "max"))],
        ids=["v1", "v2"],
    )
    def test_swap_minus_one_is_unlimited(
        self, make: Make, version: Hierarchy, write: tuple[str, str]
    ) -> None:
        assert writes(make, Memory(), version, bare="100m", swap="-1")[-1] == write

    @pytest.mark.parametrize("version", [V1, V2], ids=["v1", "v2"])
    def test_a_value_between_two_pages_binds_at_the_lower_one(self, make: Make, version: Hierarchy) -> None:
        plugin = Memory()
        group = make(plugin, version)
        plugin.set(group, plugin.parse({"": str((8 << 20) + PAGE + 1)}))
        assert group.effective["memory"] == str((8 << 20) + PAGE)

    @pytest.mark.parametrize("version", [V1, V2], ids=["v1", "v2"])
    def test_the_greatest_value_is_accepted_as_the_kernel_prints_it(
        self, make: Make, version: Hierarchy
    ) -> None:
        plugin = Memory()
        group = make(plugin, version)
        plugin.set(group, plugin.parse({"": str(2**63 - 1)}))
        assert group.effective["memory"] == ("max" if version is V2 else str((2**63 - 1) // PAGE * PAGE))

    @pytest.mark.parametrize("version", [V1, V2], ids=["v1", "v2"])
    def test_a_reservation_alone_touches_no_limit(self, make: Make, version: Hierarchy) -> None:
        file = "memory.soft_limit_in_bytes" if version is V1 else "memory.low"
        assert writes(make, Memory(), version, reservation="64m") == [(file, "67108864")]

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("0", "below the minimum of 6m (leave memory out for none)"),
            ("-1", "not a size in bytes (leave memory out for none)"),
            ("100q", "unknown unit 'q'"),
            ("99999999999g", "above the kernel's maximum"),
            ("6291455", "below the minimum of 6m"),
            ("100m m", "not a size"),
        ],
    )
    def test_nonsense_is_one_clear_error(self, text: str, reason: str) -> None:
        message = error(Memory(), bare=text)
        assert message.startswith(f"set limit memory={text}: ")
        assert reason in message

    def test_6m_is_the_least(self) -> None:
        assert Memory().parse({"": "6m"}) == {"memory.limit": 6 << 20}

    def test_swap_without_memory_says_what_to_add(self) -> None:
        assert error(Memory(), swap="1g").endswith("(add memory=, the part of the sum that is memory)")

    def test_swap_below_memory_says_that_it_is_the_sum(self) -> None:
        assert "it is the sum of memory and swap" in error(Memory(), bare="100m", swap="50m")

    def test_a_reservation_above_the_limit_is_refused(self) -> None:
        assert "above the memory limit of 104857600 bytes" in error(Memory(), bare="100m", reservation="200m")

    @pytest.mark.parametrize(
        ("resources", "expected"),
        [
            ({"memory.limit": -1}, [("memory.max", "max")]),
            ({"memory.limit": -1, "memory.swap": -1}, [("memory.max", "max"), ("memory.swap.max", "max")]),
            ({"memory.swap": -1}, [("memory.swap.max", "max")]),
        ],
        ids=["memory", "both", "swap"],
    )
    def test_minus_one_from_an_oci_config_is_unlimited(
        self, make: Make, resources: Resources, expected: list[tuple[str, str]]
    ) -> None:
        group = make(Memory(), V2)
        Memory().set(group, resources)
        assert group.writes == expected

    def test_a_sum_without_its_memory_part_cannot_be_told_to_v2(self, make: Make) -> None:
        with pytest.raises(LimitError, match="memory is needed"):
            Memory().set(make(Memory(), V2), {"memory.swap": 1 << 30})


class TestCpu:
    @pytest.mark.parametrize(
        ("text", "quota"),
        [("1.5", "150000"), ("0.01", "1000"), (".5", "50000"), ("2", "200000"), ("0.333333333", "33333")],
    )
    def test_cpus_are_a_quota_of_the_usual_period(self, make: Make, text: str, quota: str) -> None:
        assert writes(make, Cpu(), V2, bare=text) == [("cpu.max", f"{quota} 100000")]
        assert ("cpu.cfs_quota_us", quota) in writes(make, Cpu(), V1, bare=text)

    def test_cpus_are_a_quota_of_the_period_that_is_asked_for(self, make: Make) -> None:
        assert writes(make, Cpu(), V2, bare="0.5", period="20000")[0] == ("cpu.max", "10000 20000")

    def test_v1_tries_period_and_burst_first_and_again_after_the_quota(self, make: Make) -> None:
        assert writes(make, Cpu(), V1, quota="5000", period="50000", burst="1000") == [
            ("cpu.cfs_period_us", "50000"),
            ("cpu.cfs_burst_us", "1000"),
            ("cpu.cfs_quota_us", "5000"),
            ("cpu.cfs_period_us", "50000"),
            ("cpu.cfs_burst_us", "1000"),
        ]

    def test_v2_writes_quota_and_period_at_once(self, make: Make) -> None:
        assert writes(make, Cpu(), V2, quota="5000", burst="1000") == [
            ("cpu.max.burst", "1000"),
            ("cpu.max", "5000 100000"),
            ("cpu.max.burst", "1000"),
        ]

    def test_a_period_alone_leaves_the_quota_open(self, make: Make) -> None:
        assert writes(make, Cpu(), V2, period="50000") == [("cpu.max", "max 50000")]
        assert writes(make, Cpu(), V1, period="50000") == [("cpu.cfs_period_us", "50000")]

    def test_no_quota_is_max_on_v2_and_minus_one_on_v1(self, make: Make) -> None:
        assert writes(make, Cpu(), V2, quota="-1") == [("cpu.max", "max 100000")]
        assert writes(make, Cpu(), V1, quota="-1") == [("cpu.cfs_quota_us", "-1")]

    def test_cpus_and_a_quota_that_says_something_else_are_refused(self) -> None:
        assert "cpu=1.5 says 150000 microseconds" in error(Cpu(), bare="1.5", quota="50000")

    def test_realtime_is_refused_by_name_on_v2(self, make: Make) -> None:
        with pytest.raises(LimitError, match=r"cpu\.rt_period=5: cgroup v2 has no realtime limits"):
            Cpu().set(make(Cpu(), V2), Cpu().parse({"rt_period": "5"}))


class TestBlkio:
    @pytest.mark.parametrize(("weight", "converted"), [(10, 1), (100, 910), (500, 4950), (1000, 10000)])
    def test_a_weight_becomes_that_of_io_weight(self, make: Make, weight: int, converted: int) -> None:
        assert io_weight(weight) == converted
        assert writes(make, Blkio(), V2, weight=str(weight)) == [("io.weight", f"default {converted}")]
        assert writes(make, Blkio(), V1, weight=str(weight)) == [("blkio.bfq.weight", str(weight))]

    def test_where_only_bfq_has_weights_they_are_not_converted(self, tmp_path: os.PathLike[str]) -> None:
        v2 = FakeCgroup(f"{os.fspath(tmp_path)}/v2", V2, {"io.bfq.weight": "default 100"})
        v1 = FakeCgroup(f"{os.fspath(tmp_path)}/v1", V1, {"blkio.weight": "500", "blkio.weight_device": ""})
        for group in (v1, v2):
            Blkio().set(group, Blkio().parse({"weight": "300", "weight_device": "8:0:400"}))
        assert v2.read("io.bfq.weight") == "default 300\n8:0 400"
        assert (v1.read("blkio.weight"), v1.read("blkio.weight_device")) == ("300", "8:0 400")

    def test_rates_of_one_disk_are_one_line_of_io_max(self, make: Make) -> None:
        group = make(Blkio(), V2)
        fields = {"read_bps": "8:0:1m,8:16:2m", "write_iops": "8:0:7", "write_bps": "8:0:0"}
        Blkio().set(group, Blkio().parse(fields))
        assert group.read("io.max") == "8:16 rbps=2097152\n8:0 rbps=1048576 wbps=max wiops=7"

    def test_each_rate_has_its_own_file_on_v1(self, make: Make) -> None:
        assert writes(make, Blkio(), V1, read_iops="8:0:7", write_bps="8:0:0") == [
            ("blkio.throttle.write_bps_device", "8:0 0"),
            ("blkio.throttle.read_iops_device", "8:0 7"),
        ]

    def test_a_path_that_is_no_disk_is_an_error(self, make: Make) -> None:
        for path, reason in (("/dev/null", "not a block device"), ("/dev/nothing", "ENOENT")):
            with pytest.raises(LimitError, match=f"{path}: {reason}"):
                Blkio().set(make(Blkio(), V2), Blkio().parse({"read_bps": f"{path}:1m"}))

    def test_leaf_weights_are_refused_by_name_on_v2(self, make: Make) -> None:
        for key, text in (("leaf_weight", "100"), ("leaf_weight_device", "8:0:100")):
            with pytest.raises(LimitError, match=rf"blkio\.{key}=.*cgroup v2 has no leaf weights"):
                Blkio().set(make(Blkio(), V2), Blkio().parse({key: text}))


class TestDevices:
    def rules(self, make: Make, **fields: str) -> tuple[str, ...]:
        group = make(Devices(), V1)
        Devices().set(group, Devices().parse(fields))
        assert group.devices is not None
        return group.devices

    def test_further_devices_come_after_those_of_every_container(self, make: Make) -> None:
        assert self.rules(make, allow="c 10:229 wr, b 8:* r") == (*RULES, "c 10:229 rw", "b 8:* r")

    def test_a_list_comes_before_them_so_that_it_takes_none_away(self, make: Make) -> None:
        assert self.rules(make, rules="a,deny c 1:3 rwm", allow="c 1:11 r") == (
            "a *:* rwm",
            "deny c 1:3 rwm",
            *RULES,
            "c 1:11 r",
        )

    def test_a_path_is_the_device_at_it(self, make: Make) -> None:
        assert self.rules(make, allow="/dev/null:r,/dev/zero")[-2:] == ("c 1:3 r", "c 1:5 rwm")

    @pytest.mark.parametrize(("path", "reason"), [("/dev/nothing", "ENOENT"), ("/etc", "not a device")])
    def test_a_path_that_is_no_device_is_an_error(self, make: Make, path: str, reason: str) -> None:
        with pytest.raises(LimitError, match=reason):
            self.rules(make, allow=path)


class TestUnified:
    def test_the_files_controller_is_enabled_and_each_line_written(self, tmp_path: os.PathLike[str]) -> None:
        group = FakeCgroup(f"{os.fspath(tmp_path)}/g", V2, {"io.max": "", "cgroup.max.depth": "max"})
        fields = {"io.max": "8:0 rbps=1\n\n8:16 rbps=2\n", "cgroup.max.depth": "3"}
        Unified().set(group, Unified().parse(fields))
        assert group.enabled == ["io"]
        assert group.writes == [
            ("io.max", "8:0 rbps=1"),
            ("io.max", "8:16 rbps=2"),
            ("cgroup.max.depth", "3"),
        ]

    @pytest.mark.parametrize(
        "file",
        ["../x.max", "x/../../y.max", "/etc.x", "..", "x..y", "a\0.b", ".hidden", "x.", "cgroup.procs"],
    )
    def test_a_file_that_is_not_a_limit_of_its_own_directory_is_refused(self, file: str) -> None:
        with pytest.raises(LimitError, match="unified"):
            Unified().parse({file: "1"})


class TestCpuset:
    def test_lists_are_written_as_the_kernel_spells_them(self, make: Make) -> None:
        assert writes(make, Cpuset(), V2, bare="3,1,0,2-2", mems="0") == [
            ("cpuset.cpus", "0-3"),
            ("cpuset.mems", "0"),
        ]

    def test_v1_inherits_both_files_before_anything_is_written(self, make: Make) -> None:
        group = make(Cpuset(), V1)
        Cpuset().set(group, {"cpu.cpus": "0"})
        assert group.calls == [
            ("inherit", "cpuset.cpus"),
            ("inherit", "cpuset.mems"),
            ("write", "cpuset.cpus", "0", "cpuset"),
        ]

    def test_v1_inherits_also_when_nothing_is_asked(self, make: Make) -> None:
        group = make(Cpuset(), V1)
        Cpuset().set(group, {})
        assert group.calls == [("inherit", "cpuset.cpus"), ("inherit", "cpuset.mems")]

    @pytest.mark.parametrize("text", ["99", "0-99", "2-4"])
    def test_cpus_that_are_not_there_do_not_bind_on_v2(self, make: Make, text: str) -> None:
        """v2 takes the write; what holds is in cpuset.cpus.effective."""
        plugin = Cpuset()
        with pytest.raises(LimitError, match=r"the kernel answers .*CPUs in /sys/devices/system/cpu/online"):
            plugin.set(make(plugin, V2), plugin.parse({"": text}))

    def test_cpus_that_are_not_there_are_refused_on_v1(self, make: Make) -> None:
        plugin = Cpuset()
        with pytest.raises(LimitError, match=r"EINVAL .*CPUs in /sys/devices/system/cpu/online"):
            plugin.set(make(plugin, V1), plugin.parse({"": "99"}))

    def test_an_oci_list_is_brought_into_the_kernels_spelling(self, make: Make) -> None:
        group = make(Cpuset(), V2)
        Cpuset().set(group, {"cpu.cpus": "1,0"})
        assert group.writes == [("cpuset.cpus", "0-1")]


class TestCpushare:
    @pytest.mark.parametrize(
        ("shares", "expected"),
        # The fixed points of runc's own tests, and 2000 and 256 from its issues (4896: 170).
        [(2, 1), (3, 2), (256, 35), (1024, 100), (2000, 170), (262143, 10000), (262144, 10000)],
    )
    def test_weight_is_that_of_runc_and_crun(self, shares: int, expected: int) -> None:
        assert weight(shares) == expected

    def test_more_shares_never_weigh_less(self) -> None:
        weights = [weight(shares) for shares in range(2, 262145, 97)]
        assert weights == sorted(weights)
        assert min(weights) == 1
        assert max(weights) <= 10000

    def test_shares_out_of_an_oci_config_are_clamped(self) -> None:
        assert (weight(0), weight(1 << 30)) == (1, 10000)

    def test_512_is_shares_on_v1(self, make: Make) -> None:
        assert writes(make, Cpushare(), V1, bare="512") == [("cpu.shares", "512")]

    def test_512_is_a_weight_on_v2(self, make: Make) -> None:
        assert writes(make, Cpushare(), V2, bare="512") == [("cpu.weight", "59")]

    @pytest.mark.parametrize("text", ["1", "262145"])
    def test_what_the_kernel_would_clamp_is_refused(self, text: str) -> None:
        assert "not in 2 to 262144" in error(Cpushare(), bare=text)


class TestPids:
    @pytest.mark.parametrize("version", [V1, V2], ids=["v1", "v2"])
    @pytest.mark.parametrize(
        ("text", "value"), [("64", "64"), ("max", "max"), ("-1", "max"), ("4194304", "4194304")]
    )
    def test_becomes_pids_max(self, make: Make, version: Hierarchy, text: str, value: str) -> None:
        assert writes(make, Pids(), version, bare=text) == [("pids.max", value)]

    def test_none_at_all_is_refused(self) -> None:
        assert error(Pids(), bare="0") == "set limit pids=0: not in 1 to 4194304"

    def test_4096_holds_where_nothing_was_asked(self) -> None:
        assert Pids().parse(Pids.defaults) == {"pids.limit": 4096}


class TestCounters:
    def test_v1_time_is_split_as_the_ticks_fell(self, tmp_path: os.PathLike[str]) -> None:
        files = {"cpuacct.usage": "10000999", "cpuacct.usage_user": "1", "cpuacct.usage_sys": "3"}
        group = FakeCgroup(f"{os.fspath(tmp_path)}/id", V1, files)
        assert Cpuacct().stats(group) == {"cpu_user_us": 2500, "cpu_system_us": 7500}

    def test_v1_time_too_short_for_a_tick_is_not_lost(self, tmp_path: os.PathLike[str]) -> None:
        files = {"cpuacct.usage": "700000", "cpuacct.usage_user": "0", "cpuacct.usage_sys": "0"}
        group = FakeCgroup(f"{os.fspath(tmp_path)}/id", V1, files)
        assert Cpuacct().stats(group) == {"cpu_user_us": 700, "cpu_system_us": 0}

    def test_no_io_on_v2_is_zero_not_unknown(self, tmp_path: os.PathLike[str]) -> None:
        group = FakeCgroup(f"{os.fspath(tmp_path)}/id", V2, {"io.stat": ""})
        assert Blkio().stats(group) == {"io_read_bytes": 0, "io_write_bytes": 0}

    def test_no_device_on_v1_is_unknown_not_zero(self, tmp_path: os.PathLike[str]) -> None:
        files = {"blkio.throttle.io_service_bytes_recursive": "Total 0"}
        group = FakeCgroup(f"{os.fspath(tmp_path)}/id", V1, files)
        assert Blkio().stats(group) == {}

    @pytest.mark.parametrize(
        ("text", "key", "expected"),
        [
            ("12", "", 12),
            ("max", "", None),
            (None, "", None),
            ("", "", None),
            ("-1", "", None),
            ("oom 1\noom_kill 3", "oom_kill", 3),
            ("oom 1\noom_kill 3", "oom", 1),
            ("oom_kill", "oom_kill", None),
            (None, "oom_kill", None),
        ],
    )
    def test_a_counter_is_a_number_or_none(self, text: str | None, key: str, expected: int | None) -> None:
        assert counter(text, key) == expected
