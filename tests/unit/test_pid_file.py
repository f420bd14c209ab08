"""A --pid-file is whole or not there, and nothing is left beside it for long, whoever is killed on the way."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from gocker.errors import GockerError
from gocker.ocicli.common import write_pid_file


def killed_before(call: int, path: Path) -> bool:
    """Write it in a process that is killed before its n-th call of the kernel; whether it came to that."""
    pid = os.fork()
    if pid == 0:
        calls = 0

        def count(_: Any, event: str, function: Any) -> None:
            nonlocal calls
            calls += event == "c_call" and getattr(function, "__module__", "") == "posix"
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.setprofile(count)
            write_pid_file(str(path), 1)
        finally:
            sys.setprofile(None)
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("old", ["", "99"])
def test_what_a_killed_one_left_the_next_one_takes_away(tmp_path: Path, old: str) -> None:
    path = tmp_path / "pid"
    if old:
        path.write_text(old)
    left = set()
    call = 1
    while killed_before(call, path):
        assert not path.exists() or path.read_text() in {old, "1"}
        left |= {name.name for name in tmp_path.iterdir()}
        call += 1
    assert left - {"pid"} == {".pid.gocker"}
    assert killed_before(call - 1, path)
    (tmp_path / ".pid.gocker").write_text("half of a")
    write_pid_file(str(path), 4711)
    assert path.read_text() == "4711"
    assert os.listdir(tmp_path) == ["pid"]


def test_what_lies_in_its_way_is_not_written_to(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for link in (os.symlink, os.link):
        link(victim, tmp_path / ".pid.gocker")
        write_pid_file(str(tmp_path / "pid"), 4711)
        assert victim.read_text() == "mine"
        assert sorted(os.listdir(tmp_path)) == ["pid", "victim"]


def test_a_directory_in_its_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".pid.gocker").mkdir()
    with pytest.raises(GockerError, match="write pid file"):
        write_pid_file(str(tmp_path / "pid"), 4711)


def test_of_two_that_write_at_once_one_wins_and_none_fails(tmp_path: Path) -> None:
    pids = []
    for number in range(4):
        pids.append(os.fork())
        if pids[-1] == 0:
            status = 1
            try:
                for _ in range(50):
                    write_pid_file(str(tmp_path / "pid"), 1000 + number)
                status = 0
            finally:
                os._exit(status)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * len(pids)
    assert (tmp_path / "pid").read_text() in {f"{1000 + number}" for number in range(len(pids))}
    assert os.listdir(tmp_path) == ["pid"]
