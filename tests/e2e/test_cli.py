"""The command among other programs: its streams, signals, and what it must not touch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from command import SLOWNESS, Gocker

WATCH = """
import json, os, sys

events = []
writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
harmless = {"os.listdir", "os.scandir", "os.putenv", "os.unsetenv", "os.getxattr", "os.listxattr", "os.fwalk", "os.walk"}

def hook(event, args):
    if event == "open":
        path, mode, flags = args
        if flags & writing or set(mode or "") & set("wax+"):
            events.append(f"open {path}")
    elif event.startswith(("os.", "shutil.", "tempfile.", "subprocess.", "socket.", "fcntl.")) and event not in harmless:
        events.append(f"{event} {args}")

import gocker.kernel.syscalls as syscalls
make = syscalls.call

def call(name, *args):
    events.append(f"system call {name}")
    return make(name, *args)

syscalls.call = call
sys.addaudithook(hook)
from gocker.cli import main
main.__dict__["_open_streams"]()
status = main._main()
print(json.dumps({"status": status, "events": events}), file=sys.stderr)
"""


@pytest.fixture
def fresh(tmp_path: Path) -> dict[str, str]:
    """Directories that are not there yet."""
    return {
        "GOCKER_ROOT": f"{tmp_path}/new/data",
        "GOCKER_STATE": f"{tmp_path}/new/state",
        "GOCKER_AUDIT_LOG": f"{tmp_path}/new/log/audit.jsonl",
    }


def watched(*args: str, env: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """What `gocker ARGS` did that changes something, in the words of Python's audit events; and its stdout."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", WATCH, *args],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
        timeout=60 * SLOWNESS,
    )
    seen: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    return seen, done.stdout


# --- what plans touch


@pytest.mark.parametrize(
    "args",
    [
        ("plan", "base", "true"),
        ("plan", "--format", "json", "--limit", "memory=100m", "--userns", "private", "-t", "base", "true"),
        ("run", "--dry-run", "--limit", "memory=100m?", "--cidfile", "{tmp}/cid", "base", "true"),
        ("version",),
    ],
    ids=" ".join,
)
def test_a_plan_changes_nothing(fresh: dict[str, str], tmp_path: Path, args: tuple[str, ...]) -> None:
    seen, out = watched(*(arg.format(tmp=tmp_path) for arg in args), env=fresh)
    assert seen == {"status": 0, "events": []}
    assert out
    assert os.listdir(tmp_path) == []


def test_the_watch_sees_a_run_change_things(fresh: dict[str, str], tmp_path: Path) -> None:
    seen, _ = watched("run", "base", "true", env=fresh)
    assert seen["status"] == 0
    text = "\n".join(seen["events"])
    for change in ("os.posix_spawn", "os.mkdir", f"open {fresh['GOCKER_AUDIT_LOG']}", "os.rename"):
        assert change in text


def test_a_plan_leaves_what_a_killed_gocker_left(gocker: Gocker, fresh: dict[str, str]) -> None:
    leftover = f"{fresh['GOCKER_STATE']}/containers/gone"
    os.makedirs(leftover, 0o700)
    for args in (("plan", "base", "true"), ("run", "--dry-run", "base", "true"), ("version",)):
        assert gocker(*args, env=fresh).code == 0
        assert os.path.isdir(leftover)
    assert gocker("plugins", env=fresh).code == 0
    assert not os.path.exists(leftover)


def test_a_plan_warns_of_limits_that_will_not_bind(gocker: Gocker) -> None:
    ran = gocker("plan", "--limit", "nosuch=1?", "base", "true")
    assert ran.code == 0
    assert (
        ran.err == "gocker: warning: limit nosuch does not bind: no controller plug-in nosuch is installed\n"
    )


def test_an_image_that_is_not_there_is_named_with_those_that_are(gocker: Gocker) -> None:
    gocker("run", "base", "true")
    ran = gocker("run", "nosuch", "true")
    assert (ran.code, ran.out) == (125, "")
    assert ran.err.startswith("gocker: find image nosuch: not in ")
    assert ran.err.endswith(", which has base (use the image base, or --rootfs DIR)\n")


# --- streams


