"""The command line of `run` and `plan` as a container spec, and what is refused before anything is looked at."""

from __future__ import annotations

import os
from typing import Any

import pytest

from gocker.cli.run import command
from gocker.cli.spec import build_spec
from gocker.defaults import MASKED_PATHS, READONLY_PATHS, default_mounts
from gocker.errors import GockerError
from gocker.model import ContainerSpec, IdMap, Mount, NamespaceRequest, Rlimit, plain_capabilities

BIG = "9" * 5000  # int() refuses as many digits


def spec(*words: str, find: Any = lambda name: f"/images/{name}") -> ContainerSpec:
    """Of `gocker run WORDS`."""
    options = dict(command.make_context("run", list(words)).params)
    return build_spec(options, find)


def of(*options: str) -> ContainerSpec:
    """Of `gocker run OPTIONS base true`."""
    return spec(*options, "base", "true")


class TestArguments:
    def test_image_command_and_arguments(self) -> None:
        made = spec("base", "sh", "-c", "a b", "")
        assert made.image == "base"
        assert made.rootfs
        assert (made.rootfs.lower, made.rootfs.writable, made.rootfs.readonly) == (
            "/images/base",
            False,
            False,
        )
        assert made.argv == ("sh", "-c", "a b", "")

    def test_options_behind_the_image_are_the_programs_own(self) -> None:
        assert spec("-i", "base", "ls", "-t", "--rm", "--", "-e").argv == ("ls", "-t", "--rm", "--", "-e")

    def test_bytes_of_any_kind_reach_the_spec(self) -> None:
        words = ("\udcff\udc80", "a\nb", "ü", "")
        assert spec("base", "echo", *words).argv == ("echo", *words)

    def test_an_entrypoint_comes_before_the_command(self) -> None:
        assert spec("--entrypoint", "/bin/echo", "base", "a", "b").argv == ("/bin/echo", "a", "b")
        assert spec("--entrypoint", "/bin/echo", "base").argv == ("/bin/echo",)
        assert spec("--entrypoint", "", "base", "true").argv == ("true",)

    def test_a_rootfs_takes_the_place_of_the_image(self, tmp_path: os.PathLike[str]) -> None:
        for mode, writable in (("", False), (":ro", False), (":rw", True)):
            made = spec("--rootfs", f"{tmp_path}{mode}", "true", "x")
            assert made.rootfs
            assert (made.rootfs.lower, made.rootfs.writable) == (str(tmp_path), writable)
            assert made.argv == ("true", "x")
        os.mkdir(f"{tmp_path}/a:rx")
        assert (
            spec("--rootfs", f"{tmp_path}/a:rx", "true").rootfs
            == spec("--rootfs", f"{tmp_path}/a:rx:ro", "true").rootfs
        )

    def test_read_only_is_of_the_root_itself(self) -> None:
        made = of("--read-only")
        assert made.rootfs
        assert made.rootfs.readonly

    def test_each_start_has_an_id_of_its_own(self) -> None:
        first, second = of(), of()
        assert first.id != second.id
        assert first.name == first.hostname == first.id[:12]
        assert len(first.id) == 16


class TestLimits:
    def test_docker_flags_are_limits(self) -> None:
        made = of("-m", "1g", "--memory-swap", "2g", "--memory-reservation", "512m", "--cpuset-cpus", "0",
                  "--cpuset-mems", "0", "-c", "512", "--pids-limit", "9")  # fmt: skip
        asked = {request.label: request.value for request in made.limits}
        assert asked == {"memory": "1g", "memory.swap": "2g", "memory.reservation": "512m", "cpuset": "0",
                         "cpuset.mems": "0", "cpushare": "512", "pids": "9"}  # fmt: skip

    def test_limits_keep_their_order_and_question_marks(self) -> None:
        made = of("--limit", "pids=9?", "--limit", "memory=1g")
        assert [(request.label, request.best_effort) for request in made.limits] == [
            ("pids", True),
            ("memory", False),
        ]

    @pytest.mark.parametrize(
        ("path", "parent"), [("", ""), ("/", ""), ("slurm/job", "/slurm/job"), ("/a/b/", "/a/b")]
    )
    def test_the_cgroup_is_below_its_parent_and_absolute(self, path: str, parent: str) -> None:
        made = of("--cgroup-parent", path)
        assert made.cgroup_path == f"{parent}/gocker/{made.id}"


