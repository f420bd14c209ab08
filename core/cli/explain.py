"""A report in plain words: what happened, the limits, what was used of them, what to try."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from gocker.receipt import Report

_HEADLINES = {
    "ok": "ended well",
    "exit": "ended by itself with exit status {code}",
    "signal": "was ended by {signal}",
    "oom": "ran out of memory",
    "timeout": "did not end in time",
    "exec-failed": "never ran: its command could not be started",
    "setup-failed": "never ran: gocker could not set it up",
    "unknown": "came to an end that nobody saw",
}
_HINTS = {
    ("exit", "126"): "a shell inside ends with 126 when it may not execute a file: look at its mode",
    (
        "exit",
        "127",
    ): "a shell inside ends with 127 when it does not find a command: look at the image and at PATH",
    ("exit", "137"): "137 is what a shell gives when SIGKILL ended its child; no OOM kill was counted",
    ("signal", "SIGKILL"): "no OOM kill was counted: somebody sent the signal, from inside or from the host",
    ("signal", "SIGSEGV"): "a fault of the program: it touched memory that it does not have",
    ("signal", "SIGSYS"): "seccomp stopped a system call: compare with --security-opt seccomp=unconfined",
    ("exec-failed", "126"): "look at the file's mode, and that it is a program for this machine",
    ("exec-failed", "127"): "look at the spelling, at PATH inside, and that the image has it",
    ("timeout", ""): "raise --timeout, or find out what it was waiting for",
}


def explain(report: Report) -> str:
    """The report in plain words: what happened, the limits and what was used of them, what to try."""
    verdict = report.verdict
    headline = _HEADLINES.get(verdict.kind, verdict.kind).format(code=verdict.code, signal=verdict.signal)
    rows = [
        ("verdict", verdict.kind + ("" if verdict.code is None else f", exit status {verdict.code}")),
        ("what happened", verdict.detail),
        ("command", shlex.join(report.command)),
        ("started", report.started),
        ("finished", report.finished),
        *_usage_rows(report.usage),
        *((f"limit {label}", _limit_text(label, row)) for label, row in report.limits.items()),
        *(("try", hint) for hint in hints(report)),
    ]
    lines = [f"{report.name or report.container} ({report.container[:12]}) {headline}", ""]
    lines += [f"  {name:<18} {value}" for name, value in rows if value]
    return "\n".join(map(printable, lines))


def hints(report: Report) -> list[str]:
    """What to look at or to change, most likely first; empty when all is well."""
    kind, usage = report.verdict.kind, report.usage
    found = []
    if kind == "oom":
        found.append(_oom_hint(report))
    if usage.get("pids_refused"):
        found.append(f"fork was refused {usage['pids_refused']} times by the limit pids: raise --limit pids")
    for key in (report.verdict.signal, str(report.verdict.code), ""):
        hint = _HINTS.get((kind, str(key)))
        if hint:
            found.append(hint)
            break
    return found


def _oom_hint(report: Report) -> str:
    usage = report.usage
    limit = report.limits.get("memory", {}).get("effective")
    if usage.get("memory_ooms", usage.get("memory_limit_hits")) == 0 or not isinstance(limit, int):
        return "free memory on the host, raise the limit of the parent cgroup, or run fewer at a time"
    return f"raise --limit memory above {_size(limit)}, or let the program use less"


def _usage_rows(usage: Mapping[str, int | None]) -> list[tuple[str, str]]:
    rows = []
    for name, value in usage.items():
        if value is None:
            continue
        label = name.replace("_", " ").removesuffix(" us").removesuffix(" bytes")
        if name.endswith("_us"):
            rows.append((label, f"{value / 1_000_000:.3f} s"))
        elif name.endswith("_bytes"):
            rows.append((label, _bytes(value)))
        else:
            rows.append((label, str(value)))
    return rows


def _limit_text(label: str, row: Mapping[str, Any]) -> str:
    effective = row.get("effective")
    if effective is None:
        return f"asked {row.get('asked')}, does not bind: {row.get('reason')}"
    text = _bytes(effective) if label.startswith("memory") and isinstance(effective, int) else str(effective)
    return f"{text}, asked {row.get('asked')}"


def _bytes(value: int) -> str:
    return f"{value} bytes ({_size(value)})" if value >= 1024 else f"{value} bytes"


def _size(value: int) -> str:
    """In the units of --limit, shortened: `100m`, `1.5g`."""
    unit, size = "", float(value)
    for larger in "kmgt":
        if size < 1024:
            break
        unit, size = larger, size / 1024
    return f"{size:.1f}".removesuffix(".0") + unit


def printable(text: str) -> str:
    """`text` with control characters and undecodable bytes escaped: containers choose their argv."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
