"""Each kind of namespace as the container's own, the host's, and another container's."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from command import Gocker
from running import Running, running

# option -> (name in /proc/PID/ns, how to ask for a new one)
KINDS = {
    "--uts": ("uts", "private"),
    "--ipc": ("ipc", "private"),
    "--pid": ("pid", "private"),
    "--network": ("net", "none"),
    "--cgroupns": ("cgroup", "private"),
    "--userns": ("user", "private"),
    "--timens": ("time", "private"),
}


def link(gocker: Gocker, name: str, *options: str) -> str:
    """The namespace `name` of a program that gocker runs with `options`."""
    ran = gocker("run", *options, "base", "readlink", f"/proc/self/ns/{name}")
    assert ran.code == 0, ran
    return ran.out.strip()


def own(name: str) -> str:
    return os.readlink(f"/proc/self/ns/{name}")


@pytest.fixture(scope="module")
def other(places: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A container with everything of its own, to be joined."""
    gocker = Gocker(str(tmp_path_factory.mktemp("command")))
    options = [word for option, (_, new) in KINDS.items() for word in (option, new)]
    with running(gocker, *options, "--hostname", "joined", "--monotonic", "100000") as container:
        yield container


def joined(other: Running, name: str) -> str:
    return f"/proc/{other.processes()[0]}/ns/{name}"


@pytest.mark.parametrize("option", KINDS)
def test_a_new_one_is_neither_the_hosts_nor_anothers(gocker: Gocker, other: Running, option: str) -> None:
    name, new = KINDS[option]
    assert link(gocker, name, option, new) not in {own(name), os.readlink(joined(other, name))}


@pytest.mark.parametrize("option", KINDS)
def test_the_hosts(gocker: Gocker, option: str) -> None:
    name, _ = KINDS[option]
    assert link(gocker, name, option, "host") == own(name)


@pytest.mark.parametrize("option", KINDS)
def test_another_containers_by_path(gocker: Gocker, other: Running, option: str) -> None:
    name, _ = KINDS[option]
    path = joined(other, name)
    # The namespaces of a container belong to its user namespace: who joins one joins that too.
    options = ("--userns", f"ns:{joined(other, 'user')}") if option != "--userns" else ()
    assert link(gocker, name, option, f"ns:{path}", *options) == os.readlink(path)


def test_the_mount_namespace_is_always_its_own(gocker: Gocker, other: Running) -> None:
    assert link(gocker, "mnt") not in {own("mnt"), os.readlink(joined(other, "mnt"))}


def test_a_namespace_that_was_joined_is_as_its_owner_made_it(gocker: Gocker, other: Running) -> None:
    user = ("--userns", f"ns:{joined(other, 'user')}")
    uts = gocker("run", *user, "--uts", f"ns:{joined(other, 'uts')}", "base", "hostname")
    assert uts.out == "joined\n", uts
    pid = gocker(
        "run", *user, "--pid", f"ns:{joined(other, 'pid')}", "base", "sh", "-c", "echo $$; cat /proc/1/comm"
    )
    number, first = pid.out.split()
    assert (int(number) > 1, first) == (True, "sh"), pid


def test_processes_of_the_host_are_seen_when_asked_for(gocker: Gocker) -> None:
    ran = gocker("run", "--pid", "host", "base", "sh", "-c", "echo $$; ls -d /proc/$PPID")
    number = int(ran.out.split()[0])
    assert (ran.code, number > 1) == (0, True), ran
    assert os.getpid() != number


def test_the_network_of_the_host_comes_with_its_resolver(gocker: Gocker) -> None:
    ran = gocker("run", "--network", "host", "base", "sh", "-c", "ls /sys/class/net; cat /etc/resolv.conf")
    with open("/etc/resolv.conf", encoding="utf-8") as file:
        resolver = file.read()
    assert ran.out == "".join(f"{name}\n" for name in sorted(os.listdir("/sys/class/net"))) + resolver, ran


def test_the_hosts_shared_memory_comes_with_its_ipc(gocker: Gocker) -> None:
    path = f"/dev/shm/gocker-test-{os.getpid()}"
    with open(path, "w") as file:
        file.write("shared")
    try:
        assert gocker("run", "--ipc", "host", "base", "cat", path).out == "shared"
        assert gocker("run", "base", "cat", path).code == 1
    finally:
        os.unlink(path)


def test_the_hosts_hostname_cannot_be_changed_from_inside(gocker: Gocker) -> None:
    before = os.uname().nodename
    ran = gocker("run", "--uts", "host", "base", "sh", "-c", "hostname; hostname stolen")
    assert ran.out == f"{before}\n"
    assert ran.code != 0
    assert os.uname().nodename == before


