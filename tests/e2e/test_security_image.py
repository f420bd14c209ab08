"""SECURITY.md R1 to R5, R7, R10 and R14 against the author of an image: what the image holds steers nothing."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import sys

import pytest
from command import SLOWNESS, Gocker
from hostile import Image
from probe import probe, python, python_inside

from gocker.hierarchy import read_host

SYSTEM = ("proc", "sys", "dev")
ROOT = frozenset("bin dev etc home lib lib64 mnt proc root run sbin sys tmp usr var".split())
"""What lies at the top of the image `base`, which tells it from the host."""


@pytest.fixture
def image(tmp_path: os.PathLike[str]) -> Image:
    return Image(tmp_path)


def elf(interpreter: str) -> bytes:
    """An executable of this machine that only asks for its interpreter, elf(5)."""
    machine = 183 if os.uname().machine == "aarch64" else 62
    name = interpreter.encode() + b"\0"
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, machine, 1, 0x400000, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )
    offset = 64 + 2 * 56
    interp = struct.pack("<IIQQQQQQ", 3, 4, offset, 0x400000 + offset, 0, len(name), len(name), 1)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0, offset + len(name), offset + len(name), 0x1000)
    return header + interp + load + name


class TestR1:
    """The host's interpreter is never reachable."""

    @pytest.fixture(autouse=True)
    def interpreter(self) -> object:
        path = os.path.realpath(sys.executable)

        def digest() -> str:
            with open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()

        before = digest()
        yield path
        assert digest() == before, f"{path} was changed"

    @pytest.mark.parametrize("where", ["/proc/self/exe", "/proc/1/exe", "/proc/thread-self/exe", "/bin/link"])
    def test_a_link_to_its_own_exe_is_not_run(self, gocker: Gocker, image: Image, where: str) -> None:
        image.link("bin/link", "../proc/self/exe").link("bin/program", where)
        ran = gocker("run", "--rootfs", image.path, "/bin/program")
        assert (ran.code, ran.out) == (126, ""), ran
        assert "ELOOP" in ran.err
        assert "a link of /proc to gocker's own program" in ran.err

    @pytest.mark.parametrize("entry", ["script", "elf", "script by a link", "script of a script"])
    def test_a_program_whose_interpreter_is_its_own_exe_is_not_run(
        self, gocker: Gocker, image: Image, entry: str
    ) -> None:
        image.link("bin/link", "/proc/self/exe").file("bin/inner", "#!/proc/self/exe\n")
        texts: dict[str, str | bytes] = {
            "script": "#!/proc/self/exe\n",
            "elf": elf("/proc/self/exe"),
            "script by a link": "#! /bin/link x\n",
            "script of a script": "#!/bin/inner\n",
        }
        image.file("bin/program", texts[entry])
        ran = gocker("run", "--rootfs", image.path, "/bin/program", timeout=10)
        assert (ran.code, ran.out) == (126, ""), ran
        assert "ELOOP" in ran.err

    def test_the_elf_of_these_tests_would_run(self, gocker: Gocker, image: Image) -> None:
        """It is the interpreter that is refused, not the file: busybox gets the name as its own argument."""
        image.file("bin/program", elf("/bin/busybox"))
        ran = gocker("run", "--rootfs", image.path, "/bin/program")
        assert "ELOOP" not in ran.err

    def test_the_last_hop_is_a_small_sealed_file(self, gocker: Gocker) -> None:
        # By --init it stays as process 1; with CAP_SYS_PTRACE the program may look at it.
        source = """
import fcntl
fd = os.open("/proc/1/exe", os.O_RDONLY)
size, seals = os.fstat(fd).st_size, fcntl.fcntl(fd, 1034)  # F_GET_SEALS
changes = {
    "open": attempt(lambda: os.open("/proc/1/exe", os.O_RDWR)),
    "truncate": attempt(lambda: os.truncate("/proc/1/exe", 0)),
    "reopen": attempt(lambda: os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)),
}
print(json.dumps([os.readlink("/proc/1/exe"), size, seals, changes]))
"""
        name, size, seals, changes = probe(gocker, source, "--init", "--cap-add", "SYS_PTRACE")
        assert "memfd:" in name
        assert size < 64 << 10, "it is an interpreter"
        assert seals & 0xF == 0xF, "F_SEAL_SEAL, SHRINK, GROW, WRITE: fcntl(2)"
        assert "ok" not in changes.values()

    def test_a_payload_that_runs_the_last_hop_gets_nowhere(self, gocker: Gocker) -> None:
        source = """
pid = os.fork()
if pid == 0:
    os.execve("/proc/1/exe", ["/proc/1/exe", "/bin/sh", "-c", "echo run"], {})
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
        assert probe(gocker, source, "--init", "--cap-add", "SYS_PTRACE") == 126


class TestR2:
    """No path is followed out of the root."""

    @pytest.mark.parametrize("name", SYSTEM)
    @pytest.mark.parametrize("target", ["/outside", "../../../../../../../../..", "/nosuch"])
    def test_a_link_in_the_place_of_a_system_directory_is_not_followed(
        self, gocker: Gocker, image: Image, name: str, target: str
    ) -> None:
        where = target if target != "/outside" else image.outside
        ran = image.link(name, where).run(gocker, "echo ran")
        assert (ran.code, ran.out) == (125, ""), ran
        assert f"/{name}" in ran.err
        assert "it must be mounted on ordinary directory" in ran.err
        assert image.untouched()

    @pytest.mark.parametrize("name", SYSTEM)
    def test_a_file_there_is_an_error(self, gocker: Gocker, image: Image, name: str) -> None:
        ran = image.file(name, "").run(gocker, "echo ran")
        assert (ran.code, ran.out) == (125, ""), ran
        assert "it must be mounted on ordinary directory" in ran.err

    @pytest.mark.parametrize(
        "name", ["dev/pts", "dev/shm", "dev/mqueue", "dev/null", "sys/fs/cgroup", "proc/sys"]
    )
    def test_what_lies_below_one_is_covered(self, gocker: Gocker, image: Image, name: str) -> None:
        ran = image.link(name, image.outside).run(gocker, f"ls -ld /{name}; touch /dev/shm/x /dev/mqueue/x")
        assert (ran.code, ran.out[:1] in {"d", "c"}) == (0, True), ran
        assert image.untouched()

    @pytest.mark.parametrize("name", ["etc", "etc/hosts", "etc/hostname", "etc/resolv.conf"])
    def test_a_link_in_the_place_of_etc_stays_inside(self, gocker: Gocker, image: Image, name: str) -> None:
        for target in (image.outside, "../../../../../../../.." + image.outside, "/bin"):
            ran = image.link(name, target).run(
                gocker, "cat /etc/hostname; echo x >> /etc/hosts; echo y > /etc/resolv.conf"
            )
            assert ran.code in {0, 125}, ran
            assert "secret" not in ran.out
            assert image.untouched()

    def test_a_link_in_the_place_of_etc_hosts_is_covered(self, gocker: Gocker, image: Image) -> None:
        image.link("etc/hosts", f"{image.outside}/secret").link("etc/hostname", "/proc/1/environ")
        ran = image.run(gocker, "cat /etc/hostname /etc/hosts", "-h", "mine")
        assert ran.out.startswith("mine\n127.0.0.1"), ran

    @pytest.mark.parametrize("target", ["/", "/bin", "/dir"])
    def test_a_volume_that_meets_a_link_lands_inside(self, gocker: Gocker, image: Image, target: str) -> None:
        os.makedirs(f"{image.path}/dir")
        image.link("up", "../../../../../../../..").link("abs", target)
        volume = f"{image.outside}:/up/dir/../dir/v"
        ran = image.run(gocker, "cat /dir/v/secret", "-v", f"{volume}:ro")
        assert ran.out == "secret\n", ran
        ran = image.run(gocker, "ls /dir /bin", "--tmpfs", "/abs/new")
        assert (ran.code, "new" in ran.out or target == "/") == (0, True), ran
        assert sorted(os.listdir(image.path)) == ["abs", "bin", "dir", "etc", "up"]

    @pytest.mark.parametrize(
        "target", ["/proc", "/proc/self", "/proc/sys", "/proc/self/fd", "/proc/1/root", "/", "/../.."]
    )
    def test_a_volume_that_a_link_leads_to_proc_or_the_root_is_refused(
        self, gocker: Gocker, image: Image, target: str
    ) -> None:
        # CVE-2019-19921, CVE-2023-27561: a mount on /proc makes later writes there harmless.
        ran = image.link("link", target).run(gocker, "echo ran", "-v", f"{image.outside}:/link")
        assert (ran.code, ran.out) == (125, ""), ran
        assert image.untouched()

    @pytest.mark.parametrize("path", ["/link", "/link/self/root", "/dir/../link/1/cwd"])
    def test_a_working_directory_that_a_magic_link_leads_to_is_refused(
        self, gocker: Gocker, image: Image, path: str
    ) -> None:
        os.mkdir(f"{image.path}/dir")
        target = "/proc/self/cwd" if path == "/link" else "/proc"
        ran = image.link("link", target).run(gocker, "pwd", "-w", path)
        assert (ran.code, ran.out, "ELOOP" in ran.err) == (125, "", True), ran


class TestR3:
    """Masks are the real null device, whatever the image has there."""

    @pytest.mark.parametrize("how", ["file", "link", "zero", "volume"])
    def test_masks_are_made_of_the_null_device(
        self, gocker: Gocker, image: Image, how: str, tmp_path: os.PathLike[str]
    ) -> None:
        # CVE-2025-31133: /dev/null as a link to /proc/sys/kernel/core_pattern.
        options: tuple[str, ...] = ()
        if how == "file":
            image.file("dev/null", "x")
        elif how == "link":
            image.link("dev/null", "/proc/sys/kernel/core_pattern")
        elif how == "zero":
            image.node("dev/null", stat.S_IFCHR, 1, 5)
        else:
            os.mkdir(f"{tmp_path}/dev")
            os.symlink("/proc/sys/kernel/core_pattern", f"{tmp_path}/dev/null")
            options = ("-v", f"{tmp_path}/dev:/dev")
        ran = image.run(
            gocker,
            "stat -c %t:%T /proc/timer_list /proc/keys; [ -w /proc/sys/kernel/core_pattern ] && echo x > /proc/sys/kernel/core_pattern",
            *options,
        )
        assert ran.out.split() == ["1:3", "1:3"], ran
        assert "Read-only file system" in ran.err or "can't create" in ran.err or ran.code == 1


class TestR4:
    """No fd and no directory of the host is within reach."""

    @pytest.mark.parametrize(
        "pattern", ["/proc/self/fd/{}", "/proc/1/fd/{}", "/proc/thread-self/fd/{}", "/link/{}", "/dev/fd/{}"]
    )
    def test_a_working_directory_by_fd_is_refused(self, gocker: Gocker, image: Image, pattern: str) -> None:
        # CVE-2024-21626: gocker's own fds are open while the directory is entered.
        image.link("link", "/proc/self/fd")
        numbers = range(3, 16) if pattern == "/proc/self/fd/{}" else (7,)
        for number in numbers:
            ran = image.run(gocker, "cat ../../../../../../etc/hostname; pwd", "-w", pattern.format(number))
            assert (ran.code, ran.out) == (125, ""), (number, ran)

    def test_the_working_directory_lies_below_the_root(self, gocker: Gocker, image: Image) -> None:
        ran = image.run(gocker, "pwd -P; readlink /proc/self/cwd; cd ..; pwd -P", "-w", "/a")
        assert ran.out.split() == ["/a", "/a", "/"], ran

    def test_no_fd_leads_out(self, gocker: Gocker, image: Image) -> None:
        ran = image.run(
            gocker,
            "ls -l /proc/self/fd/; for pid in 1 self; do ls /proc/$pid/fd/3 /proc/$pid/fd/4 2>&1; done",
        )
        assert "->" in ran.out
        targets = [line.rpartition(" -> ")[2] for line in ran.out.splitlines() if "->" in line]
        assert all(target.startswith(("pipe:", "/dev/null", "/proc/")) for target in targets), ran


class TestR5:
    """/proc and the terminal are the container's own."""

    def test_proc_is_a_procfs_however_it_looks_in_the_image(self, gocker: Gocker, image: Image) -> None:
        # CVE-2019-16884, CVE-2025-52881: a fake /proc takes the writes of attributes and sysctls.
        image.file("proc/self/attr/exec", "").file("proc/sys/net/ipv4/ip_default_ttl", "64").file(
            "proc/sys/kernel/hostname", ""
        )
        ran = image.run(
            gocker,
            "stat -f -c %t /proc; cat /proc/sys/net/ipv4/ip_default_ttl",
            "--sysctl",
            "net.ipv4.ip_default_ttl=33",
        )
        assert ran.out.split() == ["9fa0", "33"], ran
        with open(f"{image.path}/proc/sys/net/ipv4/ip_default_ttl") as file:
            assert file.read() == "64"

    def test_the_terminal_is_of_its_own_devpts(self, gocker: Gocker, image: Image) -> None:
        # CVE-2025-52565: /dev/console and /dev/pts/0 as links.
        secret = f"{image.outside}/secret"
        image.link("dev/console", secret).link("dev/pts/0", secret).link("dev/ptmx", secret).link(
            "dev/tty", secret
        )
        ran = image.run(
            gocker,
            "stat -f -c %t /dev/console /dev/pts/0; stat -c %t /dev/console; echo x > /dev/console",
            "-t",
        )
        assert ran.out.split() == ["1cd1", "1cd1", "88", "x"], ran
        assert image.untouched()


