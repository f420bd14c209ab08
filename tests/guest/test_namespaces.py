"""The container's namespaces, its terminal and its process 1, seen from inside and from the host."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import stat
import struct
import subprocess
import termios
import time
from collections.abc import Iterator

import pytest
from command import SLOWNESS, Gocker
from running import Running, running

pytestmark = pytest.mark.guest

KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "uts", "time", "user")
DOCKERS_CAPABILITIES = "00000000a80425fb"


class TestPlain:
    """What a container is that nothing was asked for."""

    @pytest.fixture(scope="class")
    @staticmethod
    def container(places: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
        with running(Gocker(str(tmp_path_factory.mktemp("plain"))), "--hostname", "inside") as started:
            yield started

    def test_six_namespaces_are_its_own(self, container: Running) -> None:
        inside = dict(
            line.split(" ")
            for line in container.sh(
                "cd /proc/self/ns; for n in *; do echo $n $(readlink $n); done"
            ).splitlines()
        )
        own = {kind for kind in KINDS if inside[kind] != os.readlink(f"/proc/self/ns/{kind}")}
        assert own == {"cgroup", "ipc", "mnt", "net", "pid", "uts"}

    def test_it_is_process_1_and_sees_nobody_else(self, container: Running) -> None:
        assert container.sh("echo $$") == "1"
        assert set(container.sh("cd /proc; for p in [0-9]*; do cat $p/comm; done").split()) <= {"sh", "cat"}

    def test_its_hostname_is_its_own(self, container: Running) -> None:
        assert container.sh("uname -n; cat /etc/hostname; echo $HOSTNAME") == "inside\ninside\ninside"
        assert os.uname().nodename != "inside"

    def test_its_only_network_is_lo_and_that_is_up(self, container: Running) -> None:
        assert container.sh("ls /sys/class/net") == "lo"
        assert int(container.sh("cat /sys/class/net/lo/flags"), 16) & 1

    def test_no_mount_of_the_host_shows(self, container: Running) -> None:
        points = [line.split()[4] for line in container.sh("cat /proc/self/mountinfo").splitlines()]
        assert points[0] == "/"
        allowed = ("/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
        assert [point for point in points[1:] if not point.startswith(allowed)] == []

    def test_it_has_dockers_capabilities_no_new_privileges_and_a_filter(self, container: Running) -> None:
        words = container.sh("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status").split()
        status = dict(zip(words[::2], words[1::2], strict=True))
        assert status["CapEff:"] == status["CapPrm:"] == status["CapBnd:"] == DOCKERS_CAPABILITIES
        assert status["CapInh:"] == status["CapAmb:"] == "0" * 16
        assert (status["NoNewPrivs:"], status["Seccomp:"]) == ("1", "2")

    def test_it_has_no_variable_and_no_file_of_the_hosts(self, container: Running) -> None:
        names = {
            line.partition("=")[0]
            for line in container.sh("cat /proc/1/environ | tr '\\0' '\\n'").splitlines()
        }
        assert names == {"HOME", "HOSTNAME", "PATH"}
        assert container.sh("ls /proc/self/fd").split() == ["0", "1", "2", "3"]  # 3 is that directory

    @pytest.mark.parametrize(
        "path", ["/sys/kernel/uevent_seqnum", "/proc/sys/kernel/hostname", "/proc/irq/default_smp_affinity"]
    )
    def test_the_kernels_knobs_are_out_of_reach(self, container: Running, path: str) -> None:
        assert "Read-only file system" in container.sh(f"echo > {path}")

    def test_masked_paths_are_empty(self, container: Running) -> None:
        assert (
            container.sh(
                "for f in /proc/kcore /proc/keys; do [ ! -e $f ] || cat $f; done; find /proc/acpi /sys/firmware -mindepth 1 2>/dev/null"
            )
            == ""
        )

    def test_the_hosts_disks_cannot_be_opened(self, container: Running) -> None:
        disk = next(name for name in sorted(os.listdir("/sys/block")) if name != "zram0")
        with open(f"/sys/block/{disk}/dev", encoding="ascii") as file:
            major, minor = file.read().strip().split(":")
        made = container.sh(f"mknod /dev/disk b {major} {minor}; head -c 1 /dev/disk")
        assert "not permitted" in made or "Permission denied" in made

    def test_what_it_writes_is_gone_with_it(self, container: Running, gocker: Gocker) -> None:
        assert container.sh("echo mine > /bin/new && cat /bin/new") == "mine"
        assert "No such file" in gocker("run", "base", "ls", "/bin/new").err
        assert "No such file" in gocker("run", "base", "cat", "/bin/new").err


def test_shared_namespaces_are_the_hosts(gocker: Gocker) -> None:
    options = ("--uts", "host", "--ipc", "host", "--pid", "host", "--network", "host", "--cgroupns", "host")
    with running(gocker, *options) as container:
        (first,) = container.processes()
        for kind in KINDS:
            same = os.readlink(f"/proc/{first}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")
            assert same == (kind != "mnt"), kind


def test_a_namespace_of_another_container_can_be_joined(gocker: Gocker) -> None:
    with running(gocker, "--hostname", "first") as first:
        (pid,) = first.processes()
        joins = (
            f"--{option}=ns:/proc/{pid}/ns/{kind}"
            for option, kind in (("uts", "uts"), ("network", "net"), ("ipc", "ipc"), ("pid", "pid"))
        )
        ran = gocker(
            "run",
            *joins,
            "base",
            "sh",
            "-c",
            "uname -n; readlink /proc/self/ns/net; [ $$ != 1 ] && cat /proc/1/comm",
        )
        net = os.readlink(f"/proc/{pid}/ns/net")
    assert (ran.code, ran.out, ran.err) == (0, f"first\n{net}\nsh\n", "")


def test_a_time_namespace_has_clocks_of_its_own(gocker: Gocker) -> None:
    command = ("base", "cat", "/proc/uptime", "/proc/self/timens_offsets")
    ran = gocker("run", "--timens", "private", "--boottime", "864000", "--monotonic", "5", *command)
    assert ran.code == 0, ran
    with open("/proc/uptime", encoding="ascii") as file:
        host = float(file.read().split()[0])
    first, *offsets = ran.out.splitlines()
    assert host + 864000 - 60 * SLOWNESS < float(first.split()[0]) <= host + 864000
    assert [line.split() for line in offsets] == [["monotonic", "5", "0"], ["boottime", "864000", "0"]]


class TestUser:
    """A user namespace: root inside, nobody outside."""

    @pytest.fixture(scope="class")
    @staticmethod
    def data(tmp_path_factory: pytest.TempPathFactory) -> str:
        directory = str(tmp_path_factory.mktemp("data"))
        os.mkdir(f"{directory}/not-mapped", 0o755)  # root's
        os.chown(directory, 100000, 100000)
        return directory

    @pytest.fixture(scope="class")
    @staticmethod
    def container(places: object, data: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
        options = ("--userns", "private", "--limit", "memory=64m", "-v", f"{data}:/data")
        with running(Gocker(str(tmp_path_factory.mktemp("user"))), *options) as started:
            yield started

    def test_root_inside_is_100000_outside(self, container: Running) -> None:
        assert container.sh("id -u; cat /proc/self/uid_map /proc/self/gid_map").split() == [
            "0",
            *("0", "100000", "65536") * 2,
        ]
        (first,) = container.processes()
        assert (os.stat(f"/proc/{first}").st_uid, os.stat(f"/proc/{first}").st_gid) == (100000, 100000)

    def test_the_image_belongs_to_root_inside(self, container: Running) -> None:
        assert container.sh("stat -c '%u:%g' / /bin/sh /etc/passwd").split() == ["0:0"] * 3
        assert (
            container.sh("echo mine > /etc/new && stat -c %u /etc/new && rm /etc/new && rm /etc/passwd")
            == "0"
        )

    def test_a_volume_keeps_the_owners_that_it_has(self, container: Running, data: str) -> None:
        script = "cd /data; echo hello > file; chown 7:8 file; stat -c %u:%g . file not-mapped"
        assert container.sh(script).split() == ["0:0", "7:8", "65534:65534"]
        assert (os.stat(f"{data}/file").st_uid, os.stat(f"{data}/file").st_gid) == (100007, 100008)

    def test_its_cgroup_shows_read_only_and_the_limit_holds(self, container: Running) -> None:
        assert "Read-only file system" in container.sh("mkdir /sys/fs/cgroup/own /sys/fs/cgroup/memory/own")
        pattern = "/sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes"
        assert container.sh(f"cat {pattern} 2>/dev/null") == "67108864"

    def test_it_has_no_power_over_the_host(self, container: Running) -> None:
        assert "not permitted" in container.sh("mknod /tmp/null c 1 3")
        assert "Read-only file system" in container.sh("echo > /proc/sys/kernel/core_pattern")
        assert "denied" in container.sh("echo > /data/not-mapped/file")


def test_init_passes_signals_on_and_reaps(gocker: Gocker) -> None:
    # The orphans of the subshell become children of process 1.
    script = "trap 'exit 7' TERM; (sleep 0.1 & sleep 0.1 & sleep 0.1 &); echo up; while :; do sleep 0.2; done"
    with gocker.start("run", "--init", "--pid", "private", "base", "sh", "-c", script) as process:
        assert process.stdout
        assert process.stdout.readline() == b"up\n"
        time.sleep(0.5 + 0.1 * SLOWNESS)
        (shell,) = (pid for pid in descendants(process.pid) if comm(pid) == "sh")
        assert [state(pid) for pid in descendants(process.pid) if state(pid) == "Z"] == []
        assert len(descendants(shell)) <= 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(20 * SLOWNESS) == 7


def test_without_init_signals_reach_the_program(gocker: Gocker) -> None:
    script = "trap 'echo bye; exit 9' INT; echo up; while :; do sleep 0.1; done"
    with gocker.start("run", "base", "sh", "-c", script) as process:
        assert process.stdout
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"bye\n"
        assert process.wait(20 * SLOWNESS) == 9


def descendants(pid: int) -> list[int]:
    found = []
    for name in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{name}/children", encoding="ascii") as file:
            for child in map(int, file.read().split()):
                found += [child, *descendants(child)]
    return found


def comm(pid: int) -> str:
    with open(f"/proc/{pid}/comm", encoding="ascii") as file:
        return file.read().strip()


def state(pid: int) -> str:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_a_terminal_has_the_size_of_the_users_and_is_restored(gocker: Gocker) -> None:
    master, slave = pty.openpty()
    try:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
        before = termios.tcgetattr(slave)
        script = "tty; stty size; read line; stty size; echo $line"
        process = subprocess.Popen(
            [gocker._program, "run", "-it", "base", "sh", "-c", script],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        shown = until(master, b"33 77\r\n")
        assert shown.startswith((b"/dev/pts/0\r\n", b"/dev/console\r\n"))
        assert not termios.tcgetattr(slave)[3] & termios.ICANON  # raw: what is typed goes on at once
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 34, 0, 0))
        os.kill(process.pid, signal.SIGWINCH)
        time.sleep(0.2 + 0.02 * SLOWNESS)
        os.write(master, b"typed\r")
        assert b"12 34\r\ntyped\r\n" in until(master, b"\ntyped\r\n")
        assert process.wait(20 * SLOWNESS) == 0
        assert termios.tcgetattr(slave) == before
    finally:
        os.close(master)
        os.close(slave)


def until(fd: int, wanted: bytes) -> bytes:
    seen = b""
    while wanted not in seen:
        seen += os.read(fd, 4096)
    return seen


def test_stdout_and_stderr_are_kept_apart_and_arguments_arrive_byte_for_byte(gocker: Gocker) -> None:
    odd = b"a b\n\xff'\""
    ran = gocker("run", "base", "sh", "-c", 'printf %s "$1"; echo err >&2', "sh", odd)
    assert (ran.code, os.fsencode(ran.out), ran.err) == (0, odd, "err\n")


def test_device_nodes_of_the_image_are_what_the_kernel_says(gocker: Gocker) -> None:
    names = ("null", "zero", "full", "random", "urandom", "tty")
    ran = gocker("run", "base", "stat", "-c", "%t:%T %a", *(f"/dev/{name}" for name in names))
    assert ran.out.split() == [
        word for minor in ("3", "5", "7", "8", "9") for word in (f"1:{minor}", "666")
    ] + ["5:0", "666"]
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
