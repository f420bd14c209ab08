"""The `gocker` command: finds the sub-command, shows errors, decides the exit status."""

from __future__ import annotations

import importlib
import os
import sys

from gocker.lazy import defer

defer("inspect")
defer("platform", system=lambda: os.uname().sysname)

import click  # noqa: E402 - after what it would load

from gocker import __version__  # noqa: E402
from gocker.cli.options import Option, help_option  # noqa: E402
from gocker.errors import EXIT_GOCKER_FAILED, GockerError, UsageError  # noqa: E402

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

    def get_help_option(self, ctx: click.Context) -> click.Option:
        """Ours."""
        return help_option()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, invoke_without_command=True)
@click.option("--version", cls=Option, is_flag=True, help="Print the version and exit.")
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


def _usage_error(error: click.ClickException) -> GockerError:
    """What click says in four lines, in one and as ours."""
    context = getattr(error, "ctx", None)
    where = context.command_path if context else "gocker"
    message = " ".join(error.format_message().split()).removesuffix(".")
    operation = where.removeprefix("gocker").strip() or "read arguments"
    return UsageError(operation, "", message[:1].lower() + message[1:], remedy=f"see {where} --help")


def main() -> None:
    """Run the command; ends the process with docker's codes: 125 gocker failed, 126, 127, else the program's."""
    status = _main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        status = 128 + 13  # the reader of our output has gone
    os._exit(status)  # all is done and undone: the interpreter need not take itself apart


def _main() -> int:
    try:
        status = cli.main(prog_name="gocker", standalone_mode=False)
    except GockerError as error:
        show_error(error)
        return error.exit_code
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        show_error(_usage_error(error))
        return EXIT_GOCKER_FAILED
    except click.Abort:
        return 128 + 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + 13
    except Exception:  # noqa: BLE001 - what no one foresaw is a bug: show it whole
        import traceback

        traceback.print_exc()
        return EXIT_GOCKER_FAILED
    return status if isinstance(status, int) else 0