class TestR7:
    """After the root has changed nothing is loaded any more."""

    SCENES = (
        ("plain", (), "true", 0),
        ("a user by name", ("-u", "who", "--group-add", "them"), "true", 0),
        ("a terminal", ("-t",), "true", 0),
        ("process 1", ("--init",), "true", 0),
        ("bytes", ("-e", "A=\udcff", "-h", "x", "-w", "/\udcff"), "true", 0),
        ("a program that is missing", (), "/n\udcffsuch", 127),
        ("a user that is missing", ("-u", "n\u00fcsuch"), "true", 125),
        ("a directory that cannot be entered", ("-w", "/bin/sh"), "true", 125),
        ("a user namespace", ("--userns", "private"), "true", 0),
    )  # fmt: skip

    @pytest.mark.parametrize("scene", SCENES, ids=[scene[0] for scene in SCENES])
    def test_no_module_of_the_image_is_imported(
        self, gocker: Gocker, image: Image, scene: tuple[str, tuple[str, ...], str, int]
    ) -> None:
        # CVE-2019-14271. The traps lie wherever Python would look for a module.
        _, options, program, code = scene
        image.file("etc/passwd", "root:x:0:0::/:/bin/sh\nwho:x:5:6::/:\n").file("etc/group", "them:x:7:who\n")
        trap = b"open('/trap/sprung', 'a').write(__name__ + '\\n')\n"
        paths = [path for path in sys.path if os.path.isdir(path)]
        names = [
            name
            for name in sys.stdlib_module_names
            if not name.startswith("_") or name in {"_strptime", "_pydecimal"}
        ]
        for directory in paths:
            os.makedirs(f"{image.path}{directory}", exist_ok=True)
            for name in (*names, "click", "structlog", "sitecustomize"):
                with open(f"{image.path}{directory}/{name}.py", "wb") as file:
                    file.write(trap)
            for name in ("encodings", "gocker"):
                image.file(f"{directory.lstrip('/')}/{name}/__init__.py", trap)
                for module in ("idna", "utf_8", "ascii", "charmap", "errors", "launcher"):
                    image.file(f"{directory.lstrip('/')}/{name}/{module}.py", trap)
        # Whoever opens a fifo waits for ever: files of the C library for names, time, locale and codecs.
        for name in ("etc/nsswitch.conf", "etc/localtime", "etc/ld.so.cache", "etc/ld.so.preload",
                     "usr/lib/locale/locale-archive", "usr/share/locale/locale.alias", "etc/gai.conf"):  # fmt: skip
            image.node(name, stat.S_IFIFO)
        os.mkdir(f"{image.outside}/../trap")
        os.chmod(f"{image.outside}/../trap", 0o777)
        words = ("-v", f"{image.outside}/../trap:/trap", *options, "--rootfs", image.path)
        ran = gocker(
            "run", *words, *(("/bin/busybox", "true") if program == "true" else (program,)), timeout=15
        )
        assert ran.code == code, ran
        assert os.listdir(f"{image.outside}/../trap") == []


