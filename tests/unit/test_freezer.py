"""Freezing as far as files can tell, and the watch for the OOM killer; directories stand for cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from gocker.errors import KernelError
from gocker.kernel.freezer import can_freeze, freeze, is_frozen, thaw
from gocker.kernel.oomwatch import OomWatch
from gocker.model import Hierarchy


def v2(directory: Path, events: str) -> str:
    (directory / "cgroup.freeze").write_text("0", encoding="ascii")
    (directory / "cgroup.events").write_text(events, encoding="ascii")
    return str(directory)


def test_on_v2_it_is_frozen_once_the_kernel_says_so(tmp_path: Path) -> None:
    path = v2(tmp_path, "populated 1\nfrozen 1\n")
    freeze(path, "v2")
    assert is_frozen(path, "v2")
    thaw(path, "v2")
    assert not is_frozen(path, "v2")


def test_who_does_not_stop_in_time_goes_on(tmp_path: Path) -> None:
    path = v2(tmp_path, "populated 1\nfrozen 0\n")
    with pytest.raises(KernelError, match=r"^freeze cgroup .*: a process has not stopped after 0\.05 s"):
        freeze(path, "v2", 0.05)
    assert not is_frozen(path, "v2")


def test_on_v1_the_state_says_it(tmp_path: Path) -> None:
    (tmp_path / "freezer.state").write_text("THAWED", encoding="ascii")
    freeze(str(tmp_path), "v1")
    assert (tmp_path / "freezer.state").read_text(encoding="ascii") == "FROZEN"
    assert can_freeze(str(tmp_path), "v1")
    assert not can_freeze(str(tmp_path), "v2")


def test_a_cgroup_that_is_gone_is_not_frozen(tmp_path: Path) -> None:
    thaw(f"{tmp_path}/gone", "v1")
    assert not is_frozen(f"{tmp_path}/gone", "v1")
    with pytest.raises(FileNotFoundError):
        freeze(f"{tmp_path}/gone", "v2")


def test_each_kill_is_told_once(tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    events.write_text("oom 1\noom_kill 1\n", encoding="ascii")
    watch = OomWatch(str(tmp_path), Hierarchy.V2)
    try:
        assert not watch.take()
        events.write_text("oom 2\noom_kill 2\n", encoding="ascii")
        assert watch.take()
        assert not watch.take()
        events.write_text("oom 3\noom_kill 2\n", encoding="ascii")
        assert not watch.take()
    finally:
        watch.close()
