"""Signals to gocker are the program's; those that come before it runs end the start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command import SLOWNESS, Gocker

from gocker.kernel import native
from gocker.launcher import EXECUTOR, PYTHON

PATIENCE = 30 * SLOWNESS
NUMBERS = {
    **{
        name: getattr(signal, f"SIG{name}") for name in ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "ALRM")
    },
    **{str(number): number for number in (signal.SIGRTMIN + 3, signal.SIGRTMAX)},
}
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(gocker: Gocker) -> Start:
    """`gocker run ARGS`, with pipes for its output."""

    def run(*args: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [gocker._program, "run", *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return run


def line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout
    return process.stdout.readline().decode().strip()


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("options", [(), ("--init",), ("--pid", "host")])
def test_every_signal_reaches_a_program_that_wants_it(start: Start, options: tuple[str, ...]) -> None:
    traps = "".join(f"trap 'echo {name}; n=$((n + 1))' {name}; " for name in NUMBERS)
    loop = f"n=0; echo ready; while [ $n -lt {len(NUMBERS)} ]; do sleep 0.02; done"
    process = start(*options, "base", "sh", "-c", f"{traps} {loop}")
    assert line(process) == "ready"
    for name, number in NUMBERS.items():
        process.send_signal(number)
        assert line(process) == name
    assert finish(process) == (0, "", "")


@pytest.mark.parametrize("options", [(), ("--init",), ("--pid", "host")])
@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT"])
def test_one_that_asks_for_an_end_ends_a_program_that_does_not_care(
    start: Start, tmp_path: Path, name: str, options: tuple[str, ...]
) -> None:
    report = tmp_path / "report"
    process = start(*options, "--report", str(report), "base", "sh", "-c", "echo ready; exec sleep 1000")
    assert line(process) == "ready"
    time.sleep(0.1 * SLOWNESS)
    process.send_signal(NUMBERS[name])
    assert finish(process) == (128 + NUMBERS[name], "", "")
    verdict = json.loads(report.read_text())["verdict"]
    assert (verdict["kind"], verdict["signal"]) == ("signal", f"SIG{name}")


def test_a_program_that_ignores_one_goes_on(start: Start) -> None:
    process = start("base", "sh", "-c", "trap '' TERM; echo ready; sleep 1; echo unmoved")
    assert line(process) == "ready"
    process.send_signal(signal.SIGTERM)
    assert finish(process) == (0, "unmoved\n", "")


def test_one_that_asks_for_no_end_does_not_end_a_first_process(start: Start) -> None:
    process = start("base", "sh", "-c", "echo ready; sleep 1; echo unmoved")
    assert line(process) == "ready"
    process.send_signal(signal.SIGUSR1)
    assert finish(process) == (0, "unmoved\n", "")


def test_the_record_says_which_came_and_from_whom(start: Start, gocker: Gocker, tmp_path: Path) -> None:
    cid = tmp_path / "cid"
    process = start(
        "--cidfile",
        str(cid),
        "base",
        "sh",
        "-c",
        "trap 'exit 4' TERM; echo ready; while :; do sleep 0.02; done",
    )
    assert line(process) == "ready"
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 4
    ran = gocker("audit", "show", "--container", cid.read_text(), "--format", "json")
    [event] = [e for e in map(json.loads, ran.out.splitlines()) if e["event"] == "container.signal"]
    assert event["signal"] == "SIGTERM"
    assert (event["sender_pid"], event["sender_uid"]) == (os.getpid(), os.getuid())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_one_that_comes_at_any_time_of_the_start_ends_it_and_leaves_nothing(
    start: Start, number: int
) -> None:
    """From the first import to the running program; the fixture looks at what is left."""
    codes = set()
    step = 0.015 * SLOWNESS
    for n in range(16):
        process = start("--init", "base", "sleep", "1000")
        time.sleep(n * step)
        process.send_signal(number)
        code, out, err = finish(process)
        codes.add(code)
        assert out == ""
        ours = f"{signal.Signals(number).name} came before the program ran"
        said = [row for row in err.splitlines() if "of a killed gocker was removed" not in row]
        assert code == -number or not said or (len(said) == 1 and ours in said[0])
    assert codes <= {-number, 128 + number}  # before and after gocker takes them over


def first_process(gocker: int) -> int:
    """Its only child, 0 while there is none."""
    with open(f"/proc/{gocker}/task/{gocker}/children", encoding="ascii") as file:
        return int((file.read().split() or ["0"])[0])


def exe_of(pid: int) -> str:
    """What it runs; "" when it has ended."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def test_a_start_that_hangs_can_be_ended(start: Start) -> None:
    is_native = native.is_built() and os.environ.get(EXECUTOR) != PYTHON
    for _ in range(20):
        process = start("base", "sleep", "1000")
        while not (child := first_process(process.pid)):
            assert process.poll() is None
        # The native executor is gocker's own image until its exec, for which posix_spawn(3) waits.
        while is_native and "python" in exe_of(child):
            pass
        os.kill(child, signal.SIGSTOP)
        hangs = any(name in exe_of(child) for name in ("python", "/memfd:gocker"))
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        code, out, err = finish(process)
        assert (code, out) == (128 + 15, "")
        if hangs:
            assert "SIGTERM came before the program ran" in err
            return
    pytest.fail("the first process was never caught before its exec")


