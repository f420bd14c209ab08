"""The cgroup steps and the built-in controllers against the kernel, on v1, hybrid and v2 hosts alike."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gocker.api import CgroupController
from gocker.errors import GockerError, HierarchyError, KernelError, LimitError
from gocker.kernel import cgroupfs
from gocker.model import ContainerSpec, Hierarchy
from gocker.plan import Context
from gocker.plugins.blkio import Blkio
from gocker.plugins.cpu import Cpu
from gocker.plugins.cpuacct import Cpuacct
from gocker.plugins.cpuset import Cpuset
from gocker.plugins.cpushare import Cpushare
from gocker.plugins.freezer import Freezer
from gocker.plugins.memory import Memory
from gocker.plugins.pids import Pids
from gocker.plugins.unified import Unified
from gocker.steps.cgroup import (
    AttachCgroup,
    ClaimCgroup,
    EnableControllers,
    FillAbove,
    InheritFile,
    JoinCgroup,
    MakeCgroup,
    OpenCgroup,
    RemoveCgroup,
    TakeCgroup,
    limit_step,
)
from gocker.steps.devicefilter import FilterDevices
from gocker.testing import ANSWERS, FakeCgroup

pytestmark = pytest.mark.guest

V1, V2 = Hierarchy.V1, Hierarchy.V2
PARENT = f"gocker-test-{os.getpid()}"


def mounts() -> list[tuple[str, str, list[str]]]:
    """(type, mount point, controllers) of each cgroup mount."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8") as stream:
        for fields in map(str.split, stream):
            kind, _, options = fields[fields.index("-") + 1 :]
            if kind == "cgroup2":
                found.append(
                    (kind, fields[4], (cgroupfs.read_file(fields[4], "cgroup.controllers") or "").split())
                )
            elif kind == "cgroup":
                found.append((kind, fields[4], options.split(",")))
    return found


def find(plugin: type[CgroupController]) -> tuple[str, Hierarchy]:
    """(mount point, version) of the plug-in's kernel controller; skip where it is not mounted."""
    names = plugin.kernel_names
    for kind, mountpoint, controllers in mounts():
        if kind == "cgroup" and names.get(V1) in controllers:
            return mountpoint, V1
        if kind == "cgroup2" and (names.get(V2) in controllers or names.get(V2) == "cgroup"):
            return mountpoint, V2
    pytest.skip(f"the {plugin.name} controller is not mounted here")


class Direct:
    """`gocker.api.Cgroup` that runs each step at once instead of recording it."""

    def __init__(self, path: str, base: str, version: Hierarchy, controller: str) -> None:
        self.path, self.base, self.controller = path, base, controller
        self.ctx = Context(None)
        self.hierarchy = version
        self.make = MakeCgroup(path=path, base=base, version=version.value)

    def write(self, file: str, value: str, *, limit: str, **options: Any) -> None:
        limit_step(path=self.path, file=file, value=value, limit=limit, asked=value, **options).execute(
            self.ctx
        )

    def enable(self, controller: str) -> None:
        if self.hierarchy is V2:
            EnableControllers(path=self.path, base=self.base, controllers=(controller,)).execute(self.ctx)

    def inherit(self, file: str, *, above: bool = False) -> None:
        step = FillAbove if above else InheritFile
        step(path=self.path, base=self.base, file=file).execute(self.ctx)

    def allow_devices(self, rules: tuple[str, ...], *, limits: tuple[str, ...] = ()) -> None:
        asked = tuple((label, "") for label in limits)
        FilterDevices(
            path=self.path, version=self.hierarchy.value, rules=rules, limits=asked, required=bool(limits)
        ).execute(self.ctx)

    def attach(self) -> None:
        AttachCgroup(path=self.path, controller=self.controller).execute(self.ctx)

    def rmdir(self) -> None:
        RemoveCgroup(path=self.path, base=self.base, controller=self.controller).execute(self.ctx)

    def join(self, pid: int) -> None:
        """As the core does it, in the parent: on v1 by `attach`, on v2 for every controller at once."""
        self.ctx.pid = pid
        self.attach()

    def read(self, file: str) -> str | None:
        return cgroupfs.read_file(self.path, file)


Open = Callable[..., Direct]


