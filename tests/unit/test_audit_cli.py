"""`gocker audit` and `gocker why` on the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from auditing import Log
from click.testing import CliRunner, Result

from gocker.audit import Event
from gocker.auditlog import ChainError
from gocker.cli.audit import command as audit
from gocker.cli.why import command as why
from gocker.errors import AuditError, GockerError
from gocker.limits import parse_limit
from gocker.model import ContainerSpec
from gocker.receipt import Verdict, make_report

SPEC = ContainerSpec(id="aa11", name="web", argv=("true",), limits=(parse_limit("memory=100m"),))


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    """What one run leaves."""
    log = Log(tmp_path)
    monkeypatch.setenv("GOCKER_AUDIT_LOG", log.path)
    report = make_report(
        SPEC,
        "sha256:00",
        started_ns=0,
        finished_ns=1,
        verdict=Verdict("exit", 3, None, "exit status 3"),
        usage={},
        effective={},
    )
    events = [
        Event(
            1_769_860_800_000_000_000, "container.create", data={"name": "web", "command": ["a b", "\x1b"]}
        ),
        Event(
            1_769_860_800_000_000_000, "controller.set", "warning", {"limit": "memory", "empty": "", "n": 5}
        ),
        Event.now("container.exit", report=report.to_json()),
    ]
    log.audit.write(events, container="aa11", plan="sha256:00")
    return log


def run(command: click.Command, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, catch_exceptions=False)


def output(command: click.Command, *arguments: str) -> list[str]:
    result = run(command, *arguments)
    assert result.exit_code == 0
    return result.stdout.splitlines()


# --- show ---------------------------------------------------------------------------------------------


def test_show_prints_a_line_for_each_event(log: Log) -> None:
    create, controller, end = output(audit, "show")
    assert create == (
        '2026-01-31T12:00:00.000000Z info    container.create  aa11         name=web command=["a b", "\\u001b"]'
    )
    assert controller == (
        '2026-01-31T12:00:00.000000Z warning controller.set    aa11         limit=memory empty="" n=5'
    )
    assert end.endswith('aa11         kind=exit code=3 signal=null detail="exit status 3"')


def test_show_as_json_gives_the_lines_of_the_log(log: Log) -> None:
    assert [line.encode() for line in output(audit, "show", "--format", "json")] == log.lines


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (["--container", "web"], [1, 2, 3]),
        (["--container", "bb"], []),
        (["--event", "container.*"], [1, 3]),
        (["--since", "1m"], [3]),
    ],
)
def test_show_selects(log: Log, options: list[str], numbers: list[int]) -> None:
    lines = output(audit, "show", "--format", "json", *options)
    assert [json.loads(line)["seq"] for line in lines] == numbers


def test_show_speaks_of_lines_that_are_no_events_on_stderr(log: Log) -> None:
    log.data = log.data + b"junk\n"
    result = run(audit, "show")
    assert result.stdout.count("\n") == 3
    assert result.stderr == "line 4 is not an audit event: see gocker audit verify\n"


def test_show_keeps_control_characters_from_the_terminal(log: Log) -> None:
    log.write(1, "x\x1b[2J\n", "y\x07")
    assert "x?[2J?" in run(audit, "show").stdout.splitlines()[-1]
    assert "\x07" not in run(audit, "show").stdout


def test_show_without_a_log_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOCKER_AUDIT_LOG", f"{tmp_path}/none")
    with pytest.raises(AuditError, match="ENOENT"):
        run(audit, "show")


# --- tail ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "numbers"), [([], [1, 2, 3]), (["-n", "2"], [2, 3]), (["-n", "0"], [])])
def test_tail_prints_the_last_events(log: Log, options: list[str], numbers: list[int]) -> None:
    lines = output(audit, "tail", "--format", "json", *options)
    assert [json.loads(line)["seq"] for line in lines] == numbers


def test_tail_follows(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    from gocker import auditlog

    follow = auditlog.follow

    def three_more(path: str) -> Iterator[Any]:
        lines = follow(path, wait=lambda _: log.write(3))
        for line in lines:
            yield line
            if line is not None and line.number == 6:
                return

    monkeypatch.setattr(auditlog, "follow", three_more)
    lines = output(audit, "tail", "-f", "-n", "1", "--format", "json")
    assert [json.loads(line)["seq"] for line in lines] == [3, 4, 5, 6]


# --- verify -------------------------------------------------------------------------------------------


def test_verify_says_how_many_events_are_whole(log: Log) -> None:
    assert output(audit, "verify") == ["3 events, chain whole"]


def test_verify_names_the_line_and_ends_with_1(log: Log) -> None:
    log.data = log.data.replace(b'"memory"', b'"memorx"')
    with pytest.raises(ChainError, match="line 2 was changed") as caught:
        run(audit, "verify")
    assert caught.value.exit_code == 1


def test_verify_of_a_copy_notes_what_it_cannot_see(log: Log) -> None:
    os.rename(log.path, log.path + ".1")
    result = run(audit, "verify", log.path + ".1")
    assert result.stdout == "3 events, chain whole\n"
    assert result.stderr.startswith(f"note: {log.path}.1.head is not there")


def test_verify_takes_rotated_files_in_order(log: Log) -> None:
    os.rename(log.path, log.path + ".1")
    log.write(2)
    assert output(audit, "verify", log.path + ".1", log.path) == ["5 events, chain whole"]


# --- why ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["aa11", "aa", "web"])
def test_why_tells_the_end_in_plain_words(log: Log, target: str) -> None:
    lines = output(why, target)
    assert lines[0] == "web (aa11) ended by itself with exit status 3"
    assert lines[2:4] == ["  verdict            exit, exit status 3", "  what happened      exit status 3"]


def test_why_as_json_is_the_report(log: Log) -> None:
    assert json.loads(run(why, "web", "--format", "json").stdout) == log.events[-1]["report"]


def test_why_takes_the_latest_of_a_name(log: Log) -> None:
    log.write(1, "container.create", "bb22", name="web")
    log.write(1, "step.failed", "bb22", step=2, total=9, describe="mkdir /x", reason="EEXIST: File exists")
    lines = output(why, "web")
    assert lines[0] == "web (bb22) never ran: gocker could not set it up"
    assert lines[3] == "  what happened      step 2/9 mkdir /x: EEXIST: File exists"
    report = json.loads(run(why, "web", "--format", "json").stdout)
    assert (report["container"], report["verdict"]["kind"], report["verdict"]["code"]) == (
        "bb22",
        "setup-failed",
        125,
    )


def test_why_of_a_container_without_an_end_says_so(log: Log) -> None:
    log.audit.write([Event(0, "container.start", data={"pid": 1})], container="cc33")
    assert output(why, "cc33") == [
        (
            "cc33 (cc33) has no end on record: it is still running, or gocker was killed."
            " The last event is container.start at 1970-01-01T00:00:00.000000Z"
        )
    ]
    data = json.loads(run(why, "cc33", "--format", "json").stdout)
    assert (data["container"], data["verdict"], data["last"]["pid"]) == ("cc33", None, 1)


def test_why_of_an_exit_without_a_report_is_one_clear_error(log: Log) -> None:
    log.write(1, "container.exit", "dd44")
    with pytest.raises(AuditError, match="read report of dd44: event 4 has none"):
        run(why, "dd44")


@pytest.mark.parametrize(
    ("target", "message"), [("zz", "find container zz: not in"), ("a", "2 ids begin so")]
)
def test_why_of_none_or_several_is_one_clear_error(log: Log, target: str, message: str) -> None:
    log.write(1, "container.create", "ab22", name="job")
    with pytest.raises(GockerError, match=message) as caught:
        run(why, target)
    assert caught.value.exit_code == 125
