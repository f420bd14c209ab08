"""A fault at every step of gocker-oci's create, start, exec and delete: it fails, gocker-oci is killed, or who is inside.

After a failure at once, after a kill at the next call for the same --root, nothing is left that the state does not
say is there, and the audit log tells of each container's creation, start, end and removal once.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command import SLOWNESS
from faults import OCI_DRIVE, Drivers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 if SLOWNESS == 1 else 900)]

Job = dict[str, Any]
Result = dict[str, Any]
Call = tuple[list[str], list[Job]]
Judge = Callable[[str, Result], list[str]]

EXEC_FAILED = 255  # an exit status of exec's own
CREATED, RUNNING, STOPPED = "created", "running", "stopped"
START: Call = (["start", "{id}"], [])
STATE: Call = (["state", "{id}"], [])
LIST: Call = (["list", "--quiet"], [])
DELETE: Call = (["delete", "--force", "{id}"], [])
VERIFY: Call = (["audit", "verify"], [])


@pytest.fixture(scope="session")
def oci_drivers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drivers]:
    drivers = Drivers(str(tmp_path_factory.mktemp("oci-drivers")), script=OCI_DRIVE)
    yield drivers
    drivers.close()


@pytest.fixture(scope="session")
def bundles(rootfs: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The directory of each bundle: `plain` has little, `full` much."""
    for name in ("proc", "dev", "sys", "tmp"):
        os.makedirs(f"{rootfs}/{name}", exist_ok=True)
    made = {}
    for name, config in (("plain", plain(rootfs)), ("full", full(rootfs))):
        made[name] = str(tmp_path_factory.mktemp(name))
        with open(f"{made[name]}/config.json", "w", encoding="utf-8") as file:
            json.dump(config, file)
    return made


def plain(rootfs: str) -> Job:
    kinds = ("mount", "pid", "ipc", "uts", "network", "cgroup")
    return {
        "ociVersion": "1.2.0",
        "root": {"path": rootfs, "readonly": True},
        "process": {"cwd": "/", "args": ["/bin/sleep", "60"], "env": ["PATH=/bin"]},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "resources": {"pids": {"limit": 50}, "memory": {"limit": 100 << 20}},
        },
    }


def full(rootfs: str) -> Job:
    config = plain(rootfs)
    ids = [{"containerID": 0, "hostID": 0, "size": 65536}]
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"] |= {
        "uidMappings": ids,
        "gidMappings": ids,
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
    }
    config["process"] |= {
        "terminal": True,
        "user": {"uid": 1000, "gid": 1000},
        "capabilities": {"bounding": ["CAP_KILL"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}],
        "oomScoreAdj": 100,
        "noNewPrivileges": True,
    }
    config["mounts"] += [
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts"},
    ]
    config["hostname"] = "box"
    config["hooks"] = {
        "createRuntime": [{"path": "/bin/true"}],
        "startContainer": [{"path": "/bin/true"}],
    }
    return config


def create(bundle: str, *faults: Job) -> Call:
    console = ["--console-socket", "{scratch}/console"] if os.path.basename(bundle).startswith("full") else []
    return (["create", "--bundle", bundle, "--pid-file", "{scratch}/pid", *console, "{id}"], list(faults))


def broken(call: Call, *faults: Job) -> Call:
    return (call[0], [*call[1], *faults])


def fault(point: str, act: str, index: int = 0, when: str = "before") -> Job:
    return {"point": point, "act": act, "index": index, "when": when}


def job(*calls: Call) -> Job:
    return {"calls": [*calls, VERIFY]}


def sweep(drivers: Drivers, jobs: dict[str, Job], judge: Judge, *, undone: bool = True) -> None:
    """Run the jobs; fail with all that is wrong with any of them. `undone` is False where an undo is to fail."""
    assert jobs
    results = zip(jobs, drivers.run_all(jobs.values()), strict=True)
    wrong = {
        name: found for name, result in results if (found := [*general(result, undone), *judge(name, result)])
    }
    assert not wrong, "\n".join(f"{name}: {found}" for name, found in wrong.items())


