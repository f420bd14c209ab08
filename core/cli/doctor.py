"""`gocker doctor`."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gocker.doctor import Check

_MARKS = {"ok": "ok", "limited": "--", "missing": "NO"}


@click.command("doctor")
@click.option("--format", "shape", type=click.Choice(["text", "json"]), default="text", help="Lines or JSON.")
def command(shape: str) -> int:
    """Try what gocker needs of this host, say what is missing and what to do about it.

    Each thing is really done, up to whole containers, and taken back. The exit status is 0 when `gocker
    run` can work here, else 1. A line begins with `ok`, with `--` when something less works or an option
    does not, or with `NO` when no run can work.

    \b
    Examples:
      gocker doctor
      gocker doctor --format json
    """  # noqa: D301
    from gocker.cli.explain import printable
    from gocker.doctor import MISSING, OK

    checks = _examine()
    missing = [check for check in checks if check.status == MISSING]
    if shape == "json":
        click.echo(json.dumps([check.asdict() for check in checks], indent=2))
        return int(bool(missing))
    width = max(len(check.name) for check in checks)
    for check in checks:
        click.echo(f"{_MARKS[check.status]:2}  {printable(check.name):{width}}  {printable(check.detail)}")
        if check.remedy:
            click.echo(f"    {'':{width}}  remedy: {printable(check.remedy)}")
    limited = sum(check.status not in {OK, MISSING} for check in checks)
    verdict = "gocker run cannot work here" if missing else "gocker run works here"
    click.echo(f"{verdict}: {len(checks)} checks, {len(missing)} missing, {limited} limited")
    return int(bool(missing))


def _examine() -> list[Check]:
    """All checks; what ends us has its turn between two of them, when nothing is there to be taken back."""
    from gocker.doctor import examine

    ending = {signal.SIGINT, signal.SIGTERM}
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    checks: list[Check] = []
    with contextlib.closing(examine()) as coming:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
        for check in coming:
            checks.append(check)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return checks
