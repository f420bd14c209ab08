"""One audit event, and the structlog pipeline that makes it a chained line.

structlog is loaded with the first line that is written, and no more of it than its logger.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, MutableMapping
from types import ModuleType
from typing import Any

from gocker.auditchain import ZERO, digest
from gocker.errors import AuditError
from gocker.record import Record

LEVELS = ("debug", "info", "warning", "error", "critical")
_LEADING = ("timestamp", "level", "event", "container", "actor", "plan", "seq", "prev")
_NOTHING: Mapping[str, Any] = {}
Fields = MutableMapping[str, Any]  # structlog's event dictionary


class Event(Record):
    """Something that happened, before it has a place in the log."""

    time_ns: int  # since the epoch, time.time_ns()
    event: str  # dotted: "controller.set"
    level: str = "info"  # one of LEVELS
    data: Mapping[str, Any] = _NOTHING  # JSON values; never the values of environment variables

    def __init__(
        self, time_ns: int, event: str, level: str = "info", data: Mapping[str, Any] = _NOTHING
    ) -> None:
        """As Record does it, at a third of the time: the launcher's clock is running."""
        self.__dict__.update(time_ns=time_ns, event=event, level=level, data=data)

    @classmethod
    def now(cls, event: str, level: str = "info", /, **data: Any) -> Event:
        """An event of this moment."""
        return cls(time.time_ns(), event, level, data)


def rfc3339(time_ns: int) -> str:
    """`2026-01-31T12:00:00.000000Z` for a time.time_ns(): texts that sort as the times do."""
    global _second  # noqa: PLW0603 - the last one: what happens to a container happens within a second or two
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    known, date = _second
    if known != seconds:
        date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        _second = seconds, date
    return f"{date}.{nanoseconds // 1000:06d}Z"


_second = (-1, "")


def load_structlog() -> ModuleType:
    """Import structlog as a package that runs its `__init__` when one of its names is first asked for.

    That `__init__` takes 54 ms, through asyncio and rich; the logger and its processor chain are in
    `structlog._base`, which needs 0.5. Whoever uses structlog in this process besides gocker, a
    plug-in say, finds it complete: the first look at an attribute completes it.
    """
    loaded = sys.modules.get("structlog")
    if loaded is not None:
        return loaded
    specs = (finder.find_spec("structlog", None) for finder in sys.meta_path)
    spec = next((found for found in specs if found is not None), None)
    if spec is None or spec.loader is None:
        raise AuditError("load structlog", "", "it is not installed", remedy="pip install structlog")
    loader = spec.loader

    class Package(ModuleType):
        __path__: list[str]

        def __getattr__(self, name: str) -> Any:
            self.__class__ = ModuleType  # type: ignore[assignment]
            loader.exec_module(self)
            return getattr(self, name)

    module = Package("structlog")
    module.__spec__ = spec
    module.__loader__ = loader
    module.__file__ = spec.origin
    module.__package__ = "structlog"
    module.__path__ = spec.submodule_search_locations or []
    sys.modules["structlog"] = module
    return module


class Chain:
    """The end of structlog's processor chain: links each event to the last and keeps the lines."""

    def __init__(self) -> None:
        self._encode = json.JSONEncoder(default=_plain, allow_nan=False).encode
        self.start(0, ZERO)

    def start(self, seq: int, prev: str) -> None:
        """Forget the lines; the next one follows number `seq`, whose hash is `prev`."""
        self.lines: list[bytes] = []
        self.seq, self.prev = seq, prev

    def stamp(self, _: object, __: str, fields: Fields) -> Fields:
        """A processor: the event's own time, and its data behind the leading fields."""
        event: Event = fields.pop("record")
        fields["timestamp"] = rfc3339(event.time_ns)
        fields["data"] = event.data
        return fields

    def link(self, _: object, __: str, fields: Fields) -> Fields:
        """A processor: number and predecessor."""
        fields["seq"] = self.seq + 1
        fields["prev"] = self.prev
        return fields

    def render(self, _: object, __: str, fields: Fields) -> bytes:
        """A processor: one line of JSON, in ASCII, so that no text can break the line."""
        data = fields.pop("data")
        line = {name: fields[name] for name in _LEADING}
        for name, value in data.items():
            line[f"{name}_" if name in line else name] = value
        try:
            return self._encode(line).encode("ascii")
        except (TypeError, ValueError, RecursionError) as error:
            raise AuditError("write audit event", line["event"], f"not JSON: {error}") from error

    def keep(self, line: bytes) -> None:
        """What structlog's logger methods are here."""
        self.seq, self.prev = self.seq + 1, digest(line)
        self.lines.append(line + b"\n")

    debug = info = warning = error = critical = keep


def _plain(value: object) -> Any:
    """What json does not know: records as objects, sets as lists, bytes and all else as text."""
    if isinstance(value, Record):
        return value.asdict()
    if isinstance(value, set | frozenset):
        return sorted(value)
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)


def make_logger(chain: Chain, actor: Mapping[str, Any]) -> Any:
    """A structlog logger whose `write(event)` puts a line into `chain.lines`."""
    load_structlog()
    from structlog._base import BoundLoggerBase
    from structlog._log_levels import add_log_level

    class Logger(BoundLoggerBase):
        def write(self, event: Event) -> None:
            self._proxy_to_logger(event.level, event.event, record=event)

    return Logger(chain, [add_log_level, chain.stamp, chain.link, chain.render], {"actor": actor})