def general(result: Result, undone: bool = True) -> list[str]:
    """What is wrong whatever was broken: leftovers, hangs, tracebacks, the audit log."""
    wrong = list(result["left"]) + ([result["chain"]] if result["chain"] else [])
    for number, call in enumerate(result["calls"]):
        if call["status"] == 1000:
            wrong.append(f"call {number} hung")
        if "Traceback" in call["err"] or "internal error" in call["err"]:
            wrong.append(f"call {number}: {call['err']}")
    if result["calls"][-1]["status"] and result["events"]:
        wrong.append(f"audit verify: {result['calls'][-1]['err']}")
    counts = Counter(event["event"] for event in result["events"])
    for name in ("create", "exit", "remove"):
        if counts[f"container.{name}"] != min(1, len(result["events"])):
            wrong.append(f"{counts[f'container.{name}']} x container.{name}")
    wrong += [
        f"{counts[name]} x {name}" for name in ("container.created", "container.start") if counts[name] > 1
    ]
    paths = Counter(event["path"] for event in result["events"] if event["event"] == "controller.remove")
    wrong += [f"{path} was removed {times} times" for path, times in paths.items() if times > 1]
    wrong += ["undo.failed"] if counts["undo.failed"] and undone else []
    order = [event["event"] for event in result["events"] if event["event"] in ORDER]
    wrong += [] if order == sorted(order, key=ORDER.index) else [f"order {order}"]
    return wrong


ORDER = ["container.create", "container.created", "container.start", "container.exit", "container.remove"]


def status_in(call: Job) -> str:
    """What `state` said, "" for no such container."""
    return str(json.loads(call["out"])["status"]) if call["status"] == 0 else ""


def names(result: Result) -> set[str]:
    return {event["event"] for event in result["events"]}


def plan_of(drivers: Drivers, *calls: Call) -> Job:
    """The plan of the last of these calls that has one, all of which go well."""
    result = drivers.run(job(*calls, DELETE))
    assert [call["err"] for call in result["calls"]] == [""] * len(result["calls"])
    assert general(result) == []
    plan: Job = result["plan"]
    return plan


def parked(plan: Job) -> int:
    """The number of the step at which a container has been created."""
    number: int = plan["ops"].index("await-start") + 1
    return number


# --- create -------------------------------------------------------------------------------------------


@pytest.fixture(params=["plain", "full"])
def bundle(request: pytest.FixtureRequest, bundles: dict[str, str]) -> str:
    return bundles[request.param]


def test_a_step_of_create_that_fails_leaves_nothing(oci_drivers: Drivers, bundle: str) -> None:
    last = parked(plan_of(oci_drivers, create(bundle)))
    jobs = {
        f"{number} {when}": job(create(bundle, fault("step", "fail", number, when)), LIST)
        for when in ("before", "after")
        for number in some(range(1, last), bundle, when)
    }
    sweep(oci_drivers, jobs, lambda _, result: failed_for(result, "EDOM: Numerical argument out of domain"))


def some(numbers: range, bundle: str, when: str) -> range:
    """All before the steps of the full bundle; the rest, which is much the same, has every third."""
    return (
        numbers
        if when == "before" and os.path.basename(bundle).startswith("full")
        else numbers[:: 3 * numbers.step]
    )


def failed_for(result: Result, reason: str) -> list[str]:
    """What is wrong with a creation that failed, of which `list` knows nothing."""
    first, listed = result["calls"][:2]
    wrong = [f"listed {listed['out']}"] if listed["out"] else []
    if (
        first["status"] != 1
        or len(first["err"].splitlines()) != 1
        or not first["err"].endswith(f"{reason}\n")
    ):
        wrong.append(f"status {first['status']}: {first['err']}")
    return wrong


def test_a_first_process_killed_at_a_step_of_create_leaves_nothing(oci_drivers: Drivers, bundle: str) -> None:
    plan = plan_of(oci_drivers, create(bundle))
    jobs = {
        f"{number}": job(create(bundle, fault("step", "kill-child", number)), LIST)
        for number in some(range(plan["before"] + 1, parked(plan)), bundle, "before")
        if not plan["ops"][number - 1].startswith("run-host")
    }
    sweep(oci_drivers, jobs, lambda _, result: failed_for(result, "the first process was ended by SIGKILL"))


def test_gocker_oci_killed_in_create_leaves_nothing_or_a_created_container(
    oci_drivers: Drivers, bundle: str
) -> None:
    last = parked(plan_of(oci_drivers, create(bundle)))
    places = ("claim", "describe", "pid-file", "owe", "let-go", "last", "audit", "settle")
    faults = [(place, 0, when) for place in places for when in ("before", "after")]
    faults += [("step", number, "before") for number in some(range(1, last + 1), bundle, "before")]
    faults += [("step", number, "after") for number in some(range(1, last), bundle, "after")]
    jobs = {
        f"{point} {index} {when}": job(create(bundle, fault(point, "kill", index, when)), STATE, DELETE)
        for point, index, when in faults
    }

    def judge(name: str, result: Result) -> list[str]:
        whole = name.startswith(("last 0 after", "audit", "settle"))
        return created_or_nothing(result, *([CREATED] if whole else [""]))

    sweep(oci_drivers, jobs, judge)


