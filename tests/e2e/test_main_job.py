"""`gocker run --limit ...` as users and judges rely on it: limits, exit status, receipt, record.

What an OOM kill looks like, and the peak, are in tests/guest/test_main_job.py, which runs on both versions.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from command import SLOWNESS, Gocker, Ran
from running import Running, running, version

from gocker.model import Hierarchy
from gocker.receipt import USAGE

MIB = 1 << 20
REPORT = ["container", "name", "command", "plan", "started", "finished", "verdict", "usage", "limits"]


@pytest.fixture(scope="module")
def command(places: object, tmp_path_factory: pytest.TempPathFactory) -> Gocker:
    """For what several tests look at."""
    return Gocker(str(tmp_path_factory.mktemp("command")))


def events(gocker: Gocker, container: str) -> list[dict[str, Any]]:
    shown = gocker("audit", "show", "--container", container, "--format", "json")
    assert shown.code == 0, shown
    return [json.loads(line) for line in shown.out.splitlines()]


CASES = (
    # --limit, v1 file and text, v2 file and text
    ("memory=100m", "memory.limit_in_bytes", "104857600", "memory.max", "104857600"),
    ("memory.swap=300m", "memory.memsw.limit_in_bytes", "314572800", "memory.swap.max", "209715200"),
    ("memory.reservation=50m", "memory.soft_limit_in_bytes", "52428800", "memory.low", "52428800"),
    ("cpuset=0", "cpuset.cpus", "0", "cpuset.cpus.effective", "0"),
    ("cpuset.mems=0", "cpuset.mems", "0", "cpuset.mems.effective", "0"),
    ("cpushare=512", "cpu.shares", "512", "cpu.weight", "59"),  # 59: what runc 1.3.2, crun 1.24 write
    ("pids=64", "pids.max", "64", "pids.max", "64"),
)
FLAGS = (
    *("-m", "100m", "--memory-swap", "300m", "--memory-reservation", "50m"),
    *("--cpuset-cpus", "0", "--cpuset-mems", "0", "--cpu-shares", "512", "--pids-limit", "64"),
)


@pytest.fixture(scope="module", params=["--limit", "docker's flags"])
def limited(request: pytest.FixtureRequest, command: Gocker) -> Iterator[Running]:
    limits = tuple(word for case in CASES for word in ("--limit", case[0]))
    with running(command, *(limits if request.param == "--limit" else FLAGS)) as container:
        yield container


class TestLimits:
    """Each key, seen from the host in the kernel's own file while the container runs."""

    @pytest.mark.guest
    @pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
    def test_a_limit_is_in_the_kernels_own_file(self, limited: Running, case: tuple[str, ...]) -> None:
        limit, v1_file, v1_text, v2_file, v2_text = case
        controller = v1_file.partition(".")[0]
        v2 = version(controller) is Hierarchy.V2
        file, text = (v2_file, v2_text) if v2 else (v1_file, v1_text)
        if limit.startswith("memory.swap") and limited.file(controller, file) is None:
            pytest.skip(f"this kernel has no {file}")
        assert limited.file(controller, file) == text

    def test_docker_flags_are_the_same_limits(self, command: Gocker) -> None:
        limits = [word for case in CASES for word in ("--limit", case[0])]
        reports = [command.run(*options, "base", "true").report for options in (limits, FLAGS)]
        assert reports[0]["limits"] == reports[1]["limits"]
        assert set(reports[0]["limits"]) == {case[0].partition("=")[0] for case in CASES}


def test_a_limit_of_pids_holds_and_is_counted(gocker: Gocker) -> None:
    # More processes than may be: the shell says so for the third of them.
    ran = gocker.run("--limit", "pids=3", "base", "sh", "-c", "sleep 9 & sleep 9 & sleep 9 & echo done")
    assert (ran.code, ran.verdict) == (2, "exit"), ran
    assert "fork" in ran.err
    assert ran.report["usage"]["pids_refused"] >= 1


