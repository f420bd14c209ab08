"""`gocker run`, for click."""

from __future__ import annotations

from typing import Any

import click

from gocker.cli import start
from gocker.cli.flags import START_FLAGS
from gocker.cli.options import CONTEXT, Command, options_of


@click.command("run", cls=Command, context_settings=CONTEXT)
@options_of(START_FLAGS)
def command(**options: Any) -> int:
    """Run a command in a new container and return its exit status.

    \b
    Examples:
      gocker run base sh -c 'echo hello from $$'
      gocker run --limit memory=100m --limit pids=64 base sh -c 'head -c 200m /dev/zero | tail'
      gocker run -it base sh
      gocker run --rootfs /srv/alpine --read-only -v "$PWD":/work -w /work /bin/ls
      gocker run --report - --timeout 5 base sleep 60
    """  # noqa: D301
    return start.command(**options)