PASSWD = {
    "the id that means none": "evil:x:4294967295:0::/:\n",
    "one more than there are": "evil:x:4294967296:0::/:\n",
    "a negative id": "evil:x:-1:0::/:\n",
    "an empty id": "evil:x::0::/:\n",
    "a hexadecimal id": "evil:x:0x0:0::/:\n",
    "an id with a space": "evil:x: 0:0::/:\n",
    "an id with an underscore": "evil:x:1_0:0::/:\n",
    "a group that means none": "evil:x:5:4294967295::/:\n",
    "too few fields": "evil:x:0\n",
    "too many fields": "evil:x:0:0::/:::\n",
    "a NUL": "evil\0:x:0:0::/:\n",
    "thousands of digits": f"evil:x:{'9' * 5000}:0::/:\n",
}


DATABASES = {
    "fifo": ("not a regular file",),
    "directory": ("not a regular file",),
    "device": ("not a regular file", "Permission denied"),  # nodev comes first
    "socket": ("not a regular file", "No such device"),
    "link": ("a symbolic link",),
    "magic link": ("a symbolic link",),
    "huge": ("larger than 10 MiB",),
}


class TestR10:
    """Ids are numbers within bounds, and the image's files about them are just files."""

    @pytest.mark.parametrize("case", PASSWD)
    def test_a_line_that_makes_no_sense_names_nobody(self, gocker: Gocker, image: Image, case: str) -> None:
        ran = image.file("etc/passwd", PASSWD[case]).run(gocker, "id -u", "-u", "evil")
        assert (ran.code, ran.out) == (125, ""), ran
        assert "not in the container's /etc/passwd" in ran.err

    def test_a_user_is_not_root_by_accident(self, gocker: Gocker, image: Image) -> None:
        # CVE-2024-40635: an id that wraps round to 0.
        for user in (
            "4294967296",
            "4294967295",
            "-1",
            "0x0",
            "00000000000000000000000",
            "18446744073709551616",
        ):
            ran = image.run(gocker, "id -u", "-u", user)
            assert (ran.code, ran.out) == (125, ""), (user, ran)

    def test_a_group_that_makes_no_sense_is_none(self, gocker: Gocker, image: Image) -> None:
        image.file("etc/passwd", "who:x:5:6::/:\n")
        image.file("etc/group", "evil:x:4294967295:who\nbad:x:-1:who\nodd:x:1:2:who\nfine:x:9:who\n")
        ran = image.run(gocker, "grep Groups /proc/self/status", "-u", "who")
        assert ran.out.split() == ["Groups:", "6", "9"], ran
        for group in ("evil", "bad", "odd"):
            assert image.run(gocker, "true", "-u", f"0:{group}").code == 125

    @pytest.mark.parametrize("name", ["passwd", "group"])
    @pytest.mark.parametrize("kind", DATABASES)
    def test_a_database_that_is_no_plain_file_is_an_error_at_once(
        self, gocker: Gocker, image: Image, name: str, kind: str
    ) -> None:
        path, real = f"etc/{name}", f"etc/real-{name}"
        text = "who:x:0:0::/:\n" if name == "passwd" else "them:x:0:\n"
        image.file(real, text)  # what would be found by whoever follows, waits or reads on
        if kind == "link":
            image.link(path, f"/{real}")
        elif kind == "magic link":
            image.link(path, "/proc/self/fd/0")
        elif kind == "directory":
            image.file(f"{path}.d/x", "").link(path, "x")
            os.unlink(f"{image.path}/{path}")
            os.rename(f"{image.path}/{path}.d", f"{image.path}/{path}")
        elif kind == "huge":
            image.file(path, text)
            os.truncate(f"{image.path}/{path}", (10 << 20) + 1)
        else:
            kinds = {"fifo": stat.S_IFIFO, "device": stat.S_IFCHR, "socket": stat.S_IFSOCK}
            image.node(path, kinds[kind], 1, 5)
        user = "who" if name == "passwd" else "0:them"
        ran = image.run(gocker, "id", "-u", user, timeout=10)
        assert (ran.code, ran.out) == (125, ""), ran
        assert ran.err.count("\n") == 1
        assert any(reason in ran.err for reason in DATABASES[kind]), ran.err
        if kind in {"link", "fifo"}:  # numbers need no database; id(1) would open it
            assert image.run(gocker, "echo ran", "-u", "7:8", timeout=10).out == "ran\n"

    def test_the_databases_are_the_containers_and_not_the_hosts(self, gocker: Gocker, image: Image) -> None:
        image.file("etc/passwd", "root:x:99:98::/:\n")
        assert image.run(gocker, "busybox id -u; busybox id -g", "-u", "root").out.split() == ["99", "98"]


