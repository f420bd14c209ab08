"""Runs one container for a program, and tells it what comes of it: the far end of gocker.embedding's channel."""

from __future__ import annotations

import _socket
import contextlib
import json
import os
import threading
from collections.abc import Mapping
from typing import Any

from gocker import engine, paths
from gocker.audit import AuditLog, load_structlog
from gocker.cli import quick
from gocker.cli.flags import RUN_FLAGS
from gocker.cli.spec import build_spec
from gocker.embedding.wires import Remote, Wires
from gocker.embedding.words import pack
from gocker.errors import GockerError, UsageError
from gocker.images import resolve_image
from gocker.kernel import native, stub
from gocker.launcher import is_for_threads
from gocker.planner import Planned
from gocker.registry import Registry
from gocker.state import State

_REFUSED = ("tty", "interactive", "cidfile", "timeout")
"""Options that have their own place here, or none."""

_planning = threading.Lock()
_registry: Registry | None = None
_recovered = False


def attend(
    channel: _socket.socket,
    message: Mapping[str, Any],
    fds: list[int],
    *,
    threads: bool = False,
) -> bool:
    """Do what `message` asks for; the channel and `fds` become ours, unless this returns False.

    In a process with other `threads` that is not for every plan; then nothing has been done.
    """
    try:
        try:
            spec, planned, warnings = _plan(message, threads=threads)
            if threads and not is_for_threads(planned.plan, spec):
                return False
            _run(channel, message, fds, spec, planned, warnings, threads=threads)
        except GockerError as error:
            _say(channel, {"error": pack(error)})
        except Exception as bug:  # noqa: BLE001 - it goes to the program, which is told what and where
            _say(channel, {"error": pack(_bug(bug))})
    except BaseException:
        channel.close()
        raise
    channel.close()
    while fds:
        os.close(fds.pop())
    return True


def registry() -> Registry:
    """One for the process: what is installed is read once."""
    global _registry  # noqa: PLW0603 - a cache
    if _registry is None:
        _registry = Registry()
    return _registry


def _plan(message: Mapping[str, Any], *, threads: bool) -> tuple[Any, Planned, list[str]]:
    try:
        options = quick.parse(RUN_FLAGS, message["words"])
    except quick.Unclear as error:
        raise UsageError("run", "options", str(error), remedy="see gocker run --help") from error
    for name in _REFUSED:
        if options[name]:
            raise UsageError("run", f"--{name}", "not an option of an embedded container")
    options["interactive"] = message["streams"][0] != "null"
    options["timeout"] = None if message["timeout"] is None else repr(message["timeout"])
    with _planning:
        if threads:  # what is made once in a process is not made by two of them
            load_structlog()
            native.executor_fd(stub.STATUS_FD + 1)
            stub.stub_fd(stub.STATUS_FD + 1)
        warnings = _recover()
        spec = build_spec(options, resolve_image)
        return spec, engine.plan(spec, registry()), warnings


def _recover() -> list[str]:
    """What killed gockers left goes with the first start of a process; others look with each of theirs."""
    global _recovered  # noqa: PLW0603 - once
    if _recovered:
        return []
    _recovered = True
    found = []
    for claim in State().abandoned():
        from gocker.recovery import recover

        found.append(recover(claim))
    return found


def _run(
    channel: _socket.socket,
    message: Mapping[str, Any],
    fds: list[int],
    spec: Any,
    planned: Planned,
    warnings: list[str],
    *,
    threads: bool,
) -> None:
    actor = message["actor"]
    given = list(fds)
    fds.clear()
    streams = Wires(message["streams"], given, engine.root_outside(spec))
    remote = Remote(channel, actor["pid"], actor["uid"])

    def started(pid: int) -> None:
        _say(channel, {"started": {"id": spec.id, "name": spec.name, "pid": pid}})

    try:
        log = AuditLog(paths.audit_log(), actor)
        outcome = engine.run_with(spec, planned, log, streams, remote, started, threads=threads)
    finally:
        streams.close()
        remote.close()
    error = None if outcome.error is None else pack(outcome.error)
    report = outcome.report.to_json()
    _say(channel, {"ended": {"report": report, "error": error, "warnings": [*warnings, *outcome.warnings]}})


def _say(channel: _socket.socket, message: dict[str, Any]) -> None:
    """A line of JSON; that nobody listens any more is no reason not to go on."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        channel.sendall(json.dumps(message, default=str).encode("ascii") + b"\n")


def _bug(bug: Exception) -> GockerError:
    trace = bug.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    where = f", at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
    reason = f"{bug}{where}"
    return GockerError(
        "internal error", type(bug).__name__, reason, remedy="a bug in gocker: please report it"
    )
