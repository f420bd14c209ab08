"""Who joins a container proves that its first process is still the one that gocker made."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from gocker.errors import StateError
from gocker.kernel.process import start_time
from gocker.plan import Context
from gocker.steps.joining import RequireProcess


@pytest.fixture
def pid() -> Iterator[int]:
    """Of a process that sleeps."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def step(pid: int, started: int) -> RequireProcess:
    return RequireProcess(pid=pid, started=started, container="c1")


def test_the_process_that_it_was_is_let_by(pid: int) -> None:
    step(pid, start_time(pid)).execute(Context(None))


@pytest.mark.parametrize("ticks", [-1, 1])
def test_a_pid_that_was_given_anew_is_another_s(pid: int, ticks: int) -> None:
    with pytest.raises(StateError, match="not running"):
        step(pid, start_time(pid) + ticks).execute(Context(None))


def test_a_process_that_is_gone_is_not_there() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(StateError, match="not running"):
        step(child, 1).execute(Context(None))