class TestUser:
    """--userns private: root inside is somebody else outside."""

    def test_ids_are_mapped(self, gocker: Gocker) -> None:
        ran = gocker(
            "run",
            "--userns",
            "private",
            "base",
            "sh",
            "-c",
            "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map",
        )
        assert ran.out.split() == ["0", "0", *("0", "100000", "65536") * 2], ran

    def test_the_process_is_somebody_else_on_the_host(self, gocker: Gocker) -> None:
        options = (
            "--userns",
            "private",
            "--uidmap",
            "0:200000:1000",
            "--uidmap",
            "1000:300000:9",
            "--gidmap",
            "0:400000:2000",
        )
        with running(gocker, *options, "-u", "1003:7") as container:
            status = os.stat(f"/proc/{container.processes()[0]}")
            with open(f"/proc/{container.processes()[0]}/status") as file:
                uid, gid = (line.split()[1] for line in file if line.startswith(("Uid:", "Gid:")))
        assert (uid, gid) == ("300003", "400007")
        assert status.st_uid in {0, 300003}  # root's where it is not dumpable

    def test_the_image_is_roots_inside_and_untouched_outside(
        self, gocker: Gocker, tmp_path: os.PathLike[str]
    ) -> None:
        rootfs = f"{tmp_path}/rootfs"
        os.makedirs(f"{rootfs}/dir")
        with open(f"{rootfs}/dir/file", "w") as file:
            file.write("old")
        os.chown(f"{rootfs}/dir/file", 5, 6)
        tools = ("-v", "/usr:/usr:ro", "-v", "/lib64:/lib64:ro", "-v", "/lib:/lib:ro", "-v", "/bin:/bin:ro")
        script = "stat -c %u:%g /dir /dir/file; echo new > /dir/file; chown 7:8 /dir/file; touch /mine; stat -c %u:%g /dir/file /mine"
        ran = gocker("run", "--userns", "private", "--rootfs", rootfs, *tools, "/bin/sh", "-c", script)
        assert ran.out.split() == ["0:0", "5:6", "7:8", "0:0"], ran
        with open(f"{rootfs}/dir/file") as file:
            assert file.read() == "old"
        assert os.stat(f"{rootfs}/dir/file").st_uid == 5
        assert sorted(os.listdir(rootfs)) == ["dir"]

    def test_what_it_writes_to_a_volume_is_the_mapped_users(
        self, gocker: Gocker, tmp_path: os.PathLike[str]
    ) -> None:
        os.chmod(tmp_path, 0o777)
        options = ("--userns", "private", "--uidmap", "0:100000:9", "-v", f"{tmp_path}:/data", "-u", "3:4")
        ran = gocker(
            "run", *options, "base", "sh", "-c", "touch /data/file && stat -c %u:%g /data /data/file"
        )
        # What belongs to somebody who is not mapped is nobody's.
        assert ran.out.split() == ["65534:65534", "3:4"], ran
        status = os.stat(f"{tmp_path}/file")
        assert (status.st_uid, status.st_gid) == (100003, 100004)

    def test_its_root_has_no_power_over_the_host(self, gocker: Gocker, tmp_path: os.PathLike[str]) -> None:
        secret = f"{tmp_path}/secret"
        with open(secret, "w") as file:
            file.write("x")
        os.chmod(secret, 0o600)
        options = ("--userns", "private", "-v", f"{tmp_path}:/data", "--cap-add", "ALL")
        ran = gocker(
            "run",
            *options,
            "base",
            "sh",
            "-c",
            "cat /data/secret || chown 0 /data/secret || mknod /data/x c 1 3 || touch /data/y",
        )
        assert (ran.code, ran.out) == (1, ""), ran
        assert os.listdir(tmp_path) == ["secret"]

    def test_everything_else_is_as_without_it(self, gocker: Gocker) -> None:
        script = "echo $$; ls /sys/class/net; hostname; echo x > /dev/null; cat /etc/hostname; ls /dev /proc/self/fd/; ls /sys/fs/cgroup"
        plain, mapped = (
            gocker("run", "-h", "web", *more, "base", "sh", "-c", script)
            for more in ((), ("--userns", "private"))
        )
        assert plain.code == 0
        assert mapped == plain


class TestTime:
    def test_clocks_are_off_by_what_was_asked_for(self, gocker: Gocker) -> None:
        import time

        options = ("--timens", "private", "--boottime", "86400000")
        ran = gocker("run", *options, "base", "cat", "/proc/uptime")
        host = time.clock_gettime(time.CLOCK_BOOTTIME)
        assert float(ran.out.split()[0]) == pytest.approx(host + 86400000, abs=30), ran

    def test_the_clock_of_the_day_is_not(self, gocker: Gocker) -> None:
        import time

        ran = gocker("run", "--timens", "private", "--monotonic", "86400", "base", "date", "+%s")
        assert int(ran.out) == pytest.approx(time.time(), abs=30)

    def test_an_offset_that_the_kernel_cannot_have_is_an_error(self, gocker: Gocker) -> None:
        ran = gocker("run", "--timens", "private", "--boottime", "-999999999", "base", "true")
        assert (ran.code, ran.err.count("\n")) == (125, 1), ran
        assert "ERANGE" in ran.err
