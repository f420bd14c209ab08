"""`gocker audit`: show, follow and verify the audit log."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gocker.auditlog import Line, Selection

_QUIET = ("timestamp", "level", "event", "container", "actor", "plan", "seq", "prev")
_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./_-")


@click.group(short_help="Show, follow and verify the audit log.")
def command() -> None:
    """Show, follow and verify the audit log.

    The log is $GOCKER_AUDIT_LOG, else /var/log/gocker/audit.jsonl for root, else gocker/audit.jsonl below
    $XDG_STATE_HOME: one JSON object a line, each naming the SHA-256 of the line before it.

    \b
    Examples:
      gocker audit show --container web
      gocker audit tail -f
      gocker audit verify
    """  # noqa: D301 - click's mark is the control character


def _selecting(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say which events and in what format."""
    options = (
        click.option(
            "--container", default="", metavar="ID", help="Of this container: id, its beginning, or name."
        ),
        click.option("--event", default="", metavar="GLOB", help="Of this kind, such as 'controller.*'."),
        click.option(
            "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


@command.command(short_help="Print events.")
@_selecting
@click.option("--since", default="", metavar="TIME", help="Not older: 10m, 2h, 1d or 2026-01-31T12:00:00Z.")
def show(container: str, event: str, form: str, since: str) -> None:
    """Print events, oldest first.

    \b
    Examples:
      gocker audit show --container web --event 'controller.*'
      gocker audit show --since 1h --format json
    """  # noqa: D301 - click's mark is the control character
    import time

    from gocker.auditlog import Selection, parse_since, read
    from gocker.paths import audit_log

    since = parse_since(since, time.time()) if since else ""
    selection = Selection(container=container, event=event, since=since)
    for line in read(audit_log()):
        _print(line, selection, form)


@command.command(short_help="Print the last events, and new ones as they come.")
@_selecting
@click.option("-f", "--follow", "following", is_flag=True, help="Go on printing events as they are written.")
@click.option("-n", "--lines", default=10, show_default=True, type=click.IntRange(min=0), help="How many.")
def tail(container: str, event: str, form: str, lines: int, following: bool) -> None:
    """Print the last events, and with -f new ones as they come, across log rotation.

    \b
    Example:
      gocker audit tail -f --event 'container.*'
    """  # noqa: D301 - click's mark is the control character
    from collections import deque

    from gocker.auditlog import Selection, follow
    from gocker.paths import audit_log

    selection = Selection(container=container, event=event)
    recent: deque[str] = deque(maxlen=lines)
    caught_up = False
    for line in follow(audit_log()):
        if line is None:
            caught_up = True
            for text in recent:
                click.echo(text)
            if not following:
                return
        elif caught_up:
            _print(line, selection, form)
        else:
            recent.extend(_rendered(line, selection, form))


@command.command(short_help="Check that no line was changed, cut or removed.")
@click.argument("files", metavar="[FILE]...", nargs=-1)
@click.option(
    "--partial", is_flag=True, help="The files before the first one are gone: begin where it begins."
)
def verify(files: tuple[str, ...], partial: bool) -> None:
    """Check that no line was changed, cut, moved or removed; exit with 1 and name the line if one was.

    FILE defaults to the log that gocker writes to. Name rotated files oldest first: the chain goes on
    from file to file.

    \b
    Examples:
      gocker audit verify
      gocker audit verify audit.jsonl.2 audit.jsonl.1 audit.jsonl
    """  # noqa: D301 - click's mark is the control character
    from gocker.auditlog import verify as verify_chain
    from gocker.paths import audit_log

    result = verify_chain(files or (audit_log(),), live=not files, partial=partial)
    for note in result.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"{result.events} events, chain whole")


def _print(line: Line, selection: Selection, form: str) -> None:
    for text in _rendered(line, selection, form):
        click.echo(text)


def _rendered(line: Line, selection: Selection, form: str) -> list[str]:
    """The line as it is printed: one text, or none when it is not wanted."""
    from gocker.auditchain import parse_line

    data = parse_line(line.raw)
    if data is None:
        click.echo(f"line {line.number} is not an audit event: see gocker audit verify", err=True)
        return []
    if not selection.wants(data):
        return []
    return [line.raw.decode("ascii", "replace") if form == "json" else _text(data)]


def _text(data: dict[str, Any]) -> str:
    """`TIME LEVEL EVENT CONTAINER name=value...`, safe for a terminal."""
    when, level, event, container = (str(data.get(name) or "-") for name in _QUIET[:4])
    head = "".join(
        letter if letter.isprintable() else "?"
        for letter in f"{when} {level:<7} {event:<17} {container[:12]:<12}"
    )
    report = data.get("report")
    fields = {name: value for name, value in data.items() if name not in _QUIET and value is not report}
    if isinstance(report, dict) and isinstance(report.get("verdict"), dict):
        fields.update(report["verdict"])
    return " ".join([head, *(f"{name}={_value(value)}" for name, value in fields.items())])


def _value(value: object) -> str:
    import json

    if isinstance(value, str) and value and _SAFE.issuperset(value):
        return value
    return json.dumps(value)
