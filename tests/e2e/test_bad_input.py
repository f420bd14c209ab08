"""What makes no sense or cannot be had: one line that says what, why and what to do, and nothing left."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

import pytest
from command import Gocker, Ran
from running import running

BIG = "9" * 5000  # int() refuses as many digits


def refused(ran: Ran, *words: str, code: int = 125) -> str:
    """The one line of the error, which has all `words`; conftest looks for what is left behind."""
    assert ran.code == code, ran
    assert ran.out == ""
    assert ran.err.count("\n") == 1, ran.err
    assert ran.err.startswith("gocker: ")
    assert len(ran.err) < 12_000, "the error repeats its input without end"
    assert "Traceback" not in ran.err
    assert all(char.isprintable() for char in ran.err.rstrip("\n")), repr(ran.err)
    missing = [word for word in words if word not in ran.err]
    assert not missing, f"{missing} not in {ran.err!r}"
    return ran.err


LIMITS: dict[str, tuple[str, ...]] = {
    "memory=0": ("set limit memory=0", "minimum of 6m", "(leave memory out for none)"),
    "memory=-1": ("set limit memory=-1", "not a size", "(leave memory out for none)"),
    "memory=5m": ("set limit memory=5m", "minimum of 6m"),
    "memory=100q": ("set limit memory=100q", "unknown unit 'q'", "(use b, k, m, g or t)"),
    "memory=99999999999g": ("set limit memory=99999999999g", "maximum of 9223372036854775807"),
    "memory": ("parse limit memory", "not NAME[.KEY]=VALUE", "(for example memory=100m)"),
    "memory.nosuch=1": (
        "set limit memory.nosuch=1",
        "memory takes memory, memory.",
        "memory.reservation, memory.swap",
    ),
    "memory.swap=1g": ("set limit memory.swap=1g", "means nothing without memory", "(add memory="),
    "nosuch=1": ("find controller plug-in nosuch", "installed: blkio, ", "(pip install gocker-nosuch"),
    "devices=1": ("set limit devices=1", "devices takes devices.allow"),
    "cpuacct=1": ("set limit cpuacct=1", "cpuacct takes no limit"),
    "cpuset=99": ("echo 99 >", "cpuset.cpus", "(only CPUs in /sys/devices/system/cpu/online"),
    "cpuset=0-99": ("echo 0-99 >", "cpuset.cpus", "(only CPUs in"),
    "cpuset.mems=9": ("echo 9 >", "cpuset.mems", "(only nodes in /sys/devices/system/node"),
    f"pids={BIG}": ("set limit pids=999", "not in 1 to 4194304"),
}


GUEST = (
    "memory=0",
    "memory=-1",
    "memory=100q",
    "memory=99999999999g",
    "nosuch=1",
    "cpuset=99",
    "cpuset.mems=9",
)


@pytest.mark.parametrize(
    "limit",
    [
        pytest.param(limit, marks=[pytest.mark.guest] if limit in GUEST else [], id=limit[:24])
        for limit in LIMITS
    ],
)
def test_a_limit_that_cannot_be(gocker: Gocker, limit: str) -> None:
    refused(gocker("run", "--limit", limit, "base", "true"), *LIMITS[limit])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("--limit", "memory=100m", "--limit", "memory=200m"),
            ("asked twice, as 100m and as 200m", "(ask once)"),
        ),
        (("-m", "100m", "--limit", "memory=200m"), ("memory: asked twice", "(ask once)")),
        (("-m", "5m"), ("set limit memory=5m", "minimum of 6m")),
        (
            ("-m", "100m", "--memory-swap", "50m"),
            ("memory.swap=50m: below the memory limit", "(it is the sum"),
        ),
        (
            ("-m", "100m", "--memory-reservation", "200m"),
            ("memory.reservation=200m: above the memory limit",),
        ),
    ],
)
def test_limits_that_contradict_one_another(
    gocker: Gocker, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(gocker("run", *options, "base", "true"), *words)


def test_the_same_limit_twice_is_no_contradiction(gocker: Gocker) -> None:
    assert gocker("run", "-m", "100m", "--limit", "memory=100m", "base", "true").code == 0


class TestImages:
    @pytest.mark.parametrize(
        "name",
        [
            pytest.param("nosuch", marks=pytest.mark.guest),
            "../../etc",
            "",
            "base:latest",
            "/etc",
            "BASE",
            "a" * 300,
        ],
    )
    def test_an_image_that_is_not_there(self, gocker: Gocker, name: str) -> None:
        refused(
            gocker("run", name, "true"),
            f"find image {name}".rstrip(),
            "which has base",
            "(use the image base",
        )

    def test_none_at_all(self, gocker: Gocker) -> None:
        refused(gocker("run"), "no image was given", "(gocker run base COMMAND")

    def test_no_command(self, gocker: Gocker) -> None:
        refused(gocker("run", "base"), "run base: no command was given", "(gocker run base COMMAND)")

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("/nosuch", "ENOENT"),
            ("/etc/passwd", "ENOTDIR"),
            ("", "no directory is named"),
            ("/", "the host's own root"),
        ],
    )
    def test_a_rootfs_that_is_none(self, gocker: Gocker, path: str, reason: str) -> None:
        refused(
            gocker("run", "--rootfs", path, "true"), f"use rootfs {path}", reason, "(give the directory of"
        )

    @pytest.mark.guest
    def test_a_rootfs_that_cannot_be_read(self, gocker: Gocker, tmp_path: os.PathLike[str]) -> None:
        # Root reads everything, unless it lacks CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.
        locked = f"{tmp_path}/locked"
        os.mkdir(locked)
        os.chown(locked, 1000, 1000)
        os.chmod(locked, 0o700)
        weak = ("--bounding-set", "-dac_override,-dac_read_search")
        for path in (locked, f"{locked}/below"):
            ran = gocker("run", "--rootfs", path, "true", under=("setpriv", *weak))
            refused(ran, f"use rootfs {path}: EACCES", "(give the directory of")

    def test_a_rootfs_without_the_program(self, gocker: Gocker, tmp_path: os.PathLike[str]) -> None:
        ran = gocker("run", "--rootfs", str(tmp_path), "true")
        refused(ran, "exec true: ENOENT: not found in PATH=/usr/local/sbin:", code=127)
        assert os.listdir(tmp_path) == []


def test_a_script_whose_interpreter_is_missing_names_it(gocker: Gocker, tmp_path: os.PathLike[str]) -> None:
    for text, words in (
        ("#!/bin/nosuch\n", ("'/bin/nosuch'",)),
        ("#!/bin/sh\r\n", ("'/bin/sh\\r'", "(the script has DOS")),
    ):
        with open(f"{tmp_path}/script", "w") as file:
            file.write(text)
        os.chmod(f"{tmp_path}/script", 0o755)
        ran = gocker("run", "-v", f"{tmp_path}:/x", "base", "/x/script")
        refused(ran, "exec /x/script: its interpreter", *words, code=127)


COMMAND_LINE: dict[tuple[str, ...], tuple[str, ...]] = {
    ("--nosuch",): ("run: no such option", "--nosuch", "(see gocker run --help)"),
    ("--monotonic", "x"): ("run: ", "--monotonic", "(see gocker run --help)"),
    ("--timeout", "nan"): ("set --timeout nan", "number of seconds above 0"),
    ("--name", "../x"): ("name container ../x", "(letters, digits and _.+-"),
    ("--hostname", "a\n1.2.3.4 evil"): ("set hostname 'a\\n1.2.3.4 evil'", "(letters, digits, - _ and .)"),
    ("--hostname", "x", "--uts", "host"): ("set hostname x", "(--uts private)"),
    ("--stop-signal", "FOO"): ("set --stop-signal FOO", "no such signal", "(SIGTERM, TERM or 15)"),
    ("-w", "relative"): ("set working directory relative", "(begin it with a /)"),
    ("-w", "/etc/passwd"): ("/etc/passwd", "ENOTDIR"),
    ("--cap-add", "NOSUCH"): ("parse capability NOSUCH", "(capsh --print"),
    ("--network", "bridge"): ("set --network bridge", "none, host or ns:PATH"),
    ("--uts", "ns:/nosuch"): ("/nosuch", "ENOENT"),
    ("--uts", "ns:/etc/passwd"): ("/etc/passwd", "EINVAL"),
    ("--uts", "ns:/proc/self/ns/net"): ("/proc/self/ns/net", "EINVAL"),
    ("--cgroup-parent", "../../x"): ("set --cgroup-parent ../../x", "(a path such as"),
    ("-t", "-i"): ("attach terminal stdin: not a terminal", "(leave out -t"),
}


@pytest.mark.parametrize("options", COMMAND_LINE, ids=lambda words: " ".join(words)[:32])
def test_an_option_that_makes_no_sense(gocker: Gocker, options: tuple[str, ...]) -> None:
    refused(gocker("run", *options, "base", "true", input=""), *COMMAND_LINE[options])


def test_an_unknown_command(gocker: Gocker) -> None:
    refused(gocker("frobnicate"), "no such command", "frobnicate", "(see gocker --help)")


USERS: dict[str, tuple[str, ...]] = {
    "nosuch": ("nosuch", "not in the container's /etc/passwd", "(give numbers: --user UID:GID)"),
    "0:nosuch": ("nosuch", "not in the container's /etc/group", "(give its number)"),
    "4294967295": ("4294967295", "not from 0 to 4294967294"),
    "-1": ("-1", "not from 0 to 4294967294"),
    "0x0": ("0x0", "not in the container's /etc/passwd"),
}


@pytest.mark.parametrize("user", USERS, ids=lambda text: text[:12])
def test_a_user_that_cannot_be(gocker: Gocker, user: str) -> None:
    refused(gocker("run", "-u", user, "base", "true"), *USERS[user])


def test_a_group_that_cannot_be(gocker: Gocker) -> None:
    refused(
        gocker("run", "--group-add", "nosuch", "base", "true"), "nosuch", "/etc/group", "(give its number)"
    )


MAPS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("a:b:c",): ("set --uidmap a:b:c", "INSIDE:OUTSIDE:COUNT"),
    ("1:100000:10",): ("map uids 1:100000:10", "id 0 of the container is not mapped"),
    ("0:100000:10", "20:100005:10"): ("map uids", "id 100005 outside is mapped twice"),
}


@pytest.mark.parametrize("maps", MAPS, ids=lambda maps: " ".join(maps)[:32])
def test_an_id_map_that_cannot_be(gocker: Gocker, maps: tuple[str, ...]) -> None:
    options = [word for text in maps for word in ("--uidmap", text)]
    remedy = "for example " if "INSIDE" in MAPS[maps][-1] else "(for example --uidmap 0:100000:65536)"
    refused(gocker("run", "--userns", "private", *options, "base", "true"), *MAPS[maps], remedy)


def test_a_map_needs_a_user_namespace(gocker: Gocker) -> None:
    refused(gocker("run", "--uidmap", "0:1:1", "base", "true"), "set --uidmap 0:1:1", "(--userns private)")


SYSCTLS: dict[str, tuple[str, ...]] = {
    "kernel.panic=1": ("set sysctl kernel.panic=1", "not per namespace"),
    "net.ipv4.nosuch=1": ("net.ipv4.nosuch=1", "ENOENT"),
    "net.ipv4.ip_forward=x": ("net.ipv4.ip_forward=x", "EINVAL"),
    "net/../../kernel/panic=1": ("net/../../kernel/panic", "not the name of a sysctl"),
}


@pytest.mark.parametrize("sysctl", SYSCTLS)
def test_a_sysctl_that_cannot_be(gocker: Gocker, sysctl: str) -> None:
    refused(gocker("run", "--sysctl", sysctl, "base", "true"), *SYSCTLS[sysctl])


@pytest.mark.parametrize(
    ("option", "namespace", "sysctl"),
    [
        ("--network", "host", "net.ipv4.ip_default_ttl=64"),
        ("--ipc", "host", "kernel.msgmax=8192"),
        ("--uts", "host", f"kernel.hostname={os.uname().nodename}"),
    ],
)
def test_a_sysctl_of_the_hosts_own_namespace(
    gocker: Gocker, option: str, namespace: str, sysctl: str
) -> None:
    refused(
        gocker("run", option, namespace, "--sysctl", sysctl, "base", "true"),
        sysctl,
        "is not the container's own",
    )


def test_a_ulimit_that_cannot_be(gocker: Gocker) -> None:
    ran = gocker("run", "--ulimit", "nofile=a", "base", "true")
    refused(ran, "parse ulimit nofile=a", "'a' is not a whole number", "(-1 means unlimited)")


PROFILES = {
    "nonsense": ("x", "not JSON"),
    "null": ("null", "not an object"),
    "unknown action": ('{"defaultAction": "SCMP_ACT_NOSUCH"}', "unknown action SCMP_ACT_NOSUCH"),
    "too deep": ("[" * 100_000, "64 levels deep"),
    "unknown call": (
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [1], "action": "SCMP_ACT_ERRNO"}]}',
        "names",
    ),
}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_seccomp_profile_that_cannot_be(gocker: Gocker, tmp_path: os.PathLike[str], profile: str) -> None:
    text, reason = PROFILES[profile]
    with open(f"{tmp_path}/profile.json", "w") as file:
        file.write(text)
    ran = gocker("run", "--security-opt", f"seccomp={tmp_path}/profile.json", "base", "true")
    refused(ran, "seccomp profile", f"{tmp_path}/profile.json", reason)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("seccomp=/nosuch", ("read seccomp profile /nosuch", "ENOENT")),
        ("seccomp=/dev/zero", ("read seccomp profile /dev/zero", "not a regular file")),
        ("seccomp=", ("set --security-opt seccomp=", "(no-new-privileges")),
        ("apparmor=x", ("set --security-opt apparmor=x", "(no-new-privileges")),
        ("no-new-privileges=maybe", ("no-new-privileges=maybe", "(no-new-privileges")),
    ],
)
def test_a_security_option_that_cannot_be(gocker: Gocker, option: str, words: tuple[str, ...]) -> None:
    refused(gocker("run", "--security-opt", option, "base", "true"), *words)


MOUNTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("-v", "/nosuch:/x"): ("mount volume /nosuch: ENOENT", "(make it first)"),
    ("-v", "/tmp:relative"): (
        "mount volume /tmp:relative",
        "not an absolute path inside",
        "(begin it with a /)",
    ),
    ("-v", "/tmp:/x/../.."): ("mount on /", "the root itself", "(use --rootfs"),
    ("-v", "/tmp:/x/../proc/sys"): ("mount on /proc/sys", "must stay the container's own"),
    ("-v", "/etc/passwd:/tmp"): ("/tmp", "a file onto a directory"),
    ("--mount", "type=volume,src=x,dst=/y"): ("type 'volume' is not bind or tmpfs", "(type=bind,"),
    ("--tmpfs", "/x:size=zz"): ("tmpfs-size=zz", "not a size"),
}


@pytest.mark.parametrize("option", MOUNTS, ids=" ".join)
def test_a_mount_that_cannot_be(gocker: Gocker, option: tuple[str, str]) -> None:
    refused(gocker("run", *option, "base", "true"), *MOUNTS[option])


def test_two_mounts_at_one_place(gocker: Gocker) -> None:
    refused(gocker("run", "-v", "/tmp:/x", "--tmpfs", "/y/../x", "base", "true"), "mount on /x", "twice")


def test_a_target_that_leads_out_through_a_link_is_made_inside(
    gocker: Gocker, tmp_path: os.PathLike[str]
) -> None:
    # A link in the image cannot name a place on the host; where it leads nowhere inside, the place is made.
    rootfs, outside = f"{tmp_path}/rootfs", f"{tmp_path}/outside"
    os.makedirs(f"{rootfs}/dir")
    os.mkdir(outside)
    os.symlink(outside, f"{rootfs}/dir/escape")
    os.symlink("../../../../../../.." + outside, f"{rootfs}/dir/upwards")
    for name in ("escape", "upwards"):
        for target in (f"/dir/{name}", f"/dir/{name}/below"):
            ran = gocker("run", "--rootfs", rootfs, "-v", f"/etc:{target}", "/true")
            assert (ran.code, "exec /true: ENOENT" in ran.err) == (127, True)
    assert os.listdir(outside) == []
    assert sorted(os.listdir(rootfs)) == ["dir"]  # in the container's own layer


class TestEnvironment:
    @pytest.mark.parametrize("text", ["=x", "", "="])
    def test_an_entry_without_a_name(self, gocker: Gocker, text: str) -> None:
        refused(gocker("run", "-e", text, "base", "true"), "set environment -e", "has no name", "(NAME=VALUE")

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"A=1\n=2\n", ("line 2", "'=2' has no name", "(NAME=VALUE")),
            (b"A=1\n\nB=1\0\n", ("line 3", "NUL byte", "(NAME=VALUE")),
            (b"A=" + b"x" * (1 << 20), ("longer than 1048576",)),
        ],
    )
    def test_a_bad_file(
        self, gocker: Gocker, tmp_path: os.PathLike[str], data: bytes, words: tuple[str, ...]
    ) -> None:
        with open(f"{tmp_path}/env", "wb") as file:
            file.write(data)
        refused(gocker("run", "--env-file", f"{tmp_path}/env", "base", "true"), f"{tmp_path}/env", *words)

    @pytest.mark.parametrize(
        ("path", "reason"),
        [("/nosuch", "ENOENT"), ("/etc", "EISDIR"), ("/dev/zero", "neither a file nor a pipe")],
    )
    def test_what_is_no_file(self, gocker: Gocker, path: str, reason: str) -> None:
        refused(gocker("run", "--env-file", path, "base", "true"), f"read env file {path}", reason)


class TestOutputs:
    """Files for gocker's own output are looked at before the start, and none is left where nothing started."""

    @pytest.mark.parametrize("option", ["--cidfile", "--report"])
    @pytest.mark.parametrize(("path", "reason"), [("/nosuch/x", "ENOENT"), ("/etc", "E"), ("", "ENOENT")])
    def test_one_that_cannot_be_written_stops_the_start(
        self, gocker: Gocker, tmp_path: os.PathLike[str], option: str, path: str, reason: str
    ) -> None:
        ran = gocker("run", option, path, "-v", f"{tmp_path}:/x", "base", "touch", "/x/ran")
        refused(ran, f"write {option.removeprefix('--')}", path, reason, "(")
        assert os.listdir(tmp_path) == []

    def test_a_cidfile_that_is_there_is_not_overwritten(
        self, gocker: Gocker, tmp_path: os.PathLike[str]
    ) -> None:
        with open(f"{tmp_path}/cid", "w") as file:
            file.write("mine")
        ran = gocker("run", "--cidfile", f"{tmp_path}/cid", "base", "true")
        refused(ran, "write cidfile", "EEXIST", "(name a file that does not exist)")
        with open(f"{tmp_path}/cid") as file:
            assert file.read() == "mine"

    def test_none_is_left_when_the_container_cannot_be_made(
        self, gocker: Gocker, tmp_path: os.PathLike[str]
    ) -> None:
        files = ("--cidfile", f"{tmp_path}/cid", "--report", f"{tmp_path}/report")
        refused(gocker("run", *files, "--name", "a/b", "base", "true"), "name container a/b")
        assert os.listdir(tmp_path) == []


