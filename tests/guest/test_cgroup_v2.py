"""A container's one directory on a pure cgroup v2 host: how it comes to be, what it shows, how it goes."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from command import SLOWNESS, Gocker
from running import Running, running

from gocker.plan import Context
from gocker.steps.cgroup import EnableControllers, MakeCgroup, WriteLimit

pytestmark = pytest.mark.guest

MOUNT = "/sys/fs/cgroup"


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


@contextmanager
def directory(*names: str) -> Iterator[str]:
    """An empty cgroup of the test's own at the root, with one below the other; its path from the root."""
    made: list[str] = []
    try:
        for name in names:
            made.append(f"{made[-1] if made else MOUNT}/{name}")
            os.mkdir(made[-1])
        yield made[-1].removeprefix(MOUNT)
    finally:
        for path in reversed(made):
            _rmdir(path)


def _rmdir(path: str) -> None:
    deadline = time.monotonic() + 5
    while True:
        try:
            return os.rmdir(path)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


class Writes:
    """Counts writes to a file of a cgroup by inotify(7), until the context ends."""

    _libc = ctypes.CDLL(None, use_errno=True)
    _MODIFY = 2

    def __init__(self, path: str) -> None:
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._libc.inotify_add_watch(self._fd, os.fsencode(path), self._MODIFY) >= 0

    def count(self) -> int:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return 0
        finally:
            os.close(self._fd)
        offset = found = 0
        while offset < len(data):
            _, mask, _, length = struct.unpack_from("iIII", data, offset)
            found += bool(mask & self._MODIFY)
            offset += 16 + length
        return found


class TestOneContainer:
    @pytest.fixture(scope="class")
    @staticmethod
    def container(places: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
        with running(Gocker(str(tmp_path_factory.mktemp("v2"))), "--limit", "memory=100m") as started:
            yield started

    def test_a_container_has_one_directory_and_its_first_process_is_in_it(self, container: Running) -> None:
        where = f"{MOUNT}/gocker/{container.id}"
        pids = container.processes()
        assert pids
        for pid in pids:
            assert read(f"/proc/{pid}/cgroup") == f"0::/gocker/{container.id}"
        assert container.cgroup("memory") == where

    def test_every_controller_that_is_used_is_on_from_the_root_down(self, container: Running) -> None:
        wanted = {"io", "memory", "pids"}
        for path in (MOUNT, f"{MOUNT}/gocker"):
            assert wanted <= set(read(f"{path}/cgroup.subtree_control").split())
        assert wanted <= set(read(f"{container.cgroup('memory')}/cgroup.controllers").split())

    def test_inside_its_own_cgroup_is_the_root(self, container: Running) -> None:
        assert container.sh("cat /proc/self/cgroup /proc/1/cgroup") == "0::/\n0::/"
        mounts = [line for line in container.sh("cat /proc/self/mountinfo").splitlines() if "cgroup" in line]
        assert len(mounts) == 1
        head, _, tail = mounts[0].partition(" - ")
        fields = head.split()
        assert (fields[3], fields[4]) == ("/", "/sys/fs/cgroup")
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(fields[5].split(","))
        assert tail.split()[0] == "cgroup2"

    def test_inside_it_sees_its_own_limits_and_usage_and_nobody_elses(self, container: Running) -> None:
        assert container.sh("cd /sys/fs/cgroup; cat memory.max pids.max") == "104857600\n4096"
        assert int(container.sh("cat /sys/fs/cgroup/memory.current")) > 0
        assert container.sh("cat /sys/fs/cgroup/cgroup.procs").split()[0] == "1"
        assert container.sh("ls -d /sys/fs/cgroup/*/ /sys/fs/cgroup/gocker").count("No such file") == 2

    @pytest.mark.parametrize(
        "command",
        [
            "echo max > /sys/fs/cgroup/memory.max",
            "echo 0 > /sys/fs/cgroup/cgroup.procs",
            "mkdir /sys/fs/cgroup/own",
        ],
    )
    def test_inside_nothing_of_it_can_be_changed(self, container: Running, command: str) -> None:
        assert "Read-only file system" in container.sh(command)
        assert container.file("memory", "memory.max") == "104857600"


def test_a_privileged_container_can_divide_its_cgroup_and_all_of_it_goes(gocker: Gocker) -> None:
    script = """cd /sys/fs/cgroup; mkdir -p one/two; echo $$ > one/two/cgroup.procs; mkdir leaf
        (echo 0 > leaf/cgroup.procs; exec sleep 1000 >/dev/null 2>&1) &
        while ! grep -q . leaf/cgroup.procs; do :; done
        echo 1 > leaf/cgroup.freeze; echo +memory > cgroup.subtree_control; cat one/cgroup.controllers"""
    with running(gocker, "--privileged", "--limit", "memory=100m") as container:
        assert "memory" in container.sh(script).split()
        where = container.cgroup("memory")
        assert os.path.isdir(f"{where}/one/two")
        # nsdelegate: what its cgroup may use is for the host to say.
        assert "not permitted" in container.sh("echo max | tee /sys/fs/cgroup/memory.max")
        assert container.file("memory", "memory.max") == "104857600"
        ran = container.end()
    assert (ran.code, ran.err) == (0, "")
    assert not os.path.exists(where)


def test_gocker_starts_no_process_in_its_own_cgroup(gocker: Gocker) -> None:
    """CLONE_INTO_CGROUP: with one process allowed where gocker is, its child is born elsewhere."""
    assert gocker("run", "base", "true").code == 0  # base and the seccomp filter are there now
    with directory("only-one") as path:
        write(f"{MOUNT}{path}/pids.max", "1")
        ran = started_in(path, gocker, "run", "base", "echo", "born")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"born\n", b"")


