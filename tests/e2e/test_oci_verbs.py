"""pause, resume, update, ps, events, spec and features as engines call them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ocicommand import GockerOci, cgroup_of, config, text_of, until
from ocischema import problems

from gocker.hierarchy import read_host
from gocker.kernel.cgroupfs import read_file
from gocker.model import Hierarchy

SHELL = ["sh", "-c"]
TICKING = [*SHELL, "while :; do echo x; sleep 0.02; done"]
MIB = 1 << 20


def cgroup(controller: str, container: str = "c1") -> str:
    """The container's directory for a controller, by the kernel's name."""
    return read_host().require(controller).directory(cgroup_of(container))


def held(controller: str, v1: str, v2: str = "") -> str:
    """What a file of the container says."""
    version = read_host().require(controller).version
    return read_file(cgroup(controller), v1 if version is Hierarchy.V1 else v2 or v1) or ""


def memory() -> int:
    """The memory limit in force."""
    return int(held("memory", "memory.limit_in_bytes", "memory.max"))


def swap() -> int:
    """The limit of memory and swap together; one without swap accounting skips."""
    v1 = read_host().require("memory").version is Hierarchy.V1
    text = held("memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
    if not text:
        pytest.skip("this kernel does not account swap")
    return int(text) + (0 if v1 else memory())


# --- pause and resume


def ticks(path: str) -> int:
    return len(text_of(path))


def stands_still(path: str) -> bool:
    before = ticks(path)
    time.sleep(0.3)
    return ticks(path) == before


@pytest.mark.guest
def test_a_paused_container_stands_still_until_it_is_resumed(oci: GockerOci) -> None:
    out = oci.run(args=TICKING)
    until(lambda: ticks(out) > 0)
    oci.ok("pause", "c1")
    assert oci.status() == "paused"
    assert stands_still(out)
    oci.ok("resume", "c1")
    assert oci.status() == "running"
    assert not stands_still(out)


def test_what_is_not_running_is_not_paused_and_what_is_not_paused_not_resumed(oci: GockerOci) -> None:
    oci.run()
    assert "resume container c1: container not paused" in oci.refused("resume", "c1")
    oci.ok("pause", "c1")
    assert "it is paused already" in oci.refused("pause", "c1")
    assert oci.status() == "paused"
    oci.ok("kill", "c1", "KILL")
    oci.await_status("stopped")
    assert "pause container c1: container not running" in oci.refused("pause", "c1")
    assert "container not paused" in oci.refused("resume", "c1")


def test_a_created_container_is_paused_and_still_starts(oci: GockerOci) -> None:
    oci.create()
    oci.ok("pause", "c1")
    assert "it is not created but paused" in oci.refused("start", "c1")
    oci.ok("resume", "c1")
    assert oci.status() == "created"
    oci.ok("start", "c1")
    assert oci.status() == "running"


def test_a_paused_container_is_not_deleted_without_force(oci: GockerOci) -> None:
    oci.run()
    oci.ok("pause", "c1")
    assert "it is not stopped but paused" in oci.refused("delete", "c1")
    oci.ok("delete", "--force", "c1")
    assert oci.ok("list", "-q") == ""


@contextmanager
def frozen_by_v1() -> Iterator[str]:
    """The container's v1 freezer, with all in it stopped, as another program would do it."""
    place = read_host().find("freezer")
    if place is None:
        pytest.skip("needs a freezer hierarchy of cgroup v1")
    directory = cgroup("freezer")
    Path(directory, "freezer.state").write_text("FROZEN", encoding="ascii")
    until(lambda: read_file(directory, "freezer.state") == "FROZEN")
    yield directory


def test_who_is_frozen_by_v1_is_paused_and_resumed(oci: GockerOci) -> None:
    out = oci.run(args=TICKING)
    with frozen_by_v1() as directory:
        assert oci.status() == "paused"
        oci.ok("resume", "c1")
        assert read_file(directory, "freezer.state") == "THAWED"
    assert not stands_still(out)


