"""`gocker run`."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from gocker.cli.main import show_error, show_warning
from gocker.cli.options import CONTEXT, Command, Option, run_options
from gocker.cli.spec import build_spec
from gocker.errors import UsageError

if TYPE_CHECKING:
    from gocker.receipt import Report


@click.command("run", cls=Command, context_settings=CONTEXT)
@run_options
@click.option("--report", cls=Option, metavar="FILE", help="Write how it ended, as JSON; `-` is stderr.")
@click.option("--dry-run", cls=Option, is_flag=True, help="Print the plan and touch nothing.")
def command(report: str | None, *, dry_run: bool, **options: Any) -> int:
    """Run a command in a new container and return its exit status.

    \b
    Examples:
      gocker run base sh -c 'echo hello from $$'
      gocker run --limit memory=100m --limit pids=64 base sh -c 'head -c 200m /dev/zero | tail'
      gocker run -it base sh
      gocker run --rootfs /srv/alpine --read-only -v "$PWD":/work -w /work /bin/ls
      gocker run --report - --timeout 5 base sleep 60
    """  # noqa: D301
    if dry_run:
        from gocker.cli.plan import print_plan

        return print_plan(options, "text")
    return run(options, report)


def run(options: dict[str, Any], report_file: str | None) -> int:
    """Run, report, and return docker's exit status."""
    from gocker import engine, paths
    from gocker.audit import AuditLog, current_actor
    from gocker.images import resolve_image
    from gocker.registry import Registry

    spec = build_spec(options, resolve_image)
    planned = engine.plan(spec, Registry())
    if options["cidfile"]:
        _write_cidfile(options["cidfile"], spec.id)
    outcome = engine.run(spec, planned, AuditLog(paths.audit_log(), current_actor(sys.argv)))
    from gocker.receipt import verdict_exit_code  # after the start, by when the engine has loaded it

    for warning in outcome.warnings:
        show_warning(warning)
    if outcome.error is not None:
        show_error(outcome.error)
    if report_file is not None:
        _write_report(report_file, outcome.report)
    return outcome.error.exit_code if outcome.error else verdict_exit_code(outcome.report.verdict)


def _write_cidfile(path: str, container: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UsageError.from_os(
            "write cidfile", path, error, remedy="name a file that does not exist"
        ) from error
    with open(fd, "w", encoding="ascii") as file:
        file.write(container)


def _write_report(path: str, report: Report) -> None:
    text = json.dumps(report.to_json(), indent=2) + "\n"
    if path == "-":
        sys.stderr.write(text)
        return
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        raise UsageError.from_os("write report", path, error) from error