def created_or_nothing(result: Result, *allowed: str) -> list[str]:
    first, state, deleted = result["calls"][:3]
    wrong = [] if first["status"] in {0, 137} else [f"status {first['status']}: {first['err']}"]
    status = status_in(state)
    wrong += [] if status in allowed else [f"state {status!r}: {state['err']}"]
    wrong += [] if deleted["status"] == 0 else [f"delete: {deleted['err']}"]
    if status and "container.created" not in names(result):
        wrong.append("no container.created")
    return wrong


def calls_in(drivers: Drivers, point: str, call: Call, *before: Call) -> int:
    """How many calls into the kernel gocker-oci makes for one of the command line."""
    result = drivers.run(job(*before, broken(call, fault(point, "kill", 1_000_000)), DELETE))
    count: int = result["calls"][len(before)]["calls"]
    assert count > 30
    return count


def test_gocker_oci_killed_between_the_kernel_calls_of_create(
    oci_drivers: Drivers, bundles: dict[str, str]
) -> None:
    call = create(bundles["plain"])
    calls = calls_in(oci_drivers, "create-call", call)
    jobs = {
        f"{number}": job(broken(call, fault("create-call", "kill", number)), STATE, DELETE)
        for number in stride(calls, 50)
    }
    sweep(oci_drivers, jobs, lambda _, result: created_or_nothing(result, "", CREATED))


