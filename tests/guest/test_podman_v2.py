"""Podman with gocker-oci where cgroups are those of version 2 alone, made by gocker or by systemd.

GOCKER_TEST_RUNTIME names another runtime, as in tests/engines.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from command import SLOWNESS
from enginehost import BUSYBOX, CGROUPS, IMAGE, Ran, systemd_runs, write_image

pytestmark = [pytest.mark.guest, pytest.mark.slow]
RUNTIME = os.environ.get("GOCKER_TEST_RUNTIME") or os.path.join(os.path.dirname(sys.executable), "gocker-oci")
CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
netns = "none"

[engine]
cgroup_manager = "{manager}"
events_logger = "file"
runtime = "tested"

[engine.runtimes]
tested = ["{runtime}"]
"""
STORAGE = """
[storage]
driver = "overlay"
graphroot = "{scratch}/root"
runroot = "{scratch}/runroot"
"""
GREEDY = """
head -c 64m /dev/zero | tail -c 60m  # which keeps that much before it prints
echo "status $?"
cat /sys/fs/cgroup/memory.events
"""


class Podman:
    """The command with a storage of its own and one of its cgroup managers."""

    def __init__(self, scratch: str, manager: str) -> None:
        self.manager = manager
        self._scratch = scratch
        for name, text in (("containers.conf", CONF), ("storage.conf", STORAGE)):
            with open(f"{scratch}/{name}", "w", encoding="utf-8") as file:
                file.write(text.format(runtime=shutil.which(RUNTIME), scratch=scratch, manager=manager))
        self._env = {
            **os.environ,
            "CONTAINERS_CONF": f"{scratch}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{scratch}/storage.conf",
        }

    def __call__(self, *args: str, code: int = 0) -> Ran:
        """Run it to its end, which must be with the exit status `code`."""
        done = subprocess.run(
            ["podman", *args],
            capture_output=True,
            text=True,
            env=self._env,
            cwd=self._scratch,  # conmon leaves a file there when it sees the OOM killer
            timeout=60 * SLOWNESS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, f"podman {args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return Ran(done.returncode, done.stdout, done.stderr)

    def inspect(self, name: str) -> Any:
        return json.loads(self("inspect", name).out)[0]

    def cgroup(self, name: str) -> str:
        """Of the first process: its path below the mount point."""
        with open(f"/proc/{self.inspect(name)['State']['Pid']}/cgroup", encoding="ascii") as file:
            return file.read().strip().removeprefix("0::")


@pytest.fixture(scope="module", params=["cgroupfs", "systemd"])
def podman(request: pytest.FixtureRequest) -> Iterator[Podman]:
    manager = request.param
    for program, package in (("podman", "podman"), ("conmon", "conmon"), (RUNTIME, "the runtime")):
        if not shutil.which(program):
            pytest.skip(f"needs {program} of {package}")
    if not os.access(BUSYBOX, os.X_OK):
        pytest.skip(f"needs {BUSYBOX} of busybox-static, to make an image")
    if manager == "systemd" and not systemd_runs():
        pytest.skip("needs a host that systemd runs: tests/guest/run --systemd boots one")
    scratch = tempfile.mkdtemp(prefix="gp", dir="/tmp")  # short, for unix sockets
    os.chmod(scratch, 0o755)
    podman = Podman(scratch, manager)
    write_image(f"{scratch}/image.tar")
    podman("load", "-q", "-i", f"{scratch}/image.tar")
    yield podman
    left = podman("ps", "-aq").out
    podman("rm", "-fa", "-t", "0")
    for mount in (f"{scratch}/root/overlay", f"{scratch}/root"):
        subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
    shutil.rmtree(scratch)
    for parent in ("libpod_parent/conmon", "libpod_parent", "gocker", "conmon"):  # podman's own, which stay
        if os.path.isdir(f"{CGROUPS}/{parent}"):
            os.rmdir(f"{CGROUPS}/{parent}")
    assert not left, f"containers left behind: {left}"


def read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def test_a_container_lives_in_the_cgroup_that_the_manager_names_and_goes_with_it(podman: Podman) -> None:
    podman("run", "-d", "--name", "sleeper", "-m", "64m", "--pids-limit", "40", IMAGE, "sleep", "1000")
    try:
        whole = podman.inspect("sleeper")["Id"]
        path = podman.cgroup("sleeper")
        above = "/machine.slice" if podman.manager == "systemd" else "/libpod_parent"
        name = f"libpod-{whole}.scope" if podman.manager == "systemd" else f"libpod-{whole}"
        assert path == f"{above}/{name}"
        assert read(f"{CGROUPS}{path}/memory.max") == str(64 << 20)
        assert read(f"{CGROUPS}{path}/pids.max") == "40"
        if podman.manager == "systemd":
            shown = subprocess.run(
                ["systemctl", "show", name, "-p", "ActiveState,MemoryMax,TasksMax,Slice,Delegate"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            assert set(shown.split()) == {
                "ActiveState=active",
                f"MemoryMax={64 << 20}",
                "TasksMax=40",
                "Slice=machine.slice",
                "Delegate=yes",
            }
        ran = podman(
            "exec", "-w", "/etc", "sleeper", "sh", "-c", "pwd; cat /sys/fs/cgroup/memory.max; exit 7", code=7
        )
        assert ran.out == f"/etc\n{64 << 20}\n"
    finally:
        podman("rm", "-f", "-t", "0", "sleeper")
    assert not os.path.exists(f"{CGROUPS}{path}")
    if podman.manager == "systemd":
        active = subprocess.run(
            ["systemctl", "show", name, "-p", "LoadState"], capture_output=True, text=True, check=True
        )
        assert active.stdout == "LoadState=not-found\n"


def test_a_memory_limit_binds(podman: Podman) -> None:
    ran = podman("run", "--rm", "-m", "24m", "--memory-swap", "24m", IMAGE, "sh", "-c", GREEDY)
    assert ran.out.startswith("status 137\n")
    assert "\noom_kill 1\n" in ran.out


def test_run_prints_and_ends_as_its_program_does(podman: Podman) -> None:
    ran = podman("run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 3", code=3)
    assert (ran.out, ran.err) == ("out\n", "err\n")
