"""Containerd with the runtime under its shim for runc, by ctr."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from enginehost import CGROUPS, IMAGE, EngineHost, Place, Ran, until, write_bundle

pytestmark = pytest.mark.engines
CONF = """
version = 2
root = "{scratch}/root"
state = "{scratch}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]

[grpc]
address = "{scratch}/sock"
"""
V1 = os.path.isdir(f"{CGROUPS}/memory")
LIMIT = "/sys/fs/cgroup/memory/memory.limit_in_bytes" if V1 else "/sys/fs/cgroup/memory.max"
Ctr = Callable[..., Ran]


@pytest.fixture(scope="module")
def host(place: Place, image: str) -> Iterator[EngineHost]:
    with place("containerd", "ctr", package="containerd", parents=("default", "gocker-oci")) as host:
        conf = f"{host.scratch}/config.toml"
        with open(conf, "w", encoding="utf-8") as file:
            file.write(CONF.format(scratch=host.scratch))
        client = ("ctr", "-a", f"{host.scratch}/sock")
        host.daemon("containerd", "-c", conf, ready=lambda: host.run(*client, "version", code=None).code == 0)
        host.run(*client, "images", "import", image)
        yield host
        left = host.run(*client, "containers", "ls", "-q").out
        assert not left, f"containers left behind: {left}"


@pytest.fixture
def ctr(host: EngineHost) -> Iterator[Ctr]:
    """`ctr("tasks", ...)`; every container is gone at the end."""

    def run(*args: str, code: int | None = 0) -> Ran:
        return host.run("ctr", "-a", f"{host.scratch}/sock", *args, code=code)

    yield run
    for name in run("containers", "ls", "-q").out.split():
        run("tasks", "rm", "-f", name, code=None)
        run("containers", "rm", name)


def run_options(host: EngineHost, *more: str) -> list[str]:
    """What `ctr run` needs for this runtime."""
    return [
        *("run", "--runtime", "io.containerd.runc.v2", "--runc-binary", host.runtime),
        *("--snapshotter", "native", *more),
    ]


@pytest.fixture
def running(host: EngineHost, ctr: Ctr) -> str:
    """The name of a container that sleeps."""
    ctr(*run_options(host, "-d", "--memory-limit", str(64 << 20)), IMAGE, "sleeper", "sleep", "100")
    return "sleeper"


def status(ctr: Ctr, name: str) -> str:
    lines = ctr("tasks", "ls").out.splitlines()
    return next((line.split()[2] for line in lines if line.split()[0] == name), "gone")


def test_run_prints_and_exits_as_its_program_does(host: EngineHost, ctr: Ctr) -> None:
    ran = ctr(*run_options(host, "--rm"), IMAGE, "one", "sh", "-c", "echo out; exit 3", code=3)
    assert ran.out == "out\n"


def test_no_such_program_is_named(host: EngineHost, ctr: Ctr) -> None:
    ran = ctr(*run_options(host, "--rm"), IMAGE, "none", "/bin/none", code=1)
    assert "/bin/none" in ran.err
    assert "no such file" in ran.err.lower()


def test_exec_runs_in_the_container(ctr: Ctr, running: str) -> None:
    ran = ctr("tasks", "exec", "--exec-id", "a", running, "sh", "-c", "ps; exit 7", code=7)
    assert "sleep 100" in ran.out
    assert "no such file" in ctr("tasks", "exec", "--exec-id", "b", running, "/bin/none", code=1).err.lower()


def test_exec_with_a_terminal_has_one(host: EngineHost, running: str) -> None:
    argv = ("ctr", "-a", f"{host.scratch}/sock", "tasks", "exec", "-t", "--exec-id", "t", running, "tty")
    assert "/dev/pts/" in host.on_terminal(*argv).out


def test_run_with_a_terminal_has_one(host: EngineHost, ctr: Ctr) -> None:
    argv = ("ctr", "-a", f"{host.scratch}/sock", *run_options(host, "--rm", "-t"), IMAGE, "term", "tty")
    ran = host.on_terminal(*argv)
    assert "/dev/" in ran.out, ran


def test_a_paused_task_is_paused_until_it_is_resumed(ctr: Ctr, running: str) -> None:
    ctr("tasks", "pause", running)
    assert status(ctr, running) == "PAUSED"
    ctr("tasks", "resume", running)
    assert status(ctr, running) == "RUNNING"


def test_ps_lists_the_processes(ctr: Ctr, running: str) -> None:
    ctr("tasks", "exec", "-d", "--exec-id", "x", running, "sleep", "55")
    until(lambda: len(ctr("tasks", "ps", running).out.splitlines()) == 3)


def test_metrics_say_the_memory_limit(ctr: Ctr, running: str) -> None:
    assert str(64 << 20) in ctr("tasks", "metrics", running).out
    assert ctr("tasks", "exec", "--exec-id", "m", running, "id", "-u").out == "0\n"


def test_kill_sends_the_signal_that_it_names(host: EngineHost, ctr: Ctr) -> None:
    script = "trap 'exit 5' USR1; touch /ready; while :; do sleep 0.1; done"
    ctr(*run_options(host, "-d"), IMAGE, "trap", "sh", "-c", script)
    until(lambda: ctr("tasks", "exec", "--exec-id", "r", "trap", "ls", "/ready", code=None).code == 0)
    ctr("tasks", "kill", "-s", "USR1", "trap")
    until(lambda: status(ctr, "trap") == "STOPPED")
    assert "exit code 5" in ctr("tasks", "rm", "trap").err


def test_kill_all_ends_the_others_too(ctr: Ctr, running: str) -> None:
    ctr("tasks", "exec", "-d", "--exec-id", "x", running, "sleep", "55")
    ctr("tasks", "kill", "-a", "-s", "KILL", running)
    until(lambda: status(ctr, running) == "STOPPED")


def test_a_removed_task_leaves_no_cgroup(host: EngineHost, ctr: Ctr, running: str) -> None:
    assert any(path.endswith(f"/{running}") for path in host.new_cgroups())
    ctr("tasks", "rm", "-f", running)
    ctr("containers", "rm", running)
    until(lambda: not any(path.endswith(f"/{running}") for path in host.new_cgroups()))


def test_volumes_and_variables_reach_the_container(host: EngineHost, ctr: Ctr) -> None:
    volume = f"{host.scratch}/volume"
    os.mkdir(volume)
    mount = f"type=bind,src={volume},dst=/data,options=rbind:rw"
    script = "echo $A > /data/file"
    ctr(*run_options(host, "--rm", "--mount", mount, "--env", "A=b"), IMAGE, "vol", "sh", "-c", script)
    with open(f"{volume}/file", encoding="utf-8") as file:
        assert file.read() == "b\n"


def test_its_own_config_json_runs(host: EngineHost, ctr: Ctr) -> None:
    bundle = f"{host.scratch}/bundle"
    os.mkdir(bundle)
    write_bundle(bundle, ("hostname",))
    assert ctr(*run_options(host, "--rm", "--config", f"{bundle}/config.json"), "own").out == "bundle\n"


@pytest.mark.usefixtures("hugepage_limits")
def test_an_annotation_reaches_an_installed_controller(host: EngineHost, ctr: Ctr) -> None:
    bundle = f"{host.scratch}/huge"
    os.mkdir(bundle)
    write_bundle(bundle, ("sleep", "100"), {"dev.gocker.limit.hugetlb.2MB": "64m"})
    ctr(*run_options(host, "-d", "--config", f"{bundle}/config.json"), "huge")
    assert host.limits("hugetlb.2MB") == [str(64 << 20)]
