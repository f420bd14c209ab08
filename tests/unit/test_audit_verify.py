"""Verifying the audit log: each way to tamper with it is found, and its line named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from auditing import Log
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gocker.auditlog import ChainError, verify
from gocker.errors import AuditError

Tamper = Callable[[list[bytes]], object]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Seven events in three batches."""
    log = Log(tmp_path)
    log.write(3)
    log.write(1)
    log.write(3)
    return log


def problem(log: Log, *, live: bool = True) -> ChainError:
    with pytest.raises(ChainError) as caught:
        verify([log.path], live=live)
    assert caught.value.path == log.path
    assert caught.value.exit_code == 1
    assert str(caught.value).startswith(f"verify audit log {log.path}: ")
    return caught.value


def change(line: bytes) -> bytes:
    return line.replace(b'"uid": 0', b'"uid": 1')


def test_a_whole_log_is_whole(log: Log) -> None:
    result = verify([log.path], live=True)
    assert (result.events, result.notes) == (7, ())


@pytest.mark.parametrize("n", range(1, 8))
def test_a_changed_line_is_named(log: Log, n: int) -> None:
    lines = log.lines
    lines[n - 1] = change(lines[n - 1])
    log.lines = lines
    error = problem(log)
    assert (error.line, error.reason.startswith(f"line {n} was changed")) == (n, True)


@pytest.mark.parametrize("n", range(1, 8))
def test_a_dropped_line_is_named(log: Log, n: int) -> None:
    lines = log.lines
    del lines[n - 1]
    log.lines = lines
    error = problem(log)
    assert error.line == n
    expected = "line 7 is missing: event 7 is cut off" if n == 7 else f"event {n} is missing before line {n}"
    assert error.reason.startswith(expected)


@pytest.mark.parametrize("n", range(1, 8))
@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_cut_within_a_line_is_named(log: Log, n: int, keep: int) -> None:
    lines = log.lines
    log.data = b"".join(line + b"\n" for line in lines[: n - 1]) + lines[n - 1][:keep]
    assert problem(log).line == n


@pytest.mark.parametrize(
    ("tamper", "line", "reason"),
    [
        (lambda lines: lines.insert(2, lines.pop(3)), 3, "line 3 is out of order: event 3 stands at line 4"),
        (lambda lines: lines.append(lines.pop(0)), 1, "line 1 is out of order: event 1 stands at line 7"),
        (lambda lines: lines.insert(3, lines[2]), 4, "line 4 is out of order: event 3 comes after event 3"),
        (lambda lines: lines.insert(3, b""), 4, "line 4 was changed or inserted: it is not an audit event"),
        (lambda lines: lines.insert(0, b"{}"), 1, "line 1 was changed or inserted"),
        (lambda lines: lines.__setitem__(2, b"[" * 100_000), 3, "line 3 was changed or inserted"),
        (lambda lines: lines.__setitem__(2, b"\xff\xfe"), 3, "line 3 was changed or inserted"),
        (lambda lines: lines.__delitem__(slice(2, 5)), 3, "events 3 to 5 are missing before line 3"),
        (lambda lines: lines.__delitem__(slice(4, 7)), 5, "line 5 is missing: events 5 to 7 are cut off"),
        (list.clear, 1, "line 1 is missing: events 1 to 7 are cut off at the end"),
        (
            lambda lines: lines.__setitem__(3, lines[3].replace(b'"seq": 4', b'"seq": 9')),
            4,
            "line 4 was changed: it says event 9 in place of 4",
        ),
        (
            lambda lines: lines.__setitem__(3, lines[3].replace(b'"prev": "', b'"prev": "0')),
            4,
            "line 4 was changed: it names another line before it",
        ),
        (
            lambda lines: lines.__setitem__(0, lines[0].replace(b'"prev": "0', b'"prev": "1')),
            1,
            "line 1 was changed: it names another line before it",
        ),
    ],
)
def test_other_damage_is_named(log: Log, tamper: Tamper, line: int, reason: str) -> None:
    lines = log.lines
    tamper(lines)
    log.lines = lines
    error = problem(log)
    assert error.line == line
    assert error.reason.startswith(reason)


def test_a_line_that_a_changed_line_follows_is_told_from_it_by_the_head(log: Log) -> None:
    lines = log.lines
    lines[5] = change(lines[5])
    log.lines = lines
    assert problem(log).reason == "line 6 was changed: line 7 names another hash for it"
    os.unlink(log.head)
    assert problem(log, live=False).reason == "line 6 or line 7 was changed: their hashes differ"


def test_a_log_without_its_head_is_checked_as_far_as_it_goes(log: Log) -> None:
    os.unlink(log.head)
    result = verify([log.path])
    assert result.events == 7
    assert result.notes == (f"{log.head} is not there: lines missing after line 7 would not show",)
    assert problem(log, live=True).line == 7


def test_without_a_head_a_torn_last_line_is_named(log: Log) -> None:
    os.unlink(log.head)
    log.data = log.data[:-10]
    assert problem(log, live=False).reason == "line 7 is cut: its end is missing"


def test_an_unfinished_line_of_a_killed_writer_is_no_damage(log: Log) -> None:
    log.data = log.data + b'{"timestamp": "2026'
    result = verify([log.path], live=True)
    assert result.events == 7
    assert result.notes == ("line 8 is unfinished: its writer was killed",)


