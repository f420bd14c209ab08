"""The `gocker` command for click: finds the sub-command, and says in our words what click finds wrong."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Iterator
from types import CodeType

import click

from gocker import __version__
from gocker.cli.recover import recover_abandoned
from gocker.cli.show import output_failed, show_error, show_warning
from gocker.errors import EXIT_GOCKER_FAILED, GockerError, UsageError

COMMANDS = {
    "run": "Run a command in a new container.",
    "plan": "Show what `run` would do, step by step, and touch nothing.",
    "why": "Say how a container ended, and why.",
    "plugins": "List the installed controllers and namespaces.",
    "audit": "Read and verify the audit log.",
    "warm": "Keep a process ready that makes the commands fast.",
    "doctor": "Say what this host offers and what is missing.",
    "version": "Print the version.",
}
_TOUCH_NOTHING = {
    "plan",
    "version",
    "run",
    "warm",
}  # do not clean up after a killed gocker; `run` sees to it itself
_INTERRUPTED = 128 + 2  # as if SIGINT had ended us
_CLICK_WORDS = (("a valid float range", "a number"), ("a valid integer range", "a whole number"))


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
        command.short_help = COMMANDS[cmd_name]
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, invoke_without_command=True)
@click.option("--version", is_flag=True, help="Print the version and exit.")
@click.pass_context
def cli(ctx: click.Context, *, version: bool) -> None:
    """Run containers whose every limit and isolation is a plug-in and every step on the record.

    \b
    Examples:
      gocker run --limit memory=100m base sh -c 'echo hello from $$'
      gocker run --limit memory=100m --report - base sh -c 'head -c 200m /dev/zero | tail'
      gocker plan --limit memory=100m base true
      gocker why CONTAINER
    """  # noqa: D301
    if version or ctx.invoked_subcommand is None:
        click.echo(f"gocker {__version__}" if version else ctx.get_help())
        ctx.exit()
    if ctx.invoked_subcommand not in _TOUCH_NOTHING and "--help" not in sys.argv:
        _try_to_recover()


def _try_to_recover() -> None:
    """For commands that do their work without; one that may not look is not who started containers here."""
    try:
        recover_abandoned()
    except GockerError as error:
        if error.errno not in {errno.EACCES, errno.EPERM} or os.geteuid() == 0:
            show_warning(str(error))


def invoke() -> int:
    """Run the command that sys.argv asks for; return its exit status. Raise GockerError."""
    stdout = sys.stdout
    try:
        status = cli.main(prog_name="gocker", standalone_mode=False)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        return _misused(error)
    except click.Abort:
        return _INTERRUPTED
    except SystemExit as done:
        if sys.stdout is not stdout:  # click's way of bearing EPIPE
            sys.stdout = stdout
            return output_failed(BrokenPipeError(errno.EPIPE, "broken pipe"))
        return done.code if isinstance(done.code, int) else 0  # shell completion
    except OSError as error:
        if click.echo.__code__ in _frames(error):
            return output_failed(error)
        raise
    return status if isinstance(status, int) else 0


def _frames(error: OSError) -> Iterator[CodeType]:
    """The functions that it came through."""
    trace = error.__traceback__
    while trace:
        yield trace.tb_frame.f_code
        trace = trace.tb_next


def _misused(error: click.ClickException) -> int:
    """Say in one line, as all errors are, what click has to say in four."""
    context: click.Context | None = getattr(error, "ctx", None)
    path = context.command_path if context else " ".join(["gocker", *sys.argv[1:2]])
    if context and type(error).__name__ == "NoArgsIsHelpError":  # only of click 8.2 and newer
        click.echo(context.get_help())
        return 0
    reason, near = _reason(error, context)
    hints = [f"did you mean {' or '.join(near)}?"] if near else []
    remedy = " ".join([*hints, f"see {path} --help"])
    command = path.partition(" ")[2]
    show_error(
        UsageError(command, reason=reason, remedy=remedy) if command else UsageError(reason, remedy=remedy)
    )
    return EXIT_GOCKER_FAILED


def _reason(error: click.ClickException, context: click.Context | None) -> tuple[str, list[str]]:
    """What is wrong, and what may have been meant. click's own texts and classes differ by its version."""
    if isinstance(error, click.NoSuchOption):
        return f"no such option {error.option_name}", sorted(error.possibilities or ())
    text = error.format_message()
    if context and text.startswith("No such command") and isinstance(context.command, click.Group):
        from difflib import get_close_matches

        name = getattr(error, "command_name", None) or text.partition("No such command ")[2].strip("'\". ")
        return f"no such command {name}", get_close_matches(name, context.command.list_commands(context))
    for theirs, ours in _CLICK_WORDS:
        text = text.replace(theirs, ours)
    return text[:1].lower() + text[1:].rstrip("."), []