@pytest.fixture
def group() -> Iterator[Open]:
    """Makes a cgroup for a plug-in, ready for limits; takes it away after the test."""
    made: list[Direct] = []

    def build(plugin: type[CgroupController], name: str = "id") -> Direct:
        base, version = find(plugin)
        direct = Direct(f"{base}/{PARENT}/{name}", base, version, plugin.kernel_names[version])
        made.append(direct)
        direct.make.execute(direct.ctx)
        if version is V2 and plugin.kernel_names[V2] != "cgroup":
            EnableControllers(path=direct.path, base=base, controllers=(plugin.kernel_names[V2],)).execute(
                direct.ctx
            )
        return direct

    yield build
    for direct in made:
        direct.make.undo(Context(None))
    for direct in made:
        assert not os.path.exists(f"{direct.base}/{PARENT}")


def child(program: str, *, wait: bool = True) -> subprocess.Popen[str]:
    """A python that runs `program` once it is told to go by a line on its stdin."""
    code = f"import sys, os, signal, time\nprint('up', flush=True)\nsys.stdin.readline()\n{program}"
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    if wait:
        assert process.stdout.readline() == "up\n"
    return process


def go(process: subprocess.Popen[str]) -> int:
    """Tell it to go; its exit status, negative for a signal."""
    process.communicate("\n", timeout=60)
    return process.returncode


def gone(process: subprocess.Popen[str]) -> int:
    process.communicate(timeout=60)
    return process.returncode


class TestMemory:
    def test_100m_is_104857600_in_the_kernels_own_file(self, group: Open) -> None:
        cgroup, plugin = group(Memory), Memory()
        plugin.set(cgroup, plugin.parse({"": "100m"}))
        file = "memory.limit_in_bytes" if cgroup.hierarchy is V1 else "memory.max"
        with open(f"{cgroup.path}/{file}", encoding="utf-8") as stream:
            assert stream.read() == "104857600\n"
        assert cgroup.ctx.effective["memory"] == ("104857600", "104857600")

    def test_swap_and_reservation_bind(self, group: Open) -> None:
        cgroup, plugin = group(Memory), Memory()
        file = "memory.memsw.limit_in_bytes" if cgroup.hierarchy is V1 else "memory.swap.max"
        if cgroup.read(file) is None:
            pytest.skip(f"this kernel has no {file}: it does not account swap")
        plugin.set(cgroup, plugin.parse({"": "64m", "swap": "128m", "reservation": "32m"}))
        assert cgroup.read(file) == str((128 if cgroup.hierarchy is V1 else 64) << 20)
        assert cgroup.ctx.effective["memory.reservation"][1] == str(32 << 20)
        plugin.set(cgroup, plugin.parse({"": "64m", "swap": "-1"}))
        unlimited = cgroup.ctx.effective["memory.swap"][1]
        assert unlimited == "max" or int(unlimited) > 1 << 62

    def test_memory_and_swap_grow_and_shrink_together(self, group: Open) -> None:
        cgroup, plugin = group(Memory), Memory()
        file = "memory.memsw.limit_in_bytes" if cgroup.hierarchy is V1 else "memory.swap.max"
        if cgroup.read(file) is None:
            pytest.skip(f"this kernel has no {file}: it does not account swap")
        for memory, swap in (("16m", "32m"), ("64m", "128m"), ("8m", "8m")):
            plugin.set(cgroup, plugin.parse({"": memory, "swap": swap}))
            assert cgroup.ctx.effective["memory"][1] == str(int(memory[:-1]) << 20)
            whole = int(swap[:-1]) - (0 if cgroup.hierarchy is V1 else int(memory[:-1]))
            assert cgroup.read(file) == str(whole << 20)

    def test_more_than_the_limit_is_killed_and_counted(self, group: Open) -> None:
        cgroup, plugin = group(Memory), Memory()
        plugin.set(cgroup, plugin.parse({"": "24m"}))
        process = child("x = bytearray(b'x') * (64 << 20)")
        cgroup.join(process.pid)
        assert go(process) == -signal.SIGKILL
        stats = plugin.stats(cgroup)
        assert stats["oom_kills"] == 1
        assert stats.get("memory_limit_hits", 1) > 0
        assert stats.get("memory_ooms", 1) > 0
        assert stats.get("memory_peak_bytes", 24 << 20) == pytest.approx(24 << 20, rel=0.05)

    def test_a_death_by_signal_is_not_counted_as_out_of_memory(self, group: Open) -> None:
        cgroup, plugin = group(Memory), Memory()
        plugin.set(cgroup, plugin.parse({"": "64m"}))
        process = child("os.kill(os.getpid(), signal.SIGKILL)")
        cgroup.join(process.pid)
        assert go(process) == -signal.SIGKILL
        assert plugin.stats(cgroup)["oom_kills"] == 0


