"""SECURITY.md R9, R12, R13 and R15 against a hostile program in a container that asked for nothing special."""

from __future__ import annotations

import json
import os
import re
import stat
import time

import pytest
from command import SLOWNESS, Gocker
from hostile import Image
from probe import probe, python, python_inside
from running import running

from gocker.hierarchy import read_host
from gocker.model import Hierarchy

X86 = os.uname().machine == "x86_64"


class TestR9:
    """Few system calls, no keys, no terminal but its own."""

    CALLS = """
import fcntl, mmap, socket
seen = {
    "keyctl": name(call("keyctl", 0, -3, 0)),
    "add_key": name(call("add_key", b"user", b"x", b"y", 1, -3)),
    "unshare": name(call("unshare", 0)),
    "unshare user": name(call("unshare", 0x10000000)),
    "clone user": name(call("clone", 0x10000000 | 17, 0, 0, 0, 0)),
    "clone3": name(call("clone3", 0, 0)),
    "AF_ALG": attempt(lambda: socket.socket(38, socket.SOCK_SEQPACKET, 0)),
    "AF_VSOCK": attempt(lambda: socket.socket(40, socket.SOCK_STREAM, 0)),
    "TIOCSTI": attempt(lambda: fcntl.ioctl(0, 0x5412, b"x")),
    "TIOCLINUX": attempt(lambda: fcntl.ioctl(0, 0x541C, b"x")),
    # The kernel looks at the low half of the number alone: CVE-2019-10063, CVE-2023-28100.
    "TIOCSTI in 64 bits": name(call(29 if platform.machine() == "aarch64" else 16, 0, 0xDEAD00005412, b"x")),
    "personality": name(call("personality", 0x0400000)),
}
for what in ("bpf", "perf_event_open", "init_module", "kexec_load", "open_by_handle_at", "userfaultfd", "mount", "setns",
             "pivot_root", "io_uring_setup", "syslog", "swapon", "move_mount", "open_tree", "fsopen", "reboot"):
    seen[what] = name(call(what, -1, -1, -1, -1, -1))
if platform.machine() == "x86_64":
    seen["x32 getpid"] = name(call(0x40000000 | 39))
    seen["x32 execve"] = name(call(0x40000000 | 520, 0, 0, 0))
    pid = os.fork()
    if pid == 0:
        page = mmap.mmap(-1, 4096, prot=7)
        page.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20; int 0x80; ret: getpid of i386
        found = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
        os._exit(0 if found > 0 else 1)
    seen["i386"] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(json.dumps(seen))
"""

    def test_the_filter_refuses_what_docker_refuses_and_foreign_abis(self, gocker: Gocker) -> None:
        seen = probe(gocker, self.CALLS)
        refused = {what: answer for what, answer in seen.items() if answer != "EPERM"}
        expected: dict[str, object] = {"clone3": "ENOSYS"}  # libc then uses clone, whose flags can be seen
        if X86:
            expected |= {"x32 getpid": "ENOSYS", "x32 execve": "ENOSYS", "i386": refused.get("i386", 0)}
            assert refused["i386"] != 0, "an i386 system call goes past the filter"
        assert refused == expected

    def test_it_refuses_them_to_root_with_every_capability_too(self, gocker: Gocker) -> None:
        seen = probe(gocker, self.CALLS, "--cap-add", "ALL")
        for what in ("keyctl", "add_key", "AF_ALG", "TIOCSTI", "TIOCLINUX", "TIOCSTI in 64 bits"):
            assert seen[what] == "EPERM", what

    def test_keystrokes_cannot_be_put_into_its_own_terminal(self, gocker: Gocker) -> None:
        # CVE-2016-9962 and many others: without the filter TIOCSTI works on a terminal of one's own.
        source = 'import fcntl\nprint(attempt(lambda: fcntl.ioctl(0, 0x5412, b"x")), attempt(lambda: fcntl.ioctl(0, 0x541C, b"x")))'
        ran = gocker("run", "-t", *python_inside(), "base", *python(source))
        assert ran.out.split() == ["EPERM", "EPERM"], ran

    def test_its_keyring_is_not_the_callers(self, gocker: Gocker) -> None:
        source = """
text = ctypes.create_string_buffer(200)
size = call("keyctl", 6, -3, text, 200)  # KEYCTL_DESCRIBE, KEY_SPEC_SESSION_KEYRING
print(json.dumps(text.value.decode() if size > 0 else name(size)))
"""
        first, second = (probe(gocker, source, "--security-opt", "seccomp=unconfined") for _ in range(2))
        if first == "ENOSYS":
            pytest.skip("this kernel has no keys")
        names = {described.split(";")[-1] for described in (first, second)}
        assert all(re.fullmatch("[0-9a-f]{16}", name) for name in names), (first, second)
        assert len(names) == 2

    def test_a_host_program_cannot_be_set_user_id_by_what_it_leaves(
        self, gocker: Gocker, tmp_path: os.PathLike[str]
    ) -> None:
        # File capabilities and set-user-id on a volume are real on the host; inside they give nothing.
        source = """
import shutil
shutil.copy("/bin/true", "/tmp/probe")
os.setxattr("/tmp/probe", "security.capability", bytes.fromhex("0100000200000020000000000000000000000000"))
with open("/proc/self/status") as file:
    before = [line for line in file if line.startswith("CapBnd")]
pid = os.fork()
if pid == 0:
    os.execv("/tmp/probe", ["probe"])
print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
"""
        # CAP_SYS_ADMIN (bit 21) is not in the bounding set: with no_new_privs the file runs without it.
        assert probe(gocker, source) == 0

    def test_no_capability_comes_back_by_exec(self, gocker: Gocker) -> None:
        ran = gocker("run", "--cap-drop", "ALL", "base", "sh", "-c", "sh -c 'grep ^Cap /proc/self/status'")
        assert {line.split()[1] for line in ran.out.splitlines()} == {"0" * 16}, ran

    @pytest.mark.parametrize("user", ["0", "1000"])
    def test_capabilities_that_gocker_was_started_with_are_not_passed_on(
        self, gocker: Gocker, user: str
    ) -> None:
        # CVE-2022-29162: inheritable ones come back by a file's, ambient ones by any exec of a user's.
        under = ("setpriv", "--inh-caps", "+chown,+net_admin", "--ambient-caps", "+chown,+net_admin")
        ran = gocker("run", "-u", user, "base", "grep", "^Cap", "/proc/self/status", under=under)
        found = {name: int(value, 16) for name, value in (line.split(":") for line in ran.out.splitlines())}
        assert (found["CapInh"], found["CapAmb"]) == (0, 0), ran
        assert found["CapPrm"] == found["CapEff"] == (0 if user == "1000" else found["CapBnd"])

    def test_a_user_who_is_not_root_gets_none_by_set_user_id(
        self, gocker: Gocker, image_with_suid: Image
    ) -> None:
        ran = gocker("run", "--rootfs", image_with_suid.path, "-u", "1000:1000", "/suid/busybox", "id", "-u")
        assert ran.out == "1000\n", ran


