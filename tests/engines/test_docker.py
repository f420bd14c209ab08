"""Dockerd with the runtime added to it, by the docker client."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator

import pytest
from enginehost import CGROUPS, IMAGE, EngineHost, Place, Ran, until

pytestmark = pytest.mark.engines
V1 = os.path.isdir(f"{CGROUPS}/memory")
LIMIT = "/sys/fs/cgroup/memory/memory.limit_in_bytes" if V1 else "/sys/fs/cgroup/memory.max"
Docker = Callable[..., Ran]


_ANNOTATION = "dev.gocker.limit.hugetlb.2MB=64m"


@pytest.fixture(scope="module")
def host(place: Place, image: str) -> Iterator[EngineHost]:
    with place(
        "dockerd", "docker", "containerd", package="docker.io", parents=("docker", "gocker-oci")
    ) as host:
        base = host.scratch
        host.env["DOCKER_HOST"] = f"unix://{base}/sock"
        host.env["DOCKER_CONFIG"] = base
        with open(f"{base}/daemon.json", "w", encoding="utf-8") as file:
            annotated = {"path": host.runtime, "runtimeArgs": ["--annotation", _ANNOTATION]}
            json.dump({"runtimes": {"tested": {"path": host.runtime}, "annotated": annotated}}, file)
        host.daemon(
            *("dockerd", "--config-file", f"{base}/daemon.json", "--host", f"unix://{base}/sock"),
            *("--data-root", f"{base}/data", "--exec-root", f"{base}/exec", "--pidfile", f"{base}/pid"),
            *("--bridge", "none", "--iptables=false", "--ip6tables=false", "--storage-driver", "overlay2"),
            *("--default-runtime", "tested"),
            ready=lambda: host.run("docker", "info", code=None).code == 0,
        )
        host.run("docker", "load", "-i", image)
        yield host
        left = host.run("docker", "ps", "-aq").out
        assert not left, f"containers left behind: {left}"


@pytest.fixture
def docker(host: EngineHost) -> Iterator[Docker]:
    """`docker("run", ...)`; every container is gone at the end."""

    def run(*args: str, code: int | None = 0, stdin: str = "") -> Ran:
        return host.run("docker", *args, code=code, input=stdin)

    yield run
    if names := run("ps", "-aq").out.split():
        run("rm", "-f", *names)


@pytest.fixture
def running(docker: Docker) -> str:
    """The name of a container that sleeps."""
    docker("run", "-d", "--name", "sleeper", "-m", "64m", IMAGE, "sleep", "100")
    return "sleeper"


def test_the_daemon_knows_the_runtime(docker: Docker) -> None:
    assert "tested" in docker("info", "-f", "{{json .Runtimes}}").out


def test_run_prints_and_exits_as_its_program_does(docker: Docker) -> None:
    ran = docker("run", "--rm", "-i", IMAGE, "sh", "-c", "cat; echo err >&2; exit 3", code=3, stdin="in")
    assert (ran.out, ran.err) == ("in", "err\n")


def test_no_such_program_is_127_and_no_program_is_126(docker: Docker) -> None:
    docker("run", "--rm", IMAGE, "/bin/none", code=127)
    docker("run", "--rm", IMAGE, "/etc/plain", code=126)


def test_exec_runs_in_the_container_with_its_own_directory_user_and_variables(
    docker: Docker, running: str
) -> None:
    ran = docker("exec", "-w", "/etc", "-u", "user", "-e", "A=b", running, "sh", "-c", "pwd; id -u; echo $A")
    assert ran.out == "/etc\n1000\nb\n"
    docker("exec", running, "sh", "-c", "exit 7", code=7)
    assert docker("exec", running, "/bin/none", code=None).code in {126, 127}  # by the client's version


def test_terminals_of_run_and_exec_are_such(host: EngineHost, running: str) -> None:
    size = "stty rows 33 cols 99; exec docker"
    ran = host.on_terminal("sh", "-c", f"{size} run --rm -it {IMAGE} sh -c 'sleep 0.5; tty; stty size'")
    assert "33 99" in ran.out, ran
    ran = host.on_terminal("sh", "-c", f"{size} exec -it {running} sh -c 'sleep 0.5; tty; stty size'")
    assert "33 99" in ran.out, ran


def test_a_paused_container_stands_still_until_it_goes_on(docker: Docker) -> None:
    docker("run", "-d", "--name", "counter", IMAGE, "sh", "-c", "while :; do echo x; sleep 0.1; done")
    docker("pause", "counter")
    assert docker("inspect", "-f", "{{.State.Status}}", "counter").out == "paused\n"
    time.sleep(0.3)
    before = docker("logs", "counter").out
    time.sleep(0.5)
    assert docker("logs", "counter").out == before
    docker("unpause", "counter")
    time.sleep(0.5)
    assert docker("logs", "counter").out > before


def test_update_changes_a_running_containers_limits(docker: Docker, running: str) -> None:
    docker(
        "update", "--memory", "32m", "--memory-swap", "32m", "--cpus", "0.5", "--pids-limit", "40", running
    )
    assert docker("exec", running, "cat", LIMIT).out == f"{32 << 20}\n"
    if V1:
        files = "/sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us"
        assert docker("exec", running, "sh", "-c", f"cat {files}").out == "40\n50000\n"


def test_stats_show_memory_and_processes(docker: Docker, running: str) -> None:
    stats = json.loads(docker("stats", "--no-stream", "--format", "{{json .}}", running).out)
    assert stats["PIDs"] == "1"
    assert stats["MemUsage"].endswith("/ 64MiB")


def test_stop_kills_what_does_not_listen_and_start_starts_it_again(docker: Docker, running: str) -> None:
    docker("stop", "-t", "1", running)
    assert docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", running).out == "exited 137\n"
    docker("start", running)
    assert docker("inspect", "-f", "{{.State.Status}}", running).out == "running\n"
    docker("restart", "-t", "0", running)
    assert docker("inspect", "-f", "{{.State.Status}}", running).out == "running\n"


def test_kill_sends_the_signal_that_it_names(docker: Docker) -> None:
    script = "trap 'echo usr; exit 5' USR1; echo ready; while :; do sleep 0.1; done"
    docker("run", "-d", "--name", "trap", IMAGE, "sh", "-c", script)
    until(lambda: "ready" in docker("logs", "trap").out)
    docker("kill", "-s", "USR1", "trap")
    assert docker("wait", "trap").out == "5\n"


def test_a_container_out_of_memory_is_said_to_be(docker: Docker) -> None:
    eats = "exec dd if=/dev/zero of=/dev/null bs=100M count=1"
    docker("run", "--name", "eater", "-m", "16m", "--memory-swap", "16m", IMAGE, "sh", "-c", eats, code=137)
    assert docker("inspect", "-f", "{{.State.OOMKilled}}", "eater").out == "true\n"


def test_volumes_options_of_files_and_users(docker: Docker, host: EngineHost) -> None:
    volume = f"{host.scratch}/volume"
    os.mkdir(volume)
    docker("run", "--rm", "-v", f"{volume}:/data", IMAGE, "sh", "-c", "echo kept > /data/file")
    with open(f"{volume}/file", encoding="utf-8") as file:
        assert file.read() == "kept\n"
    options = (
        "--read-only",
        "--tmpfs",
        "/scratch",
        "--user",
        "1000",
        "--cap-drop",
        "all",
        "--hostname",
        "h1",
    )
    script = "hostname; id -u; echo x > /scratch/x && cat /scratch/x; grep CapEff /proc/self/status; touch /x"
    ran = docker("run", "--rm", *options, IMAGE, "sh", "-c", script, code=1)
    assert ran.out == f"h1\n1000\nx\nCapEff:\t{'0' * 16}\n"


def test_a_privileged_container_has_all_capabilities(docker: Docker) -> None:
    with (
        open("/proc/self/status", encoding="ascii") as status,
        open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as last,
    ):
        bounding = next(int(line.split()[1], 16) for line in status if line.startswith("CapBnd"))
        if bounding != (2 << int(last.read())) - 1:
            pytest.skip("needs all capabilities in this process: dockerd asks for them all")
    assert docker("run", "--rm", "--privileged", IMAGE, "echo", "ok").out == "ok\n"


def test_an_init_process_and_top(docker: Docker) -> None:
    docker("run", "-d", "--name", "inited", "--init", IMAGE, "sleep", "50")
    assert "sleep 50" in docker("top", "inited").out


def test_a_removed_container_leaves_no_cgroup(docker: Docker, host: EngineHost, running: str) -> None:
    identity = docker("inspect", "-f", "{{.Id}}", running).out.strip()
    assert any(identity in path for path in host.new_cgroups())
    docker("rm", "-f", running)
    until(lambda: not any(identity in path for path in host.new_cgroups()))


@pytest.mark.usefixtures("hugepage_limits")
def test_an_annotation_reaches_an_installed_controller(docker: Docker, host: EngineHost) -> None:
    docker("run", "-d", "--runtime", "annotated", IMAGE, "sleep", "100")
    assert host.limits("hugetlb.2MB") == [str(64 << 20)]