class TestNamespaces:
    def test_all_but_user_and_time_are_private(self) -> None:
        modes = {request.kind: request.mode for request in of().namespaces}
        assert modes == {
            **dict.fromkeys(("mount", "network", "uts", "ipc", "pid", "cgroup"), "private"),
            "user": "host",
            "time": "host",
        }

    @pytest.mark.parametrize(
        ("option", "kind"),
        [("--uts", "uts"), ("--ipc", "ipc"), ("--pid", "pid"), ("--network", "network"), ("--net", "network"),
         ("--cgroupns", "cgroup"), ("--userns", "user"), ("--timens", "time")],
    )  # fmt: skip
    def test_each_can_be_private_host_or_joined(self, option: str, kind: str) -> None:
        private = "none" if kind == "network" else "private"
        assert of(option, private).namespace(kind).mode == "private"
        assert of(option, "host").namespace(kind).mode == "host"
        path = NamespaceRequest(kind=kind, mode="path", path="/proc/1/ns/x")
        assert of(option, "ns:/proc/1/ns/x").namespace(kind) == path

    @pytest.mark.parametrize("mode", ["", "bridge", "path", "ns:", "ns:x", "container:x", "HOST"])
    def test_nothing_else(self, mode: str) -> None:
        refused("--uts", mode, reason="not one of private, host or ns:PATH")
        refused("--network", mode, reason="not one of none, host or ns:PATH")

    def test_a_private_user_namespace_has_a_map(self) -> None:
        made = of("--userns", "private")
        assert made.uid_map == made.gid_map == (IdMap(inside=0, outside=100000, count=65536),)
        made = of("--userns", "private", "--uidmap", "0:5:2", "--uidmap", "9:8", "--gidmap", "0:7:1")
        assert made.uid_map == (IdMap(inside=0, outside=5, count=2), IdMap(inside=9, outside=8, count=1))
        assert made.gid_map == (IdMap(inside=0, outside=7, count=1),)
        assert of("--userns", "private", "--uidmap", "0:5:2").gid_map == (
            IdMap(inside=0, outside=5, count=2),
        )
        assert of().uid_map == ()

    def test_clocks_have_offsets(self) -> None:
        made = of("--timens", "private", "--boottime", "-7", "--monotonic", "86400")
        assert made.time_offsets == (("monotonic", 86400, 0), ("boottime", -7, 0))

    def test_without_a_uts_namespace_there_is_no_hostname(self) -> None:
        made = of("--uts", "host")
        assert made.hostname == ""
        assert "HOSTNAME" not in dict(made.env)


