"""Every limit read from the kernel's own file while it runs, on whichever cgroup version the host has."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from command import SLOWNESS, Gocker
from running import Running, running, version

from gocker.hierarchy import read_host
from gocker.model import Hierarchy

pytestmark = pytest.mark.guest

V1, V2 = Hierarchy.V1, Hierarchy.V2
_MAX_V1 = "9223372036854771712"  # the kernel's largest page count, in bytes: its word for no limit


class Limit(NamedTuple):
    """What was asked, and the file and the text that hold it on each version."""

    asked: str  # LABEL=VALUE
    controller: str  # the kernel's name of it
    files: dict[Hierarchy, str]
    texts: dict[Hierarchy, str]

    def __str__(self) -> str:
        return self.asked


def limit(asked: str, controller: str, v1: tuple[str, str], v2: tuple[str, str]) -> Limit:
    return Limit(asked, controller, {V1: v1[0], V2: v2[0]}, {V1: v1[1], V2: v2[1]})


PLAIN = [
    limit("memory=100m", "memory", ("memory.limit_in_bytes", "104857600"), ("memory.max", "104857600")),
    limit(
        "memory.swap=150m",
        "memory",
        ("memory.memsw.limit_in_bytes", "157286400"),
        ("memory.swap.max", "52428800"),  # v2 counts swap alone
    ),
    limit(
        "memory.reservation=64m",
        "memory",
        ("memory.soft_limit_in_bytes", "67108864"),
        ("memory.low", "67108864"),
    ),
    limit("cpuset=0", "cpuset", ("cpuset.cpus", "0"), ("cpuset.cpus", "0")),
    limit("cpuset.mems=0", "cpuset", ("cpuset.mems", "0"), ("cpuset.mems", "0")),
    limit("cpushare=512", "cpu", ("cpu.shares", "512"), ("cpu.weight", "59")),
    limit("cpu=0.5", "cpu", ("cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 100000")),
    limit("cpu.burst=10000", "cpu", ("cpu.cfs_burst_us", "10000"), ("cpu.max.burst", "10000")),
    limit("pids=64", "pids", ("pids.max", "64"), ("pids.max", "64")),
]
OTHER = [
    # The kernel counts memory in pages and rounds down.
    limit("memory=100000001", "memory", ("memory.limit_in_bytes", "99999744"), ("memory.max", "99999744")),
    limit("memory.swap=-1", "memory", ("memory.memsw.limit_in_bytes", _MAX_V1), ("memory.swap.max", "max")),
    limit(
        "memory.reservation=6m",
        "memory",
        ("memory.soft_limit_in_bytes", "6291456"),
        ("memory.low", "6291456"),
    ),
    limit("cpuset=0-1", "cpuset", ("cpuset.cpus", "0-1"), ("cpuset.cpus", "0-1")),
    limit("cpu.quota=-1", "cpu", ("cpu.cfs_quota_us", "-1"), ("cpu.max", "max 20000")),
    limit("cpu.period=20000", "cpu", ("cpu.cfs_period_us", "20000"), ("cpu.max", "max 20000")),
    limit("cpushare=2", "cpu", ("cpu.shares", "2"), ("cpu.weight", "1")),
    limit("pids=max", "pids", ("pids.max", "max"), ("pids.max", "max")),
]


@pytest.fixture(scope="module")
def plain(places: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    yield from _with(PLAIN, tmp_path_factory)


@pytest.fixture(scope="module")
def other(places: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    yield from _with(OTHER, tmp_path_factory)


def _with(limits: list[Limit], factory: pytest.TempPathFactory) -> Iterator[Running]:
    options = [word for entry in limits for word in ("--limit", entry.asked)]
    with running(Gocker(str(factory.mktemp("limits"))), *options) as container:
        yield container


def _check(container: Running, entry: Limit) -> None:
    here = version(entry.controller)
    assert container.file(entry.controller, entry.files[here]) == entry.texts[here]


@pytest.mark.parametrize("entry", PLAIN, ids=str)
def test_the_kernels_file_has_the_limit(plain: Running, entry: Limit) -> None:
    _check(plain, entry)


@pytest.mark.parametrize("entry", OTHER, ids=str)
def test_the_kernels_file_has_the_rounded_and_the_extreme_limit(other: Running, entry: Limit) -> None:
    _check(other, entry)


def test_the_program_sees_the_one_cpu_of_its_cpuset(plain: Running) -> None:
    assert plain.sh("nproc; grep -E 's_allowed_list' /proc/self/status") == (
        "1\nCpus_allowed_list:\t0\nMems_allowed_list:\t0"
    )


def test_the_report_has_asked_and_effective_of_each_limit(plain: Running) -> None:
    ran = plain.end()
    for entry in PLAIN:
        label, _, asked = entry.asked.partition("=")
        text = entry.texts[version(entry.controller)]
        assert ran.report["limits"][label] == {
            "asked": asked,
            "effective": int(text) if text.isdecimal() else text,
        }
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize(("shares", "weight"), [(1024, 100), (262144, 10000)])
def test_cpu_shares_become_the_weight_that_runc_and_crun_give(
    gocker: Gocker, shares: int, weight: int
) -> None:
    with running(gocker, "--cpu-shares", str(shares)) as container:
        if version("cpu") is V2:
            assert container.file("cpu", "cpu.weight") == str(weight)
        else:
            assert container.file("cpu", "cpu.shares") == str(shares)


def test_the_container_with_more_shares_gets_more_of_the_cpu_that_both_want(gocker: Gocker) -> None:
    loop = "while :; do :; done"
    with running(gocker, "--limit", "cpuset=0", "--limit", "cpushare=8192") as heavy:
        with running(gocker, "--limit", "cpuset=0", "--limit", "cpushare=128") as light:
            for container in (heavy, light):
                container.sh(f"(timeout {0.2 * SLOWNESS + 1} sh -c '{loop}') & :")
            ran = [container.end("wait\n").report["usage"] for container in (heavy, light)]
    heavy_us, light_us = (usage["cpu_user_us"] + usage["cpu_system_us"] for usage in ran)
    assert heavy_us > 2 * light_us  # 64 to 1 on v1, 22 to 1 on v2, less what each needs alone


def test_a_container_may_have_4096_processes_unless_asked_otherwise(gocker: Gocker) -> None:
    with running(gocker) as container:
        assert container.file("pids", "pids.max") == "4096"
        ran = container.end()
    assert ran.report["limits"]["pids"] == {"asked": "4096", "effective": 4096}


def test_one_process_more_than_pids_allows_is_refused(gocker: Gocker) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1 & done; wait"
    ran = gocker.run("--limit", "pids=8", "base", "sh", "-c", script)
    assert "fork" in ran.err, ran
    assert ran.report["usage"]["pids_refused"] >= 1
    if ran.report["usage"]["pids_peak"] is not None:  # the kernel of v1 hosts may keep none
        assert ran.report["usage"]["pids_peak"] == 8


def _disk() -> str:
    """The numbers of the first one here."""
    for name in sorted(os.listdir("/sys/block")):
        with open(f"/sys/block/{name}/dev", encoding="ascii") as file:
            return file.read().strip()
    pytest.skip("this host has no disk")


def test_a_disk_is_read_no_faster_than_asked(gocker: Gocker) -> None:
    disk = _disk()
    with running(
        gocker, "--limit", f"blkio.read_bps={disk}:1m", "--limit", f"blkio.write_iops={disk}:9"
    ) as one:
        if read_host().find("blkio") is None:
            assert one.file("io", "io.max") == f"{disk} rbps=1048576 wbps=max riops=max wiops=9"
        else:
            assert one.file("blkio", "blkio.throttle.read_bps_device") == f"{disk} 1048576"
            assert one.file("blkio", "blkio.throttle.write_iops_device") == f"{disk} 9"
        assert one.end().report["limits"]["blkio.read_bps"]["asked"] == f"{disk}:1m"


def test_a_device_that_is_asked_for_can_be_opened_and_no_other(gocker: Gocker) -> None:
    """The own /dev is a tmpfs where devices work, so that only the filter is in the way."""
    disk = _disk()
    script = f"mknod /dev/d b {disk.replace(':', ' ')} && : </dev/d && echo opened"
    ran = gocker.run("--limit", f"devices.allow=b {disk} r", "base", "sh", "-c", script)
    assert (ran.code, ran.out) == (0, "opened\n"), ran
    refused = gocker.run("--limit", "devices.allow=b 4000:1 r", "base", "sh", "-c", script)
    assert (refused.code, refused.out) == (2, "")
    assert "ermi" in refused.err


def test_a_device_of_the_hosts_is_there_with_its_owner_and_no_more_access_than_asked(
    gocker: Gocker, tmp_path: os.PathLike[str]
) -> None:
    node = f"{os.fspath(tmp_path)}/disk"
    os.mknod(node, stat.S_IFBLK | 0o640, os.makedev(*map(int, _disk().split(":"))))
    os.chown(node, 0, 6)
    script = "stat -c '%F %a %u:%g' /dev/set/d; : </dev/set/d && echo read; (: >>/dev/set/d) 2>/dev/null || echo held"
    ran = gocker.run("--device", f"{node}:/dev/set/d:r", "base", "sh", "-c", script)
    assert (ran.code, ran.out) == (0, "block special file 640 0:6\nread\nheld\n"), ran


def test_an_ordered_list_of_devices_holds(gocker: Gocker) -> None:
    disk = _disk()
    script = (
        f"mknod /dev/d b {disk.replace(':', ' ')}; for f in /dev/d /dev/null; do "
        "(: >>$f) 2>/dev/null && echo $f w; (: <$f) 2>/dev/null && echo $f r; done"
    )
    rules = f"devices.rules=a,deny a,b {disk} rw,deny b {disk} w"
    ran = gocker.run("--limit", rules, "base", "sh", "-c", script)
    assert (ran.code, ran.out) == (0, "/dev/d r\n/dev/null w\n/dev/null r\n"), ran


def test_any_file_of_v2_can_be_written_by_its_name(gocker: Gocker) -> None:
    if version("memory") is V1:
        ran = gocker.run("--limit", "unified.memory.high=64m", "base", "true")
        assert ran.code == 125
        assert "memory" in ran.err
        return
    with running(gocker, "--limit", "unified.memory.high=64m", "--limit", "unified.cpu.weight=7") as one:
        assert one.file("memory", "memory.high") == str(64 << 20)
        assert one.file("cpu", "cpu.weight") == "7"


def test_a_container_that_may_be_paused_is_in_a_freezer(gocker: Gocker) -> None:
    with running(gocker, "--limit", "freezer=thawed") as one:
        if read_host().find("freezer"):
            assert one.file("freezer", "freezer.state") == "THAWED"
        else:
            assert one.file("cgroup", "cgroup.freeze") == "0"


def test_what_runs_when_nothing_else_does_has_no_weight(gocker: Gocker) -> None:
    ran = gocker.run("--limit", "cpu.idle=1", "--limit", "cpushare=512", "base", "true")
    assert ran.code == 125
    assert "what has cpu.idle=1 has no weight" in ran.err
    assert gocker.run("--limit", "cpu.idle=1", "base", "true").code == 0