def test_a_name_that_is_taken(gocker: Gocker) -> None:
    with running(gocker, "--name", "there"):
        refused(gocker("run", "--name", "there", "base", "true"), "name container there", "(")


# --- the places where gocker keeps things


@pytest.fixture(params=["GOCKER_ROOT", "GOCKER_STATE", "GOCKER_AUDIT_LOG"])
def place(request: pytest.FixtureRequest) -> str:
    variable: str = request.param
    return variable


@pytest.fixture
def disk(tmp_path: os.PathLike[str]) -> Iterator[str]:
    """A tmpfs of 128 KiB."""
    path = f"{tmp_path}/disk"
    os.mkdir(path)
    assert os.system(f"mount -t tmpfs -o size=128k,mode=700 none {path}") == 0
    yield path
    assert os.system(f"umount {path}") == 0


def inside(disk: str, variable: str) -> str:
    return f"{disk}/audit.jsonl" if variable == "GOCKER_AUDIT_LOG" else f"{disk}/place"


@pytest.mark.guest
def test_a_full_disk(gocker: Gocker, disk: str, place: str) -> None:
    assert os.system(f"head -c 1m /dev/zero > {disk}/fill 2>/dev/null") != 0
    ran = gocker("run", "base", "true", env={place: inside(disk, place)})
    refused(ran, disk, "ENOSPC: No space left on device", "(free", place)
    assert not [name for _, names, files in os.walk(disk) for name in files if name not in {"fill", "lock"}
                and not name.startswith("audit.jsonl")]  # fmt: skip


