"""Which cgroups a container is in, with what limits, on hosts of every kind; and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from planning import (
    DEMO,
    DIRECTORY,
    HYBRID,
    MEMORY_ON_V2,
    PRIVATE,
    SECCOMP,
    V1,
    V2,
    host,
    namespaces,
    place,
    plan,
    registry,
    spec,
)

from gocker.cgroupplan import CgroupPlan
from gocker.errors import HierarchyError, LimitError, PluginError
from gocker.hierarchy import Hierarchies
from gocker.kernel.caps import docker_capabilities
from gocker.model import Hierarchy, IdMap, plain_capabilities
from gocker.plan import Context, Step
from gocker.planner import Planned, build_plan
from gocker.plugin_index import Entry
from gocker.registry import CONTROLLERS
from gocker.steps.cgroup import (
    AttachCgroup,
    ClaimCgroup,
    EnableControllers,
    JoinCgroup,
    MakeCgroup,
    OpenCgroup,
    RemoveCgroup,
    TakeCgroup,
    TryControllers,
    WriteLimit,
)

NO_DEVICES = {"capabilities": plain_capabilities(docker_capabilities((), ("MKNOD",), privileged=False))}
BROKEN = Entry(CONTROLLERS, "broken", "planning:Nothing", "gocker-broken", "1.0")


def steps(planned: Planned, kind: type[Step]) -> list[Any]:
    return [step for _, _, step in planned.plan.numbered() if isinstance(step, kind)]


def limits(*texts: str, where: str = V2, **changes: Any) -> list[tuple[str, str, str, bool]]:
    """(file, value, asked, required) of each limit that is written."""
    written = steps(plan(spec(*texts, **changes), host(where)), WriteLimit)
    return [
        (f"{step.path.split('/')[4]}/{step.file}", step.value, step.asked, step.required) for step in written
    ]


def cgroups(where: Hierarchies, *texts: str, plugins: Any = None, **changes: Any) -> CgroupPlan:
    return plan(spec(*texts, **changes), where, plugins).cgroups


# --- which


def test_every_container_is_in_the_standing_controllers_and_no_others() -> None:
    names = [one.plugin.name for one in cgroups(host(V1)).joined]
    assert sorted(names) == ["blkio", "cpuacct", "devices", "memory", "pids"]


def test_a_limit_brings_its_controller_in() -> None:
    assert "cpuset" in [one.plugin.name for one in cgroups(host(V1), "cpuset=0").joined]


JOINS = ("cpu", "cpuset", "freezer", "nosuch")


def test_what_it_joins_it_is_in_without_a_limit() -> None:
    found = cgroups(host(HYBRID), joins=JOINS)
    names = [one.plugin.name for one in found.joined]
    assert {"cpu", "cpuset", "freezer"} <= set(names)
    assert "nosuch" not in names
    assert found.unbound == {}
    assert limits(where=HYBRID, joins=JOINS) == limits(where=HYBRID)


def test_what_it_joins_and_the_host_lacks_is_left_out_in_silence() -> None:
    where = Hierarchies((place("cgroup", Hierarchy.V2), place("cpu", Hierarchy.V2)))
    assert {one.plugin.name for one in cgroups(where, joins=JOINS).joined} == {
        "cpu",
        "cpuacct",
        "devices",
        "freezer",
    }


def test_on_v2_what_it_joins_is_handed_down_where_that_can_be_had_each_apart() -> None:
    planned = plan(spec("cpushare=512", joins=JOINS), host(V2))
    assert [step.controllers for step in steps(planned, TryControllers)] == [("cpuset",)]
    (firm,) = [step for step in steps(planned, EnableControllers) if step.op == EnableControllers.op]
    assert "cpuset" not in firm.controllers


def test_what_undoing_meets_first_is_v2_then_pids() -> None:
    order = [one.plugin.name for one in cgroups(host(HYBRID), "cpuset=0").joined]
    assert order[-1] == "pids"
    made = [step.path.split("/")[4] for step in steps(plan(spec(), host(HYBRID)), MakeCgroup)]
    assert made[-2:] == ["pids", "unified"]


def test_the_best_place_to_kill_from_is_v2_then_pids() -> None:
    assert cgroups(host(HYBRID)).kill[0] == ("/sys/fs/cgroup/unified/gocker/c0ffee", "v2")
    assert cgroups(host(V1)).kill[0] == ("/sys/fs/cgroup/pids/gocker/c0ffee", "v1")
    assert cgroups(host(V2)).kill == (("/sys/fs/cgroup/gocker/c0ffee", "v2"),)


def test_controllers_of_one_hierarchy_share_a_directory() -> None:
    planned = plan(spec("cpushare=512"), host(V1))
    path = "/sys/fs/cgroup/cpu,cpuacct/gocker/c0ffee"
    for kind in (MakeCgroup, OpenCgroup, JoinCgroup, RemoveCgroup):
        assert [step.path for step in steps(planned, kind)].count(path) == 1


def test_the_cgroups_of_what_outlives_its_gocker_say_whose_they_are() -> None:
    start = "/run/gocker/containers/c0ffee/start"
    for path, kind in (("", ClaimCgroup), ("/jobs/web", TakeCgroup)):
        container = spec(joins=JOINS, cgroup_path=path)
        planned = build_plan(container, registry(), host(HYBRID), DIRECTORY, SECCOMP, start)
        made = steps(planned, MakeCgroup)
        assert {(type(step), step.to_json().get("owner")) for step in made} == {(kind, start)}
    assert {type(step) for step in steps(plan(spec(), host(HYBRID)), MakeCgroup)} == {MakeCgroup}


def test_on_v2_there_is_one_directory_and_nobody_is_moved() -> None:
    planned = plan(spec("memory=100m", "cpuset=0"), host(V2))
    assert [step.path for step in steps(planned, MakeCgroup)] == ["/sys/fs/cgroup/gocker/c0ffee"]
    assert not [step for kind in (AttachCgroup, OpenCgroup, JoinCgroup) for step in steps(planned, kind)]
    assert len(steps(planned, RemoveCgroup)) == 1


def test_v2_hands_down_what_is_needed_and_no_more() -> None:
    (enable,) = steps(plan(spec("cpuset=0"), host(V2)), EnableControllers)
    assert enable.controllers == ("cpuset", "io", "memory", "pids")
    assert enable.base == "/sys/fs/cgroup"
    assert steps(plan(spec(), host(HYBRID)), EnableControllers) == []


def test_each_controller_is_bound_where_it_is_on_a_host_that_has_both() -> None:
    planned = plan(spec("memory=100m", "cpushare=512"), host(MEMORY_ON_V2))
    found = {step.limit: step.path for step in steps(planned, WriteLimit)}
    assert found["memory"] == "/sys/fs/cgroup/unified/gocker/c0ffee"
    assert found["cpushare"] == "/sys/fs/cgroup/cpu,cpuacct/gocker/c0ffee"


def test_a_read_only_v2_is_as_if_it_were_not_there() -> None:
    where = Hierarchies((place("memory", Hierarchy.V1), place("cgroup", Hierarchy.V2, readonly=True)))
    planned = plan(spec(**NO_DEVICES), where)
    assert planned.cgroups.born == ""
    assert [step.path for step in steps(planned, MakeCgroup)] == ["/cg/memory/gocker/c0ffee"]


# --- the paths


def test_a_path_is_below_the_mount_and_the_whole_of_the_cgroups_name() -> None:
    planned = plan(spec(cgroup_path="/jobs/7/web"), host(HYBRID))
    assert {step.path for step in steps(planned, MakeCgroup)} == {
        f"/sys/fs/cgroup/{name}/jobs/7/web"
        for name in ("blkio", "cpu,cpuacct", "devices", "memory", "pids", "unified")
    }


def test_a_path_that_leads_out_is_refused() -> None:
    with pytest.raises(HierarchyError, match=r"`\.\.` or NUL could lead out"):
        plan(spec(cgroup_path="/jobs/../.."), host(V2))


@pytest.mark.parametrize("there", [[], ["jobs"], ["jobs", "jobs/7"]])
def test_the_part_of_a_parent_that_is_there_stays_when_the_container_goes(
    tmp_path: Path, there: list[str]
) -> None:
    for name in there:
        os.mkdir(tmp_path / name)
    where = Hierarchies((place("cgroup", Hierarchy.V2, str(tmp_path)),))
    planned = plan(spec(cgroup_path="/jobs/7/gocker/c0ffee"), where)
    (make,) = steps(planned, MakeCgroup)
    (remove,) = steps(planned, RemoveCgroup)
    make.execute(Context(None))
    assert (tmp_path / "jobs/7/gocker/c0ffee").is_dir()
    remove.execute(Context(None))
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == there


def test_a_plan_does_not_depend_on_the_parents_that_are_there(tmp_path: Path) -> None:
    """Another run may make or remove one between the plan and its execution."""
    where = Hierarchies((place("cgroup", Hierarchy.V2, str(tmp_path)),))
    before = plan(spec(cgroup_path="/jobs/gocker/c0ffee"), where).plan.canonical
    os.mkdir(tmp_path / "jobs")
    assert plan(spec(cgroup_path="/jobs/gocker/c0ffee"), where).plan.canonical == before


# --- what it sees of them


def test_inside_pure_v2_is_the_whole_of_sys_fs_cgroup() -> None:
    assert cgroups(host(V2)).rows == (("", "cgroup2", (), "/sys/fs/cgroup/gocker/c0ffee"),)


def test_inside_v1_has_a_directory_for_each_hierarchy_by_the_name_of_its_mount() -> None:
    rows = {name: (options, path) for name, _, options, path in cgroups(host(V1)).rows}
    assert set(rows) == {"blkio", "cpu,cpuacct", "devices", "memory", "pids"}
    options, path = rows["cpu,cpuacct"]
    assert set(options) == {"cpu", "cpuacct"}
    assert path == "/sys/fs/cgroup/cpu,cpuacct/gocker/c0ffee"


def test_inside_a_hybrid_has_v2_beside() -> None:
    own = "/sys/fs/cgroup/unified/gocker/c0ffee"
    assert cgroups(host(HYBRID)).rows[-1] == ("unified", "cgroup2", (), own)


# --- limits


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (
            V1,
            [
                ("memory/memory.limit_in_bytes", "104857600"),
                ("memory/memory.memsw.limit_in_bytes", "104857600"),
            ],
        ),
        (V2, [("gocker/memory.max", "104857600"), ("gocker/memory.swap.max", "0")]),
        (MEMORY_ON_V2, [("unified/memory.max", "104857600"), ("unified/memory.swap.max", "0")]),
    ],
)
def test_100m_becomes_the_files_of_the_version(where: str, expected: list[tuple[str, str]]) -> None:
    found = limits("memory=100m", where=where)
    assert [(file, value) for file, value, _, _ in found if "memory." in file] == expected
    assert found[0][2] == "100m"


def test_a_default_holds_unless_something_else_was_asked() -> None:
    assert ("gocker/pids.max", "4096", "4096", True) in limits()
    assert ("gocker/pids.max", "7", "7", True) in limits("pids=7")


def test_a_question_mark_makes_it_best_effort() -> None:
    assert ("gocker/memory.max", "104857600", "100m", False) in limits("memory=100m?")


def test_one_limit_twice_with_one_value_is_one_limit() -> None:
    assert len(limits("memory=100m", "memory=100m")) == len(limits("memory=100m"))


def test_one_limit_twice_with_two_values_is_refused() -> None:
    with pytest.raises(LimitError, match=r"^set limit memory: asked twice, as 100m and as 200m \(ask once\)"):
        limits("memory=100m", "memory=200m")


def test_a_key_that_the_controller_does_not_have_is_refused() -> None:
    with pytest.raises(
        LimitError, match=r"^set limit memory\.speed=1: unknown; memory takes memory, memory\."
    ):
        limits("memory.speed=1")


def test_a_controller_that_takes_no_limits_says_so() -> None:
    with pytest.raises(LimitError, match=r"^set limit cpuacct=1: unknown; cpuacct takes no limit"):
        limits("cpuacct=1")


def test_a_value_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(LimitError, match=r"^set limit memory=100q: unknown unit 'q'"):
        limits("memory=100q")


# --- what is not there


def test_a_limit_without_a_plug_in_is_an_error_that_names_what_is_installed() -> None:
    with pytest.raises(
        PluginError, match=r"^find controller plug-in nosuch: not installed; installed: blkio,"
    ):
        limits("nosuch=1")


def test_a_best_effort_limit_without_a_plug_in_does_not_bind() -> None:
    found = cgroups(host(V2), "nosuch=1?", "nosuch.more=2?")
    why = "no controller plug-in nosuch is installed"
    assert found.unbound == {"nosuch": why, "nosuch.more": why}


def test_best_effort_on_one_key_does_not_excuse_the_other() -> None:
    with pytest.raises(PluginError, match="nosuch"):
        limits("nosuch=1?", "nosuch.more=2")


def test_a_limit_that_the_host_cannot_set_is_an_error_with_the_remedy() -> None:
    where = Hierarchies((place("cgroup", Hierarchy.V2),))
    with pytest.raises(
        HierarchyError, match=r"find cgroup controller memory: not in .*cgroup\.controllers .*hand it down"
    ):
        cgroups(where, "memory=100m")


def test_a_wrong_value_is_said_before_what_the_host_lacks() -> None:
    where = Hierarchies((place("cgroup", Hierarchy.V2),))
    with pytest.raises(LimitError, match="unknown unit"):
        cgroups(where, "memory=100q")


def test_a_best_effort_limit_that_the_host_cannot_set_does_not_bind() -> None:
    where = Hierarchies((place("cgroup", Hierarchy.V2),))
    assert cgroups(where, "cpushare=5?").unbound == {
        "cpushare": "this host has no cpu controller that can be written"
    }


def test_a_read_only_hierarchy_takes_no_limit() -> None:
    where = Hierarchies((place("memory", Hierarchy.V1, readonly=True), place("cgroup", Hierarchy.V2)))
    with pytest.raises(HierarchyError, match="use cgroup controller memory: /cg/memory is mounted read-only"):
        cgroups(where, "memory=100m")
    assert "memory" in cgroups(where, "memory=100m?").unbound


def test_a_standing_controller_that_the_host_lacks_is_left_out() -> None:
    where = Hierarchies((place("cgroup", Hierarchy.V2),))
    assert {one.plugin.name for one in cgroups(where).joined} == {"cpuacct", "devices"}


def test_a_plug_in_for_another_version_says_so() -> None:
    where = Hierarchies((place("misc", Hierarchy.V1), place("cgroup", Hierarchy.V2)))
    with pytest.raises(
        HierarchyError, match="demo does not support the cgroup version that carries misc here"
    ):
        cgroups(where, "demo=5", plugins=registry(DEMO))


# --- devices


def test_who_may_make_nodes_has_its_devices_filtered() -> None:
    where = Hierarchies((place("memory", Hierarchy.V1),))
    with pytest.raises(
        HierarchyError, match=r"^filter devices web: no devices hierarchy .*\(--cap-drop MKNOD"
    ):
        cgroups(where)


@pytest.mark.parametrize(
    "changes",
    [
        NO_DEVICES,
        {
            "namespaces": namespaces(*PRIVATE, "user"),
            "uid_map": (IdMap(inside=0, outside=100000, count=65536),),
            "gid_map": (IdMap(inside=0, outside=100000, count=65536),),
        },
        {"privileged": True},
    ],
    ids=["no mknod", "user namespace", "privileged"],
)
def test_who_cannot_or_may_have_all_devices_starts_without(changes: dict[str, Any]) -> None:
    where = Hierarchies((place("memory", Hierarchy.V1),))
    assert [one.plugin.name for one in cgroups(where, **changes).joined] == ["memory"]


def test_a_privileged_container_has_all_devices() -> None:
    assert "devices" not in [one.plugin.name for one in cgroups(host(V2), privileged=True).joined]


def test_the_filter_that_is_not_installed_stops_the_start() -> None:
    with pytest.raises(PluginError, match="find controller plug-in devices: not installed"):
        cgroups(host(V2), plugins=registry(without=["devices"]))


# --- strangers


def test_a_strangers_controller_binds_attaches_and_is_removed() -> None:
    planned = plan(spec("demo=5"), host(V2), registry(DEMO))
    found = [step.describe() for step in steps(planned, WriteLimit)]
    assert "echo 5 > /sys/fs/cgroup/gocker/c0ffee/misc.max" in found
    assert [step.controller for step in steps(planned, AttachCgroup)] == ["demo"]
    (enable,) = steps(planned, EnableControllers)
    assert "misc" in enable.controllers


def test_a_broken_one_harms_no_start_that_does_not_need_it() -> None:
    planned = plan(spec("memory=100m"), host(V2), registry(BROKEN))
    assert [info.name for info in planned.refused] == ["broken"]
    with pytest.raises(
        PluginError, match=r"^load controller plug-in broken of gocker-broken 1\.0: AttributeError"
    ):
        plan(spec("broken=1"), host(V2), registry(BROKEN))
