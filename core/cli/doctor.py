"""`gocker doctor`."""

from __future__ import annotations

import json

import click

_MARKS = {"ok": "ok", "limited": "--", "missing": "NO"}


@click.command("doctor")
@click.option("--format", "shape", type=click.Choice(["text", "json"]), default="text", help="Lines or JSON.")
def command(shape: str) -> int:
    """Try what gocker needs of this host, say what is missing and what to do about it.

    The exit status is 0 when `gocker run` can work here, else 1.
    """
    from gocker.doctor import MISSING, examine

    checks = list(examine())
    if shape == "json":
        click.echo(json.dumps([check.asdict() for check in checks], indent=2))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            click.echo(f"{_MARKS[check.status]:2}  {check.name:{width}}  {check.detail}")
            if check.remedy:
                click.echo(f"    {'':{width}}  remedy: {check.remedy}")
    return int(any(check.status == MISSING for check in checks))
