"""`gocker plan`, and `gocker run --dry-run`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from gocker.cli.flags import RUN_FLAGS
from gocker.cli.options import CONTEXT, Command, options_of
from gocker.cli.show import show_warning
from gocker.cli.spec import build_spec
from gocker.errors import UsageError
from gocker.plan import Plan


@click.command("plan", cls=Command, context_settings=CONTEXT)
@options_of(RUN_FLAGS)
@click.option("--format", "shape", type=click.Choice(["text", "json"]), default="text", help="Lines or JSON.")
@click.option("--times", metavar="CONTAINER", help="Print how long each step of a past start took instead.")
def command(shape: str, times: str | None, **options: Any) -> int:
    """Print the steps that `gocker run` with the same arguments would take; touch nothing.

    With --times, print those that a container was started by, and their times; CONTAINER is an id, its
    beginning, or a name.

    \b
    Examples:
      gocker plan --limit memory=100m base true
      gocker plan --format json -v /srv:/srv:ro base ls /srv
      gocker run --name web base true; gocker plan --times web
    """  # noqa: D301
    if times is not None:
        from gocker.cli.times import print_times

        if options["arguments"]:
            raise UsageError(
                "plan", f"--times {times}", "it is about a past start: it takes no image or command"
            )
        return print_times(times, shape)
    return print_plan(options, shape)


_ONE_LINE = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F)}
"""A path may hold a newline or a terminal's escape."""


def print_plan(options: dict[str, Any], shape: str) -> int:
    """Print the plan as numbered lines, one phase after the other, or as JSON."""
    from gocker import engine
    from gocker.images import planned_image
    from gocker.plugin_index import ReadOnlyIndex, default_directory
    from gocker.registry import Registry

    registry = Registry(index=ReadOnlyIndex(default_directory()))
    planned = engine.plan(build_spec(options, planned_image), registry, cache=False)
    for label, why in planned.cgroups.unbound.items():
        show_warning(f"limit {label} does not bind: {why}")
    plan = planned.plan
    if shape == "json":
        click.echo(json.dumps({**plan.to_json(), "digest": plan.digest}, indent=2))
        return 0
    for line in plan_lines(plan):
        click.echo(line)
    return 0


def plan_lines(plan: Plan) -> Iterator[str]:
    """The plan for people: a comment before each phase, a number before each step, the digest last."""
    phase = ""
    for number, now, step in plan.numbered():
        if now != phase:
            phase = now
            yield f"# {phase}"
        yield f"{number:3} {step.describe().translate(_ONE_LINE)}"
    yield f"# {plan.digest}"