@pytest.fixture
def image_with_suid(tmp_path: os.PathLike[str]) -> Image:
    image = Image(tmp_path)
    with open("/bin/busybox", "rb") as file:
        image.file("suid/busybox", file.read(), 0o4755)
    return image


class TestR12:
    def test_a_hostile_environment_of_gocker_does_not_reach_the_program(self, gocker: Gocker) -> None:
        hostile = {
            "LD_PRELOAD_X": "/x.so",
            "PYTHONPATH_X": "/x",
            "BASH_FUNC_x%%": "() { :;}",
            "HTTP_PROXY": "x",
        }
        ran = gocker("run", "-h", "h", "base", "env", env=hostile)
        assert sorted(line.partition("=")[0] for line in ran.out.splitlines()) == ["HOME", "HOSTNAME", "PATH"]

    def test_nothing_of_the_image_is_expanded(self, gocker: Gocker, tmp_path: os.PathLike[str]) -> None:
        image = Image(tmp_path)
        image.file("etc/passwd", "root:x:0:0::$SECRET${SECRET}`id`:/bin/sh\n")
        ran = gocker("run", "--rootfs", image.path, "/bin/busybox", "env", env={"SECRET": "leaked"})
        assert "HOME=$SECRET${SECRET}`id`\n" in ran.out, ran
        assert "leaked" not in ran.out


