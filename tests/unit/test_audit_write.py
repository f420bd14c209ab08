"""Writing the audit log: the file, the lines, the chain, and what happens when a write fails."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from auditing import ACTOR, ID, PLAN, Log

from gocker.audit import AuditLog, Event, default_path
from gocker.auditchain import HEAD_BYTES, ZERO, Head, parse_head
from gocker.auditlog import ChainError, verify
from gocker.errors import AuditError, GockerError
from gocker.record import Record


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


class Faulty(AuditLog):
    """Hands out file descriptors on which the calls of a full or read-only disk fail."""

    log_fd: Callable[[str], int] | None = None
    head_fd: Callable[[str], int] | None = None

    def _open(self) -> int:
        return self.log_fd(self.path) if self.log_fd else super()._open()

    def _open_head(self) -> int:
        return self.head_fd(self.path + ".head") if self.head_fd else super()._open_head()


def test_an_event_is_one_line_of_json_with_the_documented_fields_first(log: Log) -> None:
    event = Event(
        1_769_860_800_123_456_789, "controller.set", "warning", {"limit": "memory", "asked": "100m"}
    )
    log.audit.write([event], container=ID, plan=PLAN)
    assert log.data.count(b"\n") == 1
    assert list(log.events[0].items()) == [
        ("timestamp", "2026-01-31T12:00:00.123456Z"),
        ("level", "warning"),
        ("event", "controller.set"),
        ("container", ID),
        ("actor", ACTOR),
        ("plan", PLAN),
        ("seq", 1),
        ("prev", ZERO),
        ("limit", "memory"),
        ("asked", "100m"),
    ]


def test_each_line_names_the_sha256_of_the_line_before_it(log: Log) -> None:
    log.write(2)
    log.write(3)
    lines, events = log.lines, log.events
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5]
    assert [event["prev"] for event in events[1:]] == [
        hashlib.sha256(line).hexdigest() for line in lines[:-1]
    ]


def test_the_head_record_holds_number_size_and_hash_of_the_last_line(log: Log) -> None:
    log.write(3)
    head = Path(log.head).read_bytes()
    assert len(head) == HEAD_BYTES
    assert parse_head(head) == Head(3, len(log.data), hashlib.sha256(log.lines[-1]).hexdigest())


def test_two_writers_continue_one_chain(log: Log) -> None:
    other = Log(os.path.dirname(log.path))
    log.write(2)
    other.write(2)
    log.write(1)
    assert verify([log.path], live=True).events == 5


def test_writing_nothing_makes_no_file(log: Log) -> None:
    log.audit.write([])
    assert not os.path.exists(log.path)


def test_the_log_and_its_directory_are_private(tmp_path: Path) -> None:
    log = Log(tmp_path / "var" / "log")
    log.write()
    for path, mode in ((log.path, 0o600), (log.head, 0o600), (os.path.dirname(log.path), 0o700)):
        assert stat.S_IMODE(os.stat(path).st_mode) == mode


def test_no_descriptor_stays_open(log: Log) -> None:
    log.write()
    before = len(os.listdir("/proc/self/fd"))
    log.write()
    log.audit.prepare()
    assert len(os.listdir("/proc/self/fd")) == before


def test_text_that_is_not_utf8_or_has_newlines_stays_within_its_line(log: Log) -> None:
    log.write(text="a\nb\u2028c\udcff\x1b[2J")
    assert log.data.isascii()
    assert len(log.lines) == 1
    assert log.events[0]["text"] == "a\nb\u2028c\udcff\x1b[2J"


def test_data_never_replaces_a_leading_field(log: Log) -> None:
    log.audit.write([Event(0, "x", data={"seq": 99, "prev": "y", "level": "z", "seq_": 1})], container=ID)
    event = log.events[0]
    assert (event["seq"], event["prev"], event["level"]) == (1, ZERO, "info")
    assert (event["prev_"], event["level_"]) == ("y", "z")


class Point(Record):
    x: int


def test_records_sets_bytes_and_strangers_become_json(log: Log) -> None:
    log.write(point=Point(1), numbers={3, 1}, raw=b"a\xff", other=ValueError("no"))
    event = log.events[0]
    assert (event["point"], event["numbers"], event["raw"], event["other"]) == (
        {"x": 1},
        [1, 3],
        "a\udcff",
        "no",
    )


@pytest.mark.parametrize("value", [float("nan"), {(1, 2): 3}])
def test_what_cannot_be_json_is_an_error_that_names_the_event_and_writes_nothing(
    log: Log, value: Any
) -> None:
    log.write()
    before = log.data
    with pytest.raises(AuditError, match=r"write audit event bad\.one: not JSON"):
        log.audit.write([Event.now("fine"), Event.now("bad.one", value=value)])
    assert log.data == before
    log.write()
    assert verify([log.path], live=True).events == 2


def test_an_event_is_a_record_with_defaults() -> None:
    assert Event(5, "a.b") == Event(5, "a.b", "info", {})
    assert Event.now("a.b", "error", level="x").data == {"level": "x"}
    assert Event.fields.keys() == {"time_ns", "event", "level", "data"}


# --- the file -----------------------------------------------------------------------------------------


def test_a_symbolic_link_is_not_followed(log: Log, tmp_path: Path) -> None:
    os.symlink(tmp_path / "elsewhere", log.path)
    with pytest.raises(AuditError, match=r"ELOOP.*symbolic link is not followed"):
        log.write()
    assert not (tmp_path / "elsewhere").exists()


def test_a_symbolic_link_for_a_head_is_not_followed(log: Log, tmp_path: Path) -> None:
    os.symlink(tmp_path / "elsewhere", log.head)
    with pytest.raises(AuditError, match="ELOOP"):
        log.write()
    assert not (tmp_path / "elsewhere").exists()
    assert log.data == b""


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["fifo", "directory"])
def test_only_a_regular_file_is_a_log(log: Log, make: Callable[[str], None]) -> None:
    make(log.path)
    for call in (log.write, log.audit.prepare):
        with pytest.raises(AuditError, match=r"regular file|EISDIR") as caught:
            call()
        assert "GOCKER_AUDIT_LOG" in str(caught.value)


def test_a_directory_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AuditError) as caught:
        Log(tmp_path / "file" / "below").write()
    assert str(caught.value).startswith(f"write audit log {tmp_path}/file/below/audit.jsonl: ENOTDIR:")
    assert caught.value.exit_code == 125


def test_prepare_makes_the_files_and_writes_nothing(tmp_path: Path) -> None:
    log = Log(tmp_path / "new")
    log.audit.prepare()
    assert log.data == b""
    assert os.path.getsize(log.head) == 0
    log.write()
    assert verify([log.path], live=True).events == 1


def test_prepare_refuses_a_full_disk(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gocker.audit._FREE", 1 << 62)
    with pytest.raises(AuditError, match=r"ENOSPC.*free space on that file system"):
        log.audit.prepare()


def test_a_writer_that_waited_out_a_rotation_writes_to_the_new_file(log: Log) -> None:
    """One opened the log and waits for its lock; meanwhile the lock's holder renames the file."""
    log.write()
    holder = log.audit._open()
    waiter = threading.Thread(target=log.write)
    waiter.start()
    waiter.join(0.1)
    assert waiter.is_alive()
    os.rename(log.path, log.path + ".1")
    os.close(holder)
    waiter.join()
    assert [event["seq"] for event in log.events] == [2]
    assert verify([log.path + ".1", log.path], live=True).events == 2


