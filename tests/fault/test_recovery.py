"""What the next gocker makes of a killed one's containers, and what it leaves alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import SLOWNESS, Gocker
from faults import Drivers

PATIENCE = 10.0 * SLOWNESS


class Own:
    """State and audit log of one test alone, and the command that uses them."""

    def __init__(self, gocker: Gocker, base: str) -> None:
        self.gocker = gocker
        self.state = f"{base}/state"
        self.log = f"{base}/audit.jsonl"
        self.env = {"GOCKER_STATE": self.state, "GOCKER_AUDIT_LOG": self.log}

    def call(self, *args: str) -> list[str]:
        """A command that goes well; what it says on stderr."""
        ran = self.gocker(*(args or ("plugins",)), env=self.env)
        assert ran.code == 0, ran.err
        return ran.err.splitlines()

    def start(self, *args: str) -> tuple[subprocess.Popen[bytes], str]:
        """`gocker run ARGS`, once its program has said `up`; the process, and the container's id."""
        before = set(self.containers())
        process = self.gocker.start("run", *args, env=self.env)
        assert process.stdout
        assert process.stdout.readline() == b"up\n", process.communicate()
        (container,) = set(self.containers()) - before
        eventually(lambda: "container.start" in self.events(container))
        return process, container

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.communicate()

    def containers(self) -> list[str]:
        path = f"{self.state}/containers"
        return os.listdir(path) if os.path.isdir(path) else []

    def lines(self, container: str) -> list[dict[str, Any]]:
        with open(self.log) as file:
            return [line for line in map(json.loads, file) if line["container"] == container]

    def events(self, container: str) -> Counter[str]:
        return (
            Counter(line["event"] for line in self.lines(container))
            if os.path.exists(self.log)
            else Counter()
        )


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def whole_story(events: Counter[str]) -> bool:
    return all(events[f"container.{name}"] == 1 for name in ("create", "exit", "remove"))


