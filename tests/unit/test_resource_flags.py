"""Docker's flags for limits and devices: what `--limit` and which nodes they stand for."""

from __future__ import annotations

import os
import stat
from typing import Any

import pytest

from gocker.cli.run import command
from gocker.cli.spec import build_spec
from gocker.errors import GockerError
from gocker.model import ContainerSpec, Device


def of(*words: str) -> ContainerSpec:
    """Of `gocker run WORDS base true`."""
    options: dict[str, Any] = dict(command.make_context("run", [*words, "base", "true"]).params)
    return build_spec(options, lambda name: f"/images/{name}")


def limits(*words: str) -> dict[str, str]:
    return {request.label: request.value for request in of(*words).limits}


@pytest.mark.parametrize(
    ("words", "label", "value"),
    [
        (["--cpus", "1.5"], "cpu", "1.5"),
        (["--cpus=.5"], "cpu", ".5"),
        (["--cpu-quota", "50000"], "cpu.quota", "50000"),
        (["--cpu-quota=-1"], "cpu.quota", "-1"),
        (["--cpu-period", "100000"], "cpu.period", "100000"),
        (["--cpu-rt-period", "1000000"], "cpu.rt_period", "1000000"),
        (["--cpu-rt-runtime", "950000"], "cpu.rt_runtime", "950000"),
        (["--blkio-weight", "300"], "blkio.weight", "300"),
        (["--memory-swappiness", "0"], "memory.swappiness", "0"),
        (["--oom-kill-disable"], "memory.oom_kill_disable", "true"),
        (["--blkio-weight-device", "/dev/sda:200"], "blkio.weight_device", "/dev/sda:200"),
        (["--device-write-bps", "/dev/sda:1mb"], "blkio.write_bps", "/dev/sda:1mb"),
        (["--device-read-iops", "8:0:1000"], "blkio.read_iops", "8:0:1000"),
        (["--device-write-iops", "/dev/sda:7"], "blkio.write_iops", "/dev/sda:7"),
        (
            ["--device-read-bps", "/dev/sda:1mb", "--device-read-bps", "/dev/sdb:2mb"],
            "blkio.read_bps",
            "/dev/sda:1mb,/dev/sdb:2mb",
        ),
        (
            ["--device-cgroup-rule", "c 10:229 rw", "--device-cgroup-rule", "b 8:* r"],
            "devices.allow",
            "c 10:229 rw,b 8:* r",
        ),
    ],
)
def test_a_flag_is_a_limit(words: list[str], label: str, value: str) -> None:
    assert limits(*words) == {label: value}


@pytest.mark.parametrize(
    "words",
    [
        ["--cpus", "0"],
        ["--cpu-quota", "0"],
        ["--cpu-period", "0"],
        ["--cpu-rt-period", "0"],
        ["--cpu-rt-runtime", "0"],
        ["--blkio-weight", "0"],
        ["--memory-swappiness", "-1"],
    ],
)
def test_what_docker_takes_for_not_set_is_not_set(words: list[str]) -> None:
    assert limits(*words) == {}


def test_a_device_is_a_node_like_the_hosts_and_a_rule() -> None:
    status = os.stat("/dev/null")
    node = Device("/dev/null", "c", 1, 3, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    made = of("--device", "/dev/null")
    assert made.devices == (node,)
    assert limits("--device", "/dev/null") == {"devices.allow": "c 1:3 rwm"}


@pytest.mark.parametrize(
    ("text", "path", "rule"),
    [
        ("/dev/zero:r", "/dev/zero", "c 1:5 r"),
        ("/dev/zero:/dev/x", "/dev/x", "c 1:5 rwm"),
        ("/dev/zero:/dev/x:wr", "/dev/x", "c 1:5 wr"),
        ("/dev/zero:/dev/../dev/x:m", "/dev/x", "c 1:5 m"),
    ],
)
def test_a_device_may_have_another_path_and_less_access(text: str, path: str, rule: str) -> None:
    made = of("--device", text)
    assert [node.path for node in made.devices] == [path]
    assert [request.value for request in made.limits] == [rule]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "/dev/nothing",
        "/etc/passwd",
        "/dev/null:x",
        "/dev/null:/a:/b",
        "/dev/null::r",
        "/dev/null:rr",
    ],
)
def test_what_is_no_device_is_refused(text: str) -> None:
    with pytest.raises(GockerError, match="add device"):
        of("--device", text)


def test_a_directory_without_devices_is_refused(tmp_path: os.PathLike[str]) -> None:
    with pytest.raises(GockerError, match="no device in this directory"):
        of("--device", os.fspath(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: devices are made")
def test_a_directory_stands_for_the_devices_in_it(tmp_path: os.PathLike[str]) -> None:
    os.mkdir(f"{os.fspath(tmp_path)}/deep")
    os.symlink("/dev/null", f"{os.fspath(tmp_path)}/link")
    for name, minor in (("b", 5), ("deep/a", 3)):
        os.mknod(f"{os.fspath(tmp_path)}/{name}", stat.S_IFCHR | 0o640, os.makedev(1, minor))
    made = of("--device", f"{os.fspath(tmp_path)}:/dev/set:r")
    assert [(node.path, node.minor, node.mode) for node in made.devices] == [
        ("/dev/set/b", 5, 0o640),
        ("/dev/set/deep/a", 3, 0o640),
    ]
    assert [request.value for request in made.limits] == ["c 1:5 r,c 1:3 r"]


def test_a_privileged_container_gets_the_node_and_needs_no_rule() -> None:
    made = of("--privileged", "--device", "/dev/null", "--device-cgroup-rule", "c 1:3 r")
    assert [node.path for node in made.devices] == ["/dev/null"]
    assert made.limits == ()
