"""`-t` as a person at a terminal sees it: keys, window, job control, and the terminal as it was in the end."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command import SLOWNESS, Gocker
from session import Session

Open = Callable[..., Session]


@pytest.fixture
def run(gocker: Gocker) -> Iterator[Open]:
    """`gocker run ARGS` on a terminal."""
    sessions: list[Session] = []

    def start(*args: str, **options: Any) -> Session:
        sessions.append(Session([gocker._program, "run", *args], **options))
        return sessions[-1]

    yield start
    for session in sessions:
        session.close()


def ask(session: Session, command: str) -> str:
    """What `command` shows in the shell at the terminal."""
    session.press(f"{command}; echo END$((1 + 1))\r")
    shown = session.expect("END2\r\n# ").partition("\r\n")[2]
    return shown.removesuffix("END2\r\n# ").replace("\r\n", "\n")


def shell(run: Open, *options: str, **more: Any) -> Session:
    """A shell that has said that it is ready; it has no line editor of its own."""
    session = run("-it", *options, "base", "sh", **more)
    session.expect("# ")
    return session


def test_keys_reach_the_program_unchanged_and_the_status_comes_back(run: Open) -> None:
    session = shell(run)
    assert session.is_raw()
    assert ask(session, "echo a b") == "a b\n"
    session.press("exit 7\r")
    assert session.wait() == 7


def test_the_programs_streams_are_one_terminal_of_its_own(run: Open) -> None:
    session = shell(run)
    assert ask(session, "tty; readlink /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2") == "/dev/pts/0\n" * 4
    assert ask(session, "echo console >/dev/console; echo tty >/dev/tty; test -t 0 && echo yes") == (
        "console\ntty\nyes\n"
    )
    assert ask(session, "stat -c %t:%T /dev/console /dev/pts/0") == "88:0\n88:0\n"
    session.press("exit\r")
    session.wait()


def test_the_window_has_its_size_from_the_first_moment_on(run: Open) -> None:
    for _ in range(3):
        session = run("-it", "base", "stty", "size", rows=33, columns=101)
        assert session.wait() == 0
        assert session.screen == b"33 101\r\n"


def test_a_new_size_reaches_the_program_as_size_and_signal(run: Open) -> None:
    session = run(
        "-it", "base", "sh", "-c", "trap 'stty size' WINCH; echo ready; while :; do sleep 0.02; done"
    )
    session.expect("ready\r\n")
    session.resize(40, 50)
    session.expect("40 50\r\n")
    session.resize(41, 51)
    session.expect("41 51\r\n")


def test_control_c_ends_what_the_shell_runs_and_not_the_shell(run: Open) -> None:
    session = shell(run)
    session.press("sleep 1000\r")
    session.expect("1000\r\n")
    time.sleep(0.3 * SLOWNESS)
    session.press("\x03")
    session.expect("# ")
    assert ask(session, "echo status $?") == "status 130\n"
    session.press("exit 0\r")
    assert session.wait() == 0


@pytest.mark.parametrize("options", [(), ("--init",)])
def test_a_shell_has_job_control(run: Open, options: tuple[str, ...]) -> None:
    session = shell(run, *options)
    session.press("sleep 1000\r")
    session.expect("1000\r\n")
    time.sleep(0.3 * SLOWNESS)
    session.press("\x1a")
    session.expect("Stopped")
    session.press("bg\r")
    session.expect("sleep 1000\r\n")
    assert "Running" in ask(session, "jobs")
    session.press("kill %1; wait; exit 3\r")
    assert session.wait() == 3
    assert b"job control turned off" not in session.screen


def test_the_init_is_the_leader_and_the_program_has_the_terminal(run: Open) -> None:
    session = shell(run, "--init")
    rows = ask(session, "ps -o pid,sid,pgid,tpgid,comm").splitlines()
    init, program = (row.split() for row in rows[1:3])
    assert init[:2] == ["1", "1"]
    assert program[0] == program[2]
    session.press("exit\r")
    assert session.wait() == 0


def test_a_long_paste_arrives_whole(run: Open) -> None:
    session = run(
        "-it", "base", "sh", "-c", "stty raw -echo; echo ready; head -c 300000 | sha256sum; stty sane"
    )
    session.expect("ready")
    session.wait_until_raw()
    text = "0123456789" * 1000
    for _ in range(30):
        session.press(text)
    session.expect(hashlib.sha256(text.encode() * 30).hexdigest())
    assert session.wait() == 0


ENDS: dict[str, tuple[tuple[str, ...], str, int]] = {
    "exit status 0": (("base", "true"), "", 0),
    "exit status 5": (("base", "sh", "-c", "exit 5"), "", 5),
    "its own signal": (("--init", "base", "sh", "-c", "kill -KILL $$"), "", 128 + 9),
    "a terminal left raw": (("base", "sh", "-c", "stty raw -echo"), "", 0),
    "no such program": (("base", "nosuch"), "gocker: exec nosuch: ENOENT", 127),
    "a program that cannot be executed": (("base", "/etc/passwd"), "gocker: ", 126),
    "a limit that cannot be": (("--limit", "cpuset=99", "base", "true"), "gocker: ", 125),
    "a failed step": (("-w", "/proc/self/fd/0", "base", "true"), "gocker: step ", 125),
    "the timeout": (("--timeout", "0.5", "base", "sleep", "1000"), "", 128 + 9),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_terminal_is_as_it_was_after(run: Open, name: str) -> None:
    args, shown, code = ENDS[name]
    session = run("-it", *args)
    assert session.wait() == code
    assert session.settings() == session.before
    assert session.screen.decode().startswith(shown)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_and_after_a_signal_to_gocker(run: Open, number: int) -> None:
    session = run(
        "-it", "base", "sh", "-c", "trap 'echo got it; exit 9' TERM INT HUP QUIT; echo ready; read x"
    )
    session.expect("ready")
    session.wait_until_raw()
    session.process.send_signal(number)
    assert session.wait() == 9
    assert b"got it" in session.screen
    assert session.settings() == session.before


def test_and_after_a_stop_gocker_takes_the_terminal_over_again(run: Open) -> None:
    session = shell(run)
    session.process.send_signal(signal.SIGSTOP)
    os.waitpid(session.process.pid, os.WUNTRACED)
    session.restore()  # as the shell does that gocker was stopped in
    session.resize(50, 60)
    session.process.send_signal(signal.SIGCONT)
    session.wait_until_raw()
    assert ask(session, "stty size") == "50 60\n"
    session.press("exit\r")
    assert session.wait() == 0
    assert session.settings() == session.before


def test_a_window_that_is_closed_ends_a_shell(run: Open) -> None:
    session = shell(run)
    session.hang_up()
    session.process.wait(20 * SLOWNESS)


def test_and_a_program_that_knows_nothing_of_terminals(run: Open) -> None:
    session = run("-it", "base", "sleep", "1000")
    session.wait_until_raw()
    session.hang_up()
    assert session.process.wait(20 * SLOWNESS) == 128 + 1


def test_i_and_t_without_a_terminal_are_refused_before_anything_is_made(gocker: Gocker) -> None:
    ran = gocker("run", "-it", "base", "true")
    assert ran.code == 125
    assert ran.err == (
        "gocker: attach terminal stdin: not a terminal (leave out -t to pipe input, or -i for none)\n"
    )


def test_t_alone_needs_no_terminal(gocker: Gocker) -> None:
    ran = gocker("run", "-t", "base", "sh", "-c", "tty; echo err >&2; exit 4")
    assert (ran.code, ran.out, ran.err) == (4, "/dev/pts/0\r\nerr\r\n", "")


def test_t_alone_shows_lines_once_ended_and_leaves_the_terminal_as_it_was(run: Open) -> None:
    session = run("-t", "base", "sh", "-c", "echo one; echo two")
    assert session.wait() == 0
    assert session.screen == b"one\r\ntwo\r\n"
    assert session.settings() == session.before


def test_t_alone_leaves_control_c_to_gocker(run: Open) -> None:
    session = run(
        "-t", "base", "sh", "-c", "trap 'echo got it; exit 9' INT; echo ready; while :; do sleep 0.02; done"
    )
    session.expect("ready")
    session.press("\x03")
    assert session.wait() == 9
    assert b"got it" in session.screen


def test_output_can_go_elsewhere_while_keys_come_from_the_terminal(run: Open, tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as out:
        session = run("-it", "base", "sh", "-c", "read line; echo got $line", stdout=out.fileno())
    session.wait_until_raw()
    session.press("this\r")
    assert session.wait() == 0
    assert (tmp_path / "out").read_bytes() == b"this\r\ngot this\r\n"
    assert session.settings() == session.before


def test_i_alone_at_a_terminal_ends_with_control_d(run: Open) -> None:
    session = run("-i", "base", "cat")
    session.press("a line\r")
    session.expect("a line\r\na line\r\n")  # the terminal's echo, and cat's
    session.press("\x04")
    assert session.wait() == 0
    assert not session.is_raw()


def test_a_terminal_that_was_closed_and_opened_again_still_works(run: Open) -> None:
    script = "exec <&- >&- 2>&-; sleep 0.3; echo back >/dev/console; sleep 0.3"
    session = run("-it", "base", "sh", "-c", script)
    session.expect("back\r\n")
    assert session.wait() == 0


def test_nothing_that_was_written_last_is_lost(run: Open) -> None:
    session = run("-it", "base", "sh", "-c", "seq 20000; printf last")
    assert session.wait() == 0
    assert session.screen.decode().split() == [*map(str, range(1, 20001)), "last"]


@pytest.mark.parametrize("options", [(), ("-u", "1000"), ("--userns", "private"), ("--privileged",)])
def test_whoever_the_user_is_the_terminal_is_its_own(run: Open, options: tuple[str, ...]) -> None:
    script = "echo a >/dev/tty; echo b >/dev/pts/0; echo c >/dev/stderr; stat -c %u /dev/pts/0; id -u"
    session = run("-it", *options, "base", "sh", "-c", script)
    assert session.wait() == 0
    *lines, owner, user = session.screen.decode().split()
    assert lines == ["a", "b", "c"]
    assert owner == user


def test_the_callers_terminal_is_out_of_reach_without_t(run: Open) -> None:
    session = run("base", "sh", "-c", "test -t 0 || test -t 1 || test -t 2 || echo none; : </dev/tty")
    assert session.wait() != 0
    assert b"none\r\n" in session.screen
    assert b"/dev/tty" in session.screen  # no such device or address


def test_gocker_in_the_background_of_a_shell_does_not_take_the_terminal(gocker: Gocker, run: Open) -> None:
    script = f"set -m; '{gocker._program}' run base sh -c 'sleep 0.5; echo done' & wait; echo shell"
    session = Session(["bash", "-c", script])
    try:
        session.expect("done\r\n")
        session.expect("shell\r\n")
        assert session.wait() == 0
    finally:
        session.close()