def test_who_is_frozen_by_v1_is_killed(oci: GockerOci) -> None:
    out = oci.run(args=TICKING)
    with frozen_by_v1():
        before = ticks(out)
        oci.ok("kill", "c1", "KILL")
        oci.await_status("stopped")
    assert ticks(out) == before


def test_who_is_frozen_by_v1_is_deleted_by_force(oci: GockerOci) -> None:
    oci.run(args=[*SHELL, "sleep 1000 & sleep 1000"])
    with frozen_by_v1():
        begin = time.monotonic()
        oci.ok("delete", "--force", "c1")
        assert time.monotonic() - begin < 4
    assert oci.ok("list", "-q") == ""


# --- update


def limited(oci: GockerOci, **resources: Any) -> None:
    """A running container with these resources."""
    oci.run(linux={"resources": {"devices": [{"allow": False, "access": "rwm"}], **resources}})


@pytest.mark.guest
def test_memory_grows_and_shrinks_with_the_sum(oci: GockerOci) -> None:
    limited(oci, memory={"limit": 100 * MIB})
    for size in (200, 50, 300):
        oci.ok("update", "--memory", f"{size}m", "c1")
        assert (memory(), swap()) == (size * MIB, size * MIB)
    oci.ok("update", "c1", "--memory", "100m", "--memory-swap", "400m")
    assert (memory(), swap()) == (100 * MIB, 400 * MIB)
    oci.ok("update", "--memory-swap", "150m", "c1")  # memory is what was asked before
    assert (memory(), swap()) == (100 * MIB, 150 * MIB)


def test_a_sum_below_the_memory_is_refused_and_nothing_changes(oci: GockerOci) -> None:
    limited(oci, memory={"limit": 100 * MIB, "swap": 200 * MIB})
    error = oci.refused("update", "--memory", "300m", "--pids-limit", "7", "c1")
    assert "below the memory limit" in error
    assert memory() == 100 * MIB
    assert held("pids", "pids.max") != "7"


@pytest.mark.guest
def test_a_limit_that_nobody_asked_for_at_the_creation_is_set(oci: GockerOci) -> None:
    limited(oci)
    oci.ok(
        *("update", "--cpu-quota", "50000", "--cpu-period", "200000", "--cpu-share", "512"),
        *("--cpuset-cpus", "0", "--pids-limit", "77", "c1"),
    )
    v1 = read_host().require("cpu").version is Hierarchy.V1
    quota = held("cpu", "cpu.cfs_quota_us") if v1 else held("cpu", "cpu.max").split()[0]
    assert quota == "50000"
    assert held("cpu", "cpu.shares", "cpu.weight") == ("512" if v1 else "59")
    assert held("cpuset", "cpuset.cpus") == "0"
    assert held("pids", "pids.max") == "77"


@pytest.mark.parametrize("how", ["stdin", "file"])
def test_resources_come_as_an_object(oci: GockerOci, tmp_path: Path, how: str) -> None:
    limited(oci, pids={"limit": 50})
    resources = {"memory": {"limit": 64 * MIB, "swap": 64 * MIB}, "pids": {"limit": 60}}
    data = json.dumps(resources).encode()
    (tmp_path / "resources").write_bytes(data)
    source = "-" if how == "stdin" else str(tmp_path / "resources")
    oci.ok("update", "--resources", source, "c1", stdin=data if how == "stdin" else b"")
    assert (memory(), held("pids", "pids.max")) == (64 * MIB, "60")


