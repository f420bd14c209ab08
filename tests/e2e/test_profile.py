"""Where the time of a start goes: `gocker run --profile` and `gocker plan --times`."""

from __future__ import annotations

import json
import os
import stat
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from command import Gocker

LINES = {1: "gocker", 2: "host", 3: "parent", 4: "init"}


def profile(gocker: Gocker, path: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    ran = gocker("run", "--profile", str(path), *arguments)
    assert ran.code == code, ran
    trace: dict[str, Any] = json.loads(path.read_text(encoding="ascii"))
    return trace


def slices(trace: dict[str, Any], line: str) -> list[dict[str, Any]]:
    return [event for event in trace["traceEvents"] if event["ph"] == "X" and LINES[event["tid"]] == line]


def steps(gocker: Gocker, name: str) -> dict[str, Any]:
    shown = gocker("plan", "--times", name, "--format", "json")
    assert shown.code == 0, shown
    table: dict[str, Any] = json.loads(shown.out)
    return table


def test_a_profile_is_a_chrome_trace_with_a_line_for_each_phase(gocker: Gocker, tmp_path: Path) -> None:
    trace = profile(gocker, tmp_path / "trace.json", "base", "true")
    named = {
        event["tid"]: event["args"]["name"]
        for event in trace["traceEvents"]
        if event["ph"] == "M" and event["name"] == "thread_name"
    }
    assert named == LINES
    for event in trace["traceEvents"]:
        assert event["ph"] in {"M", "X"}
        if event["ph"] == "X":  # what the format asks of a complete event
            assert isinstance(event["ts"], float)
            assert event["dur"] >= 0
            assert event["pid"] == 1
    assert trace["otherData"]["verdict"] == "ok"


def test_the_work_of_gocker_is_drawn_from_planning_to_removal_without_a_gap(
    gocker: Gocker, tmp_path: Path
) -> None:
    trace = profile(gocker, tmp_path / "trace.json", "base", "sleep", "0.2")
    work = slices(trace, "gocker")
    assert [event["name"] for event in work] == [
        "planning",
        "plan on disk, audit log, pipes",
        "host and parent phase",
        "init phase: wait for the program",
        "the program runs",
        "removal",
    ]
    assert work[0]["ts"] == 0
    for one, following in pairwise(work):
        assert one["ts"] + one["dur"] == pytest.approx(following["ts"], abs=0.01)
    assert work[4]["dur"] >= 200_000  # it slept so long


def test_the_steps_are_those_of_the_plan_in_the_time_of_their_phase(gocker: Gocker, tmp_path: Path) -> None:
    trace = profile(
        gocker, tmp_path / "trace.json", "--name", "profiled", "--limit", "memory=100m", "base", "true"
    )
    planned = steps(gocker, "profiled")
    assert trace["otherData"]["plan"] == planned["plan"]
    for phase, around in (("host", 2), ("parent", 2), ("init", 3)):
        drawn = slices(trace, phase)
        rows = [row for row in planned["steps"] if row["phase"] == phase]
        assert [(event["args"]["step"], event["args"]["describe"]) for event in drawn] == [
            (row["step"], row["describe"]) for row in rows[: len(drawn)]
        ]
        assert len(rows) - len(drawn) == (2 if phase == "init" else 0)  # the filter and the last hop
        outer = slices(trace, "gocker")[around]
        assert outer["ts"] <= drawn[0]["ts"] + 0.01
        assert drawn[-1]["ts"] + drawn[-1]["dur"] <= outer["ts"] + outer["dur"] + 0.01
        assert [int(event["dur"]) for event in drawn] == [row["us"] for row in rows[: len(drawn)]]


def test_a_start_that_fails_has_a_profile_with_its_error(gocker: Gocker, tmp_path: Path) -> None:
    trace = profile(gocker, tmp_path / "trace.json", "-w", "/proc/nowhere", "base", "true", code=125)
    (failed,) = [event for event in trace["traceEvents"] if event["ph"] == "i"]
    assert "/proc/nowhere" in failed["args"]["error"]
    assert slices(trace, "host")
    assert trace["otherData"]["verdict"] == "setup-failed"


def test_a_file_that_is_there_is_replaced_and_none_is_left_without_a_container(
    gocker: Gocker, tmp_path: Path
) -> None:
    (tmp_path / "old").write_text("x" * 1_000_000)
    profile(gocker, tmp_path / "old", "base", "true")
    assert stat.S_IMODE(os.stat(tmp_path / "old").st_mode) & 0o022 == 0
    assert gocker("run", "--profile", f"{tmp_path}/none", "no-such-image", "true").code == 125
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("path", "reason"), [("missing/trace", "ENOENT"), (".", "EISDIR")])
def test_a_file_that_cannot_be_written_is_known_before_the_start(
    gocker: Gocker, tmp_path: Path, path: str, reason: str
) -> None:
    ran = gocker("run", "--profile", f"{tmp_path}/{path}", "base", "sh", "-c", "echo ran")
    assert (ran.code, ran.out) == (125, "")
    assert reason in ran.err


def test_the_profile_holds_no_value_of_the_environment(gocker: Gocker, tmp_path: Path) -> None:
    profile(gocker, tmp_path / "trace.json", "-e", "SECRET=hush", "base", "true")
    assert "hush" not in (tmp_path / "trace.json").read_text()


def test_the_times_of_a_past_start_are_a_table(gocker: Gocker) -> None:
    assert gocker("run", "--name", "timed", "base", "true").code == 0
    table = steps(gocker, "timed")
    text = gocker("plan", "--times", table["container"][:10])
    assert text.code == 0
    lines = text.out.splitlines()
    assert lines[0].startswith("# host, ")
    assert lines[-1] == f"# timed {table['container']} {table['plan']}"
    first = table["steps"][0]
    assert lines[1].split(maxsplit=2) == ["1", str(first["us"]), first["describe"]]
    known = [row["us"] for row in table["steps"] if row["us"] is not None]
    assert len(known) > 30
    sums = sum(int(line.split()[2]) for line in lines if line.startswith("# ") and line.endswith(" us"))
    assert sums == sum(known)
    assert [row["us"] for row in table["steps"] if row["phase"] == "remove"] == [None] * len(
        [row for row in table["steps"] if row["phase"] == "remove"]
    )


def test_the_table_says_which_step_failed(gocker: Gocker) -> None:
    assert gocker("run", "--name", "failing", "-w", "/proc/nowhere", "base", "true").code == 125
    lines = gocker("plan", "--times", "failing").out.splitlines()
    (line,) = [line for line in lines if line.endswith("<- failed")]
    assert "/proc/nowhere" in line
    assert steps(gocker, "failing")["failed"] == int(line.split()[0])


def test_a_container_that_is_not_in_the_log_is_an_error(gocker: Gocker) -> None:
    gocker("run", "base", "true")
    shown = gocker("plan", "--times", "never-heard-of")
    assert shown.code == 125
    assert "never-heard-of" in shown.err
    assert "takes no image" in gocker("plan", "--times", "timed", "base", "true").err
