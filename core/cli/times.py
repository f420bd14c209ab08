"""`gocker plan --times`: how long each step of a start took, from the audit log."""

from __future__ import annotations

import json
from typing import Any

import click

from gocker.cli.explain import printable
from gocker.errors import AuditError


def print_times(container: str, shape: str) -> int:
    """Print the table, or JSON. Raise AuditError when the log does not have the container's start."""
    from gocker.auditlog import find
    from gocker.paths import audit_log

    path = audit_log()
    found = find(path, container)
    create, start = found.create, found.start
    if create is None:
        raise AuditError("find the start of", found.container, f"no container.create in {path}")
    rows = _rows(create.get("steps"), None if start is None else start.get("step_us"))
    failed = found.failed if start is None else None
    if shape == "json":
        head = {"container": found.container, "name": found.name, "plan": create.get("plan")}
        click.echo(json.dumps({**head, "steps": rows, "failed": failed and failed.get("step")}, indent=2))
        return 0
    for line in _table(rows, failed):
        click.echo(printable(line))
    click.echo(f"# {found.name} {found.container} {create.get('plan')}")
    return 0


def _rows(lines: Any, times: Any) -> list[dict[str, Any]]:
    """A row for each step; `us` is None where the time is not known."""
    known = list(times) if isinstance(times, list) else []
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines if isinstance(lines, list) else [], 1):
        phase, _, words = str(line).partition(": ")
        us = known[number - 1] if number <= len(known) and phase != "remove" else None
        rows.append({"step": number, "phase": phase, "us": us, "describe": words})
    return rows


def _table(rows: list[dict[str, Any]], failed: dict[str, Any] | None) -> list[str]:
    """A comment with the sum before each phase, as `gocker plan` has it; `-` is a time that is not known."""
    lines: list[str] = []
    phase = ""
    for row in rows:
        if row["phase"] != phase:
            phase = row["phase"]
            total = sum(other["us"] or 0 for other in rows if other["phase"] == phase)
            lines.append(f"# {phase}" + (f", {total} us" if total else ""))
        us = "-" if row["us"] is None else row["us"]
        mark = "  <- failed" if failed is not None and failed.get("step") == row["step"] else ""
        lines.append(f"{row['step']:3} {us:>7} {row['describe']}{mark}")
    return lines
