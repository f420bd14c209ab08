"""A fault at every step: it fails, gocker is killed at it, or the container's first process is.

After a failure at once, after a kill at the next call of gocker, nothing of the container is left, and the
audit log tells its whole story, once.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from command import SLOWNESS
from faults import Drivers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 if SLOWNESS == 1 else 900)]

Job = dict[str, Any]
Result = dict[str, Any]

VERIFY: tuple[list[str], list[Job]] = (["audit", "verify"], [])
SPECS = {
    "limits": ["--limit", "memory=100m", "--limit", "cpuset=0", "-v", "{scratch}:/mnt"],
    "init": ["--init", "--sysctl", "net.ipv4.ip_forward=1", "--network", "none"],
    "terminal": ["-t", "-u", "1000", "--read-only", "--tmpfs", "/tmp", "--ulimit", "nofile=100"],
    "user": ["--userns", "private", "--oom-score-adj", "500", "--cgroup-parent", "/{parent}"],
    "time": ["--timens", "private", "--boottime", "1000", "--security-opt", "seccomp=unconfined"],
    "joined": ["--uts", "ns:{uts}", "--ipc", "ns:{ipc}", "--network", "ns:{net}", "--pid", "ns:{pid}"],
}
JOINABLE = ("uts", "ipc", "net", "pid")


@pytest.fixture(scope="session")
def namespaces() -> Iterator[dict[str, str]]:
    """Of a process that lives as long as the tests, by the names in JOINABLE."""
    command = ["unshare", "--uts", "--ipc", "--net", "--pid", "--fork", "sh", "-c", "echo; exec sleep inf"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        with open(f"/proc/{holder.pid}/task/{holder.pid}/children") as file:
            inner = int(file.read())
        yield {kind: f"/proc/{inner}/ns/{kind}" for kind in JOINABLE}
        os.kill(inner, 9)


BY_PYTHON = "limits by python"
"""One of them with the Python executor; the others have the native one, where it is built."""


@pytest.fixture(params=[*SPECS, BY_PYTHON])
def base_job(request: pytest.FixtureRequest, rootfs: str, namespaces: dict[str, str]) -> Job:
    """A run that ends at once, of each spec."""
    options = [
        option.format(scratch="{scratch}", parent="{parent}", **namespaces) if "{" in option else option
        for option in SPECS[request.param.partition(" ")[0]]
    ]
    job: Job = {"args": ["run", "--rootfs", rootfs, *options, "true"]}
    return {**job, "executor": "python"} if request.param == BY_PYTHON else job


@pytest.fixture
def limits_job(rootfs: str) -> Job:
    return {"args": ["run", "--rootfs", rootfs, *SPECS["limits"], "true"]}


def with_fault(job: Job, point: str, when: str, act: str, index: int = 0, **more: Any) -> Job:
    return {**job, "faults": [{"point": point, "index": index, "when": when, "act": act}], **more}


def plan_of(drivers: Drivers, job: Job) -> Result:
    """An unbroken run, which ends well, and its plan."""
    result = drivers.run({**job, "next": [VERIFY]})
    assert result["status"] == 0, result["err"]
    assert (result["err"], result["left"], result["chain"]) == ("", [], "")
    assert [following["err"] for following in result["next"]] == [""]
    assert complaints_about_events(result, "ok") == []
    return result


def complaints_about_events(result: Result, *verdicts: str, failed: int = 0) -> list[str]:
    """What is wrong with the record of a container that ended with one of `verdicts`."""
    counts = Counter(event["event"] for event in result["events"])
    wanted = {"container.create": 1, "container.exit": 1, "container.remove": 1, "step.failed": failed}
    wrong = [f"{counts[name]} x {name}" for name, count in wanted.items() if counts[name] != count]
    wrong += ["undo.failed"] if counts["undo.failed"] else []
    names = [event["event"] for event in result["events"] if event["event"] in wanted]
    wrong += [] if names == sorted(names, key=list(wanted_order).index) else [f"order {names}"]
    paths = [event["path"] for event in result["events"] if event["event"] == "controller.remove"]
    wrong += [f"{path} was removed twice" for path, times in Counter(paths).items() if times > 1]
    kinds = [
        event["report"]["verdict"]["kind"] for event in result["events"] if event["event"] == "container.exit"
    ]
    wrong += [f"verdict {kind}" for kind in kinds if kind not in verdicts]
    strangers = {event["container"] for event in result["events"]} - {result["id"], ""}
    wrong += [f"events of {stranger}" for stranger in strangers]
    return wrong


wanted_order = ("container.create", "step.failed", "container.exit", "container.remove")


def complaints(result: Result, *verdicts: str, status: int, failed: int = 0) -> list[str]:
    """What is wrong with the end of a container: traces of it, the audit log, the exit status."""
    wrong = [
        *result["left"],
        *result["survivors"],
        *complaints_about_events(result, *verdicts, failed=failed),
    ]
    wrong += [result["chain"]] if result["chain"] else []
    if result["status"] != status:
        wrong.append(f"status {result['status']}: {result['err']}")
    return wrong


def complaints_after_failure(
    result: Result, number: int, reason: str, status: int = 125, verdict: str = "setup-failed"
) -> list[str]:
    """`reason` is the end of the line that is shown."""
    wrong = complaints(result, verdict, status=status, failed=1)
    head = f"gocker: step {number}/{result['total']} " if status == 125 else "gocker: exec "
    lines = result["err"].splitlines()
    if len(lines) != 1 or not lines[0].startswith(head) or not lines[0].endswith(reason):
        wrong.append(f"said: {result['err']}")
    return wrong


def complaints_after_kill(result: Result, *verdicts: str, failed: int = 0) -> list[str]:
    wrong = complaints(result, *verdicts, status=137, failed=failed)
    last = result["next"][-1]
    said = f"gocker: warning: container {result['id']} of a killed gocker was removed\n"
    if (last["status"], last["err"]) != (0, said):
        wrong.append(f"next said: {last}")
    return wrong


def warnings(result: Result) -> list[str]:
    return [line for one in result["next"] for line in one["err"].splitlines() if "warning" in line]


def complaints_after_nothing(result: Result) -> list[str]:
    """Killed before there was anything."""
    return [*result["left"], *map(str, result["events"]), *warnings(result)]


def sweep(drivers: Drivers, jobs: dict[str, Job], judge: Callable[[str, Result], list[str]]) -> None:
    """Run the jobs; fail with all that is wrong with any of them."""
    assert jobs
    results = zip(jobs, drivers.run_all(jobs.values()), strict=True)
    wrong = {name: found for name, result in results if (found := judge(name, result))}
    assert not wrong, "\n".join(f"{name}: {found}" for name, found in wrong.items())


@pytest.mark.guest
@pytest.mark.parametrize("act", ["fail", "kill", "kill-child"])
def test_a_fault_at_any_step_leaves_nothing_on_either_cgroup_version(
    drivers: Drivers, limits_job: Job, act: str
) -> None:
    """The whole in short, for the guest."""
    plan = plan_of(drivers, limits_job)
    first = 1 + (len(plan["ops"]["host"]) + len(plan["ops"]["parent"]) if act == "kill-child" else 0)
    jobs = {
        f"{number}": with_fault(limits_job, "step", "before", act, number, next=[VERIFY])
        for number in range(first, plan["total"])
    }
    ends = {"fail": "EDOM: Numerical argument out of domain", "kill-child": "was ended by SIGKILL"}

    def judge(number: str, result: Result) -> list[str]:
        if act == "kill":
            return complaints_after_kill(result, "setup-failed")
        return complaints_after_failure(result, int(number), ends[act])

    sweep(drivers, jobs, judge)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_step_that_fails_leaves_nothing(drivers: Drivers, base_job: Job, when: str) -> None:
    plan = plan_of(drivers, base_job)
    acts = (("fail", "EDOM: Numerical argument out of domain"), ("fail-on-purpose", "(none)"))
    last = plan["total"] if when == "before" else plan["total"] - 1  # nothing comes after the exec
    jobs = {
        f"{number}": with_fault(base_job, "step", when, acts[number % 2][0], number)
        for number in range(1, last + 1)
    }
    sweep(
        drivers,
        jobs,
        lambda number, result: complaints_after_failure(result, int(number), acts[int(number) % 2][1]),
    )


def test_an_exec_that_fails_leaves_nothing(drivers: Drivers, base_job: Job) -> None:
    number = plan_of(drivers, base_job)["total"]
    result = drivers.run(with_fault(base_job, "step", "before", "fail-exec", number))
    wrong = complaints_after_failure(result, number, "EACCES: as the test wants it", 126, "exec-failed")
    assert wrong == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_gocker_killed_at_a_step_leaves_nothing_after_the_next_call(
    drivers: Drivers, base_job: Job, when: str
) -> None:
    """Before its effect with the next call at once; after it with a look whether all dies by itself."""
    plan = plan_of(drivers, base_job)
    last = plan["total"] if when == "before" else plan["total"] - 1
    ops = [op for phase in ("host", "parent", "init") for op in plan["ops"][phase]]
    jobs = {
        # A process with new ids must not be held up: it is on its way to say again that it dies with gocker.
        f"{number}": with_fault(
            base_job,
            "step",
            when,
            "kill-and-go-on"
            if when == "after" and ops[number - 1] in {"become-root", "set-user"}
            else "kill",
            number,
            next=[VERIFY],
            settle=when == "after",
        )
        for number in range(1, last + 1)
    }

    def judge(number: str, result: Result) -> list[str]:
        if int(number) == plan["total"]:  # nobody can tell whether the exec came next
            return complaints_after_kill(result, "unknown")
        goes_on = jobs[number]["faults"][0]["act"] == "kill-and-go-on"
        # One that goes on may be the program, and have ended, before the kill comes.
        return complaints_after_kill(result, "setup-failed", *(["unknown", "ok"] if goes_on else []))

    sweep(drivers, jobs, judge)


def test_a_first_process_goes_no_further_than_its_last_step_without_gocker(
    drivers: Drivers, base_job: Job
) -> None:
    """Not held up at the step by the test; the next call comes at once."""
    plan = plan_of(drivers, base_job)
    first = len(plan["ops"]["host"]) + len(plan["ops"]["parent"]) + 1
    jobs = {
        f"{number}": with_fault(base_job, "step", "before", "kill-and-go-on", number, next=[VERIFY])
        for number in range(first, plan["total"])
    }

    def judge(_: str, result: Result) -> list[str]:
        if result["status"] == 0:  # it was faster than its killer
            return complaints(result, "ok", status=0)
        return complaints_after_kill(result, "setup-failed", "unknown", "ok")

    sweep(drivers, jobs, judge)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_first_process_killed_at_a_step_leaves_nothing(drivers: Drivers, base_job: Job, when: str) -> None:
    plan = plan_of(drivers, base_job)
    first = len(plan["ops"]["host"]) + len(plan["ops"]["parent"]) + 1
    jobs = {
        f"{number}": with_fault(base_job, "step", when, "kill-child", number)
        for number in range(first, plan["total"])
    }
    sweep(
        drivers,
        jobs,
        lambda number, result: complaints_after_failure(
            result, int(number), "the first process was ended by SIGKILL"
        ),
    )


def test_a_first_process_killed_as_it_execs_counts_as_a_program_that_was_killed(
    drivers: Drivers, base_job: Job
) -> None:
    number = plan_of(drivers, base_job)["total"]
    result = drivers.run(with_fault(base_job, "step", "before", "kill-child", number))
    assert complaints(result, "signal", status=137) == []


def test_gocker_killed_between_the_steps_leaves_nothing_after_the_next_call(
    drivers: Drivers, base_job: Job
) -> None:
    plan = plan_of(drivers, base_job)
    removals = [("remove", number) for number in range(1, len(plan["ops"]["remove"]) + 1)]
    undone = [("undo", number) for number in plan["undoable"]]
    places = [("create", 0), ("await", 0), ("end", 0), ("release", 0)]
    places += [("audit", number) for number in (1, 2, 3)]  # while init is at work, of the program, of its end
    jobs = {
        f"{point} {index} {when}": with_fault(base_job, point, when, "kill", index, next=[VERIFY])
        for point, index in [*places, *removals, *undone]
        for when in ("before", "after")
    }

    def judge(name: str, result: Result) -> list[str]:
        if name == "create 0 before":
            return complaints_after_nothing(result)
        if name == "release 0 after":
            return complaints(result, "ok", status=137) + warnings(result)
        if name == "create 0 after":
            return complaints_after_kill(result, "setup-failed")
        if name == "await 0 before" or name.startswith("audit 1"):
            return complaints_after_kill(result, "setup-failed", "unknown")
        early = name.startswith(("await", "audit 2", "end"))  # no report was made yet
        return complaints_after_kill(result, "unknown" if early else "ok")

    sweep(drivers, jobs, judge)


@pytest.mark.parametrize("settle", [False, True], ids=["at once", "later"])
def test_gocker_killed_while_the_program_runs_takes_it_along(
    drivers: Drivers, base_job: Job, settle: bool
) -> None:
    job = {**base_job, "args": [*base_job["args"][:-1], "sleep", "100"]}
    result = drivers.run(with_fault(job, "attend", "before", "kill", next=[VERIFY], settle=settle))
    assert complaints_after_kill(result, "unknown") == []


def test_gocker_killed_as_it_rolls_back_leaves_nothing_after_the_next_call(
    drivers: Drivers, limits_job: Job
) -> None:
    plan = plan_of(drivers, limits_job)
    fail = {"point": "step", "index": plan["total"] - 1, "when": "after", "act": "fail"}
    jobs = {
        f"{point} {index} {when}": {
            **limits_job,
            "faults": [fail, {"point": point, "index": index, "when": when, "act": "kill"}],
            "next": [VERIFY],
        }
        for point, indices in (
            ("undo", plan["undoable"]),
            ("remove", range(1, len(plan["ops"]["remove"]) + 1)),
        )
        for index in indices
        for when in ("before", "after")
    }
    sweep(drivers, jobs, lambda _, result: complaints_after_kill(result, "setup-failed", failed=1))


@pytest.mark.parametrize("spec", ["time", "joined"])
def test_a_killed_helper_of_the_clone_leaves_nothing(
    drivers: Drivers, rootfs: str, namespaces: dict[str, str], spec: str
) -> None:
    """The process that joins namespaces before it makes the first one, of the Python executor."""
    options = [option.format(**namespaces) for option in SPECS[spec]]
    job = {"args": ["run", "--rootfs", rootfs, *options, "true"], "executor": "python"}
    number = plan_of(drivers, job)["ops"]["host"]
    first = "setns" if spec == "joined" else "unshare"
    jobs = {
        f"{point} {index} {when} {act}": with_fault(job, point, when, act, index, next=[VERIFY])
        for point, index in ((first, 1), ("clone", 2))
        for when in ("before", "after")
        for act in ("kill-helper", "kill")
    }

    def judge(name: str, result: Result) -> list[str]:
        if name.endswith("kill"):
            return complaints_after_kill(result, "setup-failed")
        return complaints_after_failure(result, len(number) + 1, "EIO: the helper that joins namespaces died")

    sweep(drivers, jobs, judge)


def test_gocker_killed_at_every_other_call_into_the_kernel_leaves_nothing_after_the_next_call(
    drivers: Drivers, limits_job: Job
) -> None:
    calls = drivers.run(with_fault(limits_job, "call", "before", "kill", 1_000_000))["calls"]
    assert calls > 200
    jobs = {
        f"{number}": with_fault(limits_job, "call", "before", "kill", number, next=[VERIFY])
        for number in range(1, calls + 1, 2)
    }

    def judge(_: str, result: Result) -> list[str]:
        if not result["events"]:  # killed before the plan was on disk
            return complaints_after_nothing(result)
        status = result["status"] and 137  # 0: it made a few calls less than the first one
        wrong = complaints(result, "setup-failed", "unknown", "ok", status=status)
        wrong += [f"next said: {one}" for one in result["next"] if one["status"]]
        return wrong

    sweep(drivers, jobs, judge)


def test_a_recovery_killed_at_any_call_into_the_kernel_is_completed_by_the_next(
    drivers: Drivers, limits_job: Job
) -> None:
    fault = with_fault(limits_job, "end", "before", "kill")

    def job(number: int) -> Job:
        recovery = {"point": "recovery-call", "index": number, "when": "before", "act": "kill"}
        return {**fault, "next": [(["audit", "verify"], [recovery]), VERIFY]}

    calls = drivers.run(job(1_000_000))["calls"]
    assert calls > 50
    jobs = {f"{number}": job(number) for number in range(1, calls + 1)}

    def judge(_: str, result: Result) -> list[str]:
        wrong = complaints(result, "unknown", status=137)
        killed, last = result["next"]
        wrong += [f"next said: {result['next']}"] if (killed["status"], last["status"]) != (137, 0) else []
        return wrong

    sweep(drivers, jobs, judge)


def test_gocker_killed_at_any_time_leaves_nothing_after_the_next_call(
    drivers: Drivers, limits_job: Job
) -> None:
    job = {**limits_job, "args": [*limits_job["args"][:-1], "sleep", "0.01"]}
    jobs = {f"{ms / 2} ms": {**job, "kill_after": ms / 2000, "next": [VERIFY]} for ms in range(10, 160)}

    def judge(_: str, result: Result) -> list[str]:
        if result["status"] == 0:
            return complaints(result, "ok", status=0)
        if not result["events"]:
            return complaints_after_nothing(result)
        return complaints(result, "setup-failed", "unknown", "ok", status=137)

    sweep(drivers, jobs, judge)
