"""`gocker run`."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from gocker.cli.main import recover_abandoned, show_error, show_warning
from gocker.cli.options import CONTEXT, Command, Option, run_options
from gocker.cli.spec import build_spec


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

    recover_abandoned()
    spec = build_spec(options, resolve_image)
    planned = engine.plan(spec, Registry())
    with _outputs(options["cidfile"], spec.id, report_file) as report_to:
        log = AuditLog(paths.audit_log(), current_actor(sys.argv))
        outcome = engine.run(spec, planned, log, end_stdout=True)
    from gocker.receipt import verdict_exit_code  # after the start, by when the engine has loaded it

    for warning in outcome.warnings:
        show_warning(warning)
    if outcome.error is not None:
        show_error(outcome.error)
    if report_file is not None:
        report_to(json.dumps(outcome.report.to_json(), indent=2) + "\n")
    return outcome.error.exit_code if outcome.error else verdict_exit_code(outcome.report.verdict)


@contextlib.contextmanager
def _outputs(cidfile: str | None, container: str, report: str | None) -> Iterator[Callable[[str], object]]:
    """Write the id, give what writes the report; take both files away again when there is no container."""
    if cidfile is None and report in {None, "-"}:
        yield sys.stderr.write
        return
    from gocker.cli.outputs import OutputFile

    files: list[OutputFile] = []
    write: Callable[[str], object] = sys.stderr.write
    try:
        if cidfile is not None:
            files.append(OutputFile("write cidfile", cidfile, new=True))
            files[0].write(container)
        if report not in {None, "-"}:
            files.append(OutputFile("write report", str(report), new=False))
            write = files[-1].write
        yield write
    except BaseException:
        for file in files:
            file.discard()
        raise