def test_a_descriptor_of_another_file_is_given_up(log: Log) -> None:
    log.write()
    fd = os.open(log.path, os.O_RDWR)
    try:
        assert log.audit._locked(fd)
        os.rename(log.path, log.path + ".1")
        log.data = b""
        assert not log.audit._locked(fd)
    finally:
        os.close(fd)


# --- failing writes -----------------------------------------------------------------------------------


def full(path: str) -> int:
    """The kernel's own full disk: every write fails with ENOSPC."""
    return os.open("/dev/full", os.O_RDWR)


def readonly(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CREAT)


def test_a_log_that_cannot_be_written_is_left_as_it_was(log: Log) -> None:
    log.write(2)
    before = log.data, Path(log.head).read_bytes()
    faulty = Faulty(log.path, ACTOR)
    faulty.log_fd = readonly
    with pytest.raises(AuditError, match="EBADF") as caught:
        faulty.write([Event.now("x")])
    assert (log.data, Path(log.head).read_bytes()) == before
    assert "half-written" in caught.value.__notes__[0]  # a read-only descriptor cannot be truncated either


def test_when_the_head_cannot_be_written_the_lines_are_taken_back(log: Log) -> None:
    log.write(2)
    before = log.data
    faulty = Faulty(log.path, ACTOR)
    faulty.head_fd = readonly
    with pytest.raises(AuditError, match="EBADF"):
        faulty.write([Event.now("x")] * 3)
    assert log.data == before
    assert verify([log.path], live=True).events == 2