def test_a_line_after_a_changed_last_one_does_not_hide_it(log: Log) -> None:
    """Someone changes the last line and appends one that follows from it; the head still knows."""
    head = Path(log.head).read_bytes()
    log.data = log.data.replace(b'"number": 2}', b'"number": 4}')
    Path(log.head).write_bytes(head.replace(head.split()[2], _sha256(log.lines[-1])))
    log.write()
    Path(log.head).write_bytes(head)
    assert problem(log).line == 3  # the first of the two that read "number": 2
    lines = log.lines
    lines[2] = lines[2].replace(b'"number": 4}', b'"number": 2}')
    log.lines = lines
    assert problem(log).reason == "line 7 was changed: the head record names another hash for it"


def _sha256(line: bytes) -> bytes:
    from gocker.auditchain import digest

    return digest(line).encode()


def test_an_empty_log_that_was_never_written_is_whole(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.audit.prepare()
    assert verify([log.path], live=True).events == 0


def test_a_missing_log_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"read audit log .*: ENOENT.*GOCKER_AUDIT_LOG") as caught:
        verify([str(tmp_path / "none")])
    assert caught.value.exit_code == 125


def test_rotated_files_are_one_chain_and_a_change_names_its_file(log: Log) -> None:
    old = log.path + ".1"
    os.rename(log.path, old)
    log.write(2)
    assert verify([old, log.path], live=True).notes == ()
    with open(old, "r+b") as file:
        file.truncate(os.path.getsize(old) - len(log.lines[0]))
    with pytest.raises(ChainError) as caught:
        verify([old, log.path], live=True)
    assert caught.value.path == old


def test_when_the_older_files_are_gone_the_rest_is_checked_on_request(log: Log) -> None:
    os.rename(log.path, log.path + ".1")
    log.write(4)
    assert problem(log).line == 1
    result = verify([log.path], live=True, partial=True)
    assert result.events == 4
    assert result.notes == ("the first event is 8: those before it are in no file named here",)
    lines = log.lines
    lines[0] = change(lines[0])
    log.lines = lines
    with pytest.raises(ChainError, match="line 1 was changed"):
        verify([log.path], live=True, partial=True)


def test_a_rotated_file_without_its_last_line_shows_at_the_next_file(log: Log) -> None:
    old = Log(os.path.dirname(log.path))
    old.path += ".1"
    os.rename(log.path, old.path)
    log.write(2)
    old.lines = old.lines[:-1]
    with pytest.raises(ChainError, match="event 7 is missing before line 1"):
        verify([old.path, log.path], live=True)


def test_lines_that_come_while_it_is_read_are_left_for_the_next_time(log: Log, tmp_path: Path) -> None:
    from gocker.auditlog import read_lines

    size = len(log.data)
    log.write(2)
    with open(log.path, "rb") as file:
        assert [line.number for line in read_lines(file, size)] == list(range(1, 8))
    with open(log.path, "rb") as file:
        *_, last = read_lines(file, size + 5)
        assert (last.number, last.raw, last.whole) == (8, log.lines[7][:5], False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(data=st.data())
def test_no_edit_of_a_byte_or_a_line_goes_unseen(log: Log, data: st.DataObject) -> None:
    original = log.data
    kind = data.draw(st.sampled_from(["byte", "delete", "swap", "repeat", "truncate"]))
    lines = log.lines
    i = data.draw(st.integers(0, len(lines) - 1))
    try:
        if kind == "byte":
            at = data.draw(st.integers(0, len(original) - 1))
            flip = data.draw(st.integers(1, 255))
            log.data = original[:at] + bytes([original[at] ^ flip]) + original[at + 1 :]
            lowest = original.count(b"\n", 0, at) + 1
        elif kind == "truncate":
            at = data.draw(st.integers(0, len(original) - 1))
            log.data = original[:at]
            lowest = original.count(b"\n", 0, at) + 1
        else:
            other = data.draw(st.integers(0, len(lines) - 1).filter(lambda j: j != i))
            if kind == "delete":
                del lines[i]
                lowest = i + 1
            elif kind == "swap":
                lines[i], lines[other] = lines[other], lines[i]
                lowest = min(i, other) + 1
            else:
                lines.insert(other, lines[i])
                lowest = other + 1
            log.lines = lines
        with pytest.raises(ChainError) as caught:
            verify([log.path], live=True)
        assert caught.value.line == lowest
    finally:
        log.data = original


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    st.lists(
        st.lists(
            st.dictionaries(
                st.text(max_size=8),
                st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=4),
            ),
            max_size=4,
        ),
        max_size=5,
    )
)
def test_whatever_is_logged_the_chain_is_whole_and_the_data_comes_back(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[dict[str, object]]]
) -> None:
    from gocker.audit import Event

    log = Log(tmp_path_factory.mktemp("log"))
    log.audit.prepare()
    events: list[Event] = []
    for batch in batches:
        log.audit.write([Event(0, "x", data=data) for data in batch])
        events += [Event(0, "x", data=data) for data in batch]
    assert verify([log.path], live=True).events == len(events)
    for event, line in zip(events, log.events, strict=True):
        kept = list(line.items())[8:]
        assert [value for _, value in kept] == list(event.data.values())
