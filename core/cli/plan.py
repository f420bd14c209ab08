"""`gocker plan`, and `gocker run --dry-run`."""

from __future__ import annotations

import json
from typing import Any

import click

from gocker.cli.options import CONTEXT, Command, run_options
from gocker.cli.spec import build_spec


@click.command("plan", cls=Command, context_settings=CONTEXT)
@run_options
@click.option("--format", "shape", type=click.Choice(["text", "json"]), default="text", help="Lines or JSON.")
def command(shape: str, **options: Any) -> int:
    """Print the steps that `gocker run` with the same arguments would take; touch nothing.

    \b
    Example:
      gocker plan --limit memory=100m base true
    """  # noqa: D301
    return print_plan(options, shape)


def print_plan(options: dict[str, Any], shape: str) -> int:
    """Print the plan as numbered lines, one phase after the other, or as JSON."""
    from gocker import engine
    from gocker.images import planned_image
    from gocker.registry import Registry

    plan = engine.plan(build_spec(options, planned_image), Registry(), cache=False).plan
    if shape == "json":
        click.echo(json.dumps({**plan.to_json(), "digest": plan.digest}, indent=2))
        return 0
    phase = ""
    for number, now, step in plan.numbered():
        if now != phase:
            phase = now
            click.echo(f"# {phase}")
        click.echo(f"{number:3} {step.describe()}")
    click.echo(f"# {plan.digest}")
    return 0
