"""Podman with the runtime: what users do with it, and that nothing is left."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator

import pytest
from enginehost import CGROUPS, IMAGE, EngineHost, Place, Ran, until

pytestmark = pytest.mark.engines
CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
netns = "none"

[engine]
cgroup_manager = "cgroupfs"
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
V1 = os.path.isdir(f"{CGROUPS}/memory")
LIMIT = "/sys/fs/cgroup/memory/memory.limit_in_bytes" if V1 else "/sys/fs/cgroup/memory.max"
Podman = Callable[..., Ran]


@pytest.fixture(scope="module")
def host(place: Place, runtime: str, image: str) -> Iterator[EngineHost]:
    # Podman leaves the first two itself.
    parents = ("libpod_parent", "conmon", "gocker", "gocker-oci")
    with place("podman", "conmon", package="podman", parents=parents) as host:
        for name, text in (("containers.conf", CONF), ("storage.conf", STORAGE)):
            with open(f"{host.scratch}/{name}", "w", encoding="utf-8") as file:
                file.write(text.format(runtime=runtime, scratch=host.scratch))
        host.env["CONTAINERS_CONF"] = f"{host.scratch}/containers.conf"
        host.env["CONTAINERS_STORAGE_CONF"] = f"{host.scratch}/storage.conf"
        host.run("podman", "load", "-q", "-i", image)
        yield host
        left = host.run("podman", "ps", "-aq").out
        assert not left, f"containers left behind: {left}"


@pytest.fixture
def podman(host: EngineHost) -> Iterator[Podman]:
    """`podman("run", ...)`; every container is gone at the end."""

    def run(*args: str, code: int | None = 0, stdin: str = "") -> Ran:
        return host.run("podman", *args, code=code, input=stdin)

    yield run
    run("rm", "-fa", "-t", "0")


@pytest.fixture
def running(podman: Podman) -> str:
    """The name of a container that sleeps."""
    podman("run", "-d", "--name", "sleeper", "-m", "64m", IMAGE, "sleep", "100")
    return "sleeper"


def test_run_prints_and_exits_as_its_program_does(podman: Podman) -> None:
    ran = podman("run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 3", code=3)
    assert (ran.out, ran.err) == ("out\n", "err\n")


def test_stdin_reaches_the_program(podman: Podman) -> None:
    assert podman("run", "--rm", "-i", IMAGE, "cat", stdin="some\ntext").out == "some\ntext"


def test_no_such_program_is_127_and_no_program_is_126(podman: Podman) -> None:
    podman("run", "--rm", IMAGE, "/bin/none", code=127)
    podman("run", "--rm", IMAGE, "/etc/plain", code=126)


def test_exec_runs_in_the_container_with_its_own_directory_user_and_variables(
    podman: Podman, running: str
) -> None:
    ran = podman("exec", "-w", "/etc", "-u", "user", "-e", "A=b", running, "sh", "-c", "pwd; id -u; echo $A")
    assert ran.out == "/etc\n1000\nb\n"
    podman("exec", running, "sh", "-c", "exit 7", code=7)
    podman("exec", running, "/bin/none", code=127)
    assert podman("exec", "-i", running, "cat", stdin="in").out == "in"


def test_exec_takes_options_of_its_program_for_its_programs(podman: Podman, running: str) -> None:
    assert podman("exec", running, "echo", "--detach", "-t", "--", "-x").out == "--detach -t -- -x\n"


def test_exec_detached_leaves_the_program_running(podman: Podman, running: str) -> None:
    podman("exec", "-d", running, "sleep", "77")
    assert "sleep 77" in podman("exec", running, "ps").out


def test_a_paused_container_stands_still_until_it_goes_on(podman: Podman) -> None:
    podman("run", "-d", "--name", "counter", IMAGE, "sh", "-c", "while :; do echo x; sleep 0.1; done")
    podman("pause", "counter")
    assert podman("inspect", "-f", "{{.State.Status}}", "counter").out == "paused\n"
    time.sleep(0.3)  # conmon may still write what came before
    before = podman("logs", "counter").out
    time.sleep(0.5)
    assert podman("logs", "counter").out == before
    podman("unpause", "counter")
    time.sleep(0.5)
    assert podman("logs", "counter").out > before
    podman("rm", "-f", "-t", "0", "counter")


def test_stats_show_memory_and_processes(podman: Podman, running: str) -> None:
    (stats,) = json.loads(podman("stats", "--no-stream", "--format", "json", running).out)
    assert stats["pids"] == "1"
    assert stats["mem_usage"].endswith("67.11MB")


def test_kill_sends_the_signal_that_it_names(podman: Podman) -> None:
    script = "trap 'echo usr; exit 5' USR1; echo ready; while :; do sleep 0.1; done"
    podman("run", "-d", "--name", "trap", IMAGE, "sh", "-c", script)
    until(lambda: "ready" in podman("logs", "trap").out)
    podman("kill", "-s", "USR1", "trap")
    assert podman("wait", "trap").out == "5\n"
    assert podman("logs", "trap").out == "ready\nusr\n"


def test_a_killed_container_is_137(podman: Podman, running: str) -> None:
    podman("kill", running)
    assert podman("wait", running).out == "137\n"


def test_stop_kills_what_does_not_listen_and_start_starts_it_again(podman: Podman, running: str) -> None:
    podman("stop", "-t", "1", running)
    assert podman("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", running).out == "exited 137\n"
    podman("start", running)
    assert podman("inspect", "-f", "{{.State.Status}}", running).out == "running\n"


def test_rm_force_leaves_no_cgroup(podman: Podman, host: EngineHost, running: str) -> None:
    identity = podman("inspect", "-f", "{{.Id}}", running).out.strip()
    assert any(identity in path for path in host.new_cgroups())
    podman("rm", "-f", "-t", "0", running)
    until(lambda: not any(identity in path for path in host.new_cgroups()))


def test_a_created_container_can_be_removed_and_started(podman: Podman) -> None:
    podman("create", "--name", "one", IMAGE, "echo", "later")
    podman("init", "one")
    assert podman("inspect", "-f", "{{.State.Status}}", "one").out in {"created\n", "initialized\n"}
    assert podman("start", "-a", "one").out == "later\n"
    podman("create", "--name", "two", IMAGE, "echo", "never")
    podman("init", "two")
    podman("rm", "-f", "two")


def test_a_terminal_is_one_inside(podman: Podman) -> None:
    assert "/dev/" in podman("run", "--rm", "-t", IMAGE, "tty").out


def test_a_terminal_has_the_size_of_ours_in_run_and_exec(host: EngineHost, running: str) -> None:
    size = "stty rows 33 cols 99; exec podman"
    run = host.on_terminal("sh", "-c", f"{size} run --rm -it {IMAGE} sh -c 'sleep 0.3; stty size'")
    assert "33 99" in run.out, run
    again = host.on_terminal("sh", "-c", f"{size} exec -it {running} sh -c 'sleep 0.3; stty size'")
    assert "33 99" in again.out, again


def test_volumes_are_the_hosts_files_and_readonly_when_asked(podman: Podman, host: EngineHost) -> None:
    volume = f"{host.scratch}/volume"
    os.mkdir(volume)
    podman("run", "--rm", "-v", f"{volume}:/data", IMAGE, "sh", "-c", "echo kept > /data/file")
    with open(f"{volume}/file", encoding="utf-8") as file:
        assert file.read() == "kept\n"
    ran = podman(
        "run", "--rm", "-v", f"{volume}:/data:ro", IMAGE, "sh", "-c", "cat /data/file; : > /data/x", code=1
    )
    assert (ran.out, "Read-only" in ran.err) == ("kept\n", True)


def test_a_memory_limit_holds_and_ends_in_137(podman: Podman) -> None:
    assert podman("run", "--rm", "-m", "64m", IMAGE, "cat", LIMIT).out == f"{64 << 20}\n"
    eats = "dd if=/dev/zero of=/dev/null bs=100M count=1"
    podman(
        "run",
        "--name",
        "eater",
        "-m",
        "16m",
        "--memory-swap",
        "16m",
        IMAGE,
        "sh",
        "-c",
        f"exec {eats}",
        code=137,
    )


def test_update_changes_a_running_containers_limit(podman: Podman, running: str) -> None:
    podman("update", "--memory", "32m", running)
    assert podman("exec", running, "cat", LIMIT).out == f"{32 << 20}\n"


def test_limits_of_processes_cpus_and_files_reach_the_container(podman: Podman) -> None:
    options = [
        "--pids-limit",
        "50",
        "--cpus",
        "0.5",
        "--ulimit",
        "nofile=100:200",
        "--ulimit",
        "nproc=1000:1000",
    ]
    script = "ulimit -n; ulimit -Hn; touch /x"
    assert (
        podman("run", "--rm", "--read-only", *options, IMAGE, "sh", "-c", script, code=1).out == "100\n200\n"
    )
    if V1:
        files = "/sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us"
        assert podman("run", "--rm", *options, IMAGE, "sh", "-c", f"cat {files}").out == "50\n50000\n"


def test_a_user_loses_all_capabilities_and_cannot_get_new_ones(podman: Podman) -> None:
    options = ["--user", "1000:1000", "--cap-drop", "all", "--security-opt", "no-new-privileges"]
    ran = podman(
        "run", "--rm", *options, IMAGE, "grep", "-E", "CapEff|CapBnd|NoNewPrivs", "/proc/self/status"
    )
    assert ran.out.split() == ["CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1"]


def test_root_inside_is_a_user_outside_with_mapped_ids(podman: Podman) -> None:
    ran = podman(
        "run", "--rm", "--uidmap", "0:100000:65536", IMAGE, "sh", "-c", "id -u; cat /proc/self/uid_map"
    )
    assert ran.out.split() == ["0", "0", "100000", "65536"]


def test_a_privileged_container_has_all_that_podman_has(podman: Podman) -> None:
    assert podman("run", "--rm", "--privileged", IMAGE, "echo", "ok").out == "ok\n"


def test_an_init_process_reaps(podman: Podman) -> None:
    assert podman("run", "--rm", "--init", IMAGE, "sh", "-c", "echo $$").out != "1\n"


def test_top_and_logs_see_the_program(podman: Podman, running: str) -> None:
    assert "sleep 100" in podman("top", running, "pid", "args").out


def test_checks_of_health_run_by_exec(podman: Podman) -> None:
    podman(
        "run",
        "-d",
        "--name",
        "healthy",
        "--health-cmd",
        "true",
        "--health-interval",
        "disable",
        IMAGE,
        "sleep",
        "9",
    )
    podman("healthcheck", "run", "healthy")


def test_a_pod_shares_its_namespaces(podman: Podman, host: EngineHost) -> None:
    pod = podman("pod", "create", "--name", "pod", "--infra-image", IMAGE, "--infra-command", "sleep 100").out
    try:
        one = podman("run", "--rm", "--pod", "pod", IMAGE, "readlink", "/proc/self/ns/ipc").out
        two = podman("run", "--rm", "--pod", "pod", IMAGE, "readlink", "/proc/self/ns/ipc").out
        assert one == two
    finally:
        podman("pod", "rm", "-f", "-t", "0", "pod")
        for path in host.new_cgroups():
            if pod.strip() in path:  # podman forgets those of hierarchies without a controller
                os.rmdir(path)


@pytest.mark.usefixtures("hugepage_limits")
def test_an_annotation_reaches_an_installed_controller(podman: Podman, host: EngineHost) -> None:
    podman(
        "run",
        "-d",
        "--name",
        "huge",
        "--annotation",
        "dev.gocker.limit.hugetlb.2MB=64m",
        IMAGE,
        "sleep",
        "100",
    )
    assert host.limits("hugetlb.2MB") == [str(64 << 20)]
