"""The `gocker` command: finds the sub-command, shows errors, decides the exit status."""

from __future__ import annotations

import importlib
import os
import sys

import click

from gocker import __version__
from gocker.errors import EXIT_GOCKER_FAILED, GockerError

COMMANDS = {
    "run": "Run a command in a new container.",
    "plan": "Show what `run` would do, step by step, and touch nothing.",
    "why": "Say how a container ended, and why.",
    "plugins": "List the installed controllers and namespaces.",
    "audit": "Read and verify the audit log.",
    "doctor": "Say what this host offers and what is missing.",
    "version": "Print the version.",
}
_TOUCH_NOTHING = {"plan", "version"}  # do not even clean up after a killed gocker


class LazyGroup(click.Group):
    """Imports a sub-command when it is asked for: nothing is loaded that the command does not need."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them, in the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The module `gocker.cli.NAME` has it under `command`."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"gocker.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["--help"]})
@click.version_option(__version__, prog_name="gocker")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Run containers whose every limit and isolation is a plug-in and every step on the record.

    \b
    Examples:
      gocker run --limit memory=100m base sh -c 'echo hello from $$'
      gocker run --limit memory=100m --report - base sh -c 'head -c 200m /dev/zero | tail'
      gocker plan --limit memory=100m base true
      gocker why CONTAINER
    """  # noqa: D301
    if ctx.invoked_subcommand not in _TOUCH_NOTHING and "--help" not in sys.argv:
        _recover()


def _recover() -> None:
    """Look, in two system calls, for what a killed gocker left; import the rest only when there is some."""
    from gocker.state import State

    for claim in State().abandoned():
        from gocker.recovery import recover

        show_warning(recover(claim))


def show_warning(text: str) -> None:
    """One line on stderr."""
    print(f"gocker: warning: {text}", file=sys.stderr)


def show_error(error: GockerError) -> None:
    """One line on stderr, and one for each note that clean-up left on it."""
    for text in (str(error), *getattr(error, "__notes__", ())):
        print(f"gocker: {text}", file=sys.stderr)


def main() -> None:
    """Entry point; exits with docker's codes: 125 gocker failed, 126, 127, else the program's own."""
    try:
        status = cli.main(prog_name="gocker", standalone_mode=False)
    except GockerError as error:
        show_error(error)
        status = error.exit_code
    except click.exceptions.Exit as done:
        status = done.exit_code
    except click.ClickException as error:
        error.show()
        status = EXIT_GOCKER_FAILED
    except click.Abort:
        status = 128 + 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader of our output has gone: nothing to say
        status = 128 + 13
    sys.exit(status if isinstance(status, int) else 0)