def test_zeros_and_device_rules_of_a_whole_object_change_nothing(oci: GockerOci) -> None:
    limited(oci, memory={"limit": 64 * MIB}, pids={"limit": 50})
    whole = {
        "devices": [{"allow": True, "access": "rwm"}],
        "memory": {"limit": 0, "reservation": 0, "swap": 0, "checkBeforeUpdate": False},
        "cpu": {"shares": 300, "quota": 0, "period": 0, "realtimeRuntime": 0, "cpus": "", "mems": ""},
        "pids": {"limit": 0},
        "blockIO": {"weight": 0},
    }
    oci.ok("update", "-r", "-", "c1", stdin=json.dumps(whole).encode())
    assert (memory(), held("pids", "pids.max")) == (64 * MIB, "50")
    assert held("cpu", "cpu.shares", "cpu.weight") in {"300", "39"}
    if read_host().find("devices"):
        assert "a *:* rwm" not in held("devices", "devices.list")


def test_any_controllers_limit_is_set_by_its_name(oci: GockerOci) -> None:
    limited(oci)
    ran = oci("update", "--limit", "pids=9", "--limit", "nosuch=5?", "c1")
    assert ran.code == 0
    assert "nosuch does not bind: no controller plug-in nosuch is installed" in ran.err
    assert held("pids", "pids.max") == "9"


def test_an_update_that_fails_halfway_is_taken_back(oci: GockerOci) -> None:
    limited(oci, pids={"limit": 50})
    before = (
        held("cpu", "cpu.shares", "cpu.weight"),
        held("cpuset", "cpuset.cpus"),
        held("pids", "pids.max"),
    )
    error = oci.refused(
        *("update", "--cpu-share", "700", "--cpuset-cpus", "0", "--pids-limit", "5"),
        *("--limit", "unified.cgroup.max.depth=bogus", "c1"),  # its turn is the last
    )
    assert "cgroup.max.depth" in error
    after = (held("cpu", "cpu.shares", "cpu.weight"), held("cpuset", "cpuset.cpus"), held("pids", "pids.max"))
    assert before == after


def test_one_wrong_value_among_several_changes_nothing(oci: GockerOci) -> None:
    limited(oci, memory={"limit": 64 * MIB}, pids={"limit": 50})
    error = oci.refused("update", "--memory", "128m", "--pids-limit", "5", "--limit", "cpu=none", "c1")
    assert "cpu=none" in error
    assert (memory(), held("pids", "pids.max")) == (64 * MIB, "50")


@pytest.mark.guest
@pytest.mark.parametrize("size", [256, 32])
def test_memory_and_its_sum_are_taken_back_in_an_order_that_the_kernel_takes(
    oci: GockerOci, size: int
) -> None:
    limited(oci, memory={"limit": 64 * MIB, "swap": 128 * MIB}, pids={"limit": 50})
    assert swap() == 128 * MIB
    error = oci.refused(
        *("update", "--memory", f"{size}m", "--memory-swap", f"{2 * size}m", "--pids-limit", "5"),
        *("--limit", "unified.cgroup.max.depth=bogus", "c1"),
    )
    assert "cgroup.max.depth" in error
    assert (memory(), swap(), held("pids", "pids.max")) == (64 * MIB, 128 * MIB, "50")
    oci.ok("update", "--pids-limit", "6", "c1")
    assert (memory(), held("pids", "pids.max")) == (64 * MIB, "6")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--limit", "devices.allow=c 10:229 rw"], "devices cannot change while the container lives"),
        (["--limit", "nosuch=5"], "nosuch: not installed"),
        (["--limit", "memory.speed=5"], "unknown; memory takes"),
        (["--limit", "memory"], "not NAME[.KEY]=VALUE"),
        (["--pids-limit", "many"], "not a whole number"),
        (["--memory", "5q"], "unknown unit"),
        (["--resources", "/nosuch"], "ENOENT"),
        (["--resources", "/"], "neither a file nor a pipe"),
    ],
)
def test_an_update_that_makes_no_sense_is_refused(oci: GockerOci, arguments: list[str], reason: str) -> None:
    limited(oci)
    assert reason in oci.refused("update", *arguments, "c1")


@pytest.mark.parametrize(
    "text", ["", "[]", "5", '{"memory":5}', '{"nosuch":{"a":1}}', "{", '{"pids":{"limit":"x"}}']
)
def test_resources_that_are_none_are_refused(oci: GockerOci, text: str) -> None:
    limited(oci)
    oci.refused("update", "-r", "-", "c1", stdin=text.encode())