class TestCpuset:
    def test_a_cpu_that_is_there_binds_and_a_process_gets_in(self, group: Open) -> None:
        cgroup, plugin = group(Cpuset), Cpuset()
        plugin.set(cgroup, plugin.parse({"": "0", "mems": "0"}))
        process = child("print(sorted(os.sched_getaffinity(0)))")
        cgroup.join(process.pid)
        assert process.communicate("\n", timeout=60)[0] == "[0]\n"

    def test_inheriting_alone_is_enough_for_a_process_to_get_in(self, group: Open) -> None:
        cgroup = group(Cpuset)
        if cgroup.hierarchy is V2:
            pytest.skip("v1 only: a v2 cpuset is never empty")
        process = child("")
        with pytest.raises(HierarchyError, match=r"until cpuset\.cpus and cpuset\.mems are set"):
            cgroup.join(process.pid)
        Cpuset().set(cgroup, {})
        cgroup.join(process.pid)
        assert go(process) == 0

    @pytest.mark.parametrize("text", ["99", "0-99"])
    def test_a_cpu_that_is_not_there_fails_clearly(self, group: Open, text: str) -> None:
        cgroup, plugin = group(Cpuset), Cpuset()
        with pytest.raises(
            LimitError, match=f"set limit cpuset={text}: .*CPUs in /sys/devices/system/cpu/online"
        ):
            plugin.set(cgroup, plugin.parse({"": text}))

    def test_a_node_that_is_not_there_fails_clearly(self, group: Open) -> None:
        cgroup, plugin = group(Cpuset), Cpuset()
        with pytest.raises(LimitError, match=r"set limit cpuset\.mems=63: .*has_memory"):
            plugin.set(cgroup, plugin.parse({"mems": "63"}))


class TestCpushare:
    @pytest.mark.parametrize("shares", ["2", "512", "1024", "262144"])
    def test_binds(self, group: Open, shares: str) -> None:
        cgroup, plugin = group(Cpushare), Cpushare()
        plugin.set(cgroup, plugin.parse({"": shares}))
        weight = {"2": "1", "512": "59", "1024": "100", "262144": "10000"}[shares]
        assert cgroup.ctx.effective["cpushare"][1] == (shares if cgroup.hierarchy is V1 else weight)


class TestPids:
    def test_one_too_many_is_refused_and_counted(self, group: Open) -> None:
        cgroup, plugin = group(Pids), Pids()
        plugin.set(cgroup, plugin.parse({"": "1"}))
        process = child("try:\n    os.fork()\nexcept BlockingIOError:\n    sys.exit(7)")
        cgroup.join(process.pid)
        assert go(process) == 7
        stats = plugin.stats(cgroup)
        assert stats["pids_refused"] == 1
        assert stats.get("pids_peak", 1) == 1

    def test_unlimited_binds(self, group: Open) -> None:
        cgroup, plugin = group(Pids), Pids()
        plugin.set(cgroup, plugin.parse({"": "max"}))
        assert cgroup.ctx.effective["pids"][1] == "max"