def shell(gocker: Gocker, text: str, **env: str) -> tuple[int, str, str]:
    """Run a line of bash in which `gocker` is the command under test."""
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", text],
        env={**os.environ, **env, "PATH": path},
        capture_output=True,
        timeout=60 * SLOWNESS,
        check=False,
        errors="surrogateescape",
        encoding="utf-8",
    )
    return done.returncode, done.stdout, done.stderr


UNBUFFERED = pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])


@UNBUFFERED
@pytest.mark.parametrize(
    "command", ["version", "plan base true", "--help", "run --help", "doctor --format json"]
)
def test_a_full_disk_is_an_error_in_one_line(gocker: Gocker, command: str, unbuffered: str) -> None:
    code, _, err = shell(gocker, f"gocker {command} >/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert (code, err) == (125, "gocker: write the output: ENOSPC: No space left on device\n")


@UNBUFFERED
@pytest.mark.parametrize("args", [("plan", "base", "true"), ("--help",), ("audit", "show")], ids=" ".join)
def test_a_reader_that_has_gone_is_as_sigpipe_and_no_error(
    gocker: Gocker, args: tuple[str, ...], unbuffered: str
) -> None:
    gocker("run", "base", "true")  # so that the audit log has something to show
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [f"{os.path.dirname(sys.executable)}/gocker", *args],
            stdout=write,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_streams_that_are_closed_are_nothing_to_write_to(gocker: Gocker) -> None:
    assert shell(gocker, "gocker version >&-") == (0, "", "")
    assert shell(gocker, "gocker nosuch 2>&-") == (125, "", "")
    assert shell(gocker, "gocker run base sh -c 'echo out; echo err >&2; exit 3' >&- 2>&- <&-") == (3, "", "")
    assert shell(gocker, "gocker run -i base cat <&-") == (0, "", "")


def test_an_error_that_nobody_can_read_keeps_its_status(gocker: Gocker) -> None:
    assert shell(gocker, "gocker nosuch 2>/dev/full") == (125, "", "")


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
def test_bytes_that_are_no_text_go_through_a_plan(gocker: Gocker, locale: str) -> None:
    code, out, err = shell(gocker, r"gocker plan base echo $'a\xffb\xc3\xa9'", LC_ALL=locale)
    assert (code, err) == (0, "")
    assert "echo 'a\udcffbé'" in out


def test_a_latin_terminal_gets_what_it_can_show(gocker: Gocker) -> None:
    code, out, err = shell(gocker, r"gocker plan base echo $'a\xff€'", PYTHONIOENCODING="latin-1")
    assert (code, err) == (0, "")
    assert r"\u20ac" in out


# --- signals


def test_ctrl_c_ends_it_with_130_and_no_more_words(gocker: Gocker) -> None:
    gocker("run", "base", "true")
    process = gocker.start("audit", "tail", "-f")
    assert process.stdout
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10 * SLOWNESS)
    assert (process.returncode, err.strip()) == (130, b"")


def test_ctrl_c_while_it_loads_is_no_traceback_either() -> None:
    code = (
        "import gocker.cli.main, gocker.__main__\n"
        "def interrupted(): raise KeyboardInterrupt\n"
        "gocker.cli.main.main = interrupted\n"
        "gocker.__main__.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"")


def test_python_m_gocker_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gocker", "nosuch"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (125, "gocker: no such command nosuch (see gocker --help)\n")


# --- bugs


def test_a_bug_in_a_run_is_one_line_and_the_container_is_gone_and_on_the_record(
    gocker: Gocker, tmp_path: Path
) -> None:
    """The bug is planted in what a running container is attended to by."""
    code = (
        "import sys, gocker.engine\n"
        "def attend(*args): raise ZeroDivisionError('planted')\n"
        "gocker.engine.attend = attend\n"
        "sys.argv = ['gocker', 'run', '--name', 'unlucky', 'base', 'sleep', '60']\n"
        "import gocker.cli.main\n"
        "gocker.cli.main.main()\n"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert time.monotonic() - started < 30 * SLOWNESS
    assert done.returncode == 125
    assert done.stderr.startswith("gocker: internal error ZeroDivisionError: planted, at ")
    assert done.stderr.count("\n") == 1
    told = gocker("why", "unlucky")
    assert "ZeroDivisionError: planted" in told.out
    debug = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GOCKER_DEBUG": "1"},
    )
    assert "Traceback (most recent call last)" in debug.stderr
