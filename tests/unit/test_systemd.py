"""The cgroup as a scope of systemd's: its name, its properties, its place in the plan, the talk on the bus."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from fakebus import FakeBus, fake_bus
from ocibundle import linux, read, refusal
from planning import HYBRID, V2, host, plan, spec

from gocker.errors import HierarchyError, UsageError
from gocker.kernel.process import has_ended
from gocker.oci.scope import scope_path
from gocker.ocicli.scoping import annotated, require_systemd, with_path, with_scope
from gocker.plan import Context, Plan, Step, plan_from_json
from gocker.steps.cgroup import MakeCgroup, RemoveCgroup, WriteLimit
from gocker.steps.launch import Clone
from gocker.steps.scope import INFINITY, Property, ReleaseScope, StartScope, StopScope, properties_of
from gocker.systemd import Systemd, UnitExistsError
from gocker.updating import Told

UNIT = "libpod-web.scope"
CGROUP = f"/machine.slice/{UNIT}"


@pytest.fixture
def bus() -> Iterator[FakeBus]:
    with tempfile.TemporaryDirectory(prefix="gb", dir="/tmp") as scratch, fake_bus(scratch) as bus:
        yield bus


# --- linux.cgroupsPath


@pytest.mark.parametrize(
    ("path", "whole"),
    [
        ("machine.slice:libpod:web", CGROUP),
        ("user-1000-app.slice:a:b", "/user.slice/user-1000.slice/user-1000-app.slice/a-b.scope"),
        (":gocker:c1", "/system.slice/gocker-c1.scope"),
        ("-.slice::c1", "/c1.scope"),
        ("system.slice::c_1.x", "/system.slice/c_1.x.scope"),
    ],
)
def test_a_path_names_a_scope_in_a_slice(path: str, whole: str) -> None:
    assert scope_path(path) == whole
    read_spec = read(linux(cgroupsPath=path), systemd_cgroup=True)
    assert (read_spec.cgroup_path, read_spec.scope) == (whole, True)
    assert read(linux(cgroupsPath=path), systemd_cgroup=None).scope


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("machine:a:b", "no name of a slice"),
        ("a--b.slice:a:b", "no name of a slice"),
        ("-a.slice:a:b", "no name of a slice"),
        (".slice:a:b", "no name of a slice"),
        ("..slice:a:b", "no name of a slice"),
        ("a b.slice:a:b", "no name of a slice"),
        ("system.slice:a:", "no name of a unit"),
        ("system.slice::.b", "no name of a unit"),
        ("system.slice:a:é", "no name of a unit"),
        (f"system.slice:a:{'b' * 250}", "no name of a unit"),
        ("system.slice:a:b.slice", "no suffix"),
        ("/a/b", "not slice:prefix:name"),
        ("a:b", "not slice:prefix:name"),
    ],
)
def test_other_paths_are_refused_where_systemd_makes_the_cgroup(path: str, reason: str) -> None:
    text = refusal(linux(cgroupsPath=path), systemd_cgroup=True)
    assert text.startswith("read config.json linux.cgroupsPath: ")
    assert reason in text


def test_a_path_for_systemd_is_refused_where_it_does_not_make_the_cgroup() -> None:
    text = refusal(linux(cgroupsPath="system.slice:gocker:c1"))
    assert "--cgroup-manager cgroupfs" in text
    assert not read(linux(cgroupsPath="/a:b:c"), systemd_cgroup=None).scope


def test_a_config_without_a_path_gets_one() -> None:
    assert with_path({}, "c1") == {"linux": {"cgroupsPath": "system.slice:gocker:c1"}}
    assert with_path({"linux": {"cgroupsPath": ""}}, "c1")["linux"]["cgroupsPath"] == "system.slice:gocker:c1"
    for other in ({"linux": {"cgroupsPath": "a:b:c"}}, {"linux": 7}):
        assert with_path(other, "c1") is other


# --- properties


def test_what_systemd_has_a_property_for_it_is_told() -> None:
    files = {
        "memory.max": "67108864",
        "memory.swap.max": "max",
        "memory.low": "4096",
        "pids.max": "20",
        "cpu.weight": "59",
        "cpu.max": "33333 77777",
        "cpuset.cpus": "0-1,9",
        "memory.oom.group": "1",
        "io.max": "8:0 rbps=1",
    }
    assert {name: value for name, _, value in properties_of(files.items())} == {
        "MemoryMax": 67108864,
        "MemorySwapMax": INFINITY,
        "MemoryLow": 4096,
        "TasksMax": 20,
        "CPUWeight": 59,
        "CPUQuotaPerSecUSec": 428572,
        "CPUQuotaPeriodUSec": 77777,
        "AllowedCPUs": (3, 2),
    }
    assert properties_of([("cpu.max", "max 100000")])[0] == ("CPUQuotaPerSecUSec", "t", INFINITY)
    assert properties_of([("memory.max", "1"), ("memory.max", "2")]) == (("MemoryMax", "t", 2),)
    assert properties_of([("cpuset.cpus", ""), ("cpu.max", "")]) == ()


@pytest.mark.parametrize(
    ("quota", "period"), [(1000, 100000), (33333, 77777), (1, 3), (999999, 1000000), (7, 11)]
)
def test_systemd_makes_the_same_quota_of_its_own_figure(quota: int, period: int) -> None:
    ((_, _, share), _) = properties_of([("cpu.max", f"{quota} {period}")])
    assert share * period // 1_000_000 == quota


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("TimeoutStopUSec", "uint64 5000000", ("TimeoutStopUSec", "t", 5000000)),
        ("TimeoutStopSec", "5", ("TimeoutStopUSec", "t", 5000000)),
        ("TimeoutStopSec", "0.5", ("TimeoutStopUSec", "t", 500000)),
        ("CollectMode", "'inactive'", ("CollectMode", "s", "inactive")),
        ("Description", r'"a \"b\", c"', ("Description", "s", 'a "b", c')),
        ("SendSIGHUP", "true", ("SendSIGHUP", "b", True)),
        ("After", "['a.service', \"b,c\"]", ("After", "as", ("a.service", "b,c"))),
        ("X", "[1, 2]", ("X", "ai", (1, 2))),
        ("X", "byte 0xff", ("X", "y", 255)),
        ("X", "int64 -1", ("X", "x", -1)),
        ("X", "double 2", ("X", "d", 2.0)),
    ],
)
def test_an_annotation_is_a_property(name: str, text: str, wanted: Property) -> None:
    assert annotated(name, text) == wanted


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Slice", "'a.slice'"),
        ("PIDs", "[uint32 1]"),
        ("Delegate", "false"),
        ("lower", "1"),
        ("A B", "1"),
        ("", "1"),
        *(
            ("X", text)
            for text in (
                *("", "x", "'a", "'a'b", "[", "[]", "[1, 'a']", "uint32 -1", "byte 256", "int32 2147483648"),
                *("uint64 1.5", "float 1", "nan", "-"),
            )
        ),
    ],
)
def test_an_annotation_that_is_none_is_refused(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=r"org\.systemd\.property\."):
        annotated(name, text)


# --- the plan


def scoped(*limits: str, annotations: tuple[tuple[str, str], ...] = ()) -> Plan:
    container = spec(*limits, cgroup_path=CGROUP, scope=True, joins=("cpu", "cpuset"))
    return with_scope(plan(container, host(V2)), annotations).plan


def test_the_scope_is_started_where_the_cgroup_was_to_be_made() -> None:
    planned = scoped(
        "memory=64m", "pids=20", annotations=(("org.systemd.property.CollectMode", "'inactive'"), ("a", "b"))
    )
    plain = plan(spec("memory=64m", "pids=20", cgroup_path=CGROUP, joins=("cpu", "cpuset")), host(V2)).plan
    assert len(planned.host) == len(plain.host)
    for step, other in zip(planned.host, plain.host, strict=True):
        if not isinstance(other, MakeCgroup):
            assert step == other
            continue
        assert isinstance(step, StartScope)
        assert (step.path, step.base, step.unit) == (other.path, other.base, UNIT)
        values = {name: value for name, _, value in step.properties}
        assert values["Slice"] == "machine.slice"
        assert (values["Delegate"], values["MemoryMax"], values["TasksMax"]) == (True, 64 << 20, 20)
        assert values["CollectMode"] == "inactive"
        assert step.describe().startswith(f"systemd-run --scope --unit={UNIT} ")
        assert "-p MemoryMax=67108864 " in step.describe()
    clone = next(index for index, step in enumerate(planned.parent) if isinstance(step, Clone))
    assert isinstance(planned.parent[clone + 1], ReleaseScope)
    (stop,) = [step for step in planned.remove if isinstance(step, StopScope)]
    (remove,) = [step for step in plain.remove if isinstance(step, RemoveCgroup)]
    assert (stop.path, stop.controller, stop.unit) == (remove.path, remove.controller, UNIT)


def test_systemds_own_limit_of_tasks_is_nobodys_wish() -> None:
    planned = with_scope(plan(spec(cgroup_path=CGROUP, scope=True, default_limits=False), host(V2)), ()).plan
    (start,) = [step for step in planned.host if isinstance(step, StartScope)]
    assert ("TasksMax", "t", INFINITY) in start.properties


def test_a_limit_of_one_process_is_written_when_the_one_that_kept_the_scope_has_gone() -> None:
    planned = scoped("pids=1")
    assert not [step for step in planned.host if isinstance(step, WriteLimit) and step.file == "pids.max"]
    (write,) = [step for step in planned.parent if isinstance(step, WriteLimit)]
    assert (write.file, write.value) == ("pids.max", "1")
    assert planned.parent.index(write) > planned.parent.index(ReleaseScope(unit=UNIT))


def test_a_plan_from_disk_knows_how_to_stop_the_scope() -> None:
    planned = scoped("memory=64m", "cpuset=0")
    again = plan_from_json(json.loads(planned.canonical))
    assert (again.host, again.remove) == (planned.host, planned.remove)


def test_a_root_slice_has_a_name() -> None:
    container = spec(cgroup_path="/web.scope", scope=True)
    (start,) = [
        step for step in with_scope(plan(container, host(V2)), ()).plan.host if isinstance(step, StartScope)
    ]
    assert ("Slice", "s", "-.slice") in start.properties


def test_a_host_without_systemd_is_said_to_have_none(tmp_path: Any) -> None:
    with pytest.raises(HierarchyError, match="systemd does not run this host"):
        require_systemd(f"{tmp_path}/none")


def test_a_host_with_cgroup_v1_is_said_to_have_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr("gocker.ocicli.scoping.read_host", lambda: host(HYBRID))
    with pytest.raises(HierarchyError, match="cgroup v2 alone, the mode of this one is hybrid"):
        require_systemd(str(tmp_path))
    monkeypatch.setattr("gocker.ocicli.scoping.read_host", lambda: host(V2))
    require_systemd(str(tmp_path))
    monkeypatch.setattr("gocker.ocicli.scoping.find_spec", lambda name: None)
    with pytest.raises(HierarchyError, match="jeepney"):
        require_systemd(str(tmp_path))


# --- the bus


def test_a_unit_is_started_with_its_properties(bus: FakeBus) -> None:
    for bus.early in (False, True):
        with Systemd() as systemd:
            systemd.start(
                UNIT, [("MemoryMax", "t", 5), ("AllowedCPUs", "ay", (3, 2)), ("PIDs", "au", (1, 2))]
            )
        assert bus.units == {UNIT: {"MemoryMax": 5, "AllowedCPUs": b"\3\2", "PIDs": [1, 2]}}
        with Systemd() as systemd:
            systemd.change(UNIT, [("MemoryMax", "t", 6)])
            assert bus.units[UNIT]["MemoryMax"] == 6
            systemd.stop(UNIT)
        assert bus.units == {}
    methods = ["StartTransientUnit", "SetUnitProperties", "StopUnit", "ResetFailedUnit"]
    assert bus.methods() == [*methods, *methods]


def test_one_that_has_failed_is_forgotten_and_one_that_is_active_is_in_the_way(bus: FakeBus) -> None:
    bus.failed.add(UNIT)
    with Systemd() as systemd:
        systemd.start(UNIT, [("PIDs", "au", ())])
        with pytest.raises(UnitExistsError, match="choose another id"):
            systemd.start(UNIT, [("PIDs", "au", ())])


def test_a_unit_that_is_not_there_is_stopped(bus: FakeBus) -> None:
    with Systemd() as systemd:
        systemd.stop(UNIT)
    assert bus.methods() == ["StopUnit", "ResetFailedUnit"]


@pytest.mark.parametrize(
    ("method", "verb"),
    [
        ("StartTransientUnit", "start"),
        ("StopUnit", "stop"),
        ("SetUnitProperties", "change"),
        ("Subscribe", "start"),
    ],
)
def test_what_systemd_refuses_is_said_in_its_words(bus: FakeBus, method: str, verb: str) -> None:
    bus.refusals[method] = "AccessDenied"
    arguments: tuple[Any, ...] = () if verb == "stop" else ([],)
    with Systemd() as systemd, pytest.raises(HierarchyError, match=f"AccessDenied: no {method}"):
        getattr(systemd, verb)(UNIT, *arguments)


def test_a_job_that_fails_is_an_error(bus: FakeBus) -> None:
    bus.result = "canceled"
    with Systemd() as systemd, pytest.raises(HierarchyError, match="ended as canceled"):
        systemd.start(UNIT, [("PIDs", "au", ())])


@pytest.mark.parametrize("method", ["Hello", "StartTransientUnit"])
def test_a_bus_that_goes_away_is_an_error(bus: FakeBus, method: str) -> None:
    bus.hangs_up = method
    with pytest.raises(HierarchyError, match="systemd"), Systemd() as systemd:
        systemd.start(UNIT, [])


def test_a_bus_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for address in (f"unix:path={tmp_path}/none", "tcp:host=localhost", "nonsense"):
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        with pytest.raises(HierarchyError, match="reach systemd"), Systemd():
            pass


# --- the steps


def start_scope(bus: FakeBus, **changes: Any) -> StartScope:
    values = {"path": f"{bus.cgroups}/{UNIT}", "base": bus.cgroups, "version": "v2", "unit": UNIT}
    return StartScope(**{**values, **changes})


def alive(pid: int) -> bool:
    pidfd = os.pidfd_open(pid)
    try:
        return not has_ended(pidfd)
    finally:
        os.close(pidfd)


def test_a_process_keeps_the_scope_until_the_first_one_is_in_it(bus: FakeBus) -> None:
    ctx = Context(None)
    start_scope(bus).execute(ctx)
    pid = ctx.holder
    assert bus.units[UNIT]["PIDs"] == [pid]
    assert alive(pid)
    assert os.listdir(f"/proc/{pid}/fd") == []
    ReleaseScope(unit=UNIT).execute(ctx)
    assert ctx.holder == 0
    assert not os.path.exists(f"/proc/{pid}")
    ReleaseScope(unit=UNIT).execute(ctx)


def test_undone_the_scope_is_stopped_and_the_process_gone(bus: FakeBus) -> None:
    ctx, step = Context(None), start_scope(bus)
    step.execute(ctx)
    pid = ctx.holder
    open(f"{step.path}/cgroup.procs", "w").close()  # the kernel does that
    step.undo(ctx)
    assert (bus.units, os.path.exists(step.path), os.path.exists(f"/proc/{pid}")) == ({}, False, False)
    asked = len(bus.calls)
    step.undo(ctx)
    assert len(bus.calls) == asked


def test_another_container_s_scope_is_left_alone(bus: FakeBus) -> None:
    ctx, step = Context(None), start_scope(bus)
    os.makedirs(step.path)
    stop = StopScope(path=step.path, base=step.base, controller="cgroup", version="v2", unit=UNIT)
    with pytest.raises(HierarchyError, match="another container has it"):
        step.execute(ctx)
    stop.execute(ctx)
    step.undo(ctx)
    assert os.path.exists(step.path)
    os.rmdir(step.path)
    bus.units[UNIT] = {}
    ctx = Context(None)
    with pytest.raises(UnitExistsError):
        step.execute(ctx)
    stop.execute(ctx)
    step.undo(ctx)
    assert (ctx.holder, list(bus.units)) == (0, [UNIT])


def test_without_a_bus_there_is_nothing_to_take_back(bus: FakeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
    ctx, step = Context(None), start_scope(bus)
    with pytest.raises(HierarchyError, match="reach systemd on the system bus: No such file or directory"):
        step.execute(ctx)
    StopScope(path=step.path, base=step.base, controller="cgroup", version="v2", unit=UNIT).execute(ctx)
    step.undo(ctx)
    assert ctx.holder == 0


def test_a_scope_elsewhere_is_an_error_and_stopped(bus: FakeBus) -> None:
    ctx = Context(None)
    step = start_scope(bus, path=f"{bus.cgroups}/other.slice/{UNIT}")
    with pytest.raises(HierarchyError, match="elsewhere"):
        step.execute(ctx)
    stop = StopScope(path=step.path, base=step.base, controller="cgroup", version="v2", unit=UNIT)
    os.unlink(f"{bus.cgroups}/{UNIT}/cgroup.procs")
    stop.execute(ctx)
    assert (ctx.holder, bus.units) == (0, {})


# --- update


def test_an_update_is_told_first_and_taken_back_when_it_fails(bus: FakeBus, tmp_path: Any) -> None:
    container = spec(cgroup_path=CGROUP, scope=True)
    (tmp_path / "memory.max").write_text("7\n")
    (tmp_path / "memory.oom.group").write_text("0\n")
    writes: list[Step] = [
        WriteLimit(path=str(tmp_path), file=file, value=value, limit="memory", asked=value)
        for file, value in (("memory.max", "5"), ("memory.oom.group", "1"))
    ]
    bus.units[UNIT] = {}
    told = Told(container, "web", [writes])
    told.change()
    assert bus.units[UNIT] == {"MemoryMax": 5}
    error = HierarchyError("update", "web")
    told.take_back(error)
    assert bus.units[UNIT] == {"MemoryMax": 7}
    bus.refusals["SetUnitProperties"] = "AccessDenied"
    told.take_back(error)
    assert "AccessDenied" in error.__notes__[0]


def test_an_update_of_a_cgroup_of_gockers_is_nothing_to_systemd(bus: FakeBus) -> None:
    told = Told(spec(), "web", [])
    told.change()
    told.take_back(HierarchyError("update", "web"))
    assert bus.calls == []