def test_a_disk_that_fills_up_while_the_program_runs_ends_no_one_elses_work(
    gocker: Gocker, disk: str
) -> None:
    # What the program writes to its root lies in GOCKER_ROOT: that is its own ENOSPC, and no error of gocker's.
    ran = gocker("run", "-v", f"{disk}:/d", "base", "sh", "-c", "head -c 1m /dev/zero > /d/x; echo $?")
    assert (ran.code, ran.out) == (0, "1\n"), ran
    assert "No space left" in ran.err


@pytest.mark.guest
def test_a_read_only_directory(gocker: Gocker, disk: str, place: str) -> None:
    assert os.system(f"mount -o remount,ro {disk}") == 0
    ran = gocker("run", "base", "true", env={place: inside(disk, place)})
    refused(ran, disk, "EROFS: Read-only file system", "(", place)


def test_one_below_a_file(gocker: Gocker, place: str) -> None:
    refused(
        gocker("run", "base", "true", env={place: "/etc/passwd/x"}), "/etc/passwd/x", "ENOTDIR", "(", place
    )


def test_a_relative_one(gocker: Gocker, place: str) -> None:
    refused(
        gocker("run", "base", "true", env={place: "relative"}), f"{place}=relative", "not an absolute path"
    )


@pytest.mark.parametrize("variable", ["GOCKER_ROOT", "GOCKER_STATE"])
def test_one_that_others_may_write(gocker: Gocker, tmp_path: os.PathLike[str], variable: str) -> None:
    # Whoever can put a link there could have root work where it leads.
    path = f"{tmp_path}/open"
    for folder in (path, f"{path}/containers"):
        os.mkdir(folder)
        os.chmod(folder, 0o777)
    os.mkdir(f"{tmp_path}/rootfs")
    ran = gocker("run", "--rootfs", f"{tmp_path}/rootfs", "/true", env={variable: path})
    refused(ran, path, "others own it or may write to it", "(chown and chmod 0700 it", variable)