def test_a_cpuset_holds(gocker: Gocker) -> None:
    ran = gocker(
        "run", "--limit", "cpuset=0", "base", "sh", "-c", "grep Cpus_allowed_list /proc/self/status; nproc"
    )
    assert ran.out == "Cpus_allowed_list:\t0\n1\n", ran


class TestBestEffort:
    """`VALUE?`: what cannot be had is said, on stderr and in the report, and the program runs."""

    def test_a_value_that_the_kernel_refuses(self, gocker: Gocker) -> None:
        ran = gocker.run("--limit", "cpuset=99?", "base", "echo", "ran")
        assert (ran.code, ran.out) == (0, "ran\n")
        (line,) = ran.err.splitlines()
        assert line.startswith("gocker: warning: limit cpuset does not bind: ")
        report = ran.report["limits"]["cpuset"]
        assert (report["asked"], report["effective"]) == ("99", None)
        assert report["reason"] in line

    def test_a_controller_that_is_not_installed(self, gocker: Gocker) -> None:
        ran = gocker.run("--limit", "nosuch=1?", "base", "echo", "ran")
        assert (ran.code, ran.out) == (0, "ran\n"), ran
        assert "limit nosuch does not bind" in ran.err
        assert ran.report["limits"]["nosuch"]["effective"] is None

    def test_one_that_binds_is_like_any_other(self, gocker: Gocker) -> None:
        ran = gocker.run("--limit", "memory=100m?", "base", "true")
        assert (ran.code, ran.err) == (0, "")
        assert ran.report["limits"]["memory"] == {"asked": "100m", "effective": 100 * MIB}

    def test_a_text_that_makes_no_sense_is_an_error_all_the_same(self, gocker: Gocker) -> None:
        ran = gocker("run", "--limit", "memory=100q?", "base", "true")
        assert (ran.code, "unknown unit 'q'" in ran.err) == (125, True), ran


class TestExitStatus:
    """Docker's: the program's own, 128+n, 125, 126, 127."""

    @pytest.mark.parametrize("code", [0, 1, 3, 125, 255])
    def test_the_programs_own(self, gocker: Gocker, code: int) -> None:
        ran = gocker.run("base", "sh", "-c", f"exit {code}")
        verdict = ran.report["verdict"]
        kind = "exit" if code else "ok"
        assert (ran.code, verdict["kind"], verdict["code"], verdict["signal"]) == (code, kind, code, None), (
            ran
        )

    @pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV", "USR1"])
    def test_128_and_the_signal_that_ended_it(self, gocker: Gocker, name: str) -> None:
        # By --init, since no signal of its own ends a PID 1 (pid_namespaces(7)).
        ran = gocker.run("--init", "base", "sh", "-c", f"kill -{name} $$")
        number = signal.Signals[f"SIG{name}"]
        verdict = ran.report["verdict"]
        assert (ran.code, verdict["code"]) == (128 + number, 128 + number), ran
        assert (verdict["kind"], verdict["signal"]) == ("signal", f"SIG{name}")

    def test_a_signal_sent_to_gocker_reaches_the_program(self, gocker: Gocker) -> None:
        with running(gocker) as container:
            container.sh("trap 'echo caught; exit 7' USR1")
            os.kill(container.process.pid, signal.SIGUSR1)
            ran = container.end("sleep 100 & wait")
        assert (ran.code, ran.out) == (7, "caught\n"), ran

    def test_a_kill_from_outside_is_a_signal(self, gocker: Gocker) -> None:
        with running(gocker) as container:
            os.kill(container.processes()[0], signal.SIGKILL)
            ran = container.end()
        verdict = ran.report["verdict"]
        assert (ran.code, verdict["kind"], verdict["signal"]) == (137, "signal", "SIGKILL"), ran

    @pytest.mark.parametrize(
        ("program", "code", "reason"),
        [
            ("/nosuch", 127, "ENOENT"),
            pytest.param("nosuch", 127, "ENOENT", marks=pytest.mark.guest),
            ("", 127, "ENOENT"),
            pytest.param("/etc/passwd", 126, "EACCES", marks=pytest.mark.guest),
            ("/etc", 126, "EACCES"),
            ("/etc/passwd/x", 126, "ENOTDIR"),
        ],
    )
    def test_126_and_127_say_why_the_program_was_not_run(
        self, gocker: Gocker, program: str, code: int, reason: str
    ) -> None:
        ran = gocker.run("base", program, "argument")
        assert ran.code == code, ran
        named = program or "''"
        assert ran.err.startswith(f"gocker: exec {named}: "), ran.err
        assert reason in ran.err
        assert ran.err.count("\n") == 1
        verdict = ran.report["verdict"]
        assert (verdict["kind"], verdict["code"]) == ("exec-failed", code)

    def test_125_is_gockers_own(self, gocker: Gocker) -> None:
        ran = gocker.run("--limit", "cpuset=99", "base", "true")
        verdict = ran.report["verdict"]
        assert (ran.code, verdict["kind"], verdict["code"]) == (125, "setup-failed", 125), ran
        assert verdict["detail"] in ran.err

    def test_a_timeout_is_a_verdict_of_its_own(self, gocker: Gocker) -> None:
        ran = gocker.run("--timeout", str(0.2 * SLOWNESS), "base", "sleep", "1000")
        assert (ran.code, ran.verdict) == (137, "timeout"), ran