def started_in(path: str, gocker: Gocker, *args: str) -> subprocess.CompletedProcess[bytes]:
    """gocker with `args`, itself in the cgroup `path`."""
    script = f'echo 0 > {MOUNT}{path}/cgroup.procs && exec "$@"'
    return subprocess.run(
        ["/bin/sh", "-c", script, "sh", gocker._program, *args],
        capture_output=True,
        timeout=30 * SLOWNESS,
        check=False,
    )


def test_the_timeout_kills_by_one_write_to_cgroup_kill(gocker: Gocker) -> None:
    with running(gocker, "--timeout", str(2 + 0.2 * SLOWNESS)) as container:
        writes = Writes(f"{container.cgroup('memory')}/cgroup.kill")
        container.sh("for i in 1 2 3 4 5; do sleep 1000 >/dev/null 2>&1 & done")
        pids = container.processes()
        ran = container.end("wait\n")
    assert len(pids) == 6
    assert (ran.code, ran.report["verdict"]["kind"]) == (137, "timeout")
    assert writes.count() >= 1
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_what_the_program_leaves_running_among_the_hosts_processes_is_killed_too(gocker: Gocker) -> None:
    """With --pid host the kernel does not end the others with the first process."""
    with running(gocker, "--pid", "host") as container:
        container.sh("setsid sleep 1000 >/dev/null 2>&1 & sleep 1000 >/dev/null 2>&1 & :")
        writes = Writes(f"{container.cgroup('memory')}/cgroup.kill")
        pids = container.processes()
        assert container.sh(f"kill -0 {os.getpid()} && echo seen") == "seen"
        ran = container.end("exit 3\n")
    assert len(pids) == 3
    assert (ran.code, ran.err) == (3, "")
    assert writes.count() >= 1
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_controllers_are_enabled_where_they_were_off_from_the_root_down(gocker: Gocker) -> None:
    controllers = ("cpuset", "cpu", "io", "memory", "pids")
    write(f"{MOUNT}/cgroup.subtree_control", " ".join(f"-{name}" for name in controllers))
    try:
        assert not set(controllers) & set(read(f"{MOUNT}/cgroup.subtree_control").split())
        with (
            directory("upper", "lower") as parent,
            running(
                gocker,
                "--limit",
                "memory=64m",
                "--limit",
                "cpuset=0",
                "--limit",
                "cpushare=512",
                parent=parent,
            ) as container,
        ):
            assert container.cgroup("memory") == f"{MOUNT}{parent}/gocker/{container.id}"
            for path in (MOUNT, f"{MOUNT}/upper", f"{MOUNT}{parent}", f"{MOUNT}{parent}/gocker"):
                assert set(controllers) <= set(read(f"{path}/cgroup.subtree_control").split()), path
            assert container.file("memory", "memory.max") == "67108864"
            assert container.file("cpu", "cpu.weight") == "59"
            container.end()
            assert os.listdir(f"{MOUNT}{parent}") == [
                name for name in os.listdir(f"{MOUNT}{parent}") if name != "gocker"
            ]
    finally:
        write(f"{MOUNT}/cgroup.subtree_control", " ".join(f"+{name}" for name in controllers))


def test_a_cgroup_parent_that_is_not_there_is_made_and_goes_again(gocker: Gocker) -> None:
    with running(gocker, parent="/made/for/it") as container:
        assert read(f"/proc/{container.processes()[0]}/cgroup") == f"0::/made/for/it/gocker/{container.id}"
    assert not os.path.exists(f"{MOUNT}/made")


