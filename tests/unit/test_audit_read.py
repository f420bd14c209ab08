"""Reading the audit log: selecting events, following the file, finding one container."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from auditing import Log

from gocker.audit import Event
from gocker.auditlog import Line, Selection, Trace, find, follow, parse_since
from gocker.errors import AuditError, UsageError


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Two containers, `web` twice as a name, `job` once."""
    log = Log(tmp_path)
    for container, name in (("aa11", "web"), ("ab22", "job"), ("aa33", "web")):
        log.write(1, "container.create", container, name=name)
        log.write(1, "controller.set", container, name="memory")
    return log


def selected(log: Log, **wanted: str) -> list[int]:
    selection = Selection(**wanted)
    return [event["seq"] for event in log.events if selection.wants(event)]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"container": "aa11"}, [1, 2]),
        ({"container": "a"}, [1, 2, 3, 4, 5, 6]),
        ({"container": "aa"}, [1, 2, 5, 6]),
        ({"container": "web"}, [1, 2, 5, 6]),
        ({"container": "job"}, [3, 4]),
        ({"container": "memory"}, []),  # the name of a controller is not that of a container
        ({"container": "nothing"}, []),
        ({"event": "container.*"}, [1, 3, 5]),
        ({"event": "controller.set", "container": "web"}, [2, 6]),
        ({"event": "controller"}, []),
        ({"since": "2999"}, []),
        ({"since": "1999"}, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_events_are_selected_by_container_kind_and_time(
    log: Log, wanted: dict[str, str], numbers: list[int]
) -> None:
    assert selected(log, **wanted) == numbers


def test_a_name_is_also_learnt_from_the_report(log: Log) -> None:
    log.write(1, "container.exit", "cc44", report={"name": "late"})
    assert selected(log, container="late") == [7]


@pytest.mark.parametrize(
    ("text", "timestamp"),
    [
        ("10s", "2026-01-31T11:59:50.500000Z"),
        ("10m", "2026-01-31T11:50:00.500000Z"),
        ("2h", "2026-01-31T10:00:00.500000Z"),
        ("1d", "2026-01-30T12:00:00.500000Z"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000000Z"),
        ("2026-01-31T12:00:00+01:00", "2026-01-31T11:00:00.000000Z"),
        ("2026-01-31 12:00", "2026-01-31T12:00:00.000000Z"),
        ("2026-01-31", "2026-01-31T00:00:00.000000Z"),
    ],
)
def test_since_takes_ages_and_times(text: str, timestamp: str) -> None:
    assert parse_since(text, 1_769_860_800.5) == timestamp


@pytest.mark.parametrize("text", ["yesterday", "10", "10x", "-1h", "99999999999d", "2026-13-01", ""])
def test_since_refuses_other_text(text: str) -> None:
    with pytest.raises(UsageError, match="parse --since"):
        parse_since(text, 1_769_860_800.0)


# --- follow -------------------------------------------------------------------------------------------


class Enough(Exception):
    pass


def followed(log: Log, *happenings: Callable[[], object]) -> list[int | None]:
    """The `seq` of all that comes when one thing happens at each wait."""
    todo = list(happenings)

    def wait(_: float) -> None:
        if not todo:
            raise Enough
        todo.pop(0)()

    seen: list[Line | None] = []
    with pytest.raises(Enough):
        seen.extend(follow(log.path, wait=wait))  # a list keeps what came before the error
    from gocker.auditchain import parse_line

    return [None if line is None else (parse_line(line.raw) or {"seq": -1})["seq"] for line in seen]


def test_follow_gives_what_is_there_then_what_comes(log: Log) -> None:
    assert followed(log, lambda: log.write(2), lambda: None) == [1, 2, 3, 4, 5, 6, None, 7, 8]


def test_follow_waits_for_the_end_of_a_line(log: Log) -> None:
    log.write(1)
    whole = log.data
    log.data = whole[:-5]

    def finish() -> None:
        log.data = whole

    assert followed(log, finish) == [1, 2, 3, 4, 5, 6, None, 7]


def test_follow_goes_on_across_a_rotation_and_misses_nothing(log: Log) -> None:
    def rotate() -> None:
        log.write(1)
        os.rename(log.path, log.path + ".1")
        log.write(1)

    assert followed(log, rotate, lambda: log.write(1)) == [1, 2, 3, 4, 5, 6, None, 7, 8, 9]


def test_follow_starts_again_when_the_log_is_emptied(log: Log) -> None:
    def empty() -> None:
        os.truncate(log.path, 0)
        log.write(1)

    assert followed(log, empty) == [1, 2, 3, 4, 5, 6, None, 7]


def test_follow_bears_the_moment_between_two_files(log: Log) -> None:
    assert followed(log, lambda: os.rename(log.path, log.path + ".1"), lambda: log.write(1)) == [
        *range(1, 7),
        None,
        7,
    ]


def test_a_line_knows_its_number_and_place(log: Log) -> None:
    lines = [line for line in follow_once(log) if line is not None]
    assert [line.number for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(log.data[line.offset :].startswith(line.raw) for line in lines)


def follow_once(log: Log) -> list[Line | None]:
    lines = follow(log.path, wait=lambda _: None)
    return [next(lines) for _ in range(7)]


# --- find ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "container"),
    [("aa11", "aa11"), ("aa1", "aa11"), ("ab", "ab22"), ("job", "ab22"), ("web", "aa33")],
)
def test_a_container_is_found_by_id_by_its_beginning_and_by_name(
    log: Log, target: str, container: str
) -> None:
    trace = find(log.path, target)
    assert trace.container == container
    assert trace.name == {"aa11": "web", "ab22": "job", "aa33": "web"}[container]
    assert trace.last["event"] == "controller.set"


def test_a_beginning_of_several_ids_names_them(log: Log) -> None:
    with pytest.raises(
        AuditError, match=r"find container aa: 2 ids begin so: aa11 \(web\), aa33 \(web\)"
    ) as caught:
        find(log.path, "aa")
    assert caught.value.exit_code == 125


def test_of_many_candidates_ten_are_named(log: Log) -> None:
    for number in range(12):
        log.write(1, "container.create", f"b{number:02}", name="x")
    with pytest.raises(AuditError, match=r"12 ids begin so: .*b09 \(x\) and 2 more"):
        find(log.path, "b")


def test_an_id_wins_over_a_name_and_a_name_over_a_beginning(log: Log) -> None:
    log.write(1, "container.create", "dd55", name="aa11")
    log.write(1, "container.create", "ee66", name="aa")
    assert find(log.path, "aa11").container == "aa11"
    assert find(log.path, "aa").container == "ee66"


@pytest.mark.parametrize("target", ["nothing", "memory", "controller.set", '"'])
def test_no_such_container_is_one_clear_error(log: Log, target: str) -> None:
    with pytest.raises(AuditError, match=f"not in {log.path}"):
        find(log.path, target)


def test_the_end_and_the_failed_step_are_kept(log: Log) -> None:
    log.write(1, "step.failed", "aa11", step=3)
    log.write(1, "container.exit", "aa11", report={"name": "web", "x": 1})
    trace = find(log.path, "aa11")
    assert trace.failed is not None
    assert trace.exit is not None
    assert (trace.failed["step"], trace.exit["report"]["x"]) == (3, 1)


def test_lines_that_are_not_events_of_a_container_are_passed_over(log: Log) -> None:
    log.data = log.data + b'aa11\n{"seq": 1, "prev": "", "container": 5, "x": "aa11"}\n'
    log.audit.write([Event.now("plugin.refused", name="aa11")])
    assert find(log.path, "aa11").last["seq"] == 2


def test_a_trace_starts_empty() -> None:
    trace: Any = Trace("aa11")
    assert (trace.name, trace.exit, trace.failed, trace.last) == ("", None, None, {})