class TestCpu:
    def test_half_a_cpu_is_half_a_cpu(self, group: Open) -> None:
        cgroup, plugin = group(Cpu), Cpu()
        plugin.set(cgroup, plugin.parse({"": "0.5"}))
        if cgroup.hierarchy is V1:
            assert (cgroup.read("cpu.cfs_quota_us"), cgroup.read("cpu.cfs_period_us")) == ("50000", "100000")
        else:
            assert cgroup.read("cpu.max") == "50000 100000"
        process = child(
            "start = time.process_time()\nwhile time.process_time() - start < 0.3: pass\nprint(time.monotonic())"
        )
        cgroup.join(process.pid)
        start = time.monotonic()
        assert float(process.communicate("\n", timeout=60)[0]) - start > 0.45

    @pytest.mark.parametrize("then", [("2000", "5000"), ("900000", "1000000")], ids=["down", "up"])
    def test_quota_and_period_change_together_whichever_way(self, group: Open, then: tuple[str, str]) -> None:
        cgroup, plugin = group(Cpu), Cpu()
        for quota, period in (("100000", "100000"), then, ("100000", "100000")):
            plugin.set(cgroup, plugin.parse({"quota": quota, "period": period}))
        quota, period = then
        plugin.set(cgroup, plugin.parse({"quota": quota, "period": period}))
        held = (
            cgroup.read("cpu.max") or f"{cgroup.read('cpu.cfs_quota_us')} {cgroup.read('cpu.cfs_period_us')}"
        )
        assert held == f"{quota} {period}"

    def test_a_period_that_goes_only_with_the_new_quota_binds(self, group: Open) -> None:
        """The cgroup above has half a CPU: 50 ms of a shorter period are more than that."""
        above = group(Cpu, "above")
        if above.hierarchy is V2:
            pytest.skip("v1 only: on v2 both are one write")
        plugin = Cpu()
        plugin.set(above, plugin.parse({"quota": "50000", "period": "100000"}))
        below = Direct(f"{above.path}/below", above.path, V1, "cpu")
        below.make.execute(below.ctx)
        try:
            plugin.set(below, plugin.parse({"quota": "50000", "period": "100000"}))
            with pytest.raises(LimitError, match=r"EINVAL: .*cpu\.cfs_period_us"):
                plugin.set(below, plugin.parse({"period": "50000"}))
            plugin.set(below, plugin.parse({"quota": "25000", "period": "50000"}))
            assert (below.read("cpu.cfs_quota_us"), below.read("cpu.cfs_period_us")) == ("25000", "50000")
        finally:
            below.make.undo(Context(None))

    def test_a_burst_grows_and_shrinks_with_its_quota(self, group: Open) -> None:
        cgroup, plugin = group(Cpu), Cpu()
        file = "cpu.cfs_burst_us" if cgroup.hierarchy is V1 else "cpu.max.burst"
        if cgroup.read(file) is None:
            pytest.skip(f"this kernel has no {file}")
        for size in ("5000", "80000", "2000"):
            plugin.set(cgroup, plugin.parse({"quota": size, "burst": size}))
            assert cgroup.read(file) == size

    def test_idle_binds_and_goes_again(self, group: Open) -> None:
        cgroup, plugin = group(Cpu), Cpu()
        if cgroup.read("cpu.idle") is None:
            pytest.skip("this kernel has no cpu.idle")
        for text in ("1", "0"):
            plugin.set(cgroup, plugin.parse({"idle": text}))
            assert cgroup.read("cpu.idle") == text

    def test_realtime_that_the_cgroup_above_does_not_have_is_refused_with_the_remedy(
        self, group: Open
    ) -> None:
        cgroup, plugin = group(Cpu), Cpu()
        fields = {"rt_runtime": "10000", "rt_period": "500000"}
        if cgroup.hierarchy is V2:
            with pytest.raises(LimitError, match=r"cpu\.rt_runtime=10000: cgroup v2 has no realtime limits"):
                plugin.set(cgroup, plugin.parse(fields))
            return
        if cgroup.read("cpu.rt_runtime_us") is None:
            pytest.skip("this kernel has no CONFIG_RT_GROUP_SCHED")
        os.chmod(os.path.dirname(cgroup.path), 0o755)  # as if it were an operator's, who gave it none
        try:
            with pytest.raises(LimitError, match="every cgroup above needs"):
                plugin.set(cgroup, plugin.parse(fields))
        finally:
            os.chmod(os.path.dirname(cgroup.path), 0o1755)

    def test_realtime_binds_where_the_cgroups_above_are_gockers_own(self, group: Open) -> None:
        first, second, plugin = group(Cpu), group(Cpu, "second"), Cpu()
        whole = first.hierarchy is V1 and cgroupfs.read_file(first.base, "cpu.rt_runtime_us")
        if not whole or int(whole) < 100000:
            pytest.skip("no v1 cpu controller with realtime to give down is mounted here")
        for cgroup in (first, second):
            plugin.set(cgroup, plugin.parse({"rt_runtime": "1000", "rt_period": "100000"}))
            assert (cgroup.read("cpu.rt_runtime_us"), cgroup.read("cpu.rt_period_us")) == ("1000", "100000")


