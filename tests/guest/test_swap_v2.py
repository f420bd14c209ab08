"""Memory and swap on cgroup v2 with real swap: a file on the test's own disk, on for these tests alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from command import Gocker
from running import running

pytestmark = pytest.mark.guest

SIZE = 64 << 20
GREEDY = "head -c 24m /dev/zero | tail -c 20m | tail -c 1"  # `tail -c 20m` keeps that much before it prints


@pytest.fixture(scope="module")
def swap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The path of a file that the kernel swaps to."""
    path = f"{tmp_path_factory.mktemp('swap')}/file"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
    os.posix_fallocate(fd, 0, SIZE)
    os.close(fd)
    subprocess.run(["/usr/sbin/mkswap", path], check=True, capture_output=True)
    on = subprocess.run(["/usr/sbin/swapon", path], check=False, capture_output=True, text=True)
    if on.returncode:
        pytest.skip(f"needs a file system that can be swapped to: {on.stderr.strip()}")
    yield path
    subprocess.run(["/usr/sbin/swapoff", path], check=True)
    os.unlink(path)


def test_memory_alone_allows_no_swap(gocker: Gocker, swap: str) -> None:
    with running(gocker, "--limit", "memory=12m") as container:
        assert container.file("memory", "memory.swap.max") == "0"
    # Not in that one's shell, which the OOM killer may take for the culprit.
    ran = gocker.run("--limit", "memory=12m", "base", "sh", "-c", f"exec {GREEDY}")
    assert ran.report["usage"]["oom_kills"] >= 1, ran
    assert ran.report["limits"]["memory.swap"]["effective"] == 0


def test_memory_swap_is_the_sum_and_the_rest_of_it_is_swapped(gocker: Gocker, swap: str) -> None:
    with running(gocker, "--limit", "memory=12m", "--limit", "memory.swap=100m") as container:
        assert container.file("memory", "memory.swap.max") == str(88 << 20)
        assert container.sh(f"{GREEDY} | wc -c") == "1"
        assert int(container.file("memory", "memory.swap.peak") or 0) > 6 << 20
        ran = container.end()
    assert (ran.code, ran.report["verdict"]["kind"], ran.report["usage"]["oom_kills"]) == (0, "ok", 0)
    assert ran.report["limits"]["memory.swap"] == {"asked": "100m", "effective": 88 << 20}


def test_a_sum_that_is_too_small_ends_in_oom_all_the_same(gocker: Gocker, swap: str) -> None:
    ran = gocker.run(
        "--limit", "memory=12m", "--limit", "memory.swap=16m", "base", "sh", "-c", f"exec {GREEDY}"
    )
    assert ran.report["usage"]["oom_kills"] >= 1, ran


def test_minus_one_allows_all_the_swap_there_is(gocker: Gocker, swap: str) -> None:
    with running(gocker, "--limit", "memory=12m", "--limit", "memory.swap=-1") as container:
        assert container.file("memory", "memory.swap.max") == "max"
        assert container.sh(f"{GREEDY} | wc -c") == "1"
