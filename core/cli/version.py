"""`gocker version`."""

from __future__ import annotations

import click

from gocker import __version__


@click.command("version")
def command() -> None:
    """Print the version."""
    click.echo(f"gocker {__version__}")