def test_an_audit_log_that_is_a_link_is_not_followed(gocker: Gocker, tmp_path: os.PathLike[str]) -> None:
    os.symlink("elsewhere", f"{tmp_path}/log")
    ran = gocker("run", "base", "true", env={"GOCKER_AUDIT_LOG": f"{tmp_path}/log"})
    refused(ran, f"{tmp_path}/log", "ELOOP", "a symbolic link is not followed")
    assert os.listdir(tmp_path) == ["log"]


def test_what_is_made_is_gockers_alone(gocker: Gocker, tmp_path: os.PathLike[str]) -> None:
    env = {"GOCKER_STATE": f"{tmp_path}/state", "GOCKER_AUDIT_LOG": f"{tmp_path}/log/audit.jsonl"}
    before = os.umask(0)
    try:
        assert gocker("run", "base", "true", env=env).code == 0
    finally:
        os.umask(before)
    made = ("state", "state/containers", "state/names", "log", "log/audit.jsonl")
    modes = {name: stat.S_IMODE(os.lstat(f"{tmp_path}/{name}").st_mode) for name in made}
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}


# --- privileges


PRIVILEGES = {
    "another user": ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
                     "--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
    "root without CAP_SYS_ADMIN": ("setpriv", "--bounding-set", "-sys_admin"),
    "root without any capability": ("setpriv", "--bounding-set", "-all"),
}  # fmt: skip


