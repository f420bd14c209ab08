"""Every limit read from the kernel's own file while it runs, on whichever cgroup version the host has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from command import SLOWNESS, Gocker
from running import Running, running, version

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
