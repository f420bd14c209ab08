"""The figures of `events`, from the texts of cgroup files."""

from __future__ import annotations

from typing import Any

import pytest

from gocker.model import Hierarchy
from gocker.oci.stats import interfaces, numbers, stats, table

NET = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:    1000      10    2    3    0     0          0         0     2000      20    4    5    0     0       0          0
"""


class Files:
    """A cgroup of texts."""

    def __init__(self, hierarchy: Hierarchy, **texts: str) -> None:
        self.hierarchy = hierarchy
        self._texts = {name.replace("__", "."): text for name, text in texts.items()}

    def read(self, file: str) -> str | None:
        return self._texts.get(file)


def v1(**texts: str) -> Files:
    return Files(Hierarchy.V1, **texts)


def test_a_container_in_no_cgroup_uses_nothing() -> None:
    found = stats({}, ["2MB"], "")
    assert found["pids"] == {"current": 0, "limit": 0}
    assert found["memory"]["usage"] == {"limit": 0, "usage": 0, "max": 0, "failcnt": 0}
    assert found["hugetlb"] == {}


def test_cpu_time_of_v1_is_in_nanoseconds_by_cpu() -> None:
    acct = v1(
        cpuacct__usage="700",
        cpuacct__usage_user="300",
        cpuacct__usage_sys="400",
        cpuacct__usage_percpu="600 100",
        cpuacct__usage_all="cpu user system\n0 250 350\n1 50 50",
    )
    throttled = v1(cpu__stat="nr_periods 5\nnr_throttled 2\nthrottled_time 9")
    assert stats({"cpuacct": acct, "cpu": throttled}, [], "")["cpu"] == {
        "usage": {
            "total": 700,
            "kernel": 400,
            "user": 300,
            "percpu": [600, 100],
            "percpu_user": [250, 50],
            "percpu_kernel": [350, 50],
        },
        "throttling": {"periods": 5, "throttledPeriods": 2, "throttledTime": 9},
    }


def v2(**texts: str) -> dict[str, Any]:
    return stats({"cgroup": Files(Hierarchy.V2, **texts)}, ["2MB", "1GB"], "")


def test_cpu_time_of_v2_is_made_nanoseconds() -> None:
    found = v2(cpu__stat="usage_usec 7\nuser_usec 3\nsystem_usec 4\nnr_periods 1\nthrottled_usec 2")["cpu"]
    assert found["usage"] == {"total": 7000, "kernel": 4000, "user": 3000}
    assert found["throttling"] == {"periods": 1, "throttledPeriods": 0, "throttledTime": 2000}


def test_swap_of_v2_is_told_with_memory_as_v1_does() -> None:
    memory = v2(
        memory__current="50",
        memory__max="100",
        memory__peak="60",
        memory__events="low 0\nmax 3\noom_kill 1",
        memory__swap__current="5",
        memory__swap__max="40",
        memory__stat="file 11\nkernel 7",
    )["memory"]
    assert memory["usage"] == {"limit": 100, "usage": 50, "max": 60, "failcnt": 3}
    assert (memory["swap"]["usage"], memory["swap"]["limit"]) == (55, 140)
    assert (memory["cache"], memory["kernel"]["usage"], memory["raw"]) == (11, 7, {"file": 11, "kernel": 7})


def test_no_limit_is_the_greatest_number() -> None:
    memory = v2(memory__max="max", memory__swap__max="max")["memory"]
    assert memory["usage"]["limit"] == memory["swap"]["limit"] == 2**64 - 1


def test_memory_of_v1_is_told_by_its_four_counters() -> None:
    files = v1(
        memory__limit_in_bytes="100",
        memory__usage_in_bytes="50",
        memory__max_usage_in_bytes="60",
        memory__failcnt="2",
        memory__memsw__limit_in_bytes="200",
        memory__stat="cache 9\nrss 4",
    )
    memory = stats({"memory": files}, [], "")["memory"]
    assert memory["usage"] == {"limit": 100, "usage": 50, "max": 60, "failcnt": 2}
    assert (memory["swap"]["limit"], memory["cache"], memory["raw"]["rss"]) == (200, 9, 4)


@pytest.mark.parametrize(("limit", "told"), [("5", 5), ("max", 0)])
def test_no_limit_of_processes_is_zero(limit: str, told: int) -> None:
    assert v2(pids__current="3", pids__max=limit)["pids"] == {"current": 3, "limit": told}


def test_io_of_v2_is_told_in_the_tables_of_v1() -> None:
    found = v2(io__stat="8:0 rbytes=5 wbytes=0 rios=1 wios=2 dbytes=0 dios=0\n8:16")["blkio"]
    assert found["ioServiceBytesRecursive"][0] == {"major": 8, "minor": 0, "op": "Read", "value": 5}
    assert {"major": 8, "minor": 0, "op": "Write", "value": 2} in found["ioServicedRecursive"]


def test_io_of_v1_is_told_by_the_throttle_where_bfq_is_not() -> None:
    files = v1(blkio__throttle__io_service_bytes_recursive="8:0 Read 4096\nTotal 4096")
    found = stats({"blkio": files}, [], "")["blkio"]
    assert found["ioServiceBytesRecursive"] == [{"major": 8, "minor": 0, "op": "Read", "value": 4096}]


def test_a_row_without_an_operation_is_one_too() -> None:
    assert table("8:0 7") == [{"major": 8, "minor": 0, "op": "", "value": 7}]


def test_huge_pages_are_told_by_the_sizes_that_the_cgroup_has() -> None:
    assert v2(hugetlb__2MB__current="4", hugetlb__2MB__events="max 1")["hugetlb"] == {
        "2MB": {"usage": 4, "failcnt": 1}
    }


def test_the_loopback_is_no_interface() -> None:
    assert interfaces(NET) == [
        {
            "Name": "eth0",
            "RxBytes": 1000,
            "RxPackets": 10,
            "RxErrors": 2,
            "RxDropped": 3,
            "TxBytes": 2000,
            "TxPackets": 20,
            "TxErrors": 4,
            "TxDropped": 5,
        }
    ]


def test_lists_of_cpus_are_numbers() -> None:
    assert numbers("0-2,5") == [0, 1, 2, 5]
    assert numbers("") == numbers(None) == []
