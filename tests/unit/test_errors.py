"""Errors: one line each, with the operation, its target, the reason and the remedy; and docker's codes."""

from __future__ import annotations

import errno
import os

import pytest

from gocker import errors
from gocker.errors import (
    EXIT_CANNOT_EXECUTE,
    EXIT_GOCKER_FAILED,
    EXIT_NOT_FOUND,
    ExecError,
    GockerError,
    LimitError,
    SignalError,
    StepError,
    errno_name,
)

TREE = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, GockerError)]


def test_an_error_reads_operation_target_reason_remedy() -> None:
    error = GockerError("set limit", "memory=1", "too small", remedy="at least 6m")
    assert str(error) == "set limit memory=1: too small (at least 6m)"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (GockerError("run"), "run"),
        (GockerError("run", "web"), "run web"),
        (GockerError("run", reason="no"), "run: no"),
        (GockerError("run", remedy="do"), "run (do)"),
        (GockerError("run", "web", remedy="do"), "run web (do)"),
        (GockerError("run", 7, "no"), "run 7: no"),
    ],
)
def test_what_is_not_there_leaves_no_gap(error: GockerError, text: str) -> None:
    assert str(error) == text


def test_an_error_is_one_line_whatever_is_in_it() -> None:
    assert "\n" not in str(GockerError("run", "a\nb", "c\nd", remedy="e\nf"))


def test_an_os_error_becomes_its_name_and_its_words() -> None:
    error = LimitError.from_os("write", "/x", OSError(errno.ENOSPC, "x"), remedy="free some")
    assert type(error) is LimitError
    assert str(error) == "write /x: ENOSPC: No space left on device (free some)"
    assert error.errno == errno.ENOSPC


def test_an_os_error_without_a_number_keeps_its_own_words() -> None:
    error = GockerError.from_os("write", "/x", OSError("it is odd"))
    assert (str(error), error.errno) == ("write /x: it is odd", 0)


def test_a_number_without_a_name_is_shown_as_it_is() -> None:
    assert errno_name(9999) == "errno 9999"
    assert errno_name(errno.ENOENT) == "ENOENT"
    assert str(GockerError.from_os("x", "y", OSError(9999, "z"))) == f"x y: errno 9999: {os.strerror(9999)}"


@pytest.mark.parametrize("cls", [cls for cls in TREE if cls not in (StepError, ExecError, SignalError)])
def test_the_others_end_with_125(cls: type[GockerError]) -> None:
    assert cls("x").exit_code == EXIT_GOCKER_FAILED == 125


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOENT, EXIT_NOT_FOUND), (errno.EACCES, EXIT_CANNOT_EXECUTE), (0, EXIT_CANNOT_EXECUTE)],
)
def test_exec_ends_with_127_where_the_command_is_not_there_else_126(number: int, code: int) -> None:
    assert ExecError("exec", "x", errno=number).exit_code == code
    assert ExecError.from_os("exec", "x", OSError(number, "x")).exit_code == code
    assert (EXIT_CANNOT_EXECUTE, EXIT_NOT_FOUND) == (126, 127)


def test_a_step_is_named_by_its_number() -> None:
    error = StepError(17, 42, "mount proc on /proc", "EPERM: no", remedy="be root", errno=errno.EPERM)
    assert str(error) == "step 17/42 mount proc on /proc: EPERM: no (be root)"
    assert (error.number, error.total, error.errno, error.exit_code) == (17, 42, errno.EPERM, 125)


def test_a_signal_ends_as_it_ends_a_shell() -> None:
    error = SignalError("start", "web", 15, "the program ran")
    assert str(error) == "start web: SIGTERM came before the program ran"
    assert error.exit_code == 143


def test_a_note_does_not_change_the_line() -> None:
    error = GockerError("run", "web", "no")
    error.add_note("undo: no")
    assert str(error) == "run web: no"


def test_a_part_that_is_very_long_is_cut() -> None:
    error = GockerError("read", "x" * 5000, "y" * 5000, remedy="z" * 5000)
    assert len(str(error)) < 3100
    assert str(error).endswith("z...)")
