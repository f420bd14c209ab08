"""The options of `gocker run` that shape the program: its words, its identity, its privileges, its limits."""

from __future__ import annotations

import os
import resource
import signal
import time

import pytest
from command import SLOWNESS, Gocker
from probe import probe, python, python_inside
from running import running

from gocker.kernel.caps import DOCKER_DEFAULT, NUMBERS

STATUS = "grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp):' /proc/self/status"


def status(gocker: Gocker, *options: str) -> dict[str, str]:
    """Fields of /proc/self/status of a program that runs with `options`."""
    ran = gocker("run", *options, "base", "sh", "-c", STATUS)
    assert ran.code == 0, ran
    return {name: value.strip() for name, _, value in (line.partition(":") for line in ran.out.splitlines())}


def mask(*names: str) -> int:
    return sum(1 << NUMBERS[f"CAP_{name}"] for name in names)


class TestWords:
    """What is passed to the program, byte for byte."""

    WORDS = (
        *(b"", b" ", b"a b", b"-n", b"--", b"*", b"$HOME", b"'", b'"', b"\\", b"a\nb\n", b"\t\r", b"\x01\x7f\x1b[31m"),
        *(b"\xff\xfe", b"\xc3\xa9", b"\xed\xa0\x80", b"caf\xc3\xa9\xff", b"=", b"{", b"x" * 100_000),
    )  # fmt: skip

    def test_arguments(self, gocker: Gocker) -> None:
        ran = gocker("run", "base", "printf", r"%s\000", *self.WORDS)
        assert os.fsencode(ran.out).split(b"\0")[:-1] == list(self.WORDS)

    def test_arguments_below_init(self, gocker: Gocker) -> None:
        ran = gocker("run", "--init", "base", "printf", r"%s\000", *self.WORDS)
        assert os.fsencode(ran.out).split(b"\0")[:-1] == list(self.WORDS)

    def test_the_environment(self, gocker: Gocker) -> None:
        values = {b"V%d" % number: word for number, word in enumerate(self.WORDS)}
        values |= {b"\xff": b"1", b"a b": b"2", b"a.b-c": b"3"}
        options = [part for name, value in values.items() for part in ("-e", name + b"=" + value)]
        # Not by the shell, which drops names that it cannot use.
        ran = gocker("run", *options, "-e", "PATH=/bin", "-h", "h", "base", "env", "-0")
        found = dict(entry.split(b"=", 1) for entry in os.fsencode(ran.out).split(b"\0")[:-1])
        assert found == {**values, b"PATH": b"/bin", b"HOSTNAME": b"h", b"HOME": b"/root"}

    def test_variables_by_name_come_from_gockers_own(self, gocker: Gocker) -> None:
        ran = gocker("run", "-e", "MINE", "-e", "NOT_SET", "base", "env", env={"MINE": "a=b\nc"})
        assert "MINE=a=b\nc\n" in ran.out
        assert "NOT_SET" not in ran.out

    def test_what_is_too_long_for_the_kernel_is_an_error(self, gocker: Gocker) -> None:
        words = ["x" * 100_000] * 4
        ran = gocker("run", "--ulimit", "stack=1048576", "base", "true", *words)
        assert (ran.code, ran.err.count("\n")) == (126, 1), ran.err[-300:]
        assert "E2BIG" in ran.err

    def test_stdin_is_passed_with_i_and_empty_without(self, gocker: Gocker) -> None:
        data = "a\nb\udcff" * 50_000
        assert gocker("run", "-i", "base", "cat", input=data).out == data
        assert gocker("run", "base", "cat", input=data).out == ""

    def test_stdout_and_stderr_stay_apart_and_whole(self, gocker: Gocker) -> None:
        script = "head -c 300000 /dev/zero | tr '\\0' o; head -c 300000 /dev/zero | tr '\\0' e >&2"
        ran = gocker("run", "base", "sh", "-c", script)
        assert (ran.out, ran.err) == ("o" * 300_000, "e" * 300_000)


class TestEntrypoint:
    def test_the_command_becomes_its_arguments(self, gocker: Gocker) -> None:
        assert gocker("run", "--entrypoint", "/bin/echo", "base", "a", "b c").out == "a b c\n"
        assert gocker("run", "--entrypoint", "id", "base").code == 0

    def test_path_is_the_containers(self, gocker: Gocker) -> None:
        assert gocker("run", "-e", "PATH=/nosuch", "base", "true").code == 127
        assert gocker("run", "-e", "PATH=/nosuch", "base", "/bin/true").code == 0
        # Only its absolute directories count: not the working one.
        assert gocker("run", "-e", "PATH=.:", "-w", "/bin", "base", "true").code == 127


