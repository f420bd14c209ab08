"""The built-in controllers keep the contract that third parties are held to."""
# ruff: noqa: RUF012 - the kit declares them ClassVar

from __future__ import annotations

from gocker.api import CgroupController
from gocker.model import Hierarchy
from gocker.plugins.blkio import Blkio
from gocker.plugins.cpuacct import Cpuacct
from gocker.plugins.cpuset import Cpuset
from gocker.plugins.cpushare import Cpushare
from gocker.plugins.devices import Devices
from gocker.plugins.memory import Memory
from gocker.plugins.pids import Pids
from gocker.testing import ControllerContract, FakeCgroup

V1, V2 = Hierarchy.V1, Hierarchy.V2


class TestMemory(ControllerContract):
    controller = Memory
    good = {"": "100m", "swap": "2g", "reservation": "64m"}
    bad = (
        {"": "0"},
        {"": "-1"},
        {"": "100q"},
        {"": "99999999999g"},
        {"": "5m"},
        {"": "max"},
        {"": "9223372036854775808"},
        {"swap": "1g"},
        {"": "100m", "swap": "99m"},
        {"": "100m", "swap": "0"},
        {"": "100m", "swap": "-2"},
        {"": "100m", "reservation": "101m"},
        {"reservation": "1m"},
    )
    files = {
        V1: {
            "memory.max_usage_in_bytes": "5242880",
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2",
            "memory.failcnt": "3",
            "memory.memsw.failcnt": "4",
        },
        V2: {
            "memory.peak": "5242880",
            "memory.events": "low 0\nhigh 0\nmax 7\noom 1\noom_kill 2\noom_group_kill 0",
        },
    }
    counters = {
        V1: {"memory_peak_bytes": 5242880, "oom_kills": 2, "memory_limit_hits": 7},
        V2: {"memory_peak_bytes": 5242880, "oom_kills": 2, "memory_limit_hits": 7, "memory_ooms": 1},
    }


class TestCpuset(ControllerContract):
    controller = Cpuset
    good = {"": "3,0-1", "mems": "0"}
    bad = ({"": "x"}, {"": "1-0"}, {"": ""}, {"": "0-"}, {"": "-1"}, {"mems": "a"}, {"": "0,,1"})
    files = {V2: {"cpuset.cpus.effective": "0-3", "cpuset.mems.effective": "0"}}


class TestCpushare(ControllerContract):
    controller = Cpushare
    good = {"": "512"}
    bad = ({"": "1"}, {"": "0"}, {"": "262145"}, {"": "-1"}, {"": "1.5"}, {"": "512m"}, {"": "9" * 30})


class TestPids(ControllerContract):
    controller = Pids
    good = {"": "64"}
    bad = ({"": "0"}, {"": "-2"}, {"": "4194305"}, {"": "many"}, {"": "64k"}, {"": "MAX"})
    files = {
        V1: {"pids.peak": "12", "pids.events": "max 3"},
        V2: {"pids.peak": "12", "pids.events": "max 3"},
    }
    counters = {V1: {"pids_peak": 12, "pids_refused": 3}, V2: {"pids_peak": 12, "pids_refused": 3}}


class TestCpuacct(ControllerContract):
    controller = Cpuacct
    files = {
        V1: {"cpuacct.usage": "9000500", "cpuacct.usage_user": "4000000", "cpuacct.usage_sys": "2000000"},
        V2: {"cpu.stat": "usage_usec 9000\nuser_usec 6000\nsystem_usec 3000\nnr_periods 0"},
    }
    counters = {
        V1: {"cpu_user_us": 6000, "cpu_system_us": 3000},
        V2: {"cpu_user_us": 6000, "cpu_system_us": 3000},
    }


class TestBlkio(ControllerContract):
    controller = Blkio
    files = {
        V1: {
            "blkio.throttle.io_service_bytes_recursive": (
                "8:0 Read 4096\n8:0 Write 512\n8:0 Sync 4608\n8:0 Total 4608\n"
                "8:16 Read 1\n8:16 Write 2\n8:16 Total 3\nTotal 4611"
            )
        },
        V2: {
            "io.stat": "8:0 rbytes=4096 wbytes=512 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2 rios=1"
        },
    }
    counters = {
        V1: {"io_read_bytes": 4097, "io_write_bytes": 514},
        V2: {"io_read_bytes": 4097, "io_write_bytes": 514},
    }


class TestDevices(ControllerContract):
    controller = Devices

    def test_set_allows_the_devices_of_every_container_and_no_other(
        self, plugin: CgroupController, group: FakeCgroup
    ) -> None:
        plugin.set(group, {})
        assert group.devices is not None
        opened = {rule for rule in group.devices if not rule.endswith(" m")}
        assert opened == {
            *(f"c 1:{minor} rwm" for minor in (3, 5, 7, 8, 9)),
            *("c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm"),
        }
