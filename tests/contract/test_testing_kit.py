"""The kit finds what it is there to find: each broken controller fails the test that names its fault."""
# ruff: noqa: RUF012 - the kit declares them ClassVar

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import ClassVar

import pytest

from gocker.api import Cgroup, CgroupController, CgroupReader, LimitHelp, Resources
from gocker.errors import LimitError
from gocker.limits import parse_count
from gocker.model import Hierarchy
from gocker.testing import ControllerContract, FakeCgroup, whole_pages

V1, V2 = Hierarchy.V1, Hierarchy.V2


class Sound(CgroupController):
    """A controller that keeps the contract; each fault below changes one thing."""

    api_version: ClassVar[tuple[int, int]] = (1, 0)
    name = "demo"
    kernel_names = {V1: "demo", V2: "demo"}
    limits = (
        LimitHelp(
            key="demo",
            example="demo=5",
            text="Text.",
            oci="x.demo.n",
            files={V1: "demo.limit", V2: "demo.max"},
        ),
    )

    def parse(self, fields: Mapping[str, str]) -> Resources:
        return {"x.demo.n": parse_count(fields[""], "demo", minimum=1, maximum=9)} if fields else {}

    def set(self, group: Cgroup, resources: Resources) -> None:
        if resources:
            file = "demo.limit" if group.hierarchy is V1 else "demo.max"
            group.write(file, str(resources["x.demo.n"]), limit="demo")

    def stats(self, group: CgroupReader) -> Mapping[str, int]:
        text = group.read("demo.peak") or ""
        return {"demo_peak": int(text)} if text.isdecimal() else {}


class TestSound(ControllerContract):
    controller = Sound
    good = {"": "5"}
    bad = ({"": "0"}, {"": "x"})
    files = {V1: {"demo.peak": "3"}, V2: {"demo.peak": "3"}}
    counters = {V1: {"demo_peak": 3}, V2: {"demo_peak": 3}}


class ParsesOutOfTune(Sound):
    def parse(self, fields: Mapping[str, str]) -> Resources:
        return {"x.demo.n": int(fields[""])} if fields else {}


class ReadsWhileParsing(Sound):
    def parse(self, fields: Mapping[str, str]) -> Resources:
        os.listdir("/")
        return super().parse(fields)


class DropsTheLimit(Sound):
    def set(self, group: Cgroup, resources: Resources) -> None:
        return


class WritesElsewhere(Sound):
    def set(self, group: Cgroup, resources: Resources) -> None:
        super().set(group, resources)
        group.write("demo.peak", "1", limit="demo")


class Counts(Sound):
    def __init__(self) -> None:
        self.times = 0

    def set(self, group: Cgroup, resources: Resources) -> None:
        self.times += 1
        super().set(group, {"x.demo.n": self.times})


class StaysBehind(Sound):
    def remove(self, group: Cgroup) -> None:
        return


class NeverJoins(Sound):
    def apply(self, group: Cgroup) -> None:
        return


class TrustsTheFiles(Sound):
    def stats(self, group: CgroupReader) -> Mapping[str, int]:
        return {"demo_peak": int(group.read("demo.peak") or "x")}


class CountsInWords(Sound):
    def stats(self, group: CgroupReader) -> Mapping[str, int]:
        return {"demo_peak": "three"}  # type: ignore[dict-item]


class FromTheFuture(Sound):
    api_version = (99, 0)


class WithoutHelp(Sound):
    limits = (LimitHelp(key="demo", example="demo=5", text="", oci="x.demo.n", files={V1: "demo.limit"}),)


FAULTS = [
    (ParsesOutOfTune, "test_bad_values_are_limit_errors_that_name_the_limit"),
    (ParsesOutOfTune, "test_parse_raises_nothing_but_limit_error"),
    (ReadsWhileParsing, "test_parse_is_pure"),
    (DropsTheLimit, "test_each_limit_asked_for_is_written_and_binds"),
    (WritesElsewhere, "test_set_writes_only_files_that_the_help_names"),
    (WritesElsewhere, "test_set_without_resources_writes_no_limit"),
    (Counts, "test_set_twice_does_the_same_twice"),
    (StaysBehind, "test_remove_removes_and_can_be_repeated"),
    (NeverJoins, "test_apply_attaches_once_on_v1_and_leaves_v2_to_the_core"),
    (TrustsTheFiles, "test_stats_leave_out_what_the_kernel_does_not_have"),
    (TrustsTheFiles, "test_stats_survive_files_that_are_empty_or_strange"),
    (CountsInWords, "test_stats_are_whole_numbers"),
    (FromTheFuture, "test_declares_a_name_and_an_api_version_that_this_gocker_takes"),
    (WithoutHelp, "test_each_limit_has_complete_help"),
]


@pytest.mark.parametrize(
    ("broken", "test"), FAULTS, ids=[f"{cls.__name__}-{test[5:25]}" for cls, test in FAULTS]
)
def test_a_broken_controller_fails_the_test_that_names_its_fault(
    broken: type[CgroupController], test: str, tmp_path: os.PathLike[str]
) -> None:
    contract: ControllerContract = TestSound()
    contract.controller = broken  # type: ignore[misc]
    arguments: dict[str, object] = {}
    method = getattr(contract, test)
    if "plugin" in method.__code__.co_varnames[: method.__code__.co_argcount]:
        arguments["plugin"] = broken()
    if "group" in method.__code__.co_varnames[: method.__code__.co_argcount]:
        arguments["group"] = contract.make_group(f"{os.fspath(tmp_path)}/g", V1)
    with pytest.raises((AssertionError, ValueError, pytest.fail.Exception)):
        method(**arguments)


def test_the_fake_refuses_what_reads_back_differently(tmp_path: os.PathLike[str]) -> None:
    group = FakeCgroup(f"{os.fspath(tmp_path)}/g", V2, {"memory.max": "max"})
    with pytest.raises(LimitError, match="asked 4097, the kernel answers 4096"):
        group.write("memory.max", "4097", limit="memory")


def test_the_fake_takes_what_the_controller_accepts(tmp_path: os.PathLike[str]) -> None:
    group = FakeCgroup(f"{os.fspath(tmp_path)}/g", V2, {"x.max": ""}, {"x.max": whole_pages("max", 2 << 20)})
    group.write("x.max", "2097153", limit="x", accept=("2097152",))
    assert group.effective == {"x": "2097152"}
    assert group.read("x.max") == "2097152"


def test_the_fake_has_only_the_files_it_was_born_with(tmp_path: os.PathLike[str]) -> None:
    group = FakeCgroup(f"{os.fspath(tmp_path)}/g", V1, {})
    with pytest.raises(LimitError, match=r"this kernel has no memory\.memsw"):
        group.write("memory.memsw.limit_in_bytes", "1", limit="memory.swap")
    group.write("memory.memsw.limit_in_bytes", "1", limit="memory.swap", optional=True)
    assert not group.calls
    assert group.read("memory.memsw.limit_in_bytes") is None
