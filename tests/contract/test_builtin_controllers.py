"""The built-in controllers keep the contract that third parties are held to."""
# ruff: noqa: RUF012 - the kit declares them ClassVar

from __future__ import annotations

from gocker.api import CgroupController
from gocker.model import Hierarchy
from gocker.plugins.blkio import Blkio
from gocker.plugins.cpu import Cpu
from gocker.plugins.cpuacct import Cpuacct
from gocker.plugins.cpuset import Cpuset
from gocker.plugins.cpushare import Cpushare
from gocker.plugins.devices import Devices
from gocker.plugins.freezer import Freezer
from gocker.plugins.memory import Memory
from gocker.plugins.net_cls import NetCls
from gocker.plugins.net_prio import NetPrio
from gocker.plugins.pids import Pids
from gocker.plugins.rdma import Rdma
from gocker.plugins.unified import Unified
from gocker.testing import ControllerContract, FakeCgroup

V1, V2 = Hierarchy.V1, Hierarchy.V2


class TestMemory(ControllerContract):
    controller = Memory
    good = {
        "": "100m",
        "swap": "2g",
        "reservation": "64m",
        "swappiness": "10",
        "oom_kill_disable": "true",
        "use_hierarchy": "true",
        "kernel": "64m",
        "kernel_tcp": "16m",
    }
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
        {"swappiness": "101"},
        {"swappiness": "-1"},
        {"oom_kill_disable": "1"},
        {"use_hierarchy": "yes"},
        {"kernel": "-1"},
    )
    oci = (
        ({"memory.limit": 104857600, "memory.swap": -1}, {"": "104857600", "swap": "-1"}),
        ({"memory.limit": -1, "memory.swap": -1}, {"": "unlimited", "swap": "-1"}),
        ({"memory.limit": -1, "memory.reservation": -1}, {"": "unlimited", "reservation": "unlimited"}),
        ({"memory.limit": 0, "memory.swap": 0, "memory.kernel": -1, "memory.kernelTCP": 0}, {}),
        ({"memory.disableOOMKiller": False, "memory.swappiness": -1, "memory.checkBeforeUpdate": True}, {}),
        (
            {"memory.disableOOMKiller": True, "memory.swappiness": 0, "memory.useHierarchy": False},
            {"oom_kill_disable": "true", "swappiness": "0", "use_hierarchy": "false"},
        ),
        ({"memory.kernel": 1 << 26, "memory.kernelTCP": 1}, {"kernel": "67108864", "kernel_tcp": "1"}),
    )
    bad_oci = ({"memory.limit": 4096}, {"memory.swap": 1 << 30}, {"memory.checkBeforeUpdate": 1})
    answers = {"memory.oom_control": lambda text: f"oom_kill_disable {text}\nunder_oom 0\noom_kill 0"}
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
    oci = (({"cpu.cpus": "0-1", "cpu.mems": "0"}, {"": "0-1", "mems": "0"}), ({"cpu.cpus": ""}, {}))
    bad_oci = ({"cpu.cpus": "x"},)


class TestCpushare(ControllerContract):
    controller = Cpushare
    good = {"": "512"}
    bad = ({"": "1"}, {"": "0"}, {"": "262145"}, {"": "-1"}, {"": "1.5"}, {"": "512m"}, {"": "9" * 30})
    oci = (({"cpu.shares": 512}, {"": "512"}), ({"cpu.shares": 0}, {}))
    bad_oci = ({"cpu.shares": 1}, {"cpu.shares": -1})


class TestPids(ControllerContract):
    controller = Pids
    good = {"": "64"}
    bad = ({"": "0"}, {"": "-2"}, {"": "4194305"}, {"": "many"}, {"": "64k"}, {"": "MAX"})
    oci = tuple(
        ({"pids.limit": n}, {"": text}) for n, text in ((64, "64"), (0, "1"), (-1, "max"), (-7, "max"))
    )
    bad_oci = ({"pids.limit": 1 << 40},)
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