class TestR14:
    """The old root is gone, not only out of sight: tried with every capability."""

    def test_a_chroot_that_one_climbs_out_of_ends_at_the_containers_root(self, gocker: Gocker) -> None:
        # chroot(2): a directory that lies outside of a new root can be climbed up from. CAP_SYS_CHROOT
        # is among docker's capabilities.
        source = """
os.mkdir("/d")
os.chroot("/d")
for _ in range(100):
    os.chdir("..")
os.chroot(".")
print(json.dumps([sorted(os.listdir("/")), os.path.exists("/d")]))
"""
        names, own = probe(gocker, source)
        assert own
        assert set(names) <= {*ROOT, "d"}

    def test_no_mount_travels_to_the_host(
        self, gocker: Gocker, image: Image, tmp_path: os.PathLike[str]
    ) -> None:
        # Where the host's mounts are shared, as systemd has them, what gocker mounts would show in all
        # other namespaces of the host: seen here from one of our own.
        os.mkfifo(f"{image.outside}/go")
        script = """
set -e
mount --make-rshared /
cat /proc/self/mountinfo > $0.before
"$@" &
while [ ! -e $0/up ]; do sleep 0.02; done
cat /proc/self/mountinfo > $0.during
echo > $0/go
wait $!
cat /proc/self/mountinfo > $0.after
"""
        words = (
            "-v",
            f"{image.outside}:/v",
            "--tmpfs",
            "/t",
            "--rootfs",
            image.path,
            "/bin/busybox",
            "sh",
            "-c",
        )
        ran = gocker(
            "run",
            *words,
            "echo > /v/up; read line < /v/go",
            under=("unshare", "-m", "sh", "-c", script, image.outside),
        )
        assert ran.code == 0, ran
        seen = []
        for moment in ("before", "during", "after"):
            with open(f"{image.outside}.{moment}") as file:
                seen.append(file.read())
        assert seen[0] == seen[1] == seen[2]

    def test_the_hosts_root_does_not_lie_below_it(self, gocker: Gocker, image: Image) -> None:
        # setns(2) to its own mount namespace puts a process at the top of that: the host's root, if
        # the new root had only been put over it. With pivot_root it is what the kernel booted with.
        source = f"""
namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY)
os.listdir("/")  # what that imports is in the root that goes
answers = [name(call("umount2", b"/", 2)), name(call("setns", namespace, 0x20000))]  # MNT_DETACH, CLONE_NEWNS
print(json.dumps([answers, os.listdir("/"), os.path.exists({image.outside + "/secret"!r})]))
"""
        answers, names, seen = probe(gocker, source, "--privileged")
        assert answers == ["ok", "ok"]
        assert not seen, names

    def test_the_first_process_keeps_its_links_closed_until_it_is_the_program(
        self, gocker: Gocker, image: Image
    ) -> None:
        # CVE-2016-9962. A container whose PID namespace another one joins looks for gocker's interpreter
        # there. Once the capabilities are dropped only undumpable stands in the way; for longer than
        # usual, since the program is looked for in many directories.
        source = """
import time
print("up", flush=True)
seen, end = set(), time.monotonic() + 60
while not os.path.exists("/done/done") and time.monotonic() < end:
    for pid in os.listdir("/proc"):
        if pid.isdigit() and pid != "1":
            for link in ("exe", "root", "cwd"):
                try:
                    seen.add(os.readlink(f"/proc/{pid}/{link}"))
                except OSError as error:
                    seen.add(errno.errorcode[error.errno])
print(json.dumps(sorted(seen)))
"""
        options = ("--cidfile", f"{image.outside}/cid", "-v", f"{image.outside}:/done:ro")
        process = gocker.start("run", *options, *python_inside(), "base", *python(source))
        try:
            assert process.stdout
            assert process.stdout.readline() == b"up\n"
            with open(f"{image.outside}/cid") as file:
                place = read_host().require("pids").directory(f"/gocker/{file.read()}")
            with open(f"{place}/cgroup.procs") as file:
                first = file.read().split()[0]
            path = ":".join(f"/{number}" for number in range(5000)) + ":/bin"
            for _ in range(3):
                joined = ("--pid", f"ns:/proc/{first}/ns/pid", "-e", f"PATH={path}", "--rootfs", image.path)
                assert gocker("run", *joined, "busybox", "sleep", "0.1").code == 0
        finally:
            with open(f"{image.outside}/done", "w"):
                pass
            out, _ = process.communicate(timeout=60 * SLOWNESS)
        seen = set(json.loads(out))
        assert "EACCES" in seen, "the first process was not met"
        assert seen <= {"EACCES", "ENOENT", "ESRCH", "/bin/busybox", "/", "/memfd:gocker (deleted)"}
