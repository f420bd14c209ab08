"""How a container ended: the verdict, and the report that carries it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from gocker.auditevent import rfc3339
from gocker.errors import ExecError, GockerError
from gocker.model import ContainerSpec
from gocker.record import Record

KINDS = ("ok", "exit", "signal", "oom", "timeout", "exec-failed", "setup-failed", "unknown")
USAGE = (
    "wall_us",
    "cpu_user_us",
    "cpu_system_us",
    "memory_peak_bytes",
    "pids_peak",
    "io_read_bytes",
    "io_write_bytes",
)
"""What every report has, null where the kernel does not say; plug-ins add others."""


class Verdict(Record):
    """What became of the program."""

    kind: str  # one of KINDS
    code: int | None  # the exit status that docker would give: 0..255; None when it is unknown
    signal: str | None = None  # "SIGKILL" when one ended it
    detail: str = ""  # one line: what happened, with figures


class Report(Record):
    """The receipt of one run; the fields are those of the JSON."""

    container: str
    name: str
    command: tuple[str, ...]
    plan: str  # digest
    started: str  # RFC 3339, UTC, µs
    finished: str
    verdict: Verdict
    usage: Mapping[str, int | None]
    limits: Mapping[str, Mapping[str, Any]]  # label -> asked, effective

    def to_json(self) -> dict[str, Any]:
        """As `--report` writes it and the `container.exit` event carries it."""
        return self.asdict()


def make_report(
    spec: ContainerSpec,
    plan: str,
    *,
    started_ns: int,
    finished_ns: int,
    verdict: Verdict,
    usage: Mapping[str, int],
    effective: Mapping[str, tuple[str, str]],
    unbound: Mapping[str, str] | None = None,
) -> Report:
    """The report of a run of `spec`.

    `usage` holds what the controllers' `stats` gave, and may bring `wall_us`; `effective` gives (asked,
    read back) by limit label, `unbound` the reason why a best-effort limit does not bind.
    """
    known: dict[str, int | None] = dict.fromkeys(USAGE)
    known["wall_us"] = (finished_ns - started_ns) // 1000
    return Report(
        container=spec.id,
        name=spec.name,
        command=spec.argv,
        plan=plan,
        started=rfc3339(started_ns),
        finished=rfc3339(finished_ns),
        verdict=verdict,
        usage={**known, **usage},
        limits=limit_table(spec, effective, unbound or {}),
    )


def limit_table(
    spec: ContainerSpec, effective: Mapping[str, tuple[str, str]], unbound: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """`{label: {asked, effective}}`: asked as the user wrote it, effective as the kernel has it.

    Numbers of the kernel are numbers; one that does not bind is null, with the `reason` beside it.
    """
    asked = {request.label: request.value for request in spec.limits}
    table: dict[str, dict[str, Any]] = {}
    for label, (written, text) in effective.items():
        value: int | str = int(text) if text.isascii() and text.isdigit() else text
        table[label] = {"asked": asked.get(label, written), "effective": value}
    for label, reason in unbound.items():
        table[label] = {"asked": asked.get(label), "effective": None, "reason": reason}
    return table


def judge(
    status: int | None,
    oom_kills: int,
    timed_out: bool,
    error: GockerError | None,
    limits: Mapping[str, tuple[str, str]],
    *,
    usage: Mapping[str, int] | None = None,
    timeout: float | None = None,
) -> Verdict:
    """The verdict on a program that ended with wait(2) `status`, None when it never ran.

    `oom_kills` is the container's own count, from its cgroup: without it SIGKILL is just a signal.
    `error` is why it did not run; `limits` gives (asked, read back) by label, `usage` the
    controllers' counters, `timeout` the seconds after which gocker killed it if `timed_out`.
    """
    if error is not None or status is None:
        kind = "exec-failed" if isinstance(error, ExecError) else "setup-failed"
        code = error.exit_code if error is not None else GockerError.exit_code
        return Verdict(kind=kind, code=code, detail=str(error or "the program was never started"))
    ended = os.waitstatus_to_exitcode(status)
    code = ended if ended >= 0 else 128 - ended
    signal = signal_name(-ended) if ended < 0 else None
    how = f"ended by {signal}" if signal else f"exit status {code}"
    if signal and os.WCOREDUMP(status):
        how += ", core dumped"
    if timed_out:
        after = "" if timeout is None else f" of {timeout:g} s"
        return Verdict("timeout", code, signal, f"still running at the timeout{after}: {how}")
    if oom_kills <= 0:
        kind = "signal" if signal else "exit" if code else "ok"
        return Verdict(kind, code, signal, how)
    kills = _oom_detail(oom_kills, limits, usage or {})
    if ended == 0 or (ended < 0 and signal != "SIGKILL"):  # it got over the loss, or has another end
        return Verdict("signal" if signal else "ok", code, signal, f"{how}; before that {kills}")
    return Verdict("oom", code, signal, f"{kills}: {how}")


def _oom_detail(kills: int, limits: Mapping[str, tuple[str, str]], usage: Mapping[str, int]) -> str:
    """How many were killed and at which level.

    v2 counts the out-of-memory events of this container's limit (memory.events `oom`), v1 only how
    often the limit was met (memory.failcnt). A kill with neither was caused above: by the limit
    of a parent cgroup, or by the host. Source: kernel Documentation/admin-guide/cgroup-v2.rst, memory.events.
    """
    who = f"the kernel's OOM killer killed {kills} process{'es' if kills > 1 else ''}"
    hits = usage.get("memory_ooms", usage.get("memory_limit_hits"))
    limit = limits.get("memory", ("", ""))[1]
    peak = usage.get("memory_peak_bytes")
    figures = ", ".join(
        text for text in (f"peak {peak}" if peak else "", f"limit {limit}" if limit else "") if text
    )
    figures = f" ({figures} bytes)" if figures else ""
    if hits is None:
        return who + figures
    if hits > 0:
        return f"{who} at the container's own memory limit, met {hits} time{'s' if hits > 1 else ''}{figures}"
    return f"{who} for want of memory outside the container, on the host or in a parent cgroup{figures}"


def verdict_exit_code(verdict: Verdict) -> int:
    """The exit status of `gocker run`: the program's, 128 + n for a signal, 125 to 127 for gocker's."""
    return GockerError.exit_code if verdict.code is None else verdict.code


def signal_name(number: int) -> str:
    """`SIGKILL` for 9, `SIGRTMIN+3` for a real-time signal."""
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


def report_from_json(data: Mapping[str, Any]) -> Report:
    """The report that `to_json` made; raise ValueError when it is not one."""
    try:
        fields = {name: data[name] for name in Report.fields}
        verdict = Verdict(**{name: data["verdict"][name] for name in Verdict.fields})
        command = tuple(map(str, data["command"]))
        usage, limits = dict(data["usage"]), {label: dict(row) for label, row in data["limits"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"not a report: {error!r}") from error
    return Report(**{**fields, "verdict": verdict, "command": command, "usage": usage, "limits": limits})
