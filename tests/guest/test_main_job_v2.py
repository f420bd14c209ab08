"""The main job where most users are: `gocker run --limit memory=100m` on a pure cgroup v2 host."""

from __future__ import annotations

import glob
import os
import time

import pytest
from command import SLOWNESS, Gocker

pytestmark = pytest.mark.guest


def test_the_kernels_file_says_100m_while_it_runs(gocker: Gocker) -> None:
    with gocker.start(
        "run", "-i", "--limit", "memory=100m", "base", "sh", "-c", "echo up; read line"
    ) as process:
        assert process.stdout
        assert process.stdin
        assert process.stdout.readline() == b"up\n"
        (file,) = glob.glob("/sys/fs/cgroup/gocker/*/memory.max")
        with open(file, encoding="ascii") as value:
            assert value.read() == "104857600\n"
        process.stdin.close()
        deadline = time.monotonic() + 10 * SLOWNESS
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.returncode == 1  # of `read` at the end of its input
        assert not os.path.exists(file)


def test_a_program_that_takes_200_mb_is_killed_and_the_verdict_is_oom(gocker: Gocker) -> None:
    ran = gocker.run("--limit", "memory=100m", "base", "sh", "-c", "head -c 200m /dev/zero | tail")
    assert (ran.code, ran.verdict) == (137, "oom"), ran.err
    assert ran.report["limits"]["memory"] == {"asked": "100m", "effective": 104857600}
    assert 0.95 * 104857600 <= ran.report["usage"]["memory_peak_bytes"] <= 104857600


def test_a_program_that_kills_itself_has_the_verdict_signal(gocker: Gocker) -> None:
    # PID 1 of a namespace ignores its own SIGKILL (pid_namespaces(7)), so the program must not be it.
    ran = gocker.run("--init", "--limit", "memory=100m", "base", "sh", "-c", "kill -9 $$")
    assert (ran.code, ran.verdict) == (137, "signal"), ran.err