class TestBlkio:
    def disk(self) -> str:
        for name in sorted(os.listdir("/sys/block")):
            with open(f"/sys/block/{name}/dev", encoding="ascii") as file:
                return file.read().strip()
        pytest.skip("this host has no disk")

    def test_rates_bind_device_by_device_and_go_again(self, group: Open) -> None:
        cgroup, plugin, disk = group(Blkio), Blkio(), self.disk()
        fields = {"read_bps": f"{disk}:1m", "write_bps": f"{disk}:2m", "read_iops": f"{disk}:100"}
        plugin.set(cgroup, plugin.parse(fields))
        if cgroup.hierarchy is V1:
            assert cgroup.read("blkio.throttle.read_bps_device") == f"{disk} 1048576"
            assert cgroup.read("blkio.throttle.write_bps_device") == f"{disk} 2097152"
            assert cgroup.read("blkio.throttle.read_iops_device") == f"{disk} 100"
        else:
            assert cgroup.read("io.max") == f"{disk} rbps=1048576 wbps=2097152 riops=100 wiops=max"
        assert cgroup.ctx.effective["blkio.read_bps"][1].startswith(disk)
        plugin.set(cgroup, plugin.parse(dict.fromkeys(fields, f"{disk}:0")))
        assert not cgroup.read("blkio.throttle.read_bps_device" if cgroup.hierarchy is V1 else "io.max")

    def test_a_device_that_is_not_there_is_an_error(self, group: Open) -> None:
        cgroup, plugin = group(Blkio), Blkio()
        with pytest.raises(LimitError, match=r"ENODEV.*whole disk"):
            plugin.set(cgroup, plugin.parse({"read_bps": "4000:77:1m"}))
        with pytest.raises(LimitError, match="/dev/null: not a block device"):
            plugin.set(cgroup, plugin.parse({"read_bps": "/dev/null:1m"}))

    def test_a_weight_binds_or_is_refused_by_name(self, group: Open) -> None:
        cgroup, plugin = group(Blkio), Blkio()
        files = ("blkio.bfq.weight", "blkio.weight", "io.weight", "io.bfq.weight")
        if all(cgroup.read(file) is None for file in files):
            with pytest.raises(LimitError, match=r"blkio\.weight=.*no (blkio\.bfq|io)\.weight"):
                plugin.set(cgroup, plugin.parse({"weight": "200"}))
            return
        plugin.set(cgroup, plugin.parse({"weight": "200"}))
        assert cgroup.ctx.effective["blkio.weight"][1] in {"200", "default 200", "default 1920"}


class TestMemoryOfV1:
    def test_swappiness_hierarchy_tcp_and_the_oom_killer_bind_or_are_refused_by_name(
        self, group: Open
    ) -> None:
        plugin, fields = Memory(), {"swappiness": "10", "use_hierarchy": "true", "oom_kill_disable": "true"}
        cgroup = group(Memory)
        if cgroup.hierarchy is V2:
            for key in ("swappiness", "oom_kill_disable", "kernel", "kernel_tcp"):
                text = fields.get(key, "16m")
                with pytest.raises(LimitError, match=rf"memory\.{key}=.*cgroup v2 has nothing like it"):
                    plugin.set(cgroup, plugin.parse({key: text}))
            plugin.set(cgroup, plugin.parse({"use_hierarchy": "true"}))
            return
        plugin.set(cgroup, plugin.parse({**fields, "kernel_tcp": "16m"}))
        assert cgroup.read("memory.swappiness") == "10"
        assert (cgroup.read("memory.oom_control") or "").startswith("oom_kill_disable 1\n")
        assert cgroup.read("memory.kmem.tcp.limit_in_bytes") == str(16 << 20)


class TestFreezer:
    def test_frozen_stops_it_and_thawed_lets_it_go_on(self, group: Open) -> None:
        cgroup, plugin = group(Freezer), Freezer()
        plugin.set(cgroup, plugin.parse({"": "thawed"}))
        process = child("print('on', flush=True)")
        assert process.stdin is not None
        assert process.stdout is not None
        cgroup.join(process.pid)
        plugin.set(cgroup, {"x.freezer.state": "frozen"})
        try:
            process.stdin.write("\n")
            process.stdin.flush()
            assert select.select([process.stdout], [], [], 0.3)[0] == []
        finally:  # what is frozen on v1 cannot be killed
            plugin.set(cgroup, plugin.parse({"": "thawed"}))
        assert process.stdout.readline() == "on\n"
        assert gone(process) == 0


class TestUnified:
    def test_a_file_of_a_controller_that_is_not_enabled_yet_binds(self, group: Open) -> None:
        cgroup, plugin = group(Unified), Unified()
        offered = (cgroupfs.read_file(cgroup.base, "cgroup.controllers") or "").split()
        values = {
            "memory": ("memory.high", "100m"),
            "hugetlb": ("hugetlb.2MB.max", "4m"),
            "pids": ("pids.max", "9"),
        }
        found = [values[name] for name in offered if name in values]
        if not found:
            pytest.skip("this host's cgroup2 has none of memory, hugetlb and pids")
        plugin.set(cgroup, plugin.parse(dict(found)))
        shown = {"100m": "104857600", "4m": "4194304", "9": "9"}
        assert {file: cgroup.read(file) for file, _ in found} == {file: shown[text] for file, text in found}
        assert cgroup.ctx.effective.keys() == {f"unified.{file}" for file, _ in found}

    def test_a_controller_that_is_not_there_is_named(self, group: Open) -> None:
        cgroup, plugin = group(Unified), Unified()
        with pytest.raises(HierarchyError, match=r"enable controllers nosuch: .*is given only"):
            plugin.set(cgroup, plugin.parse({"nosuch.max": "1"}))


