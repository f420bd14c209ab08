"""The freezer on real cgroups, with processes that fork all the time."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gocker.hierarchy import read_host
from gocker.kernel import cgroupfs
from gocker.kernel.freezer import can_freeze, freeze, is_frozen, thaw

FORKING = ["sh", "-c", "while :; do /bin/true; echo x; done"]


@contextmanager
def forking(version: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A cgroup of this version with three shells that fork, writing to one pipe."""
    place = read_host().find({"v1": "freezer", "v2": "cgroup"}[version])
    if place is None or place.readonly:
        pytest.skip(f"needs a cgroup {version} hierarchy with a freezer")
    path = place.directory(f"/gocker-freezer-{os.getpid()}")
    os.mkdir(path)
    try:
        if not can_freeze(path, version):
            pytest.skip("needs Linux 5.2 for the freezer of cgroup v2")
        shells = "; ".join(["(" + FORKING[2] + ") &"] * 3).replace("&;", "&")
        command = f"echo $$ >{path}/cgroup.procs; {shells} wait"
        with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE) as process:
            try:
                yield path, process
            finally:
                thaw(path, version)
                cgroupfs.kill_all(path, version)
    finally:
        os.rmdir(path)


def grows(process: subprocess.Popen[bytes], seconds: float = 0.3) -> bool:
    """Whether there is output once the pipe has been emptied."""
    assert process.stdout
    fd = process.stdout.fileno()
    os.set_blocking(fd, False)
    found = False
    for wait in (0.0, seconds):
        time.sleep(wait)
        found = False
        while True:
            try:
                found = bool(os.read(fd, 1 << 16)) or found
            except BlockingIOError:
                break
    return found


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_what_forks_all_the_time_stands_still_again_and_again(version: str) -> None:
    with forking(version) as (path, process):
        for _ in range(5):
            deadline = time.monotonic() + 10
            while not grows(process):
                assert time.monotonic() < deadline
            freeze(path, version)
            assert is_frozen(path, version)
            assert not grows(process)
            thaw(path, version)
            assert not is_frozen(path, version)