class TestCpu(ControllerContract):
    controller = Cpu
    good = {
        "": "1.5",
        "quota": "150000",
        "period": "100000",
        "burst": "20000",
        "idle": "0",
        "rt_runtime": "10000",
        "rt_period": "1000000",
    }
    bad = (
        *({"": text} for text in ("0", "0.009", "-1", ".", "1.", "1,5", "one", "1.5 ", "9" * 10, "1e1")),
        {"": "1", "quota": "50000"},
        *({"quota": text} for text in ("0", "999", "-2", "1.5", "x", "9" * 20)),
        *({"period": text} for text in ("999", "1000001", "0")),
        {"quota": "1000", "burst": "1001"},
        {"burst": "-1"},
        {"idle": "2"},
        {"rt_runtime": "-2"},
        {"rt_period": "0"},
    )
    oci = (
        ({"cpu.quota": 50000, "cpu.period": 100000}, {"quota": "50000", "period": "100000"}),
        ({"cpu.quota": -1, "cpu.burst": 0, "cpu.idle": 1}, {"quota": "-1", "burst": "0", "idle": "1"}),
        ({"cpu.quota": 0, "cpu.period": 0, "cpu.realtimeRuntime": 0, "cpu.realtimePeriod": 0}, {}),
        (
            {"cpu.realtimeRuntime": 950000, "cpu.realtimePeriod": 1000000},
            {"rt_runtime": "950000", "rt_period": "1000000"},
        ),
    )
    bad_oci = ({"cpu.quota": 1}, {"cpu.quota": 5000, "cpu.burst": 5001}, {"cpu.period": -1}, {"cpu.idle": 2})


class TestFreezer(ControllerContract):
    controller = Freezer
    good = {"": "thawed"}
    bad = ({"": "frozen"}, {"": "FROZEN"}, {"": ""})


class TestNetCls(ControllerContract):
    controller = NetCls
    good = {"": "0x100001"}
    bad = ({"": "0x"}, {"": "0x100000000"}, {"": "4294967296"}, {"": "-1"}, {"": "1:1"}, {"": "0xg"})
    oci = (({"network.classID": 1048577}, {"": "1048577"}),)
    bad_oci = ({"network.classID": -1}, {"network.classID": "x"})


class TestNetPrio(ControllerContract):
    controller = NetPrio
    good = {"": "eth0:5,lo:1"}
    bad = ({"": "eth0"}, {"": "eth0:-1"}, {"": ":1"}, {"": "a b:1"}, {"": "x" * 16 + ":1"}, {"": "lo:1,lo:2"})
    oci = (
        (
            {"network.priorities": [{"name": "eth0", "priority": 5}, {"name": "lo", "priority": 1}]},
            {"": "eth0:5,lo:1"},
        ),
        ({"network.priorities": []}, {}),
    )
    bad_oci = (
        {"network.priorities": [{"name": "eth0"}]},
        {"network.priorities": [{"name": "eth0 9\nlo", "priority": 1}]},
        {"network.priorities": [{"name": "eth0", "priority": True}]},
    )


