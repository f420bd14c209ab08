"""What plug-ins are handed while a start is planned: each call is one step, in the right phase, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gocker.errors import PluginError, UsageError
from gocker.limits import LimitRequest
from gocker.model import Hierarchy
from gocker.plan import HOST, INIT, PARENT, PHASES, REMOVE
from gocker.recorder import GroupRecorder, KernelRecorder, Phases

V1, V2 = Hierarchy.V1, Hierarchy.V2


@pytest.fixture
def phases() -> Phases:
    return {phase: [] for phase in PHASES}


def group(
    phases: Phases, version: Hierarchy = V2, *requests: LimitRequest, name: str = "memory"
) -> GroupRecorder:
    return GroupRecorder(name, version, "/cg/gocker/id", "/cg", {one.label: one for one in requests}, phases)


def recorded(phases: Phases) -> dict[str, list[str]]:
    return {phase: [step.describe() for step in steps] for phase, steps in phases.items() if steps}


def test_it_says_which_version_it_is_for(phases: Phases) -> None:
    assert (group(phases, V1).hierarchy, group(phases, V2).hierarchy) == (V1, V2)


def test_a_limit_carries_what_was_asked_and_all_that_the_plug_in_said(phases: Phases) -> None:
    asked = LimitRequest(name="memory", key="", value="100m")
    group(phases, V2, asked).write(
        "memory.max",
        "104857600",
        limit="memory",
        accept=("max",),
        verify="memory.current",
        optional=True,
        remedy="less",
    )
    (step,) = phases[HOST]
    assert step.to_json() == {
        "op": "write-limit",
        "path": "/cg/gocker/id",
        "file": "memory.max",
        "value": "104857600",
        "limit": "memory",
        "asked": "100m",
        "accept": ["max"],
        "required": True,
        "remedy": "less",
        "verify": "memory.current",
        "optional": True,
    }


def test_what_nobody_asked_for_is_asked_as_it_is_written_and_must_bind(phases: Phases) -> None:
    group(phases).write("pids.max", "4096", limit="pids")
    step: Any = phases[HOST][0]
    assert (step.asked, step.required) == ("4096", True)
    assert (step.accept, step.verify, step.optional, step.remedy) == ((), "", False, "")


def test_best_effort_is_of_its_own_label_alone(phases: Phases) -> None:
    recorder = group(phases, V2, LimitRequest(name="memory", key="swap", value="1g", best_effort=True))
    recorder.write("memory.max", "1", limit="memory")
    recorder.write("memory.swap.max", "1", limit="memory.swap")
    steps: list[Any] = list(phases[HOST])
    assert [step.required for step in steps] == [True, False]


def test_a_line_of_a_table_is_a_step_of_its_own_kind(phases: Phases) -> None:
    group(phases).write("io.weight", "8:0 200", limit="x", row=True, fallback=(("io.bfq.weight", "8:0 2"),))
    step: Any = phases[HOST][0]
    assert (step.op, step.row, step.tentative) == ("write-entry", True, False)
    assert step.describe() == (
        "echo 8:0 200 > /cg/gocker/id/io.weight || echo 8:0 2 > /cg/gocker/id/io.bfq.weight"
    )


def test_a_write_that_may_be_refused_says_so(phases: Phases) -> None:
    group(phases).write("cpu.max.burst", "9", limit="x", tentative=True)
    assert recorded(phases) == {HOST: ["echo 9 > /cg/gocker/id/cpu.max.burst || :"]}


def test_a_fallback_outside_its_directory_is_refused(phases: Phases) -> None:
    with pytest.raises(PluginError, match="is not a file of the container's own cgroup"):
        group(phases).write("io.weight", "1", limit="x", fallback=(("../io.weight", "1"),))


def test_a_controller_is_handed_down_on_v2_alone(phases: Phases) -> None:
    asked = LimitRequest(name="unified", key="cpu.weight", value="5")
    group(phases, V1, asked).enable("cpu")
    assert recorded(phases) == {}
    group(phases, V2, asked).enable("cpu")
    group(phases, V2, asked.replace(best_effort=True)).enable("cpu")
    assert [step.op for step in phases[HOST]] == ["enable-controllers", "try-controllers"]


@pytest.mark.parametrize("best_effort", [False, True])
def test_devices_that_users_asked_for_must_hold_unless_best_effort(phases: Phases, best_effort: bool) -> None:
    asked = LimitRequest(name="devices", key="allow", value="c 1:3 r", best_effort=best_effort)
    group(phases, V1, asked).allow_devices(("c 1:3 r",), limits=("devices.allow",))
    step: Any = phases[HOST][0]
    assert (step.limits, step.required) == ((("devices.allow", "c 1:3 r"),), not best_effort)


@pytest.mark.parametrize("file", ["../memory.max", "a/b", "/etc/passwd", "..", ".hidden"])
def test_a_file_outside_its_directory_is_refused(phases: Phases, file: str) -> None:
    with pytest.raises(PluginError, match="is not a file of the container's own cgroup"):
        group(phases).write(file, "1", limit="memory")
    assert recorded(phases) == {}


def test_v1_moves_itself_by_a_file_that_was_opened_before(phases: Phases) -> None:
    group(phases, V1).attach()
    assert recorded(phases) == {
        HOST: ["exec {fd}> /cg/gocker/id/tasks"],
        INIT: ["echo 0 > /cg/gocker/id/tasks"],
    }


def test_v2_is_moved_from_outside(phases: Phases) -> None:
    group(phases, V2).attach()
    assert recorded(phases) == {PARENT: ["echo $PID > /cg/gocker/id/cgroup.procs"]}


@pytest.mark.parametrize("version", [V1, V2])
def test_two_controllers_of_one_directory_move_and_remove_once(phases: Phases, version: Hierarchy) -> None:
    for name in ("cpu", "cpuacct"):
        recorder = group(phases, version, name=name)
        recorder.attach()
        recorder.rmdir()
    assert {phase: len(steps) for phase, steps in phases.items()} == (
        {HOST: 1, PARENT: 0, INIT: 1, REMOVE: 1}
        if version is V1
        else {HOST: 0, PARENT: 1, INIT: 0, REMOVE: 1}
    )


def test_an_inherited_file_is_filled_before_the_start(phases: Phases) -> None:
    group(phases, V1).inherit("cpuset.cpus")
    assert recorded(phases) == {HOST: ["cat /cg/gocker/cpuset.cpus > /cg/gocker/id/cpuset.cpus"]}


def test_devices_are_filtered_before_the_start(phases: Phases) -> None:
    group(phases, V1).allow_devices(("c 1:3 rwm",))
    step: Any = phases[HOST][0]
    assert (step.op, step.path, step.version, step.rules) == (
        "filter-devices",
        "/cg/gocker/id",
        "v1",
        ("c 1:3 rwm",),
    )


def test_a_rule_that_is_none_is_refused_before_anything_is_made(phases: Phases) -> None:
    with pytest.raises(UsageError, match="not TYPE MAJOR:MINOR ACCESS"):
        group(phases, V2).allow_devices(("c 1:3 rwm", "c 1:3 all"))
    assert phases[HOST] == []


Call = Callable[[KernelRecorder], None]
INSIDE: dict[str, Call] = {
    "hostname web": lambda kernel: kernel.sethostname("web"),
    "domainname nis": lambda kernel: kernel.setdomainname("nis"),
    "ip link set lo up": lambda kernel: kernel.link_up("lo"),
    "sysctl -w net.x=1": lambda kernel: kernel.sysctl("net.x", "1"),
}


@pytest.mark.parametrize("text", INSIDE)
def test_what_changes_a_namespace_is_recorded_for_the_inside(phases: Phases, text: str) -> None:
    INSIDE[text](KernelRecorder(INIT, phases))
    assert recorded(phases) == {INIT: [text]}


@pytest.mark.parametrize("phase", [HOST, PARENT, REMOVE])
@pytest.mark.parametrize("text", INSIDE)
def test_on_the_host_side_it_would_change_the_host_and_is_refused(
    phases: Phases, text: str, phase: str
) -> None:
    with pytest.raises(PluginError, match="only `apply` acts inside the namespace"):
        INSIDE[text](KernelRecorder(phase, phases))
    assert recorded(phases) == {}


@pytest.mark.parametrize("phase", [HOST, PARENT, REMOVE])
def test_a_kernel_file_is_written_on_the_host_side(phases: Phases, phase: str) -> None:
    KernelRecorder(phase, phases).write_file("/proc/{pid}/uid_map", "0 1 1\n")
    assert recorded(phases) == {phase: ["printf '0 1 1\\n' > /proc/{pid}/uid_map"]}


def test_inside_no_path_of_the_plug_ins_is_written(phases: Phases) -> None:
    with pytest.raises(PluginError, match="inside the namespace only sysctl writes files"):
        KernelRecorder(INIT, phases).write_file("/proc/sys/kernel/x", "1")
