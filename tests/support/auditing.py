"""What the audit log's tests share: a log to write to, and its lines."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from gocker.audit import AuditLog, Event

ACTOR = {"uid": 0, "loginuid": None, "pid": 4711, "command": ["gocker", "run", "base", "true"]}
ID = "3f2a9c00d1e2"
PLAN = "sha256:" + "ab" * 32


class Log:
    """A log in a directory of its own."""

    def __init__(self, directory: os.PathLike[str] | str) -> None:
        self.path = os.path.join(directory, "audit.jsonl")
        self.head = self.path + ".head"
        self.audit = AuditLog(self.path, ACTOR)

    def write(self, count: int = 1, event: str = "controller.set", container: str = ID, **data: Any) -> None:
        """One batch."""
        events = [Event.now(event, number=number, **data) for number in range(count)]
        self.audit.write(events, container=container, plan=PLAN)

    @property
    def data(self) -> bytes:
        with open(self.path, "rb") as file:
            return file.read()

    @data.setter
    def data(self, data: bytes) -> None:
        with open(self.path, "wb") as file:
            file.write(data)

    @property
    def lines(self) -> list[bytes]:
        return self.data.split(b"\n")[:-1]

    @lines.setter
    def lines(self, lines: Sequence[bytes]) -> None:
        self.data = b"".join(line + b"\n" for line in lines)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]
