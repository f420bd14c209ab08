"""The `gocker` command: finds the sub-command, shows errors, decides the exit status."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import sys
from types import FrameType
from typing import NoReturn

from gocker.lazy import defer_for_click

defer_for_click()

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
_TOUCH_NOTHING = {"plan", "version", "run"}  # do not clean up after a killed gocker; `run` sees to it itself
_INTERRUPTED, _PIPE_BROKEN = 128 + 2, 128 + 13  # as if SIGINT and SIGPIPE had ended us
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
        _try_to_recover()


def _try_to_recover() -> None:
    """For commands that do their work without; one that may not look is not who started containers here."""
    try:
        recover_abandoned()
    except GockerError as error:
        if error.errno not in {errno.EACCES, errno.EPERM} or os.geteuid() == 0:
            show_warning(str(error))


def recover_abandoned() -> None:
    """Look, in two system calls, for what a killed gocker left; import the rest only when there is some.

    Raise StateError.
    """
    from gocker.state import State

    for claim in State().abandoned():
        from gocker.recovery import recover

        show_warning(recover(claim))


def show_warning(text: str) -> None:
    """One line on stderr."""
    _complain(f"warning: {text}")


def show_error(error: GockerError) -> None:
    """One line on stderr, and one for each note that clean-up left on it; all with GOCKER_DEBUG=1."""
    if os.environ.get("GOCKER_DEBUG"):
        import traceback

        with contextlib.suppress(OSError):
            traceback.print_exception(error)
    for text in (str(error), *getattr(error, "__notes__", ())):
        _complain(text)


def _complain(text: str) -> None:
    """One line, whatever is in it: a container has its say in some errors, and may want the terminal's ear."""
    if not text.isprintable():
        from gocker.cli.explain import printable

        text = printable(text)
    with contextlib.suppress(OSError):  # there is nobody else to tell
        print(f"gocker: {text}", file=sys.stderr)


def main() -> NoReturn:
    """Run the command; ends the process with docker's codes: 125 gocker failed, 126, 127, else the program's."""
    _open_streams()
    status = _main()
    try:
        sys.stdout.flush()
    except OSError as error:
        status = _output_failed(error)
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(status)  # all is done and undone: the interpreter need not take itself apart


def _open_streams() -> None:
    """See to it that 0, 1 and 2 are open: else a file of ours would get such a number, and what is printed."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    # Python has no objects for those that were closed. Paths and arguments are bytes that need not be text.
    if sys.stdout is None:
        sys.stdout = _printer(1)
    elif isinstance(sys.stdout, io.TextIOWrapper):
        faithful = sys.stdout.encoding == "utf-8"
        sys.stdout.reconfigure(errors="surrogateescape" if faithful else "backslashreplace")
    if sys.stderr is None:
        sys.stderr = _printer(2)


def _printer(fd: int) -> io.TextIOWrapper:
    raw = io.FileIO(fd, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "surrogateescape", line_buffering=True)


def _main() -> int:
    """The exit status; whatever was wrong has been said."""
    stdout = sys.stdout
    try:
        status = cli.main(prog_name="gocker", standalone_mode=False)
    except GockerError as error:
        show_error(error)
        return error.exit_code
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        return _misused(error)
    except click.Abort:
        return _INTERRUPTED
    except SystemExit as done:
        if sys.stdout is not stdout:  # click's way of bearing EPIPE
            sys.stdout = stdout
            return _output_failed(BrokenPipeError(errno.EPIPE, "broken pipe"))
        return done.code if isinstance(done.code, int) else 0  # shell completion
    except Exception as error:  # noqa: BLE001 - what no one foresaw is a bug
        frame = _innermost_frame(error)
        if isinstance(error, OSError) and frame and frame.f_code is click.echo.__code__:
            return _output_failed(error)
        show_error(_bug(error, frame))
        return EXIT_GOCKER_FAILED
    return status if isinstance(status, int) else 0


def _output_failed(error: OSError) -> int:
    """Our stdout takes no more: the reader of a pipe has gone, or the disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)  # what is left in the buffer goes there
    if error.errno == errno.EPIPE:
        return _PIPE_BROKEN
    show_error(GockerError.from_os("write", "the output", error))
    return EXIT_GOCKER_FAILED


def _innermost_frame(error: Exception) -> FrameType | None:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return trace.tb_frame if trace else None


def _bug(error: Exception, frame: FrameType | None) -> GockerError:
    """A bug is one line, too. A container has been removed by now, and that is on the record."""
    where = f", at {frame.f_code.co_filename}:{frame.f_lineno}" if frame else ""
    bug = GockerError(
        "internal error",
        type(error).__name__,
        f"{error}{where}",
        remedy="a bug in gocker: please report it with what GOCKER_DEBUG=1 adds to this line;"
        " gocker audit tail shows what was done before it",
    )
    bug.__cause__ = error
    return bug


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
