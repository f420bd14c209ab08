"""What a container sees when nothing was asked for: itself and nothing of the host."""

from __future__ import annotations

import os
import re
import socket

import pytest
from command import Gocker, Ran

from gocker.defaults import MASKED_PATHS, READONLY_PATHS
from gocker.kernel.caps import DOCKER_DEFAULT, NUMBERS

KINDS = {"cgroup", "cgroup2", "devpts", "mqueue", "overlay", "proc", "sysfs", "tmpfs"}
NODES = {"null": "1:3", "zero": "1:5", "full": "1:7", "random": "1:8", "urandom": "1:9", "tty": "5:0"}
LINKS = {"core": "/proc/kcore", "fd": "/proc/self/fd", "ptmx": "pts/ptmx", "stdin": "/proc/self/fd/0",
         "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}  # fmt: skip

LOOK = f"""
section() {{ printf '\\0%s\\n' "$1"; }}
section pid; echo $$
section cmdline; tr '\\0' ' ' < /proc/1/cmdline
section processes; cd /proc; echo [0-9]*; cd /
section parent; cat /proc/1/stat
section environ; tr '\\0' '\\n' < /proc/1/environ
section fds; ls -l /proc/1/fd/
section status; cat /proc/1/status
section mountinfo; cat /proc/1/mountinfo
section hostname; hostname; cat /proc/sys/kernel/hostname /etc/hostname
section domainname; cat /proc/sys/kernel/domainname
section hosts; cat /etc/hosts
section resolv.conf; cat /etc/resolv.conf
section links; ls /sys/class/net; cat /sys/class/net/lo/flags
section routes; cat /proc/net/route
section cgroup; cat /proc/1/cgroup
section cgroups; ls /sys/fs/cgroup
section umask; umask
section cwd; pwd -P
section id; id
section dev; cd /dev; stat -c '%n %F %t:%T %a %U:%G' *; cd /
section devlinks; cd /dev; for name in core fd ptmx stdin stdout stderr; do echo $name $(readlink $name); done; cd /
section masked; for path in {" ".join(MASKED_PATHS)}; do
  if [ -d $path ]; then echo $path directory $(ls -A $path | wc -l)
  elif [ -e $path ]; then echo $path $(stat -c '%t:%T' $path); fi; done
section writes; for path in / /etc /usr/bin /tmp /run /dev /dev/shm /dev/mqueue /proc/sys/kernel/hostname {" ".join(READONLY_PATHS)} /sys /sys/fs/cgroup /sys/fs/cgroup/*; do
  if [ -d $path ]; then touch $path/x 2>/dev/null; else echo x 2>/dev/null > $path; fi && echo $path; done
section exec; for path in /tmp /dev /dev/shm; do cp /bin/true $path/t && $path/t 2>/dev/null && echo $path; done
section shm; stat -f -c '%b %S' /dev/shm
section oom; cat /proc/1/oom_score_adj
section sessions; ps -o pid= -o sid= -o pgid= -p 1
section root; ls /
"""


@pytest.fixture(scope="module")
def ran(places: object, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    scratch = tmp_path_factory.mktemp("command")
    os.environ["GOCKER_TEST_SECRET"] = "host"
    try:
        return Gocker(str(scratch)).run("--name", "look", "base", "sh", "-c", LOOK)
    finally:
        del os.environ["GOCKER_TEST_SECRET"]


@pytest.fixture(scope="module")
def seen(ran: Ran) -> dict[str, str]:
    """Section to its text, stripped."""
    assert ran.code == 0, ran
    sections = (part.partition("\n") for part in ran.out.split("\0")[1:])
    return {name: text.strip() for name, _, text in sections}


def status(seen: dict[str, str], field: str) -> str:
    return re.search(rf"^{field}:\s*(.*)$", seen["status"], re.MULTILINE)[1].strip()  # type: ignore[index]


class Mounted:
    """A line of mountinfo."""

    def __init__(self, line: str) -> None:
        left, _, right = line.partition(" - ")
        _, _, _, self.root, self.point, options, *self.propagation = left.split(" ")
        self.kind = right.split(" ")[0]
        self.options = set(options.split(","))


@pytest.fixture(scope="module")
def mounts(seen: dict[str, str]) -> dict[str, Mounted]:
    found = [Mounted(line) for line in seen["mountinfo"].splitlines()]
    assert len({mount.point for mount in found}) == len(found), "one mount hides another"
    return {mount.point: mount for mount in found}


class TestProcesses:
    def test_the_program_is_process_1(self, seen: dict[str, str]) -> None:
        assert seen["pid"] == "1"
        assert seen["cmdline"].startswith("sh -c ")
        assert seen["cmdline"].endswith(LOOK.strip().splitlines()[-1])

    def test_others_are_invisible(self, seen: dict[str, str]) -> None:
        assert seen["processes"] == "1"

    def test_it_leads_a_session_of_its_own(self, seen: dict[str, str]) -> None:
        assert seen["sessions"].split() == ["1", "1", "1"]

    def test_its_parent_is_out_of_sight(self, seen: dict[str, str]) -> None:
        assert seen["parent"].rpartition(")")[2].split()[1] == "0"
        assert status(seen, "NSpid") == "1"
        assert status(seen, "TracerPid") == "0"


class TestMounts:
    def test_none_of_the_hosts_is_left(self, mounts: dict[str, Mounted], places: object) -> None:
        own = {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
        assert {mount.kind for point, mount in mounts.items() if point not in own} <= KINDS
        assert [mount.root for mount in mounts.values() if mount.kind == "overlay"] == ["/"]
        assert own <= mounts.keys()
        expected = re.compile(
            r"/|/proc|/sys|/dev|/dev/(pts|shm|mqueue)|/etc/(hosts|hostname|resolv\.conf)|/sys/fs/cgroup(/[\w,.=]+)?|/(proc|sys)/.+"
        )
        assert not [point for point in mounts if not expected.fullmatch(point)]

    def test_none_is_shared_with_the_host(self, mounts: dict[str, Mounted]) -> None:
        assert {point: mount.propagation for point, mount in mounts.items() if mount.propagation} == {}

    def test_device_files_work_in_dev_alone(self, mounts: dict[str, Mounted]) -> None:
        own = {"/dev", "/dev/pts", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
        masks = {path for path in mounts if path in MASKED_PATHS}
        assert {point for point, mount in mounts.items() if "nodev" not in mount.options} <= own | masks

    def test_kernel_file_systems_are_hardened(self, mounts: dict[str, Mounted]) -> None:
        for point, mount in mounts.items():
            if mount.kind in {"proc", "sysfs", "cgroup", "cgroup2", "mqueue"}:
                assert {"nosuid", "nodev", "noexec"} <= mount.options, point

    def test_sys_and_its_cgroups_are_read_only(self, mounts: dict[str, Mounted]) -> None:
        below = [mount for point, mount in mounts.items() if f"{point}/".startswith("/sys/")]
        assert len(below) > 2
        assert all("ro" in mount.options for mount in below)

    @pytest.mark.parametrize("path", READONLY_PATHS)
    def test_a_read_only_path(self, mounts: dict[str, Mounted], path: str) -> None:
        if not os.path.exists(path):
            assert path not in mounts
        else:
            assert "ro" in mounts[path].options

    @pytest.mark.parametrize("path", MASKED_PATHS)
    def test_a_masked_path_shows_nothing(
        self, seen: dict[str, str], mounts: dict[str, Mounted], path: str
    ) -> None:
        shown = dict(line.split(" ", 1) for line in seen["masked"].splitlines())
        if not os.path.exists(path):
            assert path not in shown
        else:
            assert shown[path] == ("directory 0" if os.path.isdir(path) else "1:3")
            assert path in mounts

    def test_writes_go_where_they_may(self, seen: dict[str, str]) -> None:
        writable = {"/", "/etc", "/usr/bin", "/tmp", "/run", "/dev", "/dev/shm", "/dev/mqueue"}
        assert set(seen["writes"].split()) == writable

    def test_nothing_in_shm_can_be_executed(self, seen: dict[str, str]) -> None:
        assert seen["exec"].split() == ["/tmp", "/dev"]

    def test_shm_has_64_mib(self, seen: dict[str, str]) -> None:
        blocks, size = map(int, seen["shm"].split())
        assert blocks * size == 64 << 20

    def test_writes_do_not_reach_the_image(self, gocker: Gocker) -> None:
        script = "echo changed > /etc/passwd; rm -r /home; touch /new; chmod 700 /usr/bin; echo x >> /bin/true; cat /etc/passwd"
        first = gocker("run", "base", "sh", "-c", script)
        assert (first.code, first.out) == (0, "changed\n"), first
        second = gocker(
            "run",
            "base",
            "sh",
            "-c",
            "head -c 4 /etc/passwd; ls -d /home; ls -d /new; stat -c %a /usr/bin; true",
        )
        assert (second.code, second.out) == (0, "root/home\n755\n"), second


class TestDevices:
    def test_dev_has_dockers_nodes(self, seen: dict[str, str]) -> None:
        nodes = {}
        for line in seen["dev"].splitlines():
            name, *kind, number, mode, owner = line.split(" ")
            if kind[-2:] == ["special", "file"]:
                major, minor = (int(part, 16) for part in number.split(":"))
                nodes[name] = f"{major}:{minor}"
                assert (kind[0], mode, owner) == ("character", "666", "root:root"), line
        assert nodes == NODES

    def test_dev_has_the_links_and_nothing_else(self, seen: dict[str, str]) -> None:
        assert dict(line.split(" ") for line in seen["devlinks"].splitlines()) == LINKS
        names = {line.split(" ")[0] for line in seen["dev"].splitlines()}
        assert names == {*NODES, *LINKS, "pts", "shm", "mqueue"}


class TestNetwork:
    def test_only_lo_and_it_is_up(self, seen: dict[str, str]) -> None:
        links, flags = seen["links"].split()
        assert links == "lo"
        assert int(flags, 16) & 1

    def test_no_routes_and_no_resolver(self, seen: dict[str, str]) -> None:
        assert len(seen["routes"].splitlines()) <= 1
        assert seen["resolv.conf"] == ""


class TestNames:
    def test_the_hostname_is_the_short_id(self, seen: dict[str, str], ran: Ran) -> None:
        short = ran.report["container"][:12]
        assert seen["hostname"].split() == [short] * 3
        assert short != socket.gethostname()

    def test_hosts_has_itself_and_localhost(self, seen: dict[str, str], ran: Ran) -> None:
        lines = [line.split() for line in seen["hosts"].splitlines()]
        assert ["127.0.0.1", "localhost"] in lines
        assert ran.report["container"][:12] in [name for line in lines for name in line[1:]]


class TestPrivileges:
    def test_root_without_the_hosts_groups(self, seen: dict[str, str]) -> None:
        assert status(seen, "Uid").split() == status(seen, "Gid").split() == ["0"] * 4
        assert status(seen, "Groups") == "0"

    def test_capabilities_are_dockers(self, seen: dict[str, str]) -> None:
        docker = sum(1 << NUMBERS[name] for name in DOCKER_DEFAULT)
        for kind in ("CapPrm", "CapEff", "CapBnd"):
            assert int(status(seen, kind), 16) == docker, kind
        for kind in ("CapInh", "CapAmb"):
            assert int(status(seen, kind), 16) == 0, kind

    def test_no_new_privileges_and_a_filter(self, seen: dict[str, str]) -> None:
        assert (status(seen, "NoNewPrivs"), status(seen, "Seccomp"), status(seen, "Seccomp_filters")) == (
            "1",
            "2",
            "1",
        )

    def test_the_oom_score_is_gockers_own(self, seen: dict[str, str]) -> None:
        with open("/proc/self/oom_score_adj") as file:
            assert seen["oom"] == file.read().strip()


class TestWhatIsPassedOn:
    def test_no_variable_of_the_host(self, seen: dict[str, str], ran: Ran) -> None:
        environ = dict(line.split("=", 1) for line in seen["environ"].splitlines())
        assert environ == {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOSTNAME": ran.report["container"][:12],
            "HOME": "/root",
        }

    def test_no_file_descriptor_but_the_standard_ones(self, seen: dict[str, str]) -> None:
        fds = re.findall(r" (\d+) -> (\S+)", seen["fds"])
        assert [number for number, _ in fds] == ["0", "1", "2"]
        assert fds[0][1] == "/dev/null"
        assert all(target.startswith("pipe:") for _, target in fds[1:])

    def test_nor_one_that_gocker_was_given(self, gocker: Gocker) -> None:
        given = ("sh", "-c", 'exec 3</etc/passwd 4</ 7</proc 9>/dev/null; exec "$@"', "sh")
        for init in ((), ("--init",)):
            ran = gocker("run", *init, "base", "sh", "-c", "ls /proc/$$/fd", under=given)
            assert ran.out.split() == ["0", "1", "2"], ran

    def test_no_signal_is_blocked_or_ignored(self, gocker: Gocker) -> None:
        # Not of a shell: while one waits for a child it may have all of them blocked.
        for init in ((), ("--init",)):
            ran = gocker("run", *init, "base", "grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status")
            found = dict(line.split(":\t") for line in ran.out.splitlines())
            assert found == dict.fromkeys(("SigBlk", "SigIgn"), "0" * 16), ran

    def test_umask_and_directory_are_plain(self, seen: dict[str, str]) -> None:
        assert (seen["umask"], seen["cwd"]) == ("0022", "/")


class TestCgroups:
    def test_its_own_cgroup_is_the_root_of_all(self, seen: dict[str, str]) -> None:
        paths = {line.split(":", 2)[2] for line in seen["cgroup"].splitlines()}
        assert paths == {"/"}

    def test_what_is_mounted_is_its_own(self, gocker: Gocker) -> None:
        # In the host's view the directory holds other containers and the host's own processes too.
        script = "for file in $(find /sys/fs/cgroup -name cgroup.procs); do echo $(cat $file); done"
        ran = gocker("run", "base", "sh", "-c", script)
        lists = [set(line.split()) for line in ran.out.splitlines()]
        assert lists
        assert all("1" in pids and "0" not in pids for pids in lists), ran
