"""The audit log as it is read: verifying the chain, selecting events, following the file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import IO, Any

from gocker.auditchain import ZERO, Head, digest, parse_head, parse_line
from gocker.errors import AuditError, UsageError
from gocker.record import Record

_OLDER = (
    "name the older files first: gocker audit verify audit.jsonl.1 audit.jsonl; or --partial if they are gone"
)
_AGE = re.compile(r"(\d+)([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class ChainError(AuditError):
    """The log is not what gocker wrote; `path` and `line` (from 1) say where."""

    exit_code = 1

    def __init__(self, path: str, line: int, reason: str, *, remedy: str = "") -> None:
        """`reason` speaks of the line by its number."""
        super().__init__("verify audit log", path, reason, remedy=remedy)
        self.path = path
        self.line = line


class Verified(Record):
    """What `verify` found whole."""

    events: int
    notes: tuple[str, ...] = ()  # what could not be checked


class Line(Record):
    """One line of a log."""

    number: int  # from 1
    offset: int  # bytes
    raw: bytes  # without its newline
    whole: bool = True  # ends with a newline


def _open(path: str) -> IO[bytes]:
    try:
        return open(path, "rb")
    except OSError as error:
        remedy = "nothing is written before the first run; GOCKER_AUDIT_LOG names another file"
        raise AuditError.from_os("read audit log", path, error, remedy=remedy) from error


def read_lines(file: IO[bytes], size: int | None = None) -> Iterator[Line]:
    """The lines of an open log up to `size` bytes; the last may not be whole."""
    offset, number = 0, 0
    for number, raw in enumerate(file, 1):
        if size is not None and offset >= size:
            return
        data = raw if size is None else raw[: size - offset]
        whole = data.endswith(b"\n")
        yield Line(number, offset, data[:-1] if whole else data, whole)
        offset += len(data)


# --- verify -------------------------------------------------------------------------------------------


def verify(paths: Sequence[str], *, live: bool = False, partial: bool = False) -> Verified:
    """Check the chain over the files in order, oldest first; raise ChainError at the first break.

    The last file's head record, where there is one, shows lines that are missing at the end. `live`
    says that the last file is the one that gocker writes to: there the head must be. `partial` takes
    the first line as it is, since the files before it are gone.
    """
    chain = _Verifier(partial=partial)
    for i, path in enumerate(paths, 1):
        with _open(path) as file:
            chain.file(path, file, last=i == len(paths), live=live)
    return Verified(chain.count, tuple(chain.notes))


def _snapshot(path: str, file: IO[bytes]) -> tuple[int, Head | None]:
    """Size and head record of one moment, between two writes."""
    fcntl.flock(file, fcntl.LOCK_SH)
    try:
        size = os.fstat(file.fileno()).st_size
        with contextlib.suppress(FileNotFoundError), open(path + ".head", "rb") as head:
            return size, parse_head(head.read(256))
        return size, None
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


class _Verifier:
    """The chain so far: `seq` and `hash` of the last line that was accepted."""

    def __init__(self, *, partial: bool) -> None:
        self.partial = partial
        self.seq, self.hash = 0, ZERO
        self.count = 0
        self.notes: list[str] = []

    def file(self, path: str, file: IO[bytes], *, last: bool, live: bool) -> None:
        size, head = _snapshot(path, file)
        self.path, self.head = path, head
        number = 0
        lines = read_lines(file, size)
        line = next(lines, None)
        while line is not None:
            following = next(lines, None)
            if not line.whole and head is not None and line.offset >= head.size:
                self.notes.append(f"line {line.number} is unfinished: its writer was killed")
                break
            self._line(line, following)
            number, line = line.number, following
        if head is not None and self.seq < head.seq:
            n, missing = number + 1, _events(self.seq + 1, head.seq)
            raise self._broken(n, f"line {n} is missing: {missing} cut off at the end")
        if head is None and size and last:
            lost = f"{path}.head is not there: lines missing after line {number} would not show"
            if live:
                raise self._broken(number, lost)
            self.notes.append(lost)

    def _line(self, line: Line, following: Line | None) -> None:
        n = line.number
        data = parse_line(line.raw)
        if not line.whole:
            raise self._broken(n, f"line {n} is cut: its end is missing")
        if data is None:
            raise self._broken(n, f"line {n} was changed or inserted: it is not an audit event")
        if self.partial and not self.count:
            self.seq, self.hash = data["seq"] - 1, data["prev"]
            self.notes.append(f"the first event is {data['seq']}: those before it are in no file named here")
        seq, own, follows = data["seq"], digest(line.raw), data["prev"] == self.hash
        if follows and seq != self.seq + 1:
            raise self._broken(n, f"line {n} was changed: it says event {seq} in place of {self.seq + 1}")
        if seq > self.seq + 1:
            raise self._gap(n, seq)
        if seq <= self.seq:
            raise self._broken(n, f"line {n} is out of order: event {seq} comes after event {self.seq}")
        if not follows:
            raise self._changed_before(n, self._vouched(seq, own, following))
        if self.head is not None and self.head.seq == seq and self.head.hash != own:
            raise self._broken(n, f"line {n} was changed: the head record names another hash for it")
        if data.get("event") == "audit.damaged":
            raise self._broken(n, f"line {n} records damage to the log: {data.get('reason')}")
        self.seq, self.hash = seq, own
        self.count += 1

    def _vouched(self, seq: int, own: str, following: Line | None) -> bool | None:
        """Whether the head record or the next line names this hash; None: neither can tell."""
        if self.head is not None and self.head.seq == seq:
            return self.head.hash == own
        data = parse_line(following.raw) if following is not None else None
        return None if data is None else data["prev"] == own

    def _changed_before(self, n: int, vouched: bool | None) -> ChainError:
        """Line `n` names another predecessor than the one that is there."""
        if n > 1 and vouched:
            return self._broken(n - 1, f"line {n - 1} was changed: line {n} names another hash for it")
        if n > 1 and vouched is None:
            return self._broken(n - 1, f"line {n - 1} or line {n} was changed: their hashes differ")
        return self._broken(n, f"line {n} was changed: it names another line before it")

    def _gap(self, n: int, seq: int) -> ChainError:
        first = self.seq + 1
        for line in read(self.path):
            data = parse_line(line.raw) if line.number > n else None
            if data is not None and data["seq"] == first:
                reason = f"line {n} is out of order: event {first} stands at line {line.number}"
                return self._broken(n, reason)
        remedy = _OLDER if n == 1 and not self.count else ""
        return self._broken(n, f"{_events(first, seq - 1)} missing before line {n}", remedy=remedy)

    def _broken(self, line: int, reason: str, *, remedy: str = "") -> ChainError:
        return ChainError(self.path, line, reason, remedy=remedy)


def _events(first: int, last: int) -> str:
    return f"event {first} is" if first == last else f"events {first} to {last} are"


# --- show, tail ---------------------------------------------------------------------------------------


class Selection:
    """Which events are wanted."""

    def __init__(self, *, container: str = "", event: str = "", since: str = "") -> None:
        """`container` is an id, its beginning, or a name; `event` a glob; `since` as from parse_since."""
        self._container, self._event, self._since = container, event, since
        self._ids: set[str] = set()  # of the containers that had the name

    def wants(self, data: dict[str, Any]) -> bool:
        """Whether this event is one. Ask in the order of the log: names are learnt on the way."""
        identity = str(data.get("container", ""))
        if self._container and identity and self._container in names_of(data):
            self._ids.add(identity)
        return (
            (not self._container or identity in self._ids or identity.startswith(self._container))
            and (not self._event or fnmatchcase(str(data.get("event", "")), self._event))
            and str(data.get("timestamp", "")) >= self._since
        )


def names_of(data: dict[str, Any]) -> tuple[str, ...]:
    """The container's name as an event gives it: in `name` or in its report."""
    report = data.get("report")
    reported = report.get("name") if isinstance(report, dict) else None
    own = data.get("name") if str(data.get("event", "")).startswith("container.") else None
    return tuple(name for name in (own, reported) if isinstance(name, str) and name)