@pytest.mark.guest
@pytest.mark.parametrize("who", PRIVILEGES)
def test_no_privileges(gocker: Gocker, tmp_path: os.PathLike[str], who: str) -> None:
    env = {}
    if who == "another user":
        os.chown(tmp_path, 65534, 65534)
        places = {"GOCKER_ROOT": "data", "GOCKER_STATE": "state", "GOCKER_AUDIT_LOG": "audit.jsonl"}
        env = {variable: f"{tmp_path}/{name}" for variable, name in places.items()}
    command = ("run", "--limit", "memory=100m", "base", "true")
    assert gocker(*command).code == 0, "with privileges it runs"
    ran = gocker(*command, env=env, under=PRIVILEGES[who])
    line = refused(ran, "step ", "(run gocker as root)" if env else "CAP_SYS_ADMIN; inside docker: ")
    assert "EPERM" in line or "EACCES" in line
    for folder in ("data/containers", "state/containers", "state/names") if env else ():
        assert os.listdir(f"{tmp_path}/{folder}") == [], folder


def test_another_user_is_told_whose_places_they_are(gocker: Gocker) -> None:
    ran = gocker("run", "base", "true", under=PRIVILEGES["another user"])
    refused(ran, "gocker/state", "GOCKER_STATE to a directory of your own")


def test_a_capability_that_gocker_itself_lacks_is_named(gocker: Gocker) -> None:
    ran = gocker("run", "base", "true", under=("setpriv", "--bounding-set", "-mknod"))
    refused(ran, "mknod", "gocker itself does not have it", "--cap-drop")