class TestR13:
    def test_a_profile_of_more_than_4_mib_is_not_read(
        self, gocker: Gocker, tmp_path: os.PathLike[str]
    ) -> None:
        with open(f"{tmp_path}/profile", "wb") as file:
            file.write(b'{"defaultAction": "SCMP_ACT_ALLOW"' + b" " * (4 << 20) + b"}")
        ran = gocker("run", "--security-opt", f"seccomp={tmp_path}/profile", "base", "true")
        assert (ran.code, "larger than 4 MiB" in ran.err) == (125, True), ran

    def test_a_program_that_names_itself_in_escapes_does_not_write_to_the_terminal(
        self, gocker: Gocker
    ) -> None:
        name = "/\x1b]0;owned\x07\x1b[2J"
        ran = gocker("run", "base", name)
        assert ran.code == 127
        assert "\x1b" not in ran.err
        assert "\x07" not in ran.err
        why = gocker("why", gocker.run("base", name).report["container"])
        assert "\x1b" not in why.out


def openable(kind: int, major: int, minor: int, directory: object) -> bool:
    """Whether this host lets root open that device at all."""
    path = f"{directory}/node"
    os.mknod(path, kind | 0o600, os.makedev(major, minor))
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except OSError:
        return False
    finally:
        os.unlink(path)
    return True


# What a container must not open, and what it is: the first one that this host has is enough.
DEVICES = ((stat.S_IFCHR, 10, 200, "tun"), (stat.S_IFBLK, 7, 0, "loop0"), (stat.S_IFCHR, 1, 1, "mem"),
           (stat.S_IFCHR, 10, 237, "loop-control"), (stat.S_IFCHR, 10, 229, "fuse"))  # fmt: skip