def parse_since(text: str, now: float) -> str:
    """`10m`, `2h`, `1d` before `now` (seconds since the epoch), or RFC 3339, as a timestamp of the log.

    Raise UsageError on other text. A time without an offset is UTC.
    """
    import datetime as dt

    age = _AGE.fullmatch(text)
    try:
        if age:
            seconds = now - int(age[1]) * _SECONDS[age[2]]
            moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
        else:
            moment = dt.datetime.fromisoformat(text)
            moment = moment.replace(tzinfo=moment.tzinfo or dt.UTC).astimezone(dt.UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            "parse --since", text, str(error), remedy="10m, 2h, 1d or 2026-01-31T12:00:00Z"
        ) from error
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def read(path: str) -> Iterator[Line]:
    """All lines of the log; raise AuditError when it cannot be read."""
    with _open(path) as file:
        yield from read_lines(file)


def follow(path: str, *, wait: Callable[[float], None] = time.sleep) -> Iterator[Line | None]:
    """All lines, then a None, then each whole line as it is written, for ever, across rotation."""
    caught_up = False
    while True:
        with _open(path) as file:
            offset, number, replaced = 0, 0, False
            while True:
                file.seek(offset)
                for line in read_lines(file):
                    if line.whole:
                        number += 1
                        yield line.replace(number=number, offset=offset)
                        offset += len(line.raw) + 1
                if replaced:
                    break
                if not caught_up:
                    caught_up = True
                    yield None
                wait(0.2)
                replaced = _replaced(path, file, offset)  # before the last look at the old file


