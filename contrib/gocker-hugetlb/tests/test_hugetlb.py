"""hugetlb keeps the contract, and says what the kernel says."""
# ruff: noqa: RUF012 - the kit declares them ClassVar

from __future__ import annotations

from pathlib import Path

import pytest
from gocker_hugetlb import SIZES, Hugetlb, label, page_sizes

from gocker.errors import LimitError
from gocker.model import Hierarchy
from gocker.testing import ControllerContract, FakeCgroup, whole_pages

V1, V2 = Hierarchy.V1, Hierarchy.V2
ROOMY = {size: str(4 * number + 5) for size, number in SIZES.items()}  # no whole number of pages
ANY = next(iter(SIZES))


class TestHugetlb(ControllerContract):
    controller = Hugetlb
    good = ROOMY
    bad = (
        {"": "64m"},
        {"3MB": "64m"},
        {"2mb": "64m"},
        *({size: text} for size in SIZES for text in ("-1", "max", "64q", "1k", "", "9999999999g")),
    )
    files = {
        V1: {f"hugetlb.{ANY}.failcnt": "3", f"hugetlb.{ANY}.max_usage_in_bytes": "4194304"},
        V2: {f"hugetlb.{ANY}.events": "max 3"},
    }
    counters = {
        V1: {f"hugetlb_{ANY}_limit_hits": 3, f"hugetlb_{ANY}_peak_bytes": 4194304},
        V2: {f"hugetlb_{ANY}_limit_hits": 3},
    }
    answers = {
        **{f"hugetlb.{key}.limit_in_bytes": whole_pages("", size) for key, size in SIZES.items()},
        **{f"hugetlb.{key}.max": whole_pages("max", size) for key, size in SIZES.items()},
    }

    oci = (
        (
            {"hugepageLimits": [{"pageSize": key, "limit": 4 * size} for key, size in SIZES.items()]},
            {key: str(4 * size) for key, size in SIZES.items()},
        ),
    )
    bad_oci = (
        {"hugepageLimits": [{"pageSize": "3MB", "limit": 1 << 30}]},
        {"hugepageLimits": [{"limit": 1 << 30}]},
        {"hugepageLimits": [{"pageSize": ANY, "limit": "1g"}]},
        {"hugepageLimits": [{"pageSize": ANY, "limit": 0}, {"pageSize": ANY, "limit": 1 << 30}]},
    )

    @pytest.mark.parametrize("text", ["0", "9223372036854775807"])
    def test_none_at_all_and_all_there_are_bind_too(self, group: FakeCgroup, text: str) -> None:
        plugin = self.controller()
        plugin.set(group, plugin.parse({ANY: text}))
        assert group.effective.keys() == {f"hugetlb.{ANY}"}

    def test_a_limit_is_shown_in_whole_pages(self, group: FakeCgroup) -> None:
        plugin = self.controller()
        plugin.set(group, plugin.parse(ROOMY))
        assert group.effective == {f"hugetlb.{key}": str(4 * size) for key, size in SIZES.items()}


@pytest.mark.parametrize(
    ("size", "text"),
    [(64 << 10, "64KB"), (1 << 20, "1MB"), (2 << 20, "2MB"), (512 << 20, "512MB"), (16 << 30, "16GB")],
)
def test_a_page_size_is_spelt_as_the_kernel_does(size: int, text: str) -> None:
    assert label(size) == text


def test_the_sizes_are_those_of_this_kernel(tmp_path: Path) -> None:
    for name in ("hugepages-1048576kB", "hugepages-64kB", "hugepages-2048kB", "README"):
        (tmp_path / name).mkdir()
    assert page_sizes(str(tmp_path)) == (64 << 10, 2 << 20, 1 << 30)


def test_where_sysfs_is_missing_the_common_sizes_are_assumed(tmp_path: Path) -> None:
    assert page_sizes(str(tmp_path / "none")) == page_sizes(str(tmp_path)) == (2 << 20, 1 << 30)


def test_an_unknown_size_names_those_that_there_are() -> None:
    with pytest.raises(LimitError, match=rf"no huge pages of 3MB .*hugetlb\.{ANY}=64m"):
        Hugetlb().parse({"3MB": "64m"})


def test_less_than_a_page_is_refused_rather_than_rounded_to_none() -> None:
    with pytest.raises(LimitError, match=f"less than one page of {ANY}"):
        Hugetlb().parse({ANY: "4k"})
