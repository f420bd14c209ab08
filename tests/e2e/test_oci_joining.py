"""One more process in a container stays in what the container is in."""

from __future__ import annotations

import os

import pytest
from ocicommand import GockerOci, cgroup_of


@pytest.mark.parametrize("path", ["..", "../..", "pids:..", "pids:../..", "devices:../..", "devices:../a:b"])
def test_a_cgroup_of_an_exec_does_not_climb(oci: GockerOci, path: str) -> None:
    oci.run()
    assert "has a .. in it" in oci.refused("exec", "--cgroup", path, "c1", "cat", "/proc/self/cgroup")


@pytest.mark.parametrize("path", ["", "/", "devices:/"])
def test_its_cgroup_is_the_containers_own(oci: GockerOci, path: str) -> None:
    oci.run(linux={"namespaces": [{"type": kind} for kind in ("mount", "pid")]})
    options = ["--cgroup", path] if path else []
    lines = oci.ok("exec", *options, "c1", "cat", "/proc/self/cgroup").splitlines()
    devices = [line for line in lines if line.split(":")[1] in {"devices", ""}]
    assert devices
    assert all(line.endswith(cgroup_of("c1")) for line in devices)


def test_its_own_exe_is_not_run(oci: GockerOci) -> None:
    oci.run()
    for path in ("/proc/self/exe", "/proc/1/exe", "/proc/thread-self/exe"):
        assert "a link of /proc to gocker's own program" in oci.refused("exec", "c1", path)


def test_no_fd_of_its_caller_is_left(oci: GockerOci) -> None:
    oci.run()
    reader, writer = os.pipe()
    try:
        fds = oci.ok("exec", "c1", "ls", "/proc/self/fd", pass_fds=(reader, writer)).split()
    finally:
        os.close(reader)
        os.close(writer)
    assert fds == ["0", "1", "2", "3"], "the last one is of the directory"