def _replaced(path: str, file: IO[bytes], offset: int) -> bool:
    """Whether the log was rotated (another file has its name) or emptied."""
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False  # between two steps of a rotation
    opened = os.fstat(file.fileno())
    return not os.path.samestat(named, opened) or opened.st_size < offset


# --- why ----------------------------------------------------------------------------------------------


class Trace:
    """What the log tells of one container."""

    def __init__(self, container: str) -> None:
        """`container` is its id."""
        self.container = container
        self.name = ""
        self.create: dict[str, Any] | None = None  # the last container.create, as the next ones
        self.start: dict[str, Any] | None = None  # the container.start after that
        self.exit: dict[str, Any] | None = None  # the last container.exit
        self.failed: dict[str, Any] | None = None  # the last step.failed
        self.last: dict[str, Any] = {}

    def take(self, data: dict[str, Any]) -> None:
        """Note one of its events."""
        self.name = next(iter(names_of(data)), self.name)
        self.last = data
        if data.get("event") == "container.create":
            self.create, self.start = data, None
        elif data.get("event") == "container.start":
            self.start = data
        elif data.get("event") == "container.exit":
            self.exit = data
        elif data.get("event") == "step.failed":
            self.failed = data


def find(path: str, target: str) -> Trace:
    """The container whose id, name or beginning of an id is `target`; of one name, the latest.

    Raise AuditError when there is none, or when several ids begin so.
    """
    traces: dict[str, Trace] = {}
    needles = {target.encode("utf-8", "replace")}  # parsing a line costs more than looking for these
    for line in read(path):
        if not any(needle in line.raw for needle in needles):
            continue
        data = parse_line(line.raw) or {}
        container = data.get("container")
        if not isinstance(container, str) or not container:
            continue
        if container in traces or container.startswith(target) or target in names_of(data):
            needles.add(container.encode("utf-8", "replace"))
            traces.setdefault(container, Trace(container)).take(data)
    found = [trace for trace in traces.values() if target in {trace.container, trace.name}]
    found = [trace for trace in found if trace.container == target] or found[-1:] or list(traces.values())
    if len(found) == 1:
        return found[0]
    if not found:
        remedy = "gocker audit show --event container.create lists those that there were"
        raise AuditError("find container", target, f"not in {path}", remedy=remedy)
    names = ", ".join(f"{trace.container} ({trace.name})" for trace in found[:10])
    more = f" and {len(found) - 10} more" if len(found) > 10 else ""
    raise AuditError(
        "find container", target, f"{len(found)} ids begin so: {names}{more}", remedy="give more of the id"
    )