def test_a_full_disk_names_the_remedy(log: Log) -> None:
    faulty = Faulty(log.path, ACTOR)
    faulty.head_fd = full
    with pytest.raises(AuditError, match=r"ENOSPC.*free space.*GOCKER_AUDIT_LOG"):
        faulty.write([Event.now("x")])


def test_short_writes_are_continued() -> None:
    from gocker.audit import _write_all

    read, write = os.pipe()
    try:
        os.set_blocking(write, False)
        with pytest.raises(BlockingIOError):
            _write_all(write, b"x" * (1 << 20))  # a pipe takes 64 KiB, then says EAGAIN
        taken = len(os.read(read, 1 << 20))
        assert 0 < taken < 1 << 20
    finally:
        os.close(read)
        os.close(write)


# --- what writers find --------------------------------------------------------------------------------


def test_an_unfinished_line_of_a_killed_writer_is_removed_and_that_is_recorded(log: Log) -> None:
    log.write(2)
    whole = log.data
    log.data = whole + b'{"timestamp": "2026-01-31T12:0'
    log.write()
    assert log.data.startswith(whole)
    assert [event["event"] for event in log.events[2:]] == ["audit.repaired", "controller.set"]
    assert log.events[2]["reason"] == "removed 30 bytes of an event whose writer was killed"
    assert log.events[2]["container"] == ""
    assert verify([log.path], live=True).events == 4


def test_whole_lines_that_a_killed_writer_left_unacknowledged_stay(log: Log) -> None:
    log.write(2)
    head = Path(log.head).read_bytes()
    log.write(2)
    Path(log.head).write_bytes(head)  # as if SIGKILL had come between the two writes
    assert verify([log.path], live=True).events == 4
    log.write()
    assert [event["seq"] for event in log.events] == [1, 2, 3, 4, 5]
    assert verify([log.path], live=True).events == 5


@pytest.mark.parametrize(
    "foreign", [b"hello\n", b"hello", b'{"seq": 9, "prev": ""}\n', b'{"timestamp": 1}\n']
)
def test_bytes_that_gocker_did_not_write_are_kept_and_recorded(log: Log, foreign: bytes) -> None:
    log.write(2)
    log.data = log.data + foreign
    log.write()
    damaged, last = map(json.loads, log.lines[-2:])
    assert log.lines[2] == foreign.rstrip(b"\n")
    assert (damaged["event"], damaged["level"], damaged["seq"]) == ("audit.damaged", "error", 3)
    assert damaged["reason"] == f"{len(foreign)} bytes after event 2 were not written by gocker"
    assert last["seq"] == 4
    with pytest.raises(ChainError) as caught:
        verify([log.path], live=True)
    assert caught.value.line == 3