class TestEnvironment:
    def test_has_what_docker_gives_and_nothing_of_gockers_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SECRET", "x")
        made = of("-h", "web")
        assert dict(made.env) == {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOSTNAME": "web",
        }
        assert dict(of("-t").env)["TERM"] == "xterm"

    def test_a_name_alone_passes_gockers_own_value_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MINE", "a=b")
        monkeypatch.delenv("OTHER", raising=False)
        env = dict(of("-e", "MINE", "-e", "OTHER").env)
        assert env["MINE"] == "a=b"
        assert "OTHER" not in env

    def test_values_are_bytes_and_the_last_one_counts(self) -> None:
        env = dict(of("-e", "A=1", "-e", "A=", "-e", "B==\udcff\n=", "-e", "PATH=/x").env)
        assert (env["A"], env["B"], env["PATH"]) == ("", "=\udcff\n=", "/x")

    def test_a_file_has_lines_and_comments(
        self, tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FROM", "gocker")
        text = b"\xef\xbb\xbfA=1\r\n\n  # no\n#B=1\n  C= x \nFROM\nD=\x1c\x85\xe2\x80\xa8 y\r\nA=2"
        with open(f"{tmp_path}/env", "wb") as file:
            file.write(text)
        env = dict(of("-e", "C=first", "--env-file", f"{tmp_path}/env", "-e", "Z=1").env)
        assert {name: value for name, value in env.items() if name not in {"PATH", "HOSTNAME"}} == {
            "A": "2", "C": "first", "FROM": "gocker", "D": "\x1c\udc85\u2028 y", "Z": "1",
        }  # fmt: skip

    def test_a_pipe_is_a_file_too(self) -> None:
        read, write = os.pipe()
        os.write(write, b"A=1\n")  # it fits: nobody has to read meanwhile
        os.close(write)
        assert dict(of("--env-file", f"/dev/fd/{read}").env)["A"] == "1"
        os.close(read)


class TestMounts:
    def test_the_containers_own_come_before_the_users(self, tmp_path: os.PathLike[str]) -> None:
        made = of("--tmpfs", "/t", "-v", f"{tmp_path}:/x", "--userns", "private", "--network", "host")
        modes = {request.kind: request.mode for request in made.namespaces}
        assert made.mounts == (
            *default_mounts(modes, gid_map=made.gid_map),
            Mount(kind="bind", source=str(tmp_path), target="/x", options=("rnodev",)),
            Mount(kind="tmpfs", target="/t", options=("nosuid", "nodev", "noexec")),
        )
        assert made.etc

    def test_device_files_of_the_image_work_only_for_the_privileged(self, tmp_path: os.PathLike[str]) -> None:
        for words in ((), ("--rootfs", f"{tmp_path}:rw")):
            for more, nodev in (((), True), (("--privileged",), False)):
                made = spec(*more, *words, *(() if words else ("base",)), "true")
                assert made.rootfs
                assert made.rootfs.nodev is nodev


class TestSecurity:
    def test_the_default_is_dockers(self) -> None:
        made = of()
        assert "CAP_CHOWN" in made.capabilities.bounding
        assert "CAP_SYS_ADMIN" not in made.capabilities.bounding
        assert made.capabilities == plain_capabilities(made.capabilities.bounding)
        assert (made.no_new_privileges, made.seccomp, made.privileged) == (True, "default", False)
        assert (made.masked_paths, made.readonly_paths) == (MASKED_PATHS, READONLY_PATHS)

    def test_privileged_has_no_filter_and_no_masks(self) -> None:
        made = of("--privileged")
        assert (made.no_new_privileges, made.seccomp, made.privileged) == (False, "unconfined", True)
        assert (made.masked_paths, made.readonly_paths) == ((), ())
        assert "CAP_SYS_ADMIN" in made.capabilities.permitted

    def test_security_options_count_with_privileged_too(self) -> None:
        made = of("--privileged", "--security-opt", "no-new-privileges", "--security-opt", "seccomp=default")
        assert (made.no_new_privileges, made.seccomp) == (True, "default")

    @pytest.mark.parametrize(
        ("text", "no_new_privileges", "seccomp"),
        [
            ("no-new-privileges=false", False, "default"),
            ("no-new-privileges:false", False, "default"),
            ("no-new-privileges:true", True, "default"),
            ("seccomp=unconfined", True, "unconfined"),
            ("seccomp:unconfined", True, "unconfined"),
            ("seccomp=/x/y.json", True, "/x/y.json"),
        ],
    )
    def test_an_option(self, text: str, no_new_privileges: bool, seccomp: str) -> None:
        made = of("--security-opt", text)
        assert (made.no_new_privileges, made.seccomp) == (no_new_privileges, seccomp)

    def test_a_profile_is_found_from_gockers_directory(
        self, tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert of("--security-opt", "seccomp=p.json").seccomp == f"{tmp_path}/p.json"

    def test_capabilities_come_and_go(self) -> None:
        made = of("--cap-drop", "ALL", "--cap-add", "net_admin", "--cap-add", "CAP_CHOWN")
        assert made.capabilities == plain_capabilities(("CAP_CHOWN", "CAP_NET_ADMIN"))


class TestOthers:
    def test_the_rest_is_taken_as_it_is(self) -> None:
        made = of("--name", "web", "-w", "/srv", "-u", "a:b", "--group-add", "c", "--group-add", "7", "--domainname", "d",
                  "--ulimit", "nofile=1:2", "--sysctl", "net.ipv4.ip_forward=1=2", "--oom-score-adj", "-5", "-i", "-t", "--init",
                  "--stop-signal", "9", "--timeout", "1.5", "-l", "a=b=c", "-l", "d")  # fmt: skip
        assert (made.name, made.cwd, made.user, made.groups, made.domainname) == (
            "web",
            "/srv",
            "a:b",
            ("c", "7"),
            "d",
        )
        assert made.rlimits == (Rlimit(name="nofile", soft=1, hard=2),)
        assert made.sysctls == (("net.ipv4.ip_forward", "1=2"),)
        assert (made.oom_score_adj, made.interactive, made.terminal, made.init) == (-5, True, True, True)
        assert (made.stop_signal, made.timeout, made.labels) == ("SIGKILL", 1.5, (("a", "b=c"), ("d", "")))

    @pytest.mark.parametrize(
        ("text", "path"), [("", "/"), ("/", "/"), ("//a/./b//", "/a/b"), ("/a/../b", "/a/../b"), ("/.", "/")]
    )
    def test_the_working_directory_is_plain(self, text: str, path: str) -> None:
        assert of("-w", text).cwd == path

    @pytest.mark.parametrize("text", ["TERM", "term", "SIGTERM", "sigterm", "15"])
    def test_a_signal_has_several_names(self, text: str) -> None:
        assert of("--stop-signal", text).stop_signal == "SIGTERM"


def refused(*options: str, reason: str, command: tuple[str, ...] = ("base", "true")) -> None:
    with pytest.raises(GockerError) as caught:
        spec(*options, *command)
    text = str(caught.value)
    assert reason in text
    assert caught.value.operation
    assert "\n" not in text


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        *((("--timeout", text), "not a number of seconds") for text in ("0", "-1", "nan", "inf", "1e400", "x", "", BIG)),
        *((("--hostname", text), "not a hostname") for text in ("a b", "a\n1.2.3.4 b", "-x", ".x", "ü", "a\0", "a/b")),
        *((("--uidmap", text, "--userns", "private"), "INSIDE:OUTSIDE:COUNT") for text in ("", "0", "a:b:c", ":::", "0:-1:1", "0:1:1:1", f"0:{BIG}:1", "٣:1:1")),
        (("--uidmap", "0:1:1"), "only a new user namespace takes a map"),
        (("--gidmap", "0:1:1"), "--userns private"),
        (("--hostname", "x", "--uts", "host"), "--uts private"),
        (("--monotonic", "5"), "--timens private"),
        (("--boottime", "0"), "--timens private"),
        (("--label", "=x"), "not NAME=VALUE"),
        *((("--stop-signal", text), "no such signal") for text in ("", "FOO", "0", "99", "-1", BIG)),
        (("--shm-size", "x"), "not a size"),
        *((("-w", text), "not an absolute path") for text in ("x", "./x")),
        *((("--cgroup-parent", text), "has a .. in it") for text in ("..", "/a/../b", "a/..", "/..")),
        *((("--sysctl", text), "not NAME=VALUE") for text in ("", "x", "=1")),
        *((("--sysctl", text), "not the name of a sysctl") for text in ("net=1", "net..x=1", "net/../../kernel/panic=1", "net././/x=1", ".=1", "net.x.=1")),
        *((("--ulimit", text), "nofile") for text in ("nofile", "nofile=", "nofile=a", "nofile=2:1", "nofile=1:2:3", f"nofile={BIG}")),
        (("--cap-add", "x"), "no such capability"),
        *((("--security-opt", text), "not known") for text in ("", "x", "seccomp=", "no-new-privileges=x", "apparmor=x")),
        *((("-e", text), "has no name") for text in ("", "=", "=x")),
        (("-e", "A=\0"), "NUL"),
        (("--env-file", "/nosuch"), "ENOENT"),
        (("--env-file", "/etc"), "EISDIR"),
        (("--env-file", "/dev/zero"), "neither a file nor a pipe"),
        (("-v", "/nosuch:/x"), "make it first"),
        (("-v", "/etc/passwd/x:/x"), "ENOTDIR"),
        (("-v", "/\0:/x"), "null"),
        (("-v", "x:/x"), "not an absolute host path"),
        (("-v", ":/x"), "not an absolute host path"),
        *((("-v", text), "not SRC:DST") for text in ("", "/tmp", "/tmp:", "/tmp::ro")),
        (("-v", "/tmp:x"), "not an absolute path inside"),
        (("-v", "/tmp:/x:y"), "unknown option 'y'"),
        (("-v", "/tmp:/x:ro,rw"), "both ro and rw"),
        (("--mount", ""), "unknown field"),
        (("--mount", "type=bind,src=/tmp,dst=/x,y"), "unknown field 'y'"),
        (("--mount", "type=bind,src=/tmp"), "not an absolute path inside"),
        (("--mount", "type=bind,src=/tmp,dst=/x,bind-propagation=y"), "unknown option 'y'"),
        (("--mount", "type=bind,src=/tmp,dst=/x,tmpfs-size=1m"), "unknown option 'size="),
        (("--mount", "src=/tmp,dst=/x"), "type '' is not bind or tmpfs"),
        (("--mount", "type=tmpfs"), "not an absolute path inside"),
        (("--mount", "type=tmpfs,dst=/x,tmpfs-size=y"), "not a size"),
        *((("--tmpfs", f"/x:mode={mode}"), "not octal") for mode in ("", "8", "x", "07777777", "-1")),
        (("--tmpfs", "/x:size=y"), "not a size"),
        (("--limit", "memory"), "not NAME[.KEY]=VALUE"),
        (("-m", ""), "the value is empty"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_what_is_refused(options: tuple[str, ...], reason: str) -> None:
    refused(*options, reason=reason)


def test_a_command_line_without_an_image_or_a_command(tmp_path: os.PathLike[str]) -> None:
    refused(reason="no image was given", command=())
    refused(reason="no command was given", command=("base",))
    refused("--rootfs", str(tmp_path), reason="no command was given", command=())
    refused("--rootfs", "", reason="no directory is named", command=("true",))


def test_an_env_file_that_is_too_long(tmp_path: os.PathLike[str]) -> None:
    with open(f"{tmp_path}/env", "w") as file:
        file.write("A=" + "x" * (1 << 20))
    refused("--env-file", f"{tmp_path}/env", reason="longer than 1048576")


def test_an_env_file_says_which_line(tmp_path: os.PathLike[str]) -> None:
    with open(f"{tmp_path}/env", "w") as file:
        file.write("A=1\n\n=2\n")
    refused("--env-file", f"{tmp_path}/env", reason="line 3: '=2' has no name")
