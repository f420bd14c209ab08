"""`gocker version`."""

from __future__ import annotations

import click

from gocker import __version__


@click.command("version")
def command() -> None:
    """Print the version.

    \b
    Example:
      gocker version
    """  # noqa: D301
    click.echo(f"gocker {__version__}")
