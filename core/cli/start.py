"""What `gocker run` does once its options are read."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from gocker import engine, paths
from gocker.audit import AuditLog, current_actor
from gocker.cli.recover import recover_abandoned
from gocker.cli.show import show_error, show_warning
from gocker.cli.spec import build_spec
from gocker.registry import Registry


def command(report: str | None, profile: str | None, *, dry_run: bool, **options: Any) -> int:
    """Do what the options say, which gocker.cli.flags names; return the exit status. Raise GockerError."""
    if dry_run:
        from gocker.cli.plan import print_plan

        return print_plan(options, "text")
    return _run(options, report, profile)


def _resolve_image(name: str) -> str:
    from gocker.images import resolve_image  # not with --rootfs

    return resolve_image(name)


def _run(options: dict[str, Any], report_file: str | None, profile_file: str | None) -> int:
    """Run, report, and return docker's exit status."""
    begun = time.perf_counter_ns()
    recover_abandoned()
    spec = build_spec(options, _resolve_image)
    planned = engine.plan(spec, Registry())
    made = time.perf_counter_ns()
    with _outputs(options["cidfile"], spec.id, report_file, profile_file) as (report_to, profile_to):
        log = AuditLog(paths.audit_log(), current_actor(sys.argv))
        outcome = engine.run(spec, planned, log, end_stdout=True)
    from gocker.receipt import verdict_exit_code  # after the start, by when the engine has loaded it

    for warning in outcome.warnings:
        show_warning(warning)
    if outcome.error is not None:
        show_error(outcome.error)
    if report_file is not None:
        report_to(json.dumps(outcome.report.to_json(), indent=2) + "\n")
    if profile_to is not None:
        from gocker.cli.profile import chrome_trace

        profile_to(chrome_trace(planned.plan, outcome, begun, made))
    return outcome.error.exit_code if outcome.error else verdict_exit_code(outcome.report.verdict)


Write = Callable[[str], object]


@contextlib.contextmanager
def _outputs(
    cidfile: str | None, container: str, report: str | None, profile: str | None
) -> Iterator[tuple[Write, Write | None]]:
    """Write the id, give what writes the report and the profile; take the files away when there is no container."""
    if cidfile is None and report in {None, "-"} and profile is None:
        yield sys.stderr.write, None
        return
    from gocker.cli.outputs import OutputFile

    files: list[OutputFile] = []
    report_to: Write = sys.stderr.write
    profile_to: Write | None = None
    try:
        if cidfile is not None:
            files.append(OutputFile("write cidfile", cidfile, new=True))
            files[0].write(container)
        if report not in {None, "-"}:
            files.append(OutputFile("write report", str(report), new=False))
            report_to = files[-1].write
        if profile is not None:
            files.append(OutputFile("write profile", profile, new=False))
            profile_to = files[-1].write
        yield report_to, profile_to
    except BaseException:
        for file in files:
            file.discard()
        raise