class TestRdma(ControllerContract):
    controller = Rdma
    good = {"hca_handles": "mlx5_0:2,mlx5_1:3", "hca_objects": "mlx5_0:2000"}
    bad = (
        {"hca_handles": "2"},
        {"hca_handles": "mlx5_0:max"},
        {"hca_objects": "a b:1"},
        {"hca_objects": ":1"},
    )
    oci = (
        (
            {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaObjects": 1000}}},
            {"hca_handles": "mlx5_1:3", "hca_objects": "mlx5_1:10000,mlx4_0:1000"},
        ),
        ({"rdma": {}}, {}),
    )
    bad_oci = (
        {"rdma": {"mlx5_0": {}}},
        {"rdma": {"mlx5_0": {"hcaPages": 1}}},
        {"rdma": {"a=b": {"hcaHandles": 1}}},
    )


class TestUnified(ControllerContract):
    controller = Unified
    good = {"memory.high": "100m", "io.max": "8:0 rbps=1048576\n8:16 rbps=1", "cpuset.cpus": "0,1"}
    bad = (
        {"memory": "1"},
        {"../memory.max": "1"},
        {"a/memory.max": "1"},
        {".memory.max": "1"},
        {"memory..max": "1"},
        {"memory.max": ""},
        {"memory.max": "\0"},
        {"cgroup.procs": "1"},
        {"cgroup.kill": "1"},
        {"cgroup.subtree_control": "+memory"},
    )
    files = {V2: {"memory.high": "max", "io.max": "", "cpuset.cpus": ""}}
    answers = {
        "memory.high": {"100m": "104857600"}.__getitem__,
        "cpuset.cpus": lambda text: text.replace("0,1", "0-1"),
    }
    oci = (({"unified": {"memory.high": "104857600"}}, {"memory.high": "104857600"}), ({"unified": {}}, {}))
    bad_oci = (
        {"unified": {"memory.high": 104857600}},
        {"unified": {"../cgroup.procs": "1"}},
        {"unified": {"cgroup.procs": "1"}},
    )


class TestBlkio(ControllerContract):
    controller = Blkio
    good = {
        "weight": "200",
        "weight_device": "8:0:300",
        "read_bps": "8:0:1m,8:16:2m",
        "write_bps": "8:0:512k",
        "read_iops": "8:0:100",
        "write_iops": "8:0:0",
        "leaf_weight": "200",
        "leaf_weight_device": "8:0:300",
    }
    bad = (
        {"weight": "9"},
        {"weight": "1001"},
        {"weight_device": "500"},
        {"weight_device": "8:0:5"},
        {"read_bps": "1m"},
        {"read_bps": "vda:1m"},
        {"read_bps": "8:0:-1"},
        {"read_bps": "8:0:1m,8:0:2m"},
        {"read_iops": "8:0:1.5"},
        {"read_iops": "8:0:4294967296"},
        {"write_iops": ","},
        {"write_bps": "8:*:1m"},
    )
    oci = (
        ({"blockIO.weight": 0, "blockIO.leafWeight": 0, "blockIO.weightDevice": []}, {}),
        (
            {
                "blockIO.weight": 10,
                "blockIO.leafWeight": 10,
                "blockIO.weightDevice": [
                    {"major": 8, "minor": 0, "weight": 500, "leafWeight": 300},
                    {"major": 8, "minor": 16, "weight": 500},
                    {"major": 8, "minor": 32, "weight": 0, "leafWeight": 10},
                ],
                "blockIO.throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                "blockIO.throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 300}],
            },
            {
                "weight": "10",
                "leaf_weight": "10",
                "weight_device": "8:0:500,8:16:500",
                "leaf_weight_device": "8:0:300,8:32:10",
                "read_bps": "8:0:600",
                "write_iops": "8:16:300",
            },
        ),
    )
    bad_oci = (
        {"blockIO.weight": 5},
        {"blockIO.throttleReadBpsDevice": [{"major": 8, "minor": 0}]},
        {"blockIO.throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": -1}]},
        {"blockIO.throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1, "burst": 2}]},
        {"blockIO.weightDevice": [{"major": 8, "minor": 0}]},
        {"blockIO.weightDevice": [{"major": "8", "minor": 0, "weight": 100}]},
    )
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
    good = {"allow": "c 10:229 rw,/dev/null:r", "rules": "deny a,b 8:* r"}
    bad = (
        *(
            {key: text}
            for key in ("allow", "rules")
            for text in (
                "",
                "c",
                "c 1:3",
                "x 1:3 rwm",
                "c 1:3 rr",
                "c 1:3 x",
                "c -1:3 r",
                "c 1:4294967296 r",
                "deny",
            )
        ),
        {"allow": "deny a"},
        {"rules": "/dev/null"},
    )
    oci = (
        (
            {
                "devices": [
                    {"allow": False, "access": "rwm"},
                    {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "wr"},
                    {"allow": True, "type": "b", "major": 8, "minor": -1, "access": "r"},
                    {"allow": False, "type": "a", "access": "m"},
                ]
            },
            {"rules": "deny a *:* rwm,c 10:229 rw,b 8:* r,deny a *:* m"},
        ),
        ({"devices": []}, {}),
    )
    bad_oci = (
        {"devices": {}},
        {"devices": [{"type": "c", "access": "r"}]},
        {"devices": [{"allow": True, "type": "u", "access": "r"}]},
        {"devices": [{"allow": True, "type": "c"}]},
        {"devices": [{"allow": True, "access": ""}]},
        {"devices": [{"allow": 1, "access": "r"}]},
        {"devices": [{"allow": True, "major": -2, "access": "r"}]},
        {"devices": [{"allow": True, "path": "/dev/x", "access": "r"}]},
    )

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