def test_the_limit_of_the_parent_is_named_as_the_cause_of_an_oom(gocker: Gocker) -> None:
    with directory("narrow") as parent:
        write(f"{MOUNT}{parent}/memory.max", "30m")
        write(f"{MOUNT}{parent}/memory.swap.max", "0")
        ran = gocker.run(
            "--cgroup-parent", parent, "--limit", "memory=100m", "base", "sh", "-c", "exec tail < /dev/zero"
        )
    verdict = ran.report["verdict"]
    assert (ran.code, verdict["kind"]) == (137, "oom"), ran
    assert "for want of memory outside the container, on the host or in a parent cgroup" in verdict["detail"]


def test_a_parent_that_holds_processes_is_one_clear_error(gocker: Gocker) -> None:
    """The no-internal-process rule: the kernel hands controllers down only from cgroups without processes."""
    own = read("/proc/self/cgroup").removeprefix("0::")
    ran = gocker("run", "--cgroup-parent", own, "base", "true")
    assert (ran.code, ran.out) == (125, "")
    assert ran.err.count("\n") == 1
    assert f"EBUSY: processes run in {MOUNT}{own}, and the kernel allows them only in leaves" in ran.err
    assert f"(name an empty cgroup with --cgroup-parent, or move them: mkdir {MOUNT}{own}/leaf && " in ran.err
    assert "gocker" not in os.listdir(f"{MOUNT}{own}")


def test_a_threaded_parent_is_one_clear_error(gocker: Gocker) -> None:
    with directory("thread-root", "threads") as parent:
        write(f"{MOUNT}{parent}/cgroup.type", "threaded")
        ran = gocker("run", "--cgroup-parent", parent, "base", "true")
    assert (ran.code, ran.out, ran.err.count("\n")) == (125, "", 1)
    assert f"ENOTSUP: {MOUNT}/thread-root is in a threaded subtree, which takes no controller" in ran.err


@contextmanager
def cgroup_namespace(subtree: str) -> Iterator[tuple[str, str]]:
    """A cgroup namespace with a cgroup2 mount of its own, as in a container with --cgroupns private.

    Yield the root of it on the host, and a shell script's beginning that enters it.
    """
    with directory("outer", "inner") as path:
        write(f"{MOUNT}/outer/cgroup.subtree_control", subtree)
        enter = (
            f"echo 0 > {MOUNT}{path}/cgroup.procs && exec unshare --cgroup --mount --propagation private"
            f" sh -c 'umount {MOUNT} && mount -t cgroup2 none {MOUNT} && "
        )
        try:
            yield f"{MOUNT}{path}", enter
        finally:
            for name in ("gocker", "leaf"):
                if os.path.isdir(f"{MOUNT}{path}/{name}"):
                    _rmdir(f"{MOUNT}{path}/{name}")


def shell(script: str, gocker: Gocker, *args: str) -> subprocess.CompletedProcess[str]:
    """Run `script`, in which `"$@"` is gocker with `args`."""
    return subprocess.run(
        ["/bin/sh", "-c", f"{script}", "sh", gocker._program, *args],
        capture_output=True,
        text=True,
        timeout=60 * SLOWNESS,
        check=False,
    )


def test_inside_another_container_gocker_says_that_its_own_cgroup_must_be_emptied(gocker: Gocker) -> None:
    with cgroup_namespace("+memory +pids +io") as (_, enter):
        ran = shell(f"""{enter} exec "$@"' sh "$@" """, gocker, "run", "base", "true")
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (125, "", 1), ran
    assert f"EBUSY: processes run in {MOUNT}, and " in ran.stderr
    remedy = f"for p in $(cat {MOUNT}/cgroup.procs); do echo $p >{MOUNT}/leaf/cgroup.procs; done"
    assert f"(move them: mkdir {MOUNT}/leaf && {remedy})" in ran.stderr


def test_inside_another_container_gocker_runs_once_its_own_cgroup_is_a_leaf(gocker: Gocker) -> None:
    move = f"mkdir {MOUNT}/leaf && echo 0 > {MOUNT}/leaf/cgroup.procs"
    with cgroup_namespace("+memory +pids +io") as (root, enter):
        script = f"""{enter} {move} && exec "$@"' sh "$@" """
        ran = shell(script, gocker, "run", "--limit", "memory=50m", "base", "cat", f"{MOUNT}/memory.max")
        assert os.listdir(root).count("gocker") == 0
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "52428800\n", "")


