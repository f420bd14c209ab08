"""The hash chain of the audit log: its links, its head record, and where a writer goes on.

Each line names the SHA-256 of the line before it (`prev`) and its own number (`seq`). A chain cannot
show that its last lines were cut off, so a file beside the log, `audit.jsonl.head`, records how far the
log went: number and hash of the last line, and the log's size. Writers hold the log's lock over
append, then head; so after SIGKILL the head may lag behind by one batch, and it never leads.
Bytes beyond the recorded size are a write that was never acknowledged; bytes missing from it were cut.
docs/audit.md tells the cases apart.
"""

from __future__ import annotations

import json
import os
from typing import Any

from gocker.digest import sha256
from gocker.record import Record

ZERO = "0" * 64  # what the first line names as its predecessor
LINE_START = b'{"timestamp": "'  # of every line that gocker writes
HEAD_BYTES = 107
_TAIL_BYTES = 1 << 20  # where the last line is looked for when there is no head record


class Head(Record):
    """How far the log went: the last line's number and hash, and the size of the log after it."""

    seq: int = 0
    size: int = 0  # bytes
    hash: str = ZERO  # SHA-256, hexadecimal

    def pack(self) -> bytes:
        """One line of fixed width, so that a single pwrite(2) replaces it whole."""
        return b"%020d %020d %s\n" % (self.seq, self.size, self.hash.encode("ascii"))


class Resume(Record):
    """Where the next line goes."""

    seq: int  # of the last line
    hash: str  # that the next line names
    size: int  # bytes of the log to keep; less than it has: an unfinished line is removed
    prefix: bytes = b""  # written before the next line
    repaired: str = ""  # what a killed writer left and is removed
    damage: str = ""  # what is wrong with the log, for the record


def digest(line: bytes) -> str:
    """SHA-256 of a line without its newline, hexadecimal."""
    return sha256(line).hexdigest()


def parse_head(data: bytes) -> Head | None:
    """The head record; None when it is empty or not one."""
    parts = data.split()
    if len(data) != HEAD_BYTES or len(parts) != 3 or not (parts[0] + parts[1]).isdigit():
        return None
    return Head(seq=int(parts[0]), size=int(parts[1]), hash=parts[2].decode("ascii", "replace"))


def parse_line(line: bytes) -> dict[str, Any] | None:
    """A line of the log; None when it is not a JSON object with `seq` and `prev`."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        return None
    if (
        not isinstance(data, dict)
        or type(data.get("seq")) is not int
        or not isinstance(data.get("prev"), str)
    ):
        return None
    return data


def resume(fd: int, size: int, head: Head | None) -> Resume:
    """Where a writer goes on, from the log (open for reading, `size` bytes) and its head record.

    The chain is continued from what the head vouches for, never from bytes found in its place, so
    that a change stays visible after the next write.
    """
    if head is None:
        return _from_last_line(fd, size) if size else Resume(0, ZERO, 0)
    if size == head.size or not size:  # not size: a new file after rotation
        return Resume(head.seq, head.hash, size)
    if size < head.size:
        prefix = b"" if os.pread(fd, 1, size - 1) == b"\n" else b"\n"
        missing = f"{head.size - size} bytes are missing at its end, up to event {head.seq}"
        return Resume(head.seq, head.hash, size, prefix, damage=missing)
    return _beyond(fd, size, head)


def _beyond(fd: int, size: int, head: Head) -> Resume:
    """Take in the whole lines that a killed writer left beyond the head's size."""
    *lines, rest = _read(fd, head.size, size).split(b"\n")
    seq, prev, end = head.seq, head.hash, head.size
    for line in lines:
        data = parse_line(line)
        if data is None or (data["seq"], data["prev"]) != (seq + 1, prev):
            break
        seq, prev, end = seq + 1, digest(line), end + len(line) + 1
    else:
        if not rest:
            return Resume(seq, prev, end)
        if rest.startswith(LINE_START[: len(rest)]):
            removed = f"removed {len(rest)} bytes of an event whose writer was killed"
            return Resume(seq, prev, end, repaired=removed)
    damage = f"{size - end} bytes after event {seq} were not written by gocker"
    return Resume(seq, prev, size, b"\n" if rest else b"", damage=damage)


def _from_last_line(fd: int, size: int) -> Resume:
    *_, last, rest = (b"\n" + _read(fd, max(0, size - _TAIL_BYTES), size)).split(b"\n")
    data = parse_line(last)
    seq, prev = (data["seq"], digest(last)) if data else (0, ZERO)
    damage = "its head record is missing, so lines before this one may be, too"
    return Resume(seq, prev, size, b"\n" if rest else b"", damage=damage)


def _read(fd: int, start: int, end: int) -> bytes:
    parts = []
    while start < end:
        part = os.pread(fd, end - start, start)
        if not part:
            break
        parts.append(part)
        start += len(part)
    return b"".join(parts)
