"""The watch over every test (tests/support/traces.py) sees what it is there to see."""

from __future__ import annotations

import os
import subprocess
import time
from copy import copy
from pathlib import Path

import pytest
import traces
from traces import Host

from gocker.kernel import cgroupfs


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "PATIENCE", 0)


def test_an_empty_cgroup_below_gocker_is_seen(places: Host) -> None:
    before = places.look()
    base = places.hierarchies[0]
    path = f"{base}/gocker/trace-{os.getpid()}"
    cgroupfs.make(path, base)
    try:
        assert f"cgroups: {path}" in places.leaks(before)
    finally:
        cgroupfs.remove(path, base)
    assert not [line for line in places.leaks(before) if str(os.getpid()) in line]


@pytest.mark.parametrize("mode", [0o755, 0o1755])
def test_an_empty_parent_is_seen_whoever_made_it(places: Host, mode: int) -> None:
    """Below a cgroup of the test's own: that of all sessions is in use."""
    base = places.hierarchies[0]
    own = f"/gocker-test-{os.getpid()}"
    places = copy(places)
    places.parents = [own]
    before, containers = places.look(), places.containers()
    parent = f"{base}{own}/gocker"
    os.mkdir(os.path.dirname(parent))
    os.mkdir(parent, mode)
    try:
        assert places.leaks(before) == [f"cgroups: {parent}"]
        assert (parent in places.containers() - containers) == (mode == 0o755)
    finally:
        os.rmdir(parent)
        os.rmdir(os.path.dirname(parent))
    assert not places.leaks(before)


def test_a_mount_below_the_sessions_folder_is_seen(places: Host, tmp_path: Path) -> None:
    before = places.look()
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True)
    try:
        assert f"mounts: {tmp_path} (tmpfs)" in places.leaks(before)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_network_link_of_gockers_is_seen(places: Host) -> None:
    before = places.look()
    kinds = ("dummy", "bridge", "veth")
    if not any(
        subprocess.run(["ip", "link", "add", "gck-trace", "type", kind], check=False).returncode == 0
        for kind in kinds
    ):
        pytest.skip(f"this kernel makes no network link of type {', '.join(kinds)}")
    try:
        assert "links: gck-trace" in places.leaks(before)
    finally:
        subprocess.run(["ip", "link", "delete", "gck-trace"], check=True)


def test_a_child_process_is_seen(places: Host) -> None:
    before = places.look()
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            assert any(left.startswith(f"children: pid {process.pid}") for left in places.leaks(before))
        finally:
            process.kill()


def test_the_files_of_a_container_are_seen(places: Host) -> None:
    before = places.look()
    path = Path(places.places[1], "trace")
    path.mkdir(parents=True)
    try:
        assert f"files: {path}" in places.leaks(before)
    finally:
        path.rmdir()


def test_an_orphan_in_namespaces_of_its_own_is_seen(places: Host) -> None:
    before = places.namespaces()
    script = "unshare --mount --uts sh -c 'echo $$; exec sleep 60' & exec sleep 0.5"
    with subprocess.Popen(
        ["sh", "-c", script], stdout=subprocess.PIPE, env={"PATH": os.environ["PATH"]}
    ) as shell:
        assert shell.stdout
        pid = int(shell.stdout.readline())
        try:
            while os.getpid() in ancestors(pid):
                time.sleep(0.05)
            (held,) = [line for line in places.holders(before) if line.startswith(f"pid {pid} ")]
            assert "mnt:" in held
            assert "uts:" in held
            assert "net:" not in held
        finally:
            os.kill(pid, 9)


def test_a_process_of_somebody_else_is_not_ours(places: Host) -> None:
    script = "(unshare --mount sh -c 'echo $$; exec sleep 60'; :) & exec sleep 0.5"
    with subprocess.Popen(
        ["sh", "-c", script], stdout=subprocess.PIPE, env={"PATH": os.environ["PATH"]}
    ) as shell:
        assert shell.stdout
        pid = int(shell.stdout.readline())
        try:
            assert not places.foreign(pid)
            while os.getpid() in ancestors(pid):
                time.sleep(0.05)
            assert places.foreign(pid)
        finally:
            os.kill(pid, 9)


def ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        with open(f"/proc/{pid}/stat", "rb") as file:
            pid = int(file.read().rpartition(b")")[2].split()[1])
        found.append(pid)
    return found
