"""One more process in a container stays in what the container is in."""

from __future__ import annotations

import pytest
from ocicommand import GockerOci, cgroup_of


@pytest.mark.parametrize(
    "path", ["..", "../..", "pids:..", "pids:../..", "devices:../..", "devices:../a:b"]
)
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