class TestDevices:
    """R15: the allow-list of devices, and nodev where an image or a volume could bring nodes."""

    @pytest.fixture
    def device(self, tmp_path: os.PathLike[str]) -> tuple[int, int, int]:
        for kind, major, minor, _ in DEVICES:
            if openable(kind, major, minor, tmp_path):
                return kind, major, minor
        pytest.skip("this host lets nobody open any device that a container must not")

    @staticmethod
    def mknod(path: str, device: tuple[int, int, int]) -> str:
        kind, major, minor = device
        return f"mknod {path} {'b' if kind == stat.S_IFBLK else 'c'} {major} {minor}"

    @pytest.mark.guest
    def test_a_node_in_dev_can_be_made_and_not_opened(
        self, gocker: Gocker, device: tuple[int, int, int]
    ) -> None:
        script = f"{self.mknod('/dev/x', device)} && echo made; head -c 1 /dev/x; : > /dev/x"
        ran = gocker("run", "base", "sh", "-c", script)
        assert ran.out == "made\n", ran
        assert ran.err.count("Operation not permitted") == 2, ran

    def test_nor_with_every_capability(self, gocker: Gocker, device: tuple[int, int, int]) -> None:
        ran = gocker(
            "run", "--cap-add", "ALL", "base", "sh", "-c", f"{self.mknod('/dev/x', device)}; head -c 1 /dev/x"
        )
        assert "Operation not permitted" in ran.err, ran

    @pytest.mark.parametrize(
        "where",
        [
            pytest.param("/x", marks=pytest.mark.guest),
            "/tmp/x",
            "/v/x",
            "/t/x",
            "/dev/shm/x",
            "/dev/mqueue/../shm/y",
        ],
    )
    def test_elsewhere_no_node_works_at_all(
        self, gocker: Gocker, tmp_path: os.PathLike[str], where: str, device: tuple[int, int, int]
    ) -> None:
        script = f"{self.mknod(where, device)} && head -c 1 {where}; mknod {where}0 c 1 5; head -c 1 {where}0"
        ran = gocker("run", "-v", f"{tmp_path}:/v", "--tmpfs", "/t", "base", "sh", "-c", script)
        assert ran.out == "", ran
        assert ran.err.count("Permission denied") == 2, ran

    @pytest.mark.parametrize("mode", ["", ":rw"])
    @pytest.mark.parametrize("user", ["host", "private"])
    def test_a_node_that_the_image_brings_does_not_work(
        self, gocker: Gocker, tmp_path: os.PathLike[str], mode: str, user: str, device: tuple[int, int, int]
    ) -> None:
        image = Image(tmp_path).node("node", *device).node("zero", stat.S_IFCHR, 1, 5)
        words = ("--rootfs", image.path + mode, "--userns", user)
        ran = gocker(
            "run", *words, "/bin/busybox", "sh", "-c", "busybox head -c 1 /node; busybox head -c 1 /zero"
        )
        assert ran.out == "", ran
        assert ran.err.count("Permission denied") == 2, ran

    @pytest.mark.guest
    def test_a_privileged_container_has_all(self, gocker: Gocker, device: tuple[int, int, int]) -> None:
        ran = gocker(
            "run",
            "--privileged",
            "base",
            "sh",
            "-c",
            f"{self.mknod('/dev/x', device)}; exec 3< /dev/x && echo opened",
        )
        assert ran.out == "opened\n", ran

    def test_the_list_is_the_kernels_while_it_runs(self, gocker: Gocker) -> None:
        place = read_host().find("devices")
        if place is None or place.version is not Hierarchy.V1:
            pytest.skip("no devices hierarchy of cgroup v1 here")
        with running(gocker) as container:
            rules = (container.file("devices", "devices.list") or "").splitlines()
        assert rules[:2] == ["c *:* m", "b *:* m"]
        assert {rule.split()[1] for rule in rules[2:]} == {
            "1:3",
            "1:5",
            "1:7",
            "1:8",
            "1:9",
            "5:0",
            "5:2",
            "136:*",
        }


def alive(pid: str) -> bool:
    """Whether a process runs; a zombie that waits for its new parent does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


class TestCgroups:
    """R15: its cgroups are its own and read-only, and it ends with them."""

    @pytest.mark.guest
    def test_no_file_of_its_cgroups_can_be_written(self, gocker: Gocker) -> None:
        # CVE-2022-0492 begins with release_agent.
        source = """
seen = set()
for directory, folders, files in os.walk("/sys/fs/cgroup"):
    seen.add(attempt(lambda: os.mkdir(f"{directory}/x")))
    for file in files:
        path = f"{directory}/{file}"
        seen.add(attempt(lambda: os.close(os.open(path, os.O_WRONLY))))
        seen.add(attempt(lambda: os.chmod(path, 0o777)))
print(json.dumps(sorted(seen)))
"""
        assert probe(gocker, source) == ["EROFS"]

    def test_a_hierarchy_cannot_be_mounted_anew(self, gocker: Gocker) -> None:
        source = """
os.mkdir("/m")
answers = [name(call("mount", b"x", b"/m", kind, 0, data)) for kind, data in
           ((b"cgroup", b"memory"), (b"cgroup", b"rdma"), (b"cgroup2", None), (b"tmpfs", None), (b"proc", None), (b"sysfs", None))]
answers += [name(call("mount", None, path, None, 0x20 | 0x1000, None)) for path in (b"/sys/fs/cgroup", b"/proc/sys", b"/sys")]
answers += [name(call("umount2", path, 2)) for path in (b"/proc/sys", b"/proc/keys", b"/")]
print(json.dumps(sorted(set(answers))))
"""
        assert probe(gocker, source) == ["EPERM"]

    def test_a_user_namespace_of_its_own_is_refused(self, gocker: Gocker) -> None:
        source = """
