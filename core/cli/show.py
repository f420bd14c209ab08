"""What a user is told on stderr: errors and warnings, one line each."""

from __future__ import annotations

import contextlib
import errno
import os
import sys

from gocker.errors import EXIT_GOCKER_FAILED, GockerError

_PIPE_BROKEN = 128 + 13  # as if SIGPIPE had ended us


def show_warning(text: str) -> None:
    """One line."""
    _complain(f"warning: {text}")


def show_error(error: GockerError) -> None:
    """One line, and one for each note that clean-up left on it; all with GOCKER_DEBUG=1."""
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


def output_failed(error: OSError) -> int:
    """The exit status when our stdout takes no more: the reader of a pipe has gone, or the disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)  # what is left in the buffer goes there
    if error.errno == errno.EPIPE:
        return _PIPE_BROKEN
    show_error(GockerError.from_os("write", "the output", error))
    return EXIT_GOCKER_FAILED