def processes_of(container: str) -> list[int]:
    """By their cgroups; without those that only wait for PID 1 to reap them."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cgroup") as file, open(f"/proc/{name}/stat") as stat:
                if container in file.read() and stat.read().rpartition(")")[2].split()[0] not in "ZX":
                    found.append(int(name))
        except OSError:
            continue
    return found


def removed(container: str) -> str:
    return f"gocker: warning: container {container} of a killed gocker was removed"


@pytest.fixture
def own(gocker: Gocker, tmp_path: Path) -> Own:
    return Own(gocker, str(tmp_path))


SLEEP = ("sh", "-c", "echo up; exec sleep 1000")


def test_of_many_gockers_that_find_a_container_one_removes_it(own: Own) -> None:
    process, container = own.start("base", *SLEEP)
    own.kill(process)
    calls = [own.gocker.start("audit", "verify", env=own.env) for _ in range(6)]
    said = [call.communicate()[1].decode().splitlines() for call in calls]
    assert [call.returncode for call in calls] == [0] * 6
    assert [line for lines in said for line in lines] == [removed(container)]
    assert whole_story(own.events(container))
    assert own.containers() == []


def test_a_living_container_is_not_touched(own: Own) -> None:
    living, one = own.start("base", "sh", "-c", "trap 'exit 7' TERM; echo up; sleep 1000 & wait")
    dead, other = own.start("base", *SLEEP)
    before = processes_of(one)
    own.kill(dead)
    assert own.call() == [removed(other)]
    assert own.call() == []
    assert processes_of(one) == before
    assert own.containers() == [one]
    living.send_signal(signal.SIGTERM)
    living.communicate()
    assert living.returncode == 7
    assert whole_story(own.events(one))
    assert whole_story(own.events(other))


def test_all_that_were_killed_are_removed_at_once(own: Own) -> None:
    started = [own.start("base", *SLEEP) for _ in range(3)]
    for process, _ in started:
        own.kill(process)
    assert sorted(own.call()) == sorted(removed(container) for _, container in started)


def test_commands_that_touch_nothing_leave_it_for_those_that_do(own: Own) -> None:
    process, container = own.start("base", *SLEEP)
    own.kill(process)
    for command in (("version",), ("plan", "base", "true"), ("run", "--dry-run", "base", "true")):
        assert own.call(*command) == []
        assert own.containers() == [container]
    assert own.call("run", "base", "true") == [removed(container)]


def test_the_name_of_a_killed_container_is_free_at_once(own: Own) -> None:
    process, container = own.start("--name", "web", "base", *SLEEP)
    own.kill(process)
    assert own.call("run", "--name", "web", "base", "true") == [removed(container)]


EMPTY = (
    b'{"version": 1, "container": "abc", "name": "n",'
    b' "phases": {"host": [], "parent": [], "init": [{}], "remove": []}}'
)


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (b"", "not a plan"),
        (b"\x80 no text", "not a plan"),
        (b"null", "not a plan"),
        (b"[" * 100_000, "not a plan"),
        (b'{"version": 1, "container": "abc", "name": "n"}', "not a plan"),
        (b'{"version": 2, "container": "abc", "name": "n", "phases": {}}', "version 2 is not 1"),
        (EMPTY.replace(b"abc", b"other"), "it is another container's"),
        (EMPTY.replace(b"[]", b'[{"op": "from-the-future"}]', 1), "no such step in this version of gocker"),
    ],
    ids=["empty", "binary", "null", "deep", "no phases", "version", "other", "unknown step"],
)
def test_a_plan_that_cannot_be_read_is_one_warning_with_a_remedy(own: Own, plan: bytes, reason: str) -> None:
    directory = Path(f"{own.state}/containers/abc")
    directory.mkdir(parents=True, mode=0o700)
    Path(f"{own.state}/names").mkdir(mode=0o700)
    (directory / "lock").touch()
    (directory / "plan.json").write_bytes(plan)
    (line,) = own.call()
    assert line.startswith("gocker: warning: container abc of a killed gocker is left for later: read ")
    assert reason in line
    assert f"rm -r {directory})" in line
    (again,) = own.call("run", "base", "true")
    assert again == line


def test_without_an_audit_log_all_is_ended_and_the_record_follows_later(own: Own) -> None:
    process, container = own.start("base", *SLEEP)
    own.kill(process)
    os.rename(own.log, f"{own.log}.away")
    os.mkdir(own.log)
    (line,) = own.call()
    assert line.startswith(f"gocker: warning: container {container} of a killed gocker is left for later: ")
    assert "audit log" in line
    assert processes_of(container) == []
    assert own.containers() == [container]
    os.rmdir(own.log)
    os.rename(f"{own.log}.away", own.log)
    assert own.call() == [removed(container)]
    assert whole_story(own.events(container))
    assert own.call("audit", "verify") == []


def test_events_in_a_log_that_was_rotated_away_are_not_written_again(own: Own) -> None:
    process, container = own.start("base", *SLEEP)
    own.kill(process)
    os.rename(own.log, f"{own.log}.1")
    assert own.call() == [removed(container)]
    assert next(line["event"] for line in own.lines(container)) == "container.exit"
    assert own.events(container)["container.create"] == 0
    ran = own.gocker("audit", "verify", f"{own.log}.1", own.log, env=own.env)
    assert (ran.code, ran.err) == (0, "")


def test_lines_of_others_in_the_audit_log_do_not_stop_a_recovery(own: Own) -> None:
    process, container = own.start("base", *SLEEP)
    own.kill(process)
    with open(own.log, "a") as file:
        file.write(f'{container}\n{{"container": "{container}", "seq": 1, "prev": ""}}\n[1]\n')
    assert own.call() == [removed(container)]


def test_a_set_user_id_program_that_outlives_gocker_is_ended_by_the_next(own: Own, rootfs: str) -> None:
    os.makedirs(f"{rootfs}/suid", exist_ok=True)
    program = shutil.copy("/bin/busybox", f"{rootfs}/suid/busybox")
    os.chmod(program, 0o4755)
    script = "echo up; exec /suid/busybox sleep 1000"
    options = ("--security-opt", "no-new-privileges=false", "-u", "1000", "--rootfs", rootfs)
    process, container = own.start(*options, "sh", "-c", script)
    eventually(lambda: any(b"suid" in cmdline(pid) for pid in processes_of(container)))
    own.kill(process)
    time.sleep(0.2)
    assert processes_of(container), "the kernel has not cleared its parent-death signal"
    assert own.call() == [removed(container)]
    assert processes_of(container) == []


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_processes_in_the_host_s_pid_namespace_are_ended_by_the_next(own: Own) -> None:
    script = "sleep 1000 & setsid sleep 1000 & echo up; exec sleep 1000"
    process, container = own.start("--pid", "host", "base", "sh", "-c", script)
    own.kill(process)
    time.sleep(0.2)
    assert processes_of(container), "nothing outlived its gocker"
    assert own.call() == [removed(container)]
    assert processes_of(container) == []


# --- the audit log fails while a container lives; in a driver, since no file system fails on command --


def test_a_container_that_cannot_be_put_on_record_is_ended(drivers: Drivers, rootfs: str) -> None:
    """And what could not be written the first time is written later."""
    job = {
        "args": ["run", "--rootfs", rootfs, "sleep", "1000"],
        "faults": [{"point": "audit", "index": 2, "when": "before", "act": "fail-audit"}],
    }
    result = drivers.run(job)
    assert (result["status"], result["left"]) == (125, [])
    assert result["err"] == "gocker: write audit log it: ENOSPC: as the test wants it\n"
    events = [event["event"] for event in result["events"]]
    assert [name for name in events if name.startswith("container.")] == [
        "container.create",
        "container.start",
        "container.exit",
        "container.remove",
    ]


def test_a_start_that_cannot_be_put_on_record_is_given_up(drivers: Drivers, rootfs: str) -> None:
    """While init is at work."""
    job = {
        "args": ["run", "--rootfs", rootfs, "sleep", "1000"],
        "faults": [{"point": "audit", "index": 1, "when": "before", "act": "fail-audit"}],
    }
    result = drivers.run(job)
    assert (result["status"], result["left"]) == (125, [])
    assert result["err"] == "gocker: write audit log it: ENOSPC: as the test wants it\n"
    events = [event["event"] for event in result["events"]]
    assert [name for name in events if name.startswith("container.")] == [
        "container.create",
        "container.exit",
        "container.remove",
    ]


def test_events_that_cannot_be_written_are_left_to_the_next_gocker(drivers: Drivers, rootfs: str) -> None:
    """With the real report, not with a guess."""
    job = {
        "args": ["run", "--rootfs", rootfs, "sh", "-c", "exit 3"],
        "faults": [{"point": "audit", "index": 0, "when": "before", "act": "fail-audit"}],
        "next": [(["audit", "verify"], [])],
    }
    result = drivers.run(job)
    assert (result["status"], result["left"], result["chain"]) == (125, [], "")
    assert result["err"].count("\n") == 1
    assert result["next"][0]["err"] == removed(result["id"]) + "\n"
    counts = Counter(event["event"] for event in result["events"])
    assert whole_story(counts)
    assert max(counts.values()) == counts["controller.remove"]
    (report,) = [event["report"] for event in result["events"] if event["event"] == "container.exit"]
    assert report["usage"]["wall_us"] > 0


def verdict_after_kill(
    drivers: Drivers, rootfs: str, script: str, point: str, index: int = 0
) -> dict[str, Any]:
    """What the next gocker says of the end of `script`, whose own was killed just before `point`."""
    job = {
        "args": ["run", "--rootfs", rootfs, "sh", "-c", script],
        "faults": [{"point": point, "index": index, "when": "before", "act": "kill"}],
        "next": [(["audit", "verify"], [])],
    }
    result = drivers.run(job)
    assert (result["status"], result["left"], result["chain"]) == (137, [], "")
    (report,) = [event["report"] for event in result["events"] if event["event"] == "container.exit"]
    return dict(report["verdict"])


@pytest.mark.parametrize(("point", "index"), [("remove", 1), ("undo", 1), ("audit", 3)])
def test_the_end_of_a_program_outlives_the_gocker_that_saw_it(
    drivers: Drivers, rootfs: str, point: str, index: int
) -> None:
    verdict = verdict_after_kill(drivers, rootfs, "exit 3", point, index)
    assert verdict == {"kind": "exit", "code": 3, "signal": None, "detail": "exit status 3"}


@pytest.mark.parametrize(
    ("script", "point"),
    [("sleep 1000", "attend"), ("exit 0", "attend"), ("exit 0", "end"), ("exit 4", "end")],
)
def test_an_end_that_no_gocker_saw_is_not_guessed(
    drivers: Drivers, rootfs: str, script: str, point: str
) -> None:
    verdict = verdict_after_kill(drivers, rootfs, script, point)
    assert (verdict["kind"], verdict["code"], verdict["signal"]) == ("unknown", None, None)
    assert verdict["detail"].startswith("gocker was killed: the program was killed with it, or had ended")


def test_whether_a_program_ran_is_said_as_far_as_it_is_known(drivers: Drivers, rootfs: str) -> None:
    ops = drivers.run({"args": ["run", "--rootfs", rootfs, "true"]})["ops"]
    total = sum(len(ops[phase]) for phase in ("host", "parent", "init"))
    said = [verdict_after_kill(drivers, rootfs, "exit 0", "step", step) for step in (1, total - 1, total)]
    assert [(verdict["kind"], verdict["code"]) for verdict in said] == [
        ("setup-failed", 125),
        ("setup-failed", 125),
        ("unknown", None),
    ]
    assert said[1]["detail"] == "gocker was killed before the program started"
    assert said[2]["detail"].endswith("whether it ran is not known")


def test_where_nothing_at_all_can_be_written_the_error_says_what_is_lost(
    drivers: Drivers, rootfs: str
) -> None:
    job = {
        "args": ["run", "--rootfs", rootfs, "true"],
        "faults": [
            {"point": "audit", "index": 0, "when": "before", "act": "fail-audit"},
            {"point": "owe", "index": 0, "when": "before", "act": "fail-on-purpose"},
        ],
        "next": [(["audit", "verify"], [])],
    }
    result = drivers.run(job)
    assert (result["status"], result["left"]) == (125, [])
    assert " events of " in result["err"]
    assert "are lost: break it: as the test wants it (none)" in result["err"]
    assert whole_story(Counter(event["event"] for event in result["events"]))  # as far as the next can tell


def test_a_first_process_without_memory_is_said_to_be_out_of_it_and_where(
    drivers: Drivers, rootfs: str
) -> None:
    job = {"args": ["run", "--rootfs", rootfs, "--limit", "memory=6m", "true"]}
    ops = drivers.run(job)["ops"]
    number = len(ops["host"]) + len(ops["parent"]) + ops["init"].index("overlay-root") + 1
    result = drivers.run(
        {**job, "faults": [{"point": "step", "index": number, "when": "after", "act": "hog"}]}
    )
    assert (result["status"], result["left"]) == (125, [])
    assert result["err"].startswith(f"gocker: step {number}/{result['total']} mount -t overlay ")
    end = ": the first process was ended by SIGKILL: out of memory, at a limit of 6291456 bytes\n"
    assert result["err"].endswith(end)


@pytest.mark.parametrize("point", ["step", "undo", "remove", "attend"])
def test_a_bug_leaves_nothing_of_the_container(drivers: Drivers, rootfs: str, point: str) -> None:
    job = {
        "args": ["run", "--rootfs", rootfs, "true"],
        "faults": [{"point": point, "index": 1, "when": "after", "act": "bug"}],
        "next": [(["audit", "verify"], [])],
    }
    result = drivers.run(job)
    assert result["left"] == []
    assert "ZeroDivisionError: a bug" in result["err"]
    assert result["err"].count("\n") == 1
    assert whole_story(Counter(event["event"] for event in result["events"]))
