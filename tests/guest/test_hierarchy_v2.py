"""Where gocker finds the controllers on a pure cgroup v2 host."""

from __future__ import annotations

import pytest

from gocker.hierarchy import read_host
from gocker.model import Hierarchy

pytestmark = pytest.mark.guest


def test_the_host_is_pure_v2() -> None:
    assert read_host().mode == "v2"


@pytest.mark.parametrize("controller", ["memory", "cpu", "cpuset", "pids", "io", "hugetlb"])
def test_a_controller_is_at_the_cgroup2_mount(controller: str) -> None:
    place = read_host().require(controller)
    assert (place.version, place.mountpoint, place.readonly) == (Hierarchy.V2, "/sys/fs/cgroup", False)


def test_gocker_is_in_the_cgroup_that_the_kernel_says() -> None:
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        own = file.read().strip().removeprefix("0::")
    assert read_host().require("memory").own == own
