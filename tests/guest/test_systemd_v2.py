"""`gocker-oci --systemd-cgroup` with the systemd of a host that it runs: tests/guest/run --systemd boots one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from command import SLOWNESS
from enginehost import systemd_runs, until, write_rootfs

pytestmark = [pytest.mark.guest, pytest.mark.slow]
GOCKER = os.path.join(os.path.dirname(sys.executable), "gocker-oci")
UNIT = "test-c1.scope"
PATH = f"/sys/fs/cgroup/gockertest.slice/gockertest-deep.slice/{UNIT}"


class Oci:
    """gocker-oci with one bundle and a root of its own."""

    def __init__(self, scratch: str) -> None:
        self.scratch = scratch
        self.bundle = f"{scratch}/bundle"
        write_rootfs(f"{self.bundle}/rootfs")

    def configure(self, *args: str, **changes: Any) -> None:
        """Write the config of a container that runs `args`; `changes` are of its top."""
        config = {
            "ociVersion": "1.0.2",
            "process": {"args": list(args), "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}},
            "root": {"path": "rootfs"},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "annotations": {"org.systemd.property.TimeoutStopSec": "5"},
            "linux": {
                "cgroupsPath": "gockertest-deep.slice:test:c1",
                "namespaces": [{"type": kind} for kind in ("pid", "mount", "cgroup")],
                "resources": {
                    "memory": {"limit": 64 << 20, "swap": 64 << 20},
                    "pids": {"limit": 20},
                    "cpu": {"quota": 33333, "period": 77777, "cpus": "0", "shares": 512},
                },
            },
            **changes,
        }
        with open(f"{self.bundle}/config.json", "w", encoding="utf-8") as file:
            json.dump(config, file)

    def popen(self, *args: str) -> subprocess.Popen[bytes]:
        log = open(f"{self.scratch}/log", "ab")  # a container holds a pipe until it ends
        with log:
            return subprocess.Popen(
                [GOCKER, "--root", f"{self.scratch}/state", "--systemd-cgroup", *args],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def __call__(self, *args: str, code: int = 0) -> str:
        """Run it; what it has printed."""
        with open(f"{self.scratch}/log", "wb"):
            pass
        status = self.popen(*args).wait(60 * SLOWNESS)
        with open(f"{self.scratch}/log", encoding="utf-8") as file:
            said = file.read()
        assert status == code, f"{args}: {status}\n{said}"
        return said


@pytest.fixture
def oci(tmp_path: Any) -> Iterator[Oci]:
    if not systemd_runs():
        pytest.skip("needs a host that systemd runs: tests/guest/run --systemd boots one")
    oci = Oci(str(tmp_path))
    yield oci
    oci("delete", "--force", "c1")
    for unit in ("gockertest-deep.slice", "gockertest.slice"):
        subprocess.run(["systemctl", "stop", unit], check=True)
    assert not os.path.exists(os.path.dirname(PATH))


def properties(*names: str) -> dict[str, str]:
    """As `systemctl show` shows them."""
    done = subprocess.run(
        ["systemctl", "show", UNIT, "-p", ",".join(names)], capture_output=True, text=True, check=True
    )
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    return {name: value for name, _, value in pairs}


def file(name: str) -> str:
    with open(f"{PATH}/{name}", encoding="ascii") as opened:
        return opened.read().strip()


def test_a_scope_has_the_limits_and_an_update_reaches_systemd_and_the_kernel(oci: Oci) -> None:
    oci.configure("sleep", "1000")
    oci("create", "--bundle", oci.bundle, "c1")
    assert properties(
        "ActiveState", "Slice", "Delegate", "MemoryMax", "MemorySwapMax", "TasksMax", "CPUQuotaPeriodUSec",
        "AllowedCPUs", "CPUWeight", "TimeoutStopUSec", "CollectMode",
    ) == {
        "ActiveState": "active",
        "Slice": "gockertest-deep.slice",
        "Delegate": "yes",
        "MemoryMax": str(64 << 20),
        "MemorySwapMax": "0",
        "TasksMax": "20",
        "CPUQuotaPeriodUSec": "77.777ms",
        "AllowedCPUs": "0",
        "CPUWeight": "59",
        "TimeoutStopUSec": "5s",
        "CollectMode": "inactive-or-failed",
    }  # fmt: skip
    assert (file("memory.max"), file("memory.swap.max"), file("pids.max")) == (str(64 << 20), "0", "20")
    assert (file("cpu.max"), file("cpuset.cpus"), file("cpu.weight")) == ("33333 77777", "0", "59")
    assert len(file("cgroup.procs").split()) == 1  # what kept the scope is gone
    oci("start", "c1")
    assert oci("exec", "c1", "cat", "/proc/self/cgroup") == "0::/\n"
    oci("update", "--memory", str(32 << 20), "--pids-limit", "33", "c1")
    assert (file("memory.max"), file("pids.max")) == (str(32 << 20), "33")
    assert properties("MemoryMax", "TasksMax") == {"MemoryMax": str(32 << 20), "TasksMax": "33"}
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    assert (file("memory.max"), file("pids.max")) == (str(32 << 20), "33")
    oci("delete", "--force", "c1")
    assert not os.path.exists(PATH)
    assert properties("LoadState") == {"LoadState": "not-found"}


def test_one_process_alone_is_a_limit_that_a_scope_can_have(oci: Oci) -> None:
    oci.configure("sleep", "1000", linux={
        "cgroupsPath": "gockertest-deep.slice:test:c1",
        "namespaces": [{"type": "pid"}, {"type": "mount"}],
        "resources": {"pids": {"limit": 1}},
    })  # fmt: skip
    oci("create", "--bundle", oci.bundle, "c1")
    assert file("pids.max") == "1"


def test_the_next_call_stops_the_scope_of_one_that_was_killed(oci: Oci) -> None:
    waiting = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1000"]}]}
    oci.configure("sleep", "1000", hooks=waiting)
    process = oci.popen("create", "--bundle", oci.bundle, "c1")
    until(lambda: _sleeps(process.pid) != 0)
    assert properties("ActiveState") == {"ActiveState": "active"}
    hook = _sleeps(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    os.kill(hook, signal.SIGKILL)  # a hook is no part of the container
    oci("delete", "--force", "c1")
    assert not os.path.exists(PATH)
    assert properties("LoadState") == {"LoadState": "not-found"}


def _sleeps(pid: int) -> int:
    """The child of `pid` that is the hook; 0 without one."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
        for child in children.read().split():
            with open(f"/proc/{child}/comm", encoding="ascii") as comm:
                if comm.read() == "sleep\n":
                    return int(child)
    return 0


def test_a_unit_that_is_there_already_is_nobodys_to_take(oci: Oci) -> None:
    oci.configure("true")
    with subprocess.Popen(
        ["systemd-run", "-q", "--scope", "--slice=gockertest-deep.slice", f"--unit={UNIT}", "sleep", "1000"]
    ) as other:
        try:
            until(lambda: os.path.exists(PATH))
            assert "another container has it" in oci("create", "--bundle", oci.bundle, "c1", code=1)
            assert properties("ActiveState") == {"ActiveState": "active"}
            assert other.poll() is None
        finally:
            other.kill()