@pytest.mark.parametrize("cut", [2, 40, 500])
def test_a_cut_stays_visible_after_the_next_write(log: Log, cut: int) -> None:
    log.write(5)
    log.data = log.data[:-cut]
    whole = log.data.count(b"\n")
    log.write()
    damaged = json.loads(log.lines[-2])
    assert damaged["event"] == "audit.damaged"
    assert damaged["reason"] == f"{cut} bytes are missing at its end, up to event 5"
    assert damaged["seq"] == 6
    with pytest.raises(ChainError) as caught:
        verify([log.path], live=True)
    assert caught.value.line == whole + 1


def test_a_cut_at_the_end_of_a_line_stays_visible_after_the_next_write(log: Log) -> None:
    log.write(5)
    log.lines = log.lines[:3]
    log.write()
    with pytest.raises(ChainError, match="events 4 to 5 are missing before line 4"):
        verify([log.path], live=True)


def test_a_changed_last_line_stays_visible_after_the_next_write(log: Log) -> None:
    log.write(3)
    log.data = log.data.replace(b'"number": 2', b'"number": 3')
    log.write()
    with pytest.raises(ChainError, match="line 3 was changed"):
        verify([log.path], live=True)


@pytest.mark.parametrize("junk", [None, b"", b"x" * HEAD_BYTES, b"1 2 3\n"])
def test_a_lost_head_record_is_recorded(log: Log, junk: bytes | None) -> None:
    log.write(3)
    if junk is None:
        os.unlink(log.head)
    else:
        Path(log.head).write_bytes(junk)
    with pytest.raises(ChainError, match="lines missing after line 3 would not show"):
        verify([log.path], live=True)
    log.write()
    assert [event["event"] for event in log.events[3:]] == ["audit.damaged", "controller.set"]
    with pytest.raises(
        ChainError, match="line 4 records damage to the log: its head record is missing"
    ) as caught:
        verify([log.path], live=True)
    assert caught.value.line == 4


@pytest.mark.parametrize("data", [b"junk\n", b"junk"])
def test_a_file_of_another_kind_is_continued_with_the_damage_on_record(log: Log, data: bytes) -> None:
    log.data = data
    log.write()
    assert log.lines[0] == b"junk"
    assert json.loads(log.lines[1])["event"] == "audit.damaged"
    assert json.loads(log.lines[1])["seq"] == 1


def test_the_chain_goes_on_in_a_new_file_after_rotation(log: Log) -> None:
    log.write(3)
    os.rename(log.path, log.path + ".1")
    log.write(2)
    assert [event["seq"] for event in log.events] == [4, 5]
    assert verify([log.path + ".1", log.path], live=True).events == 5
    with pytest.raises(
        ChainError, match=r"events 1 to 3 are missing before line 1 \(name the older files first"
    ):
        verify([log.path], live=True)


def test_the_head_follows_a_rotation_before_the_first_line_does(log: Log) -> None:
    """Else a writer that is killed between the two would leave a log that is shorter than its head says."""
    log.write(3)
    last = hashlib.sha256(log.lines[-1]).hexdigest()
    os.rename(log.path, log.path + ".1")
    faulty = Faulty(log.path, ACTOR)
    faulty.log_fd = readonly
    with pytest.raises(AuditError):
        faulty.write([Event.now("x")])
    assert parse_head(Path(log.head).read_bytes()) == Head(3, 0, last)


def test_the_environment_names_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOCKER_AUDIT_LOG", "/x/y.jsonl")
    assert default_path() == "/x/y.jsonl"


def test_a_log_that_shrinks_while_it_is_read_is_read_to_its_end(log: Log) -> None:
    from gocker.auditchain import _read

    log.write()
    fd = os.open(log.path, os.O_RDONLY)
    try:
        assert _read(fd, 0, 1 << 20) == log.data
    finally:
        os.close(fd)


def test_errors_are_of_gocker_and_carry_the_errno(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(GockerError) as caught:
        Log(tmp_path / "file").write()
    assert caught.value.errno == errno.ENOTDIR