answers = [name(call("unshare", flags)) for flags in (0x10000000, 0x10020000, 0x12020000)]
print(json.dumps(answers))
"""
        assert probe(gocker, source) == ["EPERM"] * 3

    @pytest.mark.guest
    def test_nothing_of_it_outlives_it(self, gocker: Gocker, tmp_path: os.PathLike[str]) -> None:
        # With the host's PID namespace no kernel ends what has left the session and ignores signals.
        script = "for i in 1 2 3 4 5; do (trap '' TERM HUP INT; setsid sh -c 'trap \"\" TERM HUP; echo $$ >> /v/pids; sleep 1000; sleep 1000' &) ; done; while [ $(wc -l < /v/pids) -lt 5 ]; do sleep 0.02; done"
        os.mkdir(f"{tmp_path}/v")
        with open(f"{tmp_path}/v/pids", "w"):
            pass
        ran = gocker("run", "--pid", "host", "-v", f"{tmp_path}/v:/v", "base", "sh", "-c", script)
        assert ran.code == 0, ran
        with open(f"{tmp_path}/v/pids") as file:
            pids = file.read().split()
        assert len(pids) == 5
        assert not [pid for pid in pids if alive(pid)]

    def test_a_fork_bomb_ends_with_its_timeout(self, gocker: Gocker) -> None:
        begin = time.monotonic()
        options = ("--limit", "pids=200", "--timeout", str(1.0 * SLOWNESS))
        ran = gocker.run(*options, "base", "sh", "-c", "b() { b | b & }; b; sleep 100")
        assert (ran.code, ran.verdict) == (137, "timeout"), ran.err[-500:]
        assert time.monotonic() - begin < 20 * SLOWNESS

    def test_the_parent_cgroup_is_confined(self, gocker: Gocker) -> None:
        for path in ("..", "/../../x", "a/../../../x"):
            ran = gocker("run", "--cgroup-parent", path, "base", "true")
            assert (ran.code, "has a .. in it" in ran.err) == (125, True), ran
        with running(gocker, parent=f"/gocker-test-{os.getpid()}//./x") as container:
            assert f"/gocker-test-{os.getpid()}/x/gocker/{container.id}" in container.cgroup("memory")
            assert container.processes()
        assert not os.path.exists(os.path.dirname(os.path.dirname(container.cgroup("memory"))))


class TestOutput:
    """What a program says is data."""

    def test_nonsense_in_the_place_of_process_1_keeps_nothing_from_being_removed(
        self, gocker: Gocker
    ) -> None:
        # With CAP_SYS_PTRACE it can take the socket that leads from the stub of --init to gocker.
        source = """
import socket
stolen = call(438, call(434, 1, 0), 3, 0)  # pidfd_getfd, pidfd_open
channel = socket.socket(fileno=stolen)
for packet in (b"garbage!!", b"x", b'{"failed":', b"console", bytes(8), (1).to_bytes(4, sys.byteorder) + bytes(4)):
    channel.send(packet)
sys.exit(5)
"""
        options = ("--init", "--cap-add", "SYS_PTRACE", *python_inside())
        ran = gocker.run(*options, "base", *python(source))
        assert (ran.code, ran.err) == (5, ""), ran
        state = os.environ["GOCKER_STATE"]
        assert os.listdir(f"{state}/containers") == []
        assert gocker("run", "base", "true").err == ""

    def test_a_program_cannot_forge_gockers_own_report(self, gocker: Gocker) -> None:
        forged = json.dumps({"verdict": {"kind": "ok", "code": 0}})
        ran = gocker.run(
            "base",
            "sh",
            "-c",
            f"echo '{forged}' >&2; for fd in 3 4 5 6 7 8 9; do echo x >&$fd; done 2>/dev/null; exit 9",
        )
        assert (ran.code, ran.report["verdict"]["code"]) == (9, 9)