def stride(calls: int, most: int) -> list[int]:
    """Some `most` numbers from 1 to `calls`, evenly spread, the last ones all."""
    step = max(1, -(-calls // most))
    return sorted({*range(1, calls, step), *range(max(1, calls - 10), calls + 1)})


# --- start --------------------------------------------------------------------------------------------


def test_a_step_of_start_that_fails_leaves_a_container_that_has_stopped(
    oci_drivers: Drivers, bundle: str
) -> None:
    plan = plan_of(oci_drivers, create(bundle))
    jobs = {
        f"{number} {act}": job(
            create(bundle, fault("step", act, number)),
            broken(START, fault("none", act)),
            STATE,
            START,
            DELETE,
        )
        for number in range(parked(plan) + 1, plan["total"] + 1)
        for act in ("fail", "kill-first")
        if act == "fail" or number < plan["total"] - 1  # who ends later may have been the program
    }

    def judge(_: str, result: Result) -> list[str]:
        _, started, state, again, deleted = result["calls"][:5]
        wrong = (
            []
            if (started["status"], again["status"], deleted["status"]) == (1, 1, 0)
            else [str(result["calls"])]
        )
        wrong += [] if status_in(state) == STOPPED else [f"state {state}"]
        wrong += [] if "stopped" in again["err"] else [again["err"]]
        return wrong + (["container.start"] if "container.start" in names(result) else [])

    sweep(oci_drivers, jobs, judge)


def test_gocker_oci_killed_in_start_leaves_a_container_that_can_be_started_or_runs_or_has_stopped(
    oci_drivers: Drivers, bundle: str
) -> None:
    plan = plan_of(oci_drivers, create(bundle), START)
    inside = range(parked(plan) + 1, plan["total"] + 1)
    jobs = {
        f"step {number}": job(
            create(bundle, fault("step", "kill", number)), broken(START, fault("none", "kill")), *AFTER_START
        )
        for number in inside
    }
    for place in ("owe", "connect", "adopt", "await", "audit", "settle"):
        for when in ("before", "after"):
            jobs[f"{place} {when}"] = job(
                create(bundle), broken(START, fault(place, "kill", 0, when)), *AFTER_START
            )
    sweep(oci_drivers, jobs, judge_start)


AFTER_START = (STATE, START, STATE, DELETE)


def judge_start(name: str, result: Result) -> list[str]:
    _, started, state, again, later, deleted = result["calls"][:6]
    wrong = [] if started["status"] in {0, 137} else [f"start: {started}"]
    wrong += [] if deleted["status"] == 0 else [f"delete: {deleted}"]
    before, after = status_in(state), status_in(later)
    if before not in {CREATED, RUNNING, STOPPED}:
        wrong.append(f"state {state}")
    # What has to come after it: the start of one that waits, no other.
    expected = {CREATED: (0, RUNNING), RUNNING: (1, RUNNING), STOPPED: (1, STOPPED)}[before]
    if (again["status"], after) != expected:
        wrong.append(f"{before}, then {again} and {after}")
    if (after == RUNNING) != ("container.start" in names(result)) and before != STOPPED:
        wrong.append(f"{after}, with {sorted(names(result))}")
    return wrong


def test_gocker_oci_killed_between_the_kernel_calls_of_start(
    oci_drivers: Drivers, bundles: dict[str, str]
) -> None:
    first = create(bundles["plain"])
    calls = calls_in(oci_drivers, "start-call", START, first)
    jobs = {
        f"{number}": job(first, broken(START, fault("start-call", "kill", number)), *AFTER_START)
        for number in stride(calls, 40)
    }
    sweep(oci_drivers, jobs, judge_start)


# --- exec ---------------------------------------------------------------------------------------------


PS: Call = (["ps", "--format", "json", "{id}"], [])
SETTLE: Call = (["settle", "1"], [])  # until the container's first process is alone
GONE: Call = (["settle", "0"], [])


def execute(bundle: str) -> Call:
    console = (
        ["--console-socket", "{scratch}/console", "--tty"]
        if os.path.basename(bundle).startswith("full")
        else []
    )
    return (["exec", "--detach", *console, "{id}", "true"], [])


def in_one_container(bundle: str, call: Call, faults: list[Job]) -> dict[str, Job]:
    """Jobs with some faults each, one broken exec after the other, and one that is whole at the end."""
    chunks = [faults[start : start + 8] for start in range(0, len(faults), 8)]
    return {
        f"{chunk[0]['index']} to {chunk[-1]['index']}": job(
            create(bundle),
            START,
            *(one for fault in chunk for one in (broken(call, fault), SETTLE, PS)),
            STATE,
            call,
            DELETE,
        )
        for chunk in chunks
    }


def judge_exec(result: Result, *statuses: int) -> list[str]:
    """After each broken exec nobody but the first process is left, and the container goes on."""
    pairs, (state, again, deleted) = result["calls"][2:-4], result["calls"][-4:-1]
    wrong = []
    for done, ps in zip(pairs[::2], pairs[1::2], strict=True):
        wrong += [] if done["status"] in statuses else [f"exec: {done}"]
        wrong += [] if ps["status"] == 0 and len(json.loads(ps["out"])) == 1 else [f"processes {ps}"]
    wrong += [] if status_in(state) == RUNNING else [f"state {state}"]
    return wrong + [f"then: {call}" for call in (again, deleted) if call["status"]]


@pytest.mark.parametrize("act", ["fail", "kill", "kill-child"])
def test_a_fault_at_a_step_of_exec_leaves_the_container_as_it_was(
    oci_drivers: Drivers, bundle: str, act: str
) -> None:
    call = execute(bundle)
    plan = plan_of(oci_drivers, create(bundle), START, call)
    first, last = (plan["before"] + 1, plan["total"] - 2) if act == "kill-child" else (1, plan["total"])
    numbers = some(range(first, last + 1), bundle, "before")
    jobs = in_one_container(bundle, call, [fault("step", act, number) for number in numbers])
    sweep(oci_drivers, jobs, lambda _, result: judge_exec(result, 137 if act == "kill" else EXEC_FAILED))


def test_a_first_process_killed_at_a_step_of_exec_takes_it_along(oci_drivers: Drivers, bundle: str) -> None:
    call = execute(bundle)
    plan = plan_of(oci_drivers, create(bundle), START, call)
    jobs = {
        f"{number}": job(
            create(bundle), START, broken(call, fault("step", "kill-first", number)), GONE, STATE, DELETE
        )
        for number in some(range(1, plan["total"] + 1), bundle, "after")
    }

    def judge(_: str, result: Result) -> list[str]:
        done, state, deleted = result["calls"][2:5]
        wrong = [] if done["status"] in {0, EXEC_FAILED} else [f"exec: {done}"]
        wrong += [] if (status_in(state), deleted["status"]) == (STOPPED, 0) else [f"{state} {deleted}"]
        return wrong

    sweep(oci_drivers, jobs, judge)


def test_gocker_oci_killed_between_the_kernel_calls_of_exec(
    oci_drivers: Drivers, bundles: dict[str, str]
) -> None:
    before, call = (create(bundles["plain"]), START), execute(bundles["plain"])
    calls = calls_in(oci_drivers, "exec-call", call, *before)
    jobs = in_one_container(
        bundles["plain"], call, [fault("exec-call", "kill", number) for number in stride(calls, 40)]
    )
    sweep(oci_drivers, jobs, lambda _, result: judge_exec(result, 0, 137))


# --- delete -------------------------------------------------------------------------------------------


def test_a_fault_in_delete_is_made_good_by_the_next_call(oci_drivers: Drivers, bundle: str) -> None:
    plan = plan_of(oci_drivers, create(bundle), START)
    points = [("undo", number) for number in plan["undoable"]]
    points += [("remove", number) for number in range(1, plan["removals"] + 1)]
    jobs = {}
    for when in ("before", "after"):
        for point, index in points[:: 1 if when == "before" else 3]:
            for act in ("fail", "kill"):
                jobs[f"{point} {index} {when} {act}"] = job(
                    create(bundle), START, broken(DELETE, fault(point, act, index, when)), LIST
                )
        for place in ("killing", "end", "owe", "audit", "release"):
            jobs[f"{place} 0 {when} kill"] = job(
                create(bundle), START, broken(DELETE, fault(place, "kill", 0, when)), LIST, DELETE
            )

    def judge(name: str, result: Result) -> list[str]:
        done, listed = result["calls"][2:4]
        wrong = [] if done["status"] == (137 if name.endswith("kill") else 1) else [f"delete: {done}"]
        # Not before it has said that it goes, which is the first that is done to it.
        return wrong + (["listed"] if listed["out"] and name != "end 0 before kill" else [])

    sweep(oci_drivers, jobs, judge, undone=False)


def test_gocker_oci_killed_between_the_kernel_calls_of_delete(
    oci_drivers: Drivers, bundles: dict[str, str]
) -> None:
    before = (create(bundles["plain"]), START)
    calls = calls_in(oci_drivers, "delete-call", DELETE, *before)
    jobs = {
        f"{number}": job(*before, broken(DELETE, fault("delete-call", "kill", number)), STATE, DELETE)
        for number in stride(calls, 50)
    }

    def judge(_: str, result: Result) -> list[str]:
        done, state, deleted = result["calls"][2:5]
        wrong = [] if done["status"] in {0, 137} and deleted["status"] == 0 else [f"{done} {deleted}"]
        return wrong + ([] if status_in(state) in {"", RUNNING} else [f"state {state}"])

    sweep(oci_drivers, jobs, judge)


# --- what follows a kill, and two at once -------------------------------------------------------------


@pytest.mark.parametrize("verb", ["create", "start", "delete"])
def test_a_recovery_that_is_killed_is_completed_by_the_next(
    oci_drivers: Drivers, bundles: dict[str, str], verb: str
) -> None:
    first = create(bundles["plain"])
    calls = {
        "create": (create(bundles["plain"], fault("last", "kill")),),
        "start": (first, broken(START, fault("audit", "kill"))),
        "delete": (first, START, broken(DELETE, fault("audit", "kill"))),
    }[verb]
    recovery = fault("recovery-call", "kill", 1_000_000)
    count = oci_drivers.run(job(*calls, broken(LIST, recovery), DELETE))["calls"][len(calls)]["calls"]
    assert count > 30
    jobs = {
        f"{number}": job(*calls, broken(LIST, fault("recovery-call", "kill", number)), LIST, DELETE)
        for number in stride(count, 12)
    }

    def judge(_: str, result: Result) -> list[str]:
        listed = result["calls"][len(calls) + 1]
        return [] if bool(listed["out"]) == (verb == "start") and listed["status"] == 0 else [str(listed)]

    sweep(oci_drivers, jobs, judge)


TIMES = 6


def test_of_two_that_create_one_container_one_does(oci_drivers: Drivers, bundles: dict[str, str]) -> None:
    both: Call = ([*create(bundles["plain"])[0], "and", *create(bundles["plain"])[0]], [])
    jobs = {f"{number}": job(both, STATE, DELETE) for number in range(TIMES)}

    def judge(_: str, result: Result) -> list[str]:
        wrong = one_of_two(result, 0, "in use", "another container has it")
        return wrong + ([] if status_in(result["calls"][2]) == CREATED else [str(result["calls"])])

    sweep(oci_drivers, jobs, judge)


def one_of_two(result: Result, at: int, *said: str) -> list[str]:
    """What is wrong unless one of two calls went well and the other one said one of these things."""
    both: list[Job] = result["calls"][at : at + 2]
    wrong = [f"took {call['seconds']} s" for call in both if call["seconds"] > 3 * SLOWNESS]
    good, bad = sorted(both, key=lambda call: int(call["status"]))
    if (good["status"], bad["status"]) != (0, 1) or not any(text in bad["err"] for text in said):
        wrong.append(f"{good} {bad}")
    return wrong


def test_of_two_that_start_one_container_one_does(oci_drivers: Drivers, bundles: dict[str, str]) -> None:
    both: Call = ([*START[0], "and", *START[0]], [])
    jobs = {f"{number}": job(create(bundles["plain"]), both, STATE, DELETE) for number in range(TIMES)}

    def judge(_: str, result: Result) -> list[str]:
        wrong = one_of_two(result, 1, "it is not created but running")
        return wrong + ([] if status_in(result["calls"][3]) == RUNNING else [str(result["calls"])])

    sweep(oci_drivers, jobs, judge)


def test_of_two_that_delete_one_container_one_does(oci_drivers: Drivers, bundles: dict[str, str]) -> None:
    plain = ["delete", "{id}"]
    jobs = {
        f"{number}": job(
            create(bundles["plain"]), (["kill", "{id}", "KILL"], []), GONE, ([*plain, "and", *plain], [])
        )
        for number in range(TIMES)
    }
    sweep(oci_drivers, jobs, lambda _, result: one_of_two(result, 2, "container does not exist"))
    forced: Call = ([*DELETE[0], "and", *DELETE[0]], [])
    jobs = {f"{number}": job(create(bundles["plain"]), forced) for number in range(TIMES)}
    sweep(
        oci_drivers,
        jobs,
        lambda _, result: [f"{call}" for call in result["calls"] if call["status"]],
    )


def test_one_that_is_killed_while_it_is_deleted_goes(oci_drivers: Drivers, bundles: dict[str, str]) -> None:
    both: Call = (["kill", "{id}", "KILL", "and", *DELETE[0]], [])
    jobs = {f"{number}": job(create(bundles["plain"]), START, both) for number in range(TIMES)}

    def judge(_: str, result: Result) -> list[str]:
        killed, deleted = result["calls"][2:4]
        wrong = [] if deleted["status"] == 0 else [f"delete: {deleted}"]
        known = ("container not running", "container does not exist")
        if killed["status"] and not any(text in killed["err"] for text in known):
            wrong.append(f"kill: {killed}")
        return wrong

    sweep(oci_drivers, jobs, judge)


def test_an_id_that_is_used_again_has_a_story_of_its_own(
    oci_drivers: Drivers, bundles: dict[str, str]
) -> None:
    first = (create(bundles["plain"]), START, DELETE)
    for killed in (
        create(bundles["plain"], fault("last", "kill")),
        create(bundles["plain"], fault("audit", "kill")),
    ):
        result = oci_drivers.run(job(*first, killed, LIST, DELETE))
        counts = Counter(event["event"] for event in result["events"])
        assert result["left"] == []
        assert {counts[f"container.{name}"] for name in ("create", "created", "exit", "remove")} == {2}, (
            counts
        )


def test_a_container_that_is_in_the_way_is_not_taken_along(
    oci_drivers: Drivers, bundles: dict[str, str]
) -> None:
    """Two roots may have containers of one name, and so of one cgroup: whoever comes later is refused at once."""
    verb, *rest = create(bundles["plain"])[0]
    other = ["--root", "{scratch}/other"]
    result = oci_drivers.run(
        job(create(bundles["plain"]), ([*other, verb, *rest], []), ([*other, *LIST[0]], []), STATE, DELETE)
    )
    _, refused, listed, state, _, _ = result["calls"]
    assert "another container has it" in refused["err"]
    assert (listed["out"], status_in(state), general(result)) == ("", CREATED, [])


@pytest.mark.parametrize(("place", "when"), [("end", "after"), ("killing", "after"), ("release", "after")])
def test_the_last_hooks_run_also_when_delete_is_killed(
    oci_drivers: Drivers, rootfs: str, tmp_path: Path, place: str, when: str
) -> None:
    config = plain(rootfs)
    config["hooks"] = {"poststop": [{"path": "/bin/sh", "args": ["sh", "-c", f"echo ran >> {tmp_path}/ran"]}]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    calls = (create(str(tmp_path)), START, broken(DELETE, fault(place, "kill", 0, when)))
    result = oci_drivers.run(job(*calls, LIST))
    assert general(result) == []
    assert (tmp_path / "ran").read_text() == "ran\n"
