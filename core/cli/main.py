"""The process of the `gocker` command: its streams, how it reads its arguments, its exit status."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import NoReturn

from gocker.cli import quick
from gocker.cli.flags import START_FLAGS
from gocker.cli.show import output_failed, show_error
from gocker.errors import EXIT_GOCKER_FAILED, GockerError

_COMPLETING = "_GOCKER_COMPLETE"  # click's variable for shell completion


def main() -> NoReturn:
    """Run the command; ends the process with docker's codes: 125 gocker failed, 126, 127, else the program's."""
    os._exit(run())  # all is done and undone: the interpreter need not take itself apart


def run() -> int:
    """Run the command that sys.argv asks for, up to the last word of its output; the exit status."""
    _open_streams()
    status = _main()
    try:
        sys.stdout.flush()
    except OSError as error:
        status = output_failed(error)
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    return status


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
    try:
        return _command(sys.argv[1:])
    except GockerError as error:
        show_error(error)
        return error.exit_code
    except BrokenPipeError as error:
        return output_failed(error)
    except Exception as error:  # noqa: BLE001 - what no one foresaw is a bug
        show_error(_bug(error))
        return EXIT_GOCKER_FAILED


def _command(arguments: list[str]) -> int:
    """A start does not wait for click; whatever else is left to it."""
    if arguments[:1] == ["run"] and _COMPLETING not in os.environ:
        with contextlib.suppress(quick.Unclear):
            options = quick.parse(START_FLAGS, arguments[1:])
            from gocker.cli.start import command

            return command(**options)
    from gocker.cli.group import invoke

    return invoke()


def _bug(error: Exception) -> GockerError:
    """A bug is one line, too. A container has been removed by now, and that is on the record."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    frame = trace.tb_frame if trace else None
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
