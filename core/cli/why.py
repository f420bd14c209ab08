"""`gocker why`: how a container ended, from its report in the audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gocker.auditlog import Trace
    from gocker.receipt import Report


@click.command("why")
@click.argument("container", metavar="CONTAINER")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(container: str, form: str) -> None:
    """Say how CONTAINER ended, and why. CONTAINER is an id, its beginning, or a name.

    \b
    Examples:
      gocker why web
      gocker why 3f2a --format json
    """  # noqa: D301 - click's mark is the control character
    from gocker.auditlog import find
    from gocker.paths import audit_log

    trace = find(audit_log(), container)
    report = _report(trace)
    if report is None:
        click.echo(_unfinished(trace, form))
    elif form == "json":
        import json

        click.echo(json.dumps(report.to_json(), indent=2))
    else:
        from gocker.cli.explain import explain

        click.echo(explain(report))


def _report(trace: Trace) -> Report | None:
    """The report of its exit; without one, what is known of the step that failed; else None."""
    from gocker.errors import AuditError
    from gocker.receipt import Report, Verdict, report_from_json

    if trace.exit is not None:
        try:
            return report_from_json(trace.exit.get("report") or {})
        except ValueError as error:
            reason = f"event {trace.exit['seq']} has none: {error}"
            raise AuditError("read report of", trace.container, reason) from error
    failed = trace.failed
    if failed is None:
        return None
    where = f"step {failed.get('step')}/{failed.get('total')} {failed.get('describe')}"
    verdict = Verdict("setup-failed", 125, None, f"{where}: {failed.get('reason')}")
    when = str(failed.get("timestamp"))
    return Report(
        container=trace.container,
        name=trace.name,
        command=(),
        plan=str(failed.get("plan")),
        started="",
        finished=when,
        verdict=verdict,
        usage={},
        limits={},
    )


def _unfinished(trace: Trace, form: str) -> str:
    """A container without an end on record."""
    import json

    from gocker.cli.explain import printable

    event, when = str(trace.last.get("event")), str(trace.last.get("timestamp"))
    if form == "json":
        return json.dumps(
            {"container": trace.container, "name": trace.name, "verdict": None, "last": trace.last}
        )
    return printable(
        f"{trace.name or trace.container} ({trace.container[:12]}) has no end on record: it is still running, or "
        f"gocker was killed. The last event is {event} at {when}"
    )
