"""The command's frame: which command, what is shown of errors, which exit status; no container is made."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import click
import pytest

from gocker.cli import main
from gocker.cli.group import COMMANDS, cli
from gocker.errors import ExecError, GockerError, StateError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `gocker ARGS` in this process; (exit status, stdout, stderr)."""

    def call(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gocker", *args])
        code = main._main()
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Puts the command `gocker made-up` in place, with a function that it runs."""

    def put(function: Callable[[], Any]) -> None:
        module = ModuleType("gocker.cli.made-up")
        module.__dict__["command"] = click.command("made-up")(function)
        monkeypatch.setitem(sys.modules, "gocker.cli.made-up", module)
        monkeypatch.setitem(COMMANDS, "made-up", "Do what a test says.")

    return put


def fails_with(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


# --- help


@pytest.mark.parametrize("args", [(), ("--help",)])
def test_no_command_is_a_call_for_help(run: Run, args: tuple[str, ...]) -> None:
    code, out, err = run(*args)
    assert (code, err) == (0, "")
    assert out.startswith("Usage: gocker [OPTIONS] [COMMAND] [ARGS]...")
    assert all(f"  {name} " in out for name in COMMANDS)


def every_command() -> list[tuple[str, ...]]:
    """Each command and sub-command, () for gocker itself."""
    paths: list[tuple[str, ...]] = [()]
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        paths.append((name,))
        if isinstance(command, click.Group):
            paths += [(name, sub) for sub in command.list_commands(click.Context(command))]
    return paths


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_the_help_of_each_command_has_an_example_that_begins_with_it(run: Run, path: tuple[str, ...]) -> None:
    code, out, err = run(*path, "--help")
    assert (code, err) == (0, "")
    _, heading, examples = out.partition("Example")
    assert heading, out
    assert f"\n    {' '.join(('gocker', *path))}" in examples


def test_a_command_group_without_a_command_is_a_call_for_help(run: Run) -> None:
    code, out, err = run("audit")
    assert (code, err) == (0, "")
    assert out.startswith("Usage: gocker audit ")


def test_help_imports_no_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in COMMANDS:
        monkeypatch.delitem(sys.modules, f"gocker.cli.{name}", raising=False)
    run("--help")
    assert not [name for name in COMMANDS if f"gocker.cli.{name}" in sys.modules]


@pytest.mark.parametrize("args", [("version",), ("--version",)])
def test_the_version_is_one_line(run: Run, args: tuple[str, ...]) -> None:
    from gocker import __version__

    assert run(*args) == (0, f"gocker {__version__}\n", "")


# --- wrong usage


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("nosuch",), "no such command nosuch (see gocker --help)"),
        (("rnu",), "no such command rnu (did you mean run? see gocker --help)"),
        (("audit", "shwo"), "audit: no such command shwo (did you mean show? see gocker audit --help)"),
        (("--nosuch",), "no such option --nosuch (see gocker --help)"),
        (("-h",), "no such option -h (see gocker --help)"),
        (
            ("run", "--memroy", "1", "base"),
            "run: no such option --memroy (did you mean --memory or --memory-swap? see gocker run --help)",
        ),
        (("plan", "--report", "x"), "plan: no such option --report"),
        (("version", "more"), "version: got unexpected extra argument (more) (see gocker version --help)"),
        (("why",), "why: missing argument 'CONTAINER' (see gocker why --help)"),
        (
            ("run", "--monotonic", "soon", "base"),
            "run: invalid value for '--monotonic': 'soon' is not a valid integer (see gocker run --help)",
        ),
        (
            ("audit", "tail", "-n", "x"),
            "audit tail: invalid value for '-n' / '--lines': 'x' is not a whole number",
        ),
        (
            ("audit", "tail", "-n", "-1"),
            "audit tail: invalid value for '-n' / '--lines': -1 is not in the range",
        ),
        (
            ("doctor", "--format", "xml"),
            "doctor: invalid value for '--format': 'xml' is not one of 'text', 'json'",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage_is_one_line_and_125(run: Run, args: tuple[str, ...], line: str) -> None:
    code, out, err = run(*args)
    assert (code, out) == (125, "")
    assert err.startswith(f"gocker: {line}")
    assert err.count("\n") == 1


def test_an_option_without_its_value_says_so(run: Run) -> None:
    line = "gocker: run: option '--memory' requires an argument (see gocker run --help)\n"
    assert run("run", "--memory") == (125, "", line)


# --- errors


def test_an_error_is_one_line_and_has_its_own_status(run: Run, made_up: Any) -> None:
    made_up(fails_with(ExecError("exec", "nosuch", "ENOENT: no", remedy="look at PATH", errno=errno.ENOENT)))
    assert run("made-up") == (127, "", "gocker: exec nosuch: ENOENT: no (look at PATH)\n")


def test_notes_of_the_clean_up_are_lines_of_their_own(run: Run, made_up: Any) -> None:
    error = GockerError("run", "web", "no")
    error.add_note("undo rmdir x: EBUSY")
    made_up(fails_with(error))
    assert run("made-up")[2] == "gocker: run web: no\ngocker: undo rmdir x: EBUSY\n"


def test_what_a_container_puts_into_an_error_does_not_reach_the_terminal(run: Run, made_up: Any) -> None:
    made_up(fails_with(GockerError("find user", "\x1b[2Jroot\r\x07\udcff\u202e", "not there")))
    assert run("made-up")[2] == r"gocker: find user \x1b[2Jroot\r\x07\udcff\u202e: not there" + "\n"


@pytest.mark.parametrize(
    "error", [KeyError("x"), OSError(errno.EIO, "odd"), RecursionError("deep"), AssertionError()]
)
def test_a_bug_is_one_line_that_says_so_and_where(run: Run, made_up: Any, error: Exception) -> None:
    made_up(fails_with(error))
    code, out, err = run("made-up")
    assert (code, out) == (125, "")
    assert err.startswith(f"gocker: internal error {type(error).__name__}: {error}, at {__file__}:")
    assert err.endswith(
        "(a bug in gocker: please report it with what GOCKER_DEBUG=1 adds to this line;"
        " gocker audit tail shows what was done before it)\n"
    )
    assert err.count("\n") == 1


@pytest.mark.parametrize("error", [ValueError("x"), GockerError("run", "web", "no")])
def test_gocker_debug_adds_the_traceback(
    run: Run, made_up: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    made_up(fails_with(error))
    monkeypatch.setenv("GOCKER_DEBUG", "1")
    *trace, last = run("made-up")[2].splitlines()
    assert "Traceback (most recent call last):" in trace
    assert any("in command" in line for line in trace)
    assert last.startswith("gocker: ")


def test_ctrl_c_is_130(run: Run, made_up: Any) -> None:
    made_up(fails_with(KeyboardInterrupt()))
    assert run("made-up")[:2] == (130, "")


# --- statuses


@pytest.mark.parametrize(("value", "code"), [(None, 0), (0, 0), (3, 3), ("text", 0)])
def test_what_a_command_returns_is_the_status(run: Run, made_up: Any, value: object, code: int) -> None:
    made_up(lambda: value)
    assert run("made-up")[0] == code


@pytest.mark.parametrize(("status", "code"), [(3, 3), (None, 0), ("text", 0)])
def test_an_exit_from_within_is_kept(run: Run, made_up: Any, status: object, code: int) -> None:
    made_up(fails_with(SystemExit(status)))
    assert run("made-up")[0] == code


# --- recovery


class Abandoned:
    """A state directory that counts how often it was looked at, or cannot be looked at."""

    def __init__(self, error: Exception | None = None) -> None:
        self.looks = 0
        self.error = error

    def __call__(self) -> Abandoned:
        return self

    def abandoned(self) -> list[Any]:
        self.looks += 1
        if self.error:
            raise self.error
        return []


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Abandoned]:
    def put(error: Exception | None = None) -> Abandoned:
        fake = Abandoned(error)
        monkeypatch.setattr("gocker.cli.recover.State", fake)
        return fake

    return put


@pytest.mark.parametrize(
    ("args", "looks"),
    [
        (("made-up",), 1),
        (("version",), 0),
        (("plan", "--nosuch"), 0),
        (("made-up", "--help"), 0),
        (("--help",), 0),
        (("run", "--dry-run", "nosuch"), 0),
        (("run", "nosuch", "prog", "--help"), 1),
    ],
)
def test_what_a_killed_gocker_left_is_looked_for_unless_nothing_may_be_touched(
    run: Run, made_up: Any, state: Any, args: tuple[str, ...], looks: int
) -> None:
    made_up(lambda: None)
    fake = state()
    run(*args)
    assert fake.looks == looks


def test_a_command_that_needs_no_state_only_warns_when_it_cannot_be_read(
    run: Run, made_up: Any, state: Any
) -> None:
    made_up(lambda: 3)
    state(StateError("read state in", "/x", "ENOTDIR: no", errno=errno.ENOTDIR))
    assert run("made-up") == (3, "", "gocker: warning: read state in /x: ENOTDIR: no\n")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_who_may_not_look_has_started_nothing_here(run: Run, made_up: Any, state: Any, number: int) -> None:
    made_up(lambda: 3)
    state(StateError("read state in", "/x", "no", errno=number))
    said = "" if os.geteuid() else "gocker: warning: read state in /x: no\n"  # to root it is odd
    assert run("made-up") == (3, "", said)


def test_a_run_does_not_start_beside_what_cannot_be_cleaned_up(run: Run, state: Any) -> None:
    state(StateError("read state in", "/x", "no", errno=errno.EACCES))
    code, _, err = run("run", "base", "true")
    assert (code, err) == (125, "gocker: read state in /x: no\n")


# --- our own streams


def test_a_stdout_that_was_closed_is_opened_on_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    main._open_streams()
    assert (sys.stdout.fileno(), sys.stderr.fileno()) == (1, 2)
    assert sys.stdout.errors == sys.stderr.errors == "surrogateescape"


@pytest.mark.parametrize(("encoding", "text"), [("utf-8", b"\xff"), ("ascii", rb"\udcff")])
def test_bytes_that_are_no_text_come_out_as_they_are_or_escaped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str], encoding: str, text: bytes
) -> None:
    path = os.path.join(tmp_path, "out")
    with open(path, "w", encoding=encoding) as file:
        monkeypatch.setattr(sys, "stdout", file)
        main._open_streams()
        print("\udcff", end="")
    with open(path, "rb") as file:
        assert file.read() == text