class TestCounters:
    def test_cpu_time_of_a_busy_program_is_counted(self, group: Open) -> None:
        cgroup, plugin = group(Cpuacct), Cpuacct()
        process = child("end = time.process_time() + 0.2\nwhile time.process_time() < end: pass")
        cgroup.join(process.pid)
        assert go(process) == 0
        stats = plugin.stats(cgroup)
        assert 200_000 <= stats["cpu_user_us"] + stats["cpu_system_us"] < 5_000_000

    def test_io_counters_are_there(self, group: Open) -> None:
        cgroup = group(Blkio)
        stats = Blkio().stats(cgroup)
        if not stats and cgroup.hierarchy is V1:
            pytest.skip("needs a v1 kernel that counts I/O without a throttle, or io.stat of v2")
        assert stats == {"io_read_bytes": 0, "io_write_bytes": 0}

    @pytest.mark.parametrize(
        "plugin", [Memory, Cpuset, Cpushare, Pids, Cpuacct, Blkio], ids=lambda cls: cls.name
    )
    def test_stats_of_an_idle_cgroup_are_numbers(self, group: Open, plugin: type[CgroupController]) -> None:
        assert all(type(value) is int for value in plugin().stats(group(plugin)).values())


class TestMakeAndUndo:
    def test_undo_kills_what_runs_in_it_and_removes_it(self, group: Open) -> None:
        cgroup = group(Memory)
        process = child("time.sleep(600)")
        cgroup.join(process.pid)
        assert cgroupfs.processes(cgroup.path) == [process.pid]
        cgroup.make.undo(Context(None))  # the child is dead but not reaped: a zombie is no obstacle
        assert not os.path.exists(cgroup.path)
        assert gone(process) == -signal.SIGKILL

    def test_undo_kills_and_removes_what_was_made_below(self, group: Open) -> None:
        cgroup = group(Memory)
        os.makedirs(f"{cgroup.path}/a/b")
        os.mkdir(f"{cgroup.path}/c")
        processes = [child("time.sleep(600)") for _ in range(3)]
        for process, place in zip(processes, ("a", "a/b", "c"), strict=True):
            cgroupfs.write_file(f"{cgroup.path}/{place}", "cgroup.procs", str(process.pid))
        cgroup.make.undo(Context(None))
        assert not os.path.exists(cgroup.path)
        assert [gone(process) for process in processes] == [-signal.SIGKILL] * 3

    def test_a_fork_bomb_does_not_outrun_the_undo(self, group: Open) -> None:
        cgroup, plugin = group(Pids), Pids()
        plugin.set(cgroup, plugin.parse({"": "40"}))
        process = child("while True:\n    try:\n        os.fork()\n    except OSError:\n        pass")
        assert process.stdin is not None
        cgroup.join(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        deadline = time.monotonic() + 30
        while len(cgroupfs.processes(cgroup.path)) < 20:
            assert time.monotonic() < deadline, "the bomb does not go off"
            time.sleep(0.01)
        cgroup.make.undo(Context(None))
        assert not os.path.exists(cgroup.path)
        assert gone(process) == -signal.SIGKILL

    def test_the_same_id_twice_is_refused_and_the_first_survives(self, group: Open) -> None:
        first = group(Memory)
        ctx = Context(None)
        with pytest.raises(HierarchyError, match="EEXIST"):
            first.make.execute(ctx)
        first.make.undo(ctx)
        assert os.path.isdir(first.path)

    def test_a_cgroup_that_was_never_taken_is_neither_killed_nor_removed(self, group: Open) -> None:
        cgroup = group(Memory)
        process = child("time.sleep(600)")
        cgroup.join(process.pid)
        where = {"path": cgroup.path, "base": cgroup.base, "version": cgroup.hierarchy.value}
        ctx, step = Context(None), TakeCgroup(**where, owner="c1")
        with pytest.raises(HierarchyError, match="is not empty"):
            step.execute(ctx)
        assert step.is_anothers()
        step.undo(ctx)
        assert cgroupfs.processes(cgroup.path) == [process.pid]
        cgroup.make.undo(Context(None))
        assert gone(process) == -signal.SIGKILL

    def test_of_two_containers_of_one_id_the_second_leaves_the_firsts_cgroup_alone(self, group: Open) -> None:
        place = group(Memory)
        path = f"{place.base}/{PARENT}-claimed/c1"
        one, two = (
            ClaimCgroup(
                path=path, base=place.base, version=place.hierarchy.value, owner=f"/run/{root}/c1/start"
            )
            for root in "ab"
        )
        one.execute(Context(None))
        try:
            assert (one.is_anothers(), two.is_anothers()) == (False, True)
            ctx = Context(None)
            with pytest.raises(HierarchyError, match="another container has it"):
                two.execute(ctx)
            two.undo(ctx)
            assert os.path.isdir(path)
        finally:
            one.undo(Context(None))
        assert not os.path.exists(os.path.dirname(path))

    def test_what_was_made_and_not_claimed_goes_bare_with_its_parents_when_its_gocker_is_gone(
        self, group: Open
    ) -> None:
        place = group(Memory)
        path = f"{place.base}/{PARENT}-bare/c1"
        where = {"path": path, "base": place.base, "version": place.hierarchy.value}
        MakeCgroup(**where).execute(Context(None))
        step = ClaimCgroup(**where, owner="c1")
        assert step.is_anothers()
        alive, gone_by = Context(ContainerSpec(id="c1", name="c1", argv=("sh",))), Context(None)
        for ctx in (alive, gone_by):
            ctx.strangers.add(path)
        step.undo(alive)  # it found it in its way
        assert os.path.isdir(path)
        step.undo(gone_by)
        assert not os.path.exists(os.path.dirname(path))

    def test_of_two_that_take_an_empty_cgroup_one_has_it(self) -> None:
        base, version = find(Memory)
        path = f"{base}/{PARENT}-taken"
        os.mkdir(path)
        try:
            one, two = (
                TakeCgroup(path=path, base=base, version=version.value, owner=name) for name in ("a", "b")
            )
            assert one.is_vacant()
            one.execute(Context(None))
            with pytest.raises(HierarchyError, match="another container has it"):
                two.execute(Context(None))
            assert (one.is_anothers(), two.is_anothers()) == (False, True)
            one.undo(Context(None))
            assert not os.path.exists(path)
        finally:
            if os.path.exists(path):
                os.rmdir(path)

    def test_containers_that_come_and_go_share_the_parent(self) -> None:
        base, version = find(Memory)
        errors: list[BaseException] = []

        def churn(name: str) -> None:
            step = MakeCgroup(path=f"{base}/{PARENT}/{name}", base=base, version=version.value)
            try:
                for _ in range(40):
                    step.execute(Context(None))
                    step.undo(Context(None))
            except (OSError, GockerError) as error:
                errors.append(error)

        threads = [threading.Thread(target=churn, args=(str(number),)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert not os.path.exists(f"{base}/{PARENT}")

    def test_remove_has_an_event_and_can_be_repeated(self, group: Open) -> None:
        cgroup = group(Pids)
        step = RemoveCgroup(path=cgroup.path, base=cgroup.base, controller="pids")
        step.execute(cgroup.ctx)
        step.execute(cgroup.ctx)
        assert (step.event, step.audit(cgroup.ctx)["controller"]) == ("controller.remove", "pids")
        assert not os.path.exists(f"{cgroup.base}/{PARENT}")

    def test_what_cannot_die_is_reported(self, group: Open) -> None:
        """A frozen process on v1 takes SIGKILL only when it is thawed; on v2 cgroup.kill reaches it."""
        cgroup = group(Pids)
        if cgroup.hierarchy is V2:
            pytest.skip("v1 only: cgroup.kill kills frozen processes too")
        freezer = f"{os.path.dirname(cgroup.base)}/freezer"
        if not os.path.exists(f"{freezer}/cgroup.procs"):
            pytest.skip("the v1 freezer is not mounted here")
        frozen = MakeCgroup(path=f"{freezer}/{PARENT}/id", base=freezer, version="v1")
        process = child("")
        cgroup.join(process.pid)
        frozen.execute(Context(None))
        try:
            cgroupfs.write_file(frozen.path, "cgroup.procs", str(process.pid))
            cgroupfs.write_file(frozen.path, "freezer.state", "FROZEN")
            with pytest.raises(KernelError, match=f"1 processes outlive SIGKILL: {process.pid}"):
                cgroupfs.kill_all(cgroup.path, "v1", 0.1)
            cgroupfs.write_file(frozen.path, "freezer.state", "THAWED")
        finally:
            frozen.undo(Context(None))
        assert gone(process) == -signal.SIGKILL


class TestJoin:
    def test_the_child_moves_itself_in_by_the_fd_that_the_launcher_opened(self, group: Open) -> None:
        cgroup = group(Memory)
        if cgroup.hierarchy is V2:
            pytest.skip("v1 only: on v2 the child is born in its cgroup")
        OpenCgroup(path=cgroup.path, controller="memory").execute(cgroup.ctx)
        parked, release = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                JoinCgroup(path=cgroup.path, controller="memory").execute(cgroup.ctx)
                os.read(parked, 1)
            finally:
                os._exit(0)
        try:
            deadline = time.monotonic() + 10
            while cgroupfs.processes(cgroup.path) != [pid]:
                assert time.monotonic() < deadline, "the child never got in"
                time.sleep(0.001)
        finally:
            os.write(release, b"x")
            os.waitpid(pid, 0)
            os.close(parked)
            os.close(release)
            OpenCgroup(path=cgroup.path, controller="memory").undo(cgroup.ctx)


class TestEnableControllers:
    def cgroup2(self) -> tuple[str, str]:
        """(mount point, one controller that can be enabled)."""
        for kind, mountpoint, controllers in mounts():
            if kind == "cgroup2" and controllers:
                return mountpoint, controllers[-1]
        pytest.skip("no cgroup2 with a controller is mounted here")

    def test_the_files_appear_in_the_containers_directory(self) -> None:
        base, controller = self.cgroup2()
        ctx, path = Context(None), f"{base}/{PARENT}/id"
        make = MakeCgroup(path=path, base=base, version="v2")
        make.execute(ctx)
        try:
            for _ in range(2):
                EnableControllers(path=path, base=base, controllers=(controller,)).execute(ctx)
            assert any(name.startswith(f"{controller}.") for name in os.listdir(path))
        finally:
            make.undo(ctx)

    def test_processes_on_the_way_are_an_error_with_a_remedy(self) -> None:
        base, controller = self.cgroup2()
        ctx, path = Context(None), f"{base}/{PARENT}/full/id"
        make = MakeCgroup(path=path, base=base, version="v2")
        make.execute(ctx)
        process = child("")
        try:
            cgroupfs.write_file(os.path.dirname(path), "cgroup.procs", str(process.pid))
            with pytest.raises(HierarchyError, match=r"EBUSY: processes run in /.*/full, .*--cgroup-parent"):
                EnableControllers(path=path, base=base, controllers=(controller,)).execute(ctx)
        finally:
            go(process)
            make.undo(ctx)

    def test_a_controller_that_is_not_there_is_an_error_that_lists_those_that_are(self) -> None:
        base, controller = self.cgroup2()
        ctx, path = Context(None), f"{base}/{PARENT}/id"
        make = MakeCgroup(path=path, base=base, version="v2")
        make.execute(ctx)
        try:
            with pytest.raises(HierarchyError, match=f"nosuch: .*is given only .*{controller}"):
                EnableControllers(path=path, base=base, controllers=("nosuch",)).execute(ctx)
        finally:
            make.undo(ctx)


PROBES = {
    "memory.limit_in_bytes": ("8388609", "-1", "9223372036854775807", "x"),
    "memory.soft_limit_in_bytes": ("8388609", "-1"),
    "memory.max": ("8388609", "max", "9223372036854775807", "x"),
    "memory.low": ("8388609", "max"),
    "memory.swap.max": ("8388609", "max"),
    "pids.max": ("64", "max", "0", "4194304", "x"),
    "cpu.shares": ("2", "1024", "262144"),
    "cpu.weight": ("1", "59", "10000", "10001", "x"),
}


@pytest.mark.parametrize("plugin", [Memory, Pids, Cpushare], ids=lambda cls: cls.name)
def test_the_fake_answers_as_the_kernel_does(
    group: Open, plugin: type[CgroupController], tmp_path: os.PathLike[str]
) -> None:
    cgroup = group(plugin)
    tried = 0
    for row in plugin.limits:
        file = row.files.get(cgroup.hierarchy)
        if file is None or cgroup.read(file) is None:
            continue
        for number, text in enumerate(PROBES.get(file, ())):
            fake = FakeCgroup(f"{os.fspath(tmp_path)}/{file}-{number}", cgroup.hierarchy, {file: ""})
            assert file in ANSWERS[cgroup.hierarchy]
            assert _outcome(fake, file, text) == _outcome(cgroup, file, text), f"{text} in {file}"
            tried += 1
    assert tried


def _outcome(cgroup: FakeCgroup | Direct, file: str, text: str) -> str:
    try:
        cgroup.write(file, text, limit="probe", accept=(), verify="", optional=False)
    except LimitError as error:
        if error.errno:
            return errno.errorcode[error.errno]
    return cgroup.read(file) or ""