class TestInit:
    def test_it_is_process_1_and_reaps(self, gocker: Gocker) -> None:
        script = "echo $$ $PPID; (sleep 0.05 & ) ; sleep 0.3; ps -e -o stat= | grep -c Z; true"
        ran = gocker("run", "--init", "base", "sh", "-c", script)
        assert ran.out.split() == ["2", "1", "0"], ran
        without = gocker("run", "base", "sh", "-c", script)
        assert without.out.split()[0] == "1"

    def test_a_signal_that_the_program_does_not_handle_ends_it(self, gocker: Gocker) -> None:
        with running(gocker, "--init") as container:
            os.kill(container.process.pid, signal.SIGTERM)
            ran = container.end("exec sleep 100")
        assert ran.code == 128 + signal.SIGTERM, ran

    def test_the_program_cannot_look_into_it(self, gocker: Gocker) -> None:
        # Its fd 3 leads to the launcher.
        script = "readlink /proc/1/fd/3 || cat /proc/1/environ || cat /proc/1/exe || echo nothing"
        ran = gocker("run", "--init", "base", "sh", "-c", script)
        assert ran.out == "nothing\n", ran


class TestUser:
    @pytest.mark.parametrize(
        ("user", "uid", "gid", "groups", "home"),
        [
            ("user", "1000", "1000", {"1000"}, "/home/user"),
            ("1000", "1000", "1000", {"1000"}, "/home/user"),
            ("user:tty", "1000", "5", {"5"}, "/home/user"),
            ("1000:7", "1000", "7", {"7"}, "/home/user"),
            ("4321", "4321", "0", {"0"}, "/"),
            ("4321:8765", "4321", "8765", {"8765"}, "/"),
            ("0", "0", "0", {"0"}, "/root"),
            ("root:daemon", "0", "1", {"1"}, "/root"),
            ("4294967294", "4294967294", "0", {"0"}, "/"),
        ],
    )
    def test_ids_groups_and_home(
        self, gocker: Gocker, user: str, uid: str, gid: str, groups: set[str], home: str
    ) -> None:
        ran = gocker("run", "-u", user, "base", "sh", "-c", f"{STATUS}; echo HOME:$HOME")
        found = dict(line.split(":") for line in ran.out.splitlines())
        assert found["Uid"].split() == [uid] * 4
        assert found["Gid"].split() == [gid] * 4
        assert set(found["Groups"].split()) == groups
        assert found["HOME"] == home

    def test_others_than_root_have_no_capabilities(self, gocker: Gocker) -> None:
        found = status(gocker, "-u", "1000")
        assert [int(found[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")] == [0, 0, 0, 0]
        assert int(found["CapBnd"], 16) == mask(*(name.removeprefix("CAP_") for name in DOCKER_DEFAULT))

    def test_further_groups(self, gocker: Gocker) -> None:
        found = status(gocker, "-u", "user", "--group-add", "tty", "--group-add", "77")
        assert set(found["Groups"].split()) == {"1000", "5", "77"}

    def test_the_members_of_a_group_are_in_it_and_a_named_group_replaces_them(
        self, gocker: Gocker, tmp_path: os.PathLike[str]
    ) -> None:
        with open(f"{tmp_path}/group", "w") as file:
            file.write("root:x:0:\nuser:x:1000:\naudio:x:29:user,root\nvideo:x:44:root\n")
        volume = ("-v", f"{tmp_path}/group:/etc/group")
        assert set(status(gocker, *volume, "-u", "user")["Groups"].split()) == {"1000", "29"}
        assert set(status(gocker, *volume)["Groups"].split()) == {"0", "29", "44"}
        assert status(gocker, *volume, "-u", "user:video")["Groups"] == "44"

    def test_it_can_write_to_its_own_output(self, gocker: Gocker) -> None:
        ran = gocker(
            "run", "-u", "1000", "base", "sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr"
        )
        assert (ran.code, ran.out, ran.err) == (0, "out\n", "err\n")

    def test_home_that_was_asked_for_stays(self, gocker: Gocker) -> None:
        assert gocker("run", "-u", "1000", "-e", "HOME=/x", "base", "sh", "-c", "echo $HOME").out == "/x\n"


class TestDirectory:
    def test_it_is_made_when_it_is_missing(self, gocker: Gocker) -> None:
        ran = gocker("run", "-w", "/a//b/./c/", "base", "sh", "-c", "pwd -P; stat -c '%a %u' /a /a/b/c")
        assert ran.out.splitlines() == ["/a/b/c", "755 0", "755 0"]

    def test_a_link_leads_where_it_leads_inside(self, gocker: Gocker, tmp_path: os.PathLike[str]) -> None:
        os.symlink("/etc", f"{tmp_path}/link")
        ran = gocker(
            "run", "-v", f"{tmp_path}:/x", "-w", "/x/link", "base", "sh", "-c", "pwd -P; cat hostname"
        )
        assert ran.out.split()[0] == "/etc"
        assert len(ran.out.split()[1]) == 12


class TestPrivileges:
    def test_capabilities_added_and_dropped(self, gocker: Gocker) -> None:
        docker = mask(*(name.removeprefix("CAP_") for name in DOCKER_DEFAULT))
        cases = {
            ("--cap-add", "net_admin"): docker | mask("NET_ADMIN"),
            ("--cap-drop", "CAP_CHOWN"): docker & ~mask("CHOWN"),
            ("--cap-drop", "ALL"): 0,
            ("--cap-drop", "all", "--cap-add", "SETUID"): mask("SETUID"),
        }
        for options, expected in cases.items():
            found = status(gocker, *options)
            for kind in ("CapPrm", "CapEff", "CapBnd"):
                assert int(found[kind], 16) == expected, (options, kind)
            assert int(found["CapInh"], 16) == int(found["CapAmb"], 16) == 0

    def test_privileged_has_all_that_gocker_has(self, gocker: Gocker) -> None:
        found = status(gocker, "--privileged")
        with open("/proc/self/status") as file:
            own = {name: value.strip() for name, _, value in (line.partition(":") for line in file)}
        assert found["CapEff"] == found["CapBnd"] == own["CapBnd"]
        assert (found["NoNewPrivs"], found["Seccomp"]) == ("0", own["Seccomp"])
        script = "echo x > /sys/fs/cgroup/x; [ -w /proc/sys/kernel/hostname ] && mknod /tmp/k c 1 11 && head -c 0 /tmp/k && ls /proc/acpi; hostname new && hostname"
        ran = gocker("run", "--privileged", "base", "sh", "-c", script)
        assert ran.out.split()[-1] == "new", ran

    def test_no_new_privileges_can_be_lifted(self, gocker: Gocker) -> None:
        found = status(gocker, "--security-opt", "no-new-privileges=false")
        assert (found["NoNewPrivs"], found["Seccomp"]) == ("0", "2")
        for user in ("0", "1000"):
            assert status(gocker, "--security-opt", "no-new-privileges=false", "-u", user)["Seccomp"] == "2"

    def test_set_user_id_programs_give_nothing_unless_it_is_lifted(
        self, gocker: Gocker, tmp_path: os.PathLike[str]
    ) -> None:
        script = "cp /bin/id /tmp/id && chmod 4755 /tmp/id && setsid true"
        outer = f"{script}; exec chroot --userspec=1000 / /tmp/id -u"
        for options, uid in (((), "1000"), (("--security-opt", "no-new-privileges=false"), "0")):
            volume = ("-v", f"{tmp_path}:/x")
            ran = gocker("run", *options, *volume, *python_inside(), "base", "sh", "-c", outer)
            assert ran.out.split() == [uid], ran

    def test_seccomp_can_be_lifted_and_given(self, gocker: Gocker, tmp_path: os.PathLike[str]) -> None:
        assert status(gocker, "--security-opt", "seccomp=unconfined")["Seccomp"] == "0"
        with open(f"{tmp_path}/profile.json", "w") as file:
            file.write(
                '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122}]}'
            )
        ran = gocker("run", "--security-opt", f"seccomp={tmp_path}/profile.json", "base", "mkdir", "/x")
        assert (ran.code, "quota" in ran.err) == (1, True), ran


class TestRlimits:
    def test_they_are_what_was_asked_for(self, gocker: Gocker) -> None:
        # Not above what gocker has: to raise a hard limit takes CAP_SYS_RESOURCE.
        options = ("--ulimit", "nofile=100:200", "--ulimit", "core=0", "--ulimit", "fsize=1048576")
        ran = gocker("run", *options, "base", "sh", "-c", "cat /proc/self/limits")
        found = {line[:25].strip(): line[25:67].split() for line in ran.out.splitlines()}
        assert found["Max open files"] == ["100", "200"], ran
        assert found["Max core file size"] == ["0", "0"]
        assert found["Max file size"] == ["1048576", "1048576"]

    def test_the_others_are_gockers_own(self, gocker: Gocker) -> None:
        own = [resource.getrlimit(number) for number in (resource.RLIMIT_NOFILE, resource.RLIMIT_STACK)]
        ran = gocker("run", "base", "sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -Ss")
        soft, hard, stack = ran.out.split()
        assert (int(soft), int(hard)) == own[0]
        assert stack == ("unlimited" if own[1][0] == -1 else str(own[1][0] // 1024))

    def test_they_hold_however_tight_they_are(self, gocker: Gocker) -> None:
        # Fewer files than gocker itself needs, and no new process.
        options = ("-u", "1234", "--ulimit", "nofile=4", "--ulimit", "nproc=1")
        ran = gocker("run", *options, "base", "sh", "-c", "exec 3</etc/passwd 4</etc/passwd; echo no")
        assert (ran.code, ran.out) == (2, ""), ran
        assert "Too many open files" in ran.err


def test_oom_score_adj(gocker: Gocker) -> None:
    ran = gocker("run", "--oom-score-adj", "777", "base", "cat", "/proc/self/oom_score_adj")
    assert ran.out == "777\n", ran


def test_sysctls_are_the_containers_own(gocker: Gocker) -> None:
    path = "/proc/sys/net/ipv4/ip_default_ttl"
    with open(path) as file:
        before = file.read()
    options = (
        "--sysctl",
        "net.ipv4.ip_default_ttl=33",
        "--sysctl",
        "kernel.msgmax=5555",
        "--sysctl",
        "net/ipv4/ping_group_range=1 2",
    )
    script = f"cat {path} /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ping_group_range"
    ran = gocker("run", *options, "base", "sh", "-c", script)
    assert ran.out.split() == ["33", "5555", "1", "2"], ran
    with open(path) as file:
        assert file.read() == before


class TestNames:
    def test_hostname_domainname_and_hosts(self, gocker: Gocker) -> None:
        script = (
            "hostname; cat /proc/sys/kernel/domainname /etc/hostname; grep web /etc/hosts; echo $HOSTNAME"
        )
        ran = gocker("run", "-h", "web.example", "--domainname", "nis", "base", "sh", "-c", script)
        assert ran.out.split() == [
            "web.example",
            "nis",
            "web.example",
            "127.0.1.1",
            "web.example",
            "web.example",
        ], ran


class TestTerminal:
    def test_t_gives_a_terminal_of_its_own(self, gocker: Gocker) -> None:
        script = "tty; stty size; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && ls -l /dev/console; echo $TERM; : > /dev/tty && echo mine"
        ran = gocker("run", "-t", "base", "sh", "-c", script)
        lines = ran.out.split("\n")
        assert ran.code == 0, ran
        assert lines[0].strip() in {"/dev/pts/0", "/dev/console"}
        assert "xterm" in ran.out
        assert "mine" in ran.out

    def test_the_user_may_open_it(self, gocker: Gocker) -> None:
        ran = gocker(
            "run", "-t", "-u", "1000", "base", "sh", "-c", "echo x > /dev/console && echo y > /dev/tty"
        )
        assert (ran.code, ran.out.split()) == (0, ["x", "y"]), ran


def test_labels_and_rm_are_taken(gocker: Gocker) -> None:
    assert gocker("run", "--rm", "-l", "a=b", "--label", "c", "base", "true").code == 0


def test_a_timeout_that_is_not_reached_changes_nothing(gocker: Gocker) -> None:
    # More than poll(2) can wait at once.
    assert gocker("run", "--timeout", "300000000", "base", "echo", "x").out == "x\n"


def test_a_program_that_ignores_signals_is_ended_by_the_timeout(gocker: Gocker) -> None:
    begin = time.monotonic()
    ran = gocker.run(
        "--timeout",
        str(0.3 * SLOWNESS),
        "base",
        "sh",
        "-c",
        "trap '' TERM INT HUP; while :; do sleep 1; done",
    )
    assert (ran.code, ran.verdict) == (137, "timeout"), ran
    assert time.monotonic() - begin < 10 * SLOWNESS


def test_python_runs_inside(gocker: Gocker) -> None:
    """What tests/support/probe.py stands on."""
    assert probe(gocker, "print(json.dumps([os.getpid(), sys.argv]))") == [1, ["-c"]]
    assert gocker("run", *python_inside(), "base", *python("print(sys.argv[1])", "a b")).out == "a b\n"