def test_a_controller_that_the_host_does_not_hand_down_is_named_with_the_remedy(
    gocker: Gocker, tmp_path: os.PathLike[str]
) -> None:
    move = f"mkdir {MOUNT}/leaf && echo 0 > {MOUNT}/leaf/cgroup.procs"
    with cgroup_namespace("+memory +pids") as (_, enter):
        script = f"""{enter} {move} && exec "$@"' sh "$@" """
        ran = shell(script, gocker, "run", "--limit", "cpushare=512", "base", "true")
        assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (125, "", 1), ran
        assert ran.stderr.startswith(
            "gocker: find cgroup controller cpu: not in /sys/fs/cgroup/cgroup.controllers"
        )
        assert "echo +cpu into cgroup.subtree_control of every cgroup above" in ran.stderr
        script, report = script.replace("mkdir", "mkdir -p"), f"{tmp_path}/report"
        options = ("--report", report, "--limit", "cpushare=512?")
        ran = shell(script, gocker, "run", *options, "base", "echo", "all the same")
    assert (ran.returncode, ran.stdout) == (0, "all the same\n"), ran
    assert ran.stderr == (
        "gocker: warning: limit cpushare does not bind: this host has no cpu controller that can be written\n"
    )
    usage = json.loads(read(report))["usage"]
    assert usage["memory_peak_bytes"] > 0
    assert (usage["io_read_bytes"], usage["io_write_bytes"]) == (None, None)  # io is not handed down either


def test_a_read_only_cgroup_file_system_is_one_clear_error(gocker: Gocker) -> None:
    script = f"""exec unshare --mount --propagation private sh -c 'mount -o remount,bind,ro {MOUNT} && exec "$@"' sh "$@" """
    ran = shell(script, gocker, "run", "--limit", "memory=50m", "base", "true")
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (125, "", 1), ran
    assert f"{MOUNT} is mounted read-only (mount -o remount,rw {MOUNT}" in ran.stderr


def test_best_effort_lets_a_limit_that_cannot_hold_pass_with_a_warning(gocker: Gocker) -> None:
    ran = gocker.run("--limit", "cpuset=99?", "--limit", "nosuch=1?", "base", "echo", "ran")
    assert (ran.code, ran.out) == (0, "ran\n")
    assert "warning: limit cpuset does not bind: " in ran.err
    assert "warning: limit nosuch does not bind: no controller plug-in nosuch is installed" in ran.err
    assert ran.report["limits"]["nosuch"]["effective"] is None
    assert "reason" in ran.report["limits"]["cpuset"]


def test_doctor_finds_everything_on_this_host(gocker: Gocker) -> None:
    ran = gocker("doctor", "--format", "json")
    checks = {check["name"]: check for check in json.loads(ran.out)}
    assert checks["cgroups"]["detail"] == "v2"
    # The v2 hierarchy has no such controllers, and says what does the same.
    assert {name for name, check in checks.items() if check["status"] != "ok"} == {
        "controller net_cls",
        "controller net_prio",
    }
    assert ran.code == 0


def test_doctor_says_that_processes_stand_in_the_way_of_any_run(gocker: Gocker) -> None:
    with cgroup_namespace("+memory +pids +io") as (_, enter):
        ran = shell(f"""{enter} exec "$@"' sh "$@" """, gocker, "doctor", "--format", "json")
    checks = {check["name"]: check for check in json.loads(ran.stdout)}
    memory = checks["controller memory"]
    assert (ran.returncode, checks["container"]["status"], memory["status"]) == (1, "missing", "limited")
    assert memory["detail"].endswith(
        f"EBUSY: processes run in {MOUNT}, and the kernel allows them only in leaves"
    )
    assert memory["remedy"].startswith(f"move them: mkdir {MOUNT}/leaf && ")


def test_controllers_that_another_gocker_is_just_enabling_are_waited_for() -> None:
    """The kernel shows them as enabled before their files are there."""
    wanted = ("cpuset", "memory", "pids")
    begin = time.time() + 0.2

    def start(number: int) -> None:
        time.sleep(max(0, begin - time.time()))
        for turn in range(60):
            path = f"{MOUNT}/gocker-race/{number}-{turn}"
            steps = (
                MakeCgroup(path=path, base=MOUNT, version="v2"),
                EnableControllers(path=path, base=MOUNT, controllers=wanted),
                WriteLimit(path=path, file="cpuset.cpus", value="0", limit="cpuset", asked="0"),
                WriteLimit(path=path, file="memory.swap.max", value="0", limit="memory.swap", asked="0"),
                WriteLimit(path=path, file="pids.max", value="9", limit="pids", asked="9"),
            )
            ctx = Context(None)
            try:
                for step in steps:
                    step.execute(ctx)
            finally:
                steps[0].undo(ctx)

    children = [multiprocessing.get_context("fork").Process(target=start, args=(n,)) for n in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