def test_a_stopped_container_is_not_updated(oci: GockerOci) -> None:
    oci.run(args=["true"])
    oci.await_status("stopped")
    assert "update container c1: container not running" in oci.refused("update", "--pids-limit", "5", "c1")


def test_a_created_and_a_paused_container_are_updated(oci: GockerOci) -> None:
    oci.create()
    oci.ok("update", "--pids-limit", "5", "c1")
    oci.ok("pause", "c1")
    oci.ok("update", "--pids-limit", "6", "c1")
    assert held("pids", "pids.max") == "6"


def test_an_update_is_on_the_record(oci: GockerOci) -> None:
    limited(oci)
    log = f"{oci.scratch}/audit.jsonl"
    oci.ok("update", "--pids-limit", "5", "c1", env={**os.environ, "GOCKER_AUDIT_LOG": log})
    (event,) = [json.loads(line) for line in text_of(log).splitlines()]
    assert (event["event"], event["container"], event["limit"]) == ("controller.set", "c1", "pids")
    assert (event["asked"], event["effective"]) == ("5", "5")


def test_an_exec_that_is_killed_is_on_the_record(oci: GockerOci) -> None:
    """One in a paused container does not come to its program."""
    log = f"{oci.scratch}/audit.jsonl"
    oci.run()
    oci.ok("pause", "c1")
    env = {**os.environ, "GOCKER_AUDIT_LOG": log, "GOCKER_WARM": "off"}
    process = oci.start("exec", "--ignore-paused", "c1", "true", env=env)
    try:
        until(lambda: os.path.exists(log) and text_of(log) != "")
    finally:
        process.kill()
        process.wait()
    event, *others = [json.loads(line) for line in text_of(log).splitlines()]
    assert (event["event"], event["container"], event["command"]) == ("exec.create", "c1", ["true"])
    assert not [other for other in others if other["event"].startswith("exec.")]
    oci.ok("resume", "c1")
    until(lambda: len(json.loads(oci.ok("ps", "--format", "json", "c1"))) == 1)


# --- ps


def test_ps_shows_the_containers_own_processes_alone(oci: GockerOci) -> None:
    oci.run(args=[*SHELL, "sleep 1000 & exec sleep 1001"])
    until(lambda: len(json.loads(oci.ok("ps", "--format", "json", "c1"))) == 2)
    pids = json.loads(oci.ok("ps", "c1", "--format", "json"))
    assert oci.state()["pid"] in pids
    heading, *rows = oci.ok("ps", "c1").splitlines()
    assert "PID" in heading.split()
    assert {int(row.split()[1]) for row in rows} == set(pids)
    heading, *rows = oci.ok("ps", "c1", "-eo", "pid,args").splitlines()
    assert {row.split(maxsplit=1)[1] for row in rows} == {"sleep 1000", "sleep 1001"}


def test_ps_of_the_host_that_cannot_be_asked_is_an_error(oci: GockerOci, tmp_path: Path) -> None:
    oci.run()
    error = oci.refused("ps", "c1", env={**os.environ, "PATH": str(tmp_path)})
    assert "list processes by ps: ENOENT" in error
    assert "--format json" in error
    assert "there is no column PID" in oci.refused("ps", "c1", "-o", "args")
    assert "list processes by ps --nosuch" in oci.refused("ps", "c1", "--nosuch")


def test_ps_of_a_stopped_container_lists_nobody(oci: GockerOci) -> None:
    oci.run(args=["true"])
    oci.await_status("stopped")
    assert oci.ok("ps", "-f", "json", "c1") == "[]\n"


# --- events