def test_stop_and_continue_are_gockers_own(gocker: Gocker) -> None:
    process = subprocess.Popen(
        [gocker._program, "run", "base", "sh", "-c", "echo ready; sleep 0.5; echo done"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,  # one with a parent in the session: the kernel stops no orphaned one
    )
    assert line(process) == "ready"
    process.send_signal(signal.SIGTSTP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    time.sleep(0.7)
    process.send_signal(signal.SIGCONT)
    assert finish(process) == (0, "done\n", "")


def test_under_nohup_the_end_of_a_terminal_does_not_matter(gocker: Gocker) -> None:
    process = subprocess.Popen(
        [
            "nohup",
            gocker._program,
            "run",
            "base",
            "sh",
            "-c",
            "trap 'echo hup' HUP; echo ready; sleep 0.5; echo done",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert line(process) == "ready"
    process.send_signal(signal.SIGHUP)
    assert finish(process)[:2] == (0, "done\n")


def test_in_the_background_of_a_script_an_interrupt_still_gets_through(gocker: Gocker) -> None:
    script = f"""'{gocker._program}' run base sh -c 'trap "echo got it; exit 5" INT; echo ready; while :; do sleep 0.02; done' &
    sleep {1 * SLOWNESS}; kill -INT $!; wait $!; echo $?"""
    ran = subprocess.run(["sh", "-c", script], capture_output=True, timeout=PATIENCE, check=False)
    assert ran.stdout == b"ready\ngot it\n5\n"


def test_the_program_starts_with_default_actions_and_an_empty_mask(gocker: Gocker) -> None:
    ignoring = "trap '' HUP INT QUIT USR1 PIPE; exec \"$@\""
    for options in ((), ("--init",)):
        ran = subprocess.run(
            [
                "sh",
                "-c",
                ignoring,
                "sh",
                gocker._program,
                "run",
                *options,
                "base",
                "cat",
                "/proc/self/status",
            ],
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        lines = dict(row.split(b":\t") for row in ran.stdout.splitlines() if row.startswith(b"Sig"))
        assert {lines[name] for name in (b"SigBlk", b"SigIgn", b"SigCgt")} == {b"0" * 16}


def test_a_second_signal_while_the_container_goes_is_not_the_end_of_gocker(
    start: Start, tmp_path: Path
) -> None:
    report = tmp_path / "report"
    process = start(
        "--report",
        str(report),
        "base",
        "sh",
        "-c",
        "trap 'exit 6' TERM; echo ready; while :; do sleep 0.02; done",
    )
    assert line(process) == "ready"
    for _ in range(20):
        process.send_signal(signal.SIGTERM)
    assert finish(process) == (6, "", "")
    assert json.loads(report.read_text())["verdict"]["code"] == 6