@pytest.fixture(scope="module")
def ran(command: Gocker) -> Ran:
    words = ("--limit", "memory=100m", "--name", "shape", "base", "sh", "-c", "exit 3", "a b\n\udcff")
    return command.run(*words)


class TestReport:
    """The shape that others parse."""

    def test_has_the_fields_of_the_documentation_and_no_other(self, ran: Ran) -> None:
        assert list(ran.report) == REPORT
        assert list(ran.report["verdict"]) == ["kind", "code", "signal", "detail"]
        assert list(ran.report["usage"])[: len(USAGE)] == list(USAGE)
        assert {tuple(limit) for limit in ran.report["limits"].values()} == {("asked", "effective")}

    def test_says_what_was_run_and_when(self, ran: Ran) -> None:
        report = ran.report
        assert len(report["container"]) == 16
        assert report["name"] == "shape"
        assert report["command"] == ["sh", "-c", "exit 3", "a b\n\udcff"]
        assert report["plan"].startswith("sha256:")
        started, finished = (datetime.fromisoformat(report[key]) for key in ("started", "finished"))
        assert report["started"].endswith("Z")
        assert report["usage"]["wall_us"] == pytest.approx((finished - started).total_seconds() * 1e6, abs=5)

    def test_says_how_it_ended(self, ran: Ran) -> None:
        assert ran.report["verdict"] == {"kind": "exit", "code": 3, "signal": None, "detail": "exit status 3"}
        assert ran.report["limits"]["memory"] == {"asked": "100m", "effective": 100 * MIB}

    def test_usage_is_whole_numbers_or_null(self, ran: Ran) -> None:
        usage = ran.report["usage"]
        assert all(value is None or (type(value) is int and value >= 0) for value in usage.values()), usage
        assert usage["memory_peak_bytes"] > 0
        assert usage["cpu_user_us"] + usage["cpu_system_us"] > 0

    def test_goes_to_stderr_with_a_hyphen_and_the_output_stays_apart(self, gocker: Gocker) -> None:
        ran = gocker("run", "--report", "-", "base", "sh", "-c", "echo out; echo err >&2")
        assert ran.out == "out\n"
        assert ran.err.startswith("err\n{")
        assert json.loads(ran.err.removeprefix("err\n"))["verdict"]["kind"] == "ok"

    def test_replaces_what_was_in_the_file(self, gocker: Gocker, tmp_path: os.PathLike[str]) -> None:
        path = f"{tmp_path}/report"
        with open(path, "w") as file:
            file.write("x" * 100_000)
        gocker("run", "--report", path, "base", "true")
        with open(path) as file:
            assert json.load(file)["verdict"]["kind"] == "ok"

    def test_why_tells_the_same_by_id_and_by_name(self, ran: Ran, command: Gocker) -> None:
        for name in (ran.report["container"], ran.report["container"][:6], "shape"):
            why = command("why", name, "--format", "json")
            assert (why.code, json.loads(why.out)) == (0, ran.report), why
        why = command("why", "shape")
        assert "exit status 3" in why.out
        assert "104857600" in why.out