@pytest.mark.guest
def test_events_prints_the_figures_once(oci: GockerOci) -> None:
    oci.run(linux={"resources": {"memory": {"limit": 64 * MIB}, "pids": {"limit": 20}}}, args=TICKING)
    event = json.loads(oci.ok("events", "--stats", "c1"))
    assert (event["type"], event["id"]) == ("stats", "c1")
    data = event["data"]
    assert data["memory"]["usage"]["limit"] == 64 * MIB
    assert 0 < data["memory"]["usage"]["usage"] <= 64 * MIB
    assert data["memory"]["raw"]
    assert data["pids"]["limit"] == 20
    assert data["pids"]["current"] >= 1
    assert data["cpu"]["usage"]["total"] > 0
    assert data["cpuset"]["cpus"]


def lines_of(path: str) -> list[dict[str, Any]]:
    """The whole lines there."""
    return [json.loads(line) for line in text_of(path).split("\n")[:-1]]


def test_events_come_by_the_interval_until_the_container_ends(oci: GockerOci) -> None:
    oci.run()
    process = oci.start("events", "--interval", "100ms", "c1")
    out = oci.out
    until(lambda: len(lines_of(out)) >= 3, 20)
    oci.ok("kill", "c1", "KILL")
    assert process.wait(10) == 0
    assert {line["type"] for line in lines_of(out)} == {"stats"}


@pytest.mark.guest
def test_events_tell_of_the_oom_killer(oci: GockerOci) -> None:
    oci.create(
        linux={"resources": {"memory": {"limit": 16 * MIB}}},
        args=[*SHELL, "while :; do sleep 0.2; tail /dev/zero; done"],
        env=["PATH=/usr/bin:/bin"],
    )
    process = oci.start("events", "--interval", "1h", "c1")
    out = oci.out
    oci.ok("start", "c1")
    until(lambda: {"type": "oom", "id": "c1"} in lines_of(out), 20)
    oci.ok("delete", "--force", "c1")
    assert process.wait(10) == 0


@pytest.mark.parametrize("interval", ["0s", "-1s", "soon", "5"])
def test_an_interval_that_is_none_is_refused(oci: GockerOci, interval: str) -> None:
    assert "set --interval" in oci.refused("events", f"--interval={interval}", "c1")


def test_events_of_a_stopped_container_are_refused(oci: GockerOci) -> None:
    oci.run(args=["true"])
    oci.await_status("stopped")
    assert "container not running" in oci.refused("events", "--stats", "c1")


def test_events_end_with_their_caller(oci: GockerOci) -> None:
    oci.run()
    process = oci.start("events", "c1")
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) != 0
    assert oci.status() == "running"


# --- spec and features


def test_spec_writes_a_config_that_the_schema_likes_and_never_over_another(
    oci: GockerOci, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    oci.ok("spec", cwd=tmp_path / "new")
    written = text_of(f"{tmp_path}/new/config.json")
    assert problems(json.loads(written)) == []
    assert "config.json: EEXIST" in oci.refused("spec", "--bundle", f"{tmp_path}/new")
    assert text_of(f"{tmp_path}/new/config.json") == written
    assert "ENOENT" in oci.refused("spec", "--bundle", f"{tmp_path}/nosuch")


def test_spec_for_a_user_has_a_user_namespace(oci: GockerOci, tmp_path: Path) -> None:
    oci.ok("spec", "--rootless", "-b", str(tmp_path))
    document = json.loads(text_of(f"{tmp_path}/config.json"))
    assert {"type": "user"} in document["linux"]["namespaces"]


def test_what_spec_writes_starts(oci: GockerOci, tmp_path: Path) -> None:
    oci.ok("spec", "-b", str(tmp_path))
    document = json.loads(text_of(f"{tmp_path}/config.json"))
    document["root"] = config()["root"]
    document["process"] |= {"terminal": False, "args": ["hostname"]}
    out = oci.run(bundle=oci.write("bundle", document))
    until(lambda: text_of(out) == "gocker\n")


def test_features_are_a_document_that_the_schema_likes(oci: GockerOci) -> None:
    document = json.loads(oci.ok("features"))
    assert problems(document, "features-schema.json") == []
    assert "createRuntime" in document["hooks"]