class TestRecord:
    """The audit log of a run."""

    @pytest.mark.guest
    def test_has_every_event_in_its_order(self, gocker: Gocker) -> None:
        ran = gocker.run("--limit", "memory=100m", "-l", "team=a=b", "-e", "SECRET=hush", "base", "true")
        log = events(gocker, ran.report["container"])
        names = [event["event"] for event in log]
        order = ["container.create", "controller.set", "namespace.apply", "container.start"]
        order += ["container.exit", "controller.remove", "container.remove"]
        assert list(dict.fromkeys(names)) == order
        assert [event["timestamp"] for event in log] == sorted(event["timestamp"] for event in log)
        create, exit_ = log[0], log[names.index("container.exit")]
        assert create["labels"] == {"team": "a=b"}
        assert create["limits"] == {"memory": "100m"}
        assert create["actor"]["uid"] == 0
        assert exit_["report"] == ran.report
        assert {event["plan"] for event in log} == {ran.report["plan"]}
        assert "hush" not in json.dumps(log)
        (memory,) = (event for event in log if event.get("limit") == "memory")
        assert (memory["asked"], memory["effective"]) == ("100m", "104857600")

    def test_what_was_made_was_removed(self, gocker: Gocker) -> None:
        log = events(gocker, gocker.run("--limit", "memory=100m", "base", "true").report["container"])
        made = {event["file"].rpartition("/")[0] for event in log if "limit" in event}
        removed = {event["path"] for event in log if event["event"] == "controller.remove"}
        assert made
        assert made <= removed
        assert not [path for path in removed if os.path.exists(path)]

    def test_a_start_that_failed_is_on_it_too(self, gocker: Gocker) -> None:
        ran = gocker.run("--limit", "cpuset=99", "base", "true")
        log = events(gocker, ran.report["container"])
        (failed,) = (event for event in log if event["event"] == "step.failed")
        assert failed["level"] == "error"
        assert f"step {failed['step']}/{failed['total']} {failed['describe']}: {failed['reason']}" in ran.err
        assert log[-1]["event"] == "container.remove"


def test_a_name_is_one_containers_at_a_time_and_free_again_after_it(gocker: Gocker) -> None:
    with running(gocker, "--name", "taken") as container:
        second = gocker("run", "--name", "taken", "base", "true")
        assert second.code == 125
        assert second.err.count("\n") == 1
        assert "taken" in second.err
        assert container.sh("echo unharmed") == "unharmed"
    assert gocker("run", "--name", "taken", "base", "true").code == 0


def test_the_cidfile_has_the_id(gocker: Gocker, tmp_path: os.PathLike[str]) -> None:
    ran = gocker.run("--cidfile", f"{tmp_path}/cid", "base", "true")
    with open(f"{tmp_path}/cid") as file:
        assert file.read() == ran.report["container"]


def test_the_whole_container_ends_with_its_program(gocker: Gocker) -> None:
    begin = time.monotonic()
    ran = gocker("run", "base", "sh", "-c", "(trap '' TERM HUP; sleep 1000) & sleep 0.1; echo out")
    assert (ran.code, ran.out) == (0, "out\n")
    assert time.monotonic() - begin < 20 * SLOWNESS
