"""create, start, state, kill, delete and list as engines call them: statuses, errors, hooks, consoles, logs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from command import Ran
from ocicommand import IDLE, GockerOci, cgroup_of, config, text_of, until

from gocker.hierarchy import read_host

SHELL = ["sh", "-c"]


def cgroups(container: str) -> list[str]:
    """The container's cgroups, anywhere."""
    places = {place.directory(cgroup_of(container)) for place in read_host().entries if not place.readonly}
    return sorted(path for path in places if os.path.exists(path))


def is_gone(oci: GockerOci, container: str = "c1") -> bool:
    """Whether nothing at all is left of it."""
    files = os.path.exists(f"{oci.root}/containers/{container}")
    data = os.path.exists(f"{os.environ['GOCKER_ROOT']}/containers/{container}")
    return not (files or data or cgroups(container) or container in oci.ok("list", "-q").split())


# --- from creation to deletion


def test_a_container_is_created_then_running_then_stopped_then_gone(oci: GockerOci) -> None:
    out = oci.create(args=[*SHELL, "echo begun; exec sleep 1000"])
    assert oci.status() == "created"
    assert text_of(out) == ""
    oci.ok("start", "c1")
    assert oci.status() == "running"
    until(lambda: text_of(out) == "begun\n")
    oci.ok("kill", "c1", "KILL")
    oci.await_status("stopped")
    oci.ok("delete", "c1")
    assert is_gone(oci)


def test_the_state_says_what_the_specification_asks_for(oci: GockerOci) -> None:
    document = config()
    document["annotations"] = {"com.example.key": "value"}
    bundle = oci.write("bundle", document)
    oci.create(bundle=bundle)
    state = oci.state()
    pid = state.pop("pid")
    assert os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
    assert state.pop("created").endswith("Z")
    assert state == {
        "ociVersion": "1.3.0",
        "id": "c1",
        "status": "created",
        "bundle": bundle,
        "rootfs": document["root"]["path"],
        "owner": "root",
        "annotations": {"com.example.key": "value"},
    }


def test_a_stopped_container_has_no_pid(oci: GockerOci) -> None:
    oci.run(args=["true"])
    oci.await_status("stopped")
    assert oci.state()["pid"] == 0


def test_the_bundle_may_be_the_working_directory(oci: GockerOci) -> None:
    oci.ok("create", "c1", cwd=oci.bundle())
    assert oci.status() == "created"


def test_its_cgroup_has_its_id_unless_the_config_says_otherwise(oci: GockerOci) -> None:
    document = config()
    document["linux"]["cgroupsPath"] = None
    name = f"c{os.getpid()}"
    oci.create(name, bundle=oci.write("bundle", document))
    path = read_host().require("pids").directory(f"/gocker/{name}")
    assert text_of(f"{path}/cgroup.procs").split() == [str(oci.state(name)["pid"])]
    oci.ok("delete", "--force", name)
    assert not os.path.exists(path)


def test_options_stand_before_and_behind_the_id(oci: GockerOci, tmp_path: Path) -> None:
    oci.ok("create", "c1", "--bundle", oci.bundle(), "--pid-file", f"{tmp_path}/pid")
    assert int(text_of(f"{tmp_path}/pid")) == oci.state()["pid"]
    oci.ok("kill", "c1", "--all", "9")
    oci.await_status("stopped")
    oci.ok("delete", "c1", "--force")
    assert is_gone(oci)


# --- what is refused


def test_a_created_container_is_deleted_with_force_alone(oci: GockerOci) -> None:
    oci.create()
    assert "delete container c1: it is not stopped but created" in oci.refused("delete", "c1")
    assert oci.status() == "created"
    oci.ok("delete", "--force", "c1")
    assert is_gone(oci)


def test_a_running_container_is_deleted_with_force_alone(oci: GockerOci) -> None:
    oci.run()
    assert "it is not stopped but running" in oci.refused("delete", "c1")
    assert oci.status() == "running"
    oci.ok("delete", "--force", "c1")
    assert is_gone(oci)


def test_force_is_content_when_there_is_none(oci: GockerOci) -> None:
    oci.ok("delete", "--force", "c1")
    assert "container does not exist" in oci.refused("delete", "c1")


def test_an_id_in_use_is_refused_and_its_container_unharmed(oci: GockerOci) -> None:
    oci.create()
    pid = oci.state()["pid"]
    assert "create container c1: this id is in use" in oci.refused("create", "-b", oci.bundle(), "c1")
    assert (oci.status(), oci.state()["pid"]) == ("created", pid)
    oci.ok("start", "c1")


def test_a_container_starts_once(oci: GockerOci) -> None:
    oci.run()
    assert "start container c1: it is not created but running" in oci.refused("start", "c1")
    assert oci.status() == "running"


def test_a_stopped_container_does_not_start_again(oci: GockerOci) -> None:
    oci.run(args=["true"])
    oci.await_status("stopped")
    assert "it is not created but stopped" in oci.refused("start", "c1")


@pytest.mark.parametrize("verb", ["start", "state", "kill", "pause", "resume", "ps", "events", "update"])
def test_a_container_that_does_not_exist_is_named(oci: GockerOci, verb: str) -> None:
    assert "nosuch: container does not exist" in oci.refused(verb, "nosuch")


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", "a b", "é", "a" * 129, ".hidden"])
def test_an_id_that_is_none_is_refused(oci: GockerOci, name: str) -> None:
    oci.refused("create", "--bundle", oci.bundle(), "--", name)
    oci.refused("state", "--", name)
    assert oci.ok("list", "-q") == ""


def test_a_bundle_without_a_config_is_named(oci: GockerOci, tmp_path: Path) -> None:
    assert f"{tmp_path}/config.json: ENOENT" in oci.refused("create", "-b", str(tmp_path), "c1")


def test_a_limit_that_makes_no_sense_leaves_nothing(oci: GockerOci) -> None:
    bundle = oci.bundle(linux={"resources": {"cpu": {"cpus": "63-64"}}})
    assert "cpuset" in oci.refused("create", "-b", bundle, "c1")
    assert is_gone(oci)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["frob"], "no such command"),
        (["create"], "too few arguments"),
        (["state", "a", "b"], "too many arguments"),
        (["state", "--frob", "a"], "no such option --frob"),
        (["create", "--pid-file"], "requires a value"),
        (["--log-format", "xml", "list"], "not text or json"),
        (["--cgroup-manager", "other", "list"], "not cgroupfs or systemd"),
        (["list", "--format", "xml"], "not table or json"),
        (["kill", "--regex", "c1"], "name each container"),
        (["create", "--no-pivot", "c1"], "always pivoted"),
        (["create", "--preserve-fds", "-1", "c1"], "not from 0"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(
    oci: GockerOci, arguments: list[str], reason: str
) -> None:
    assert reason in oci.refused(*arguments)


@pytest.mark.skipif(os.path.isdir("/run/systemd/system"), reason="needs a host that systemd does not run")
@pytest.mark.parametrize("options", [["--systemd-cgroup"], ["--cgroup-manager", "systemd"]])
def test_systemd_makes_no_cgroup_where_it_does_not_run_the_host(oci: GockerOci, options: list[str]) -> None:
    said = oci.refused(*options, "create", "-b", oci.bundle(), "c1")
    assert "the systemd cgroup manager: systemd does not run this host" in said
    assert is_gone(oci)
    oci.ok(*options, "list")


# --- kill


@pytest.mark.parametrize("name", ["KILL", "SIGKILL", "kill", "9"])
def test_a_signal_has_names_and_a_number(oci: GockerOci, name: str) -> None:
    oci.run()
    oci.ok("kill", "c1", name)
    oci.await_status("stopped")


def test_sigterm_is_sent_when_none_is_named(oci: GockerOci) -> None:
    out = oci.run(args=[*SHELL, "trap 'echo term; exit' TERM; echo ready; while :; do sleep 0.05; done"])
    until(lambda: text_of(out) == "ready\n")
    oci.ok("kill", "c1")
    oci.await_status("stopped")
    assert text_of(out) == "ready\nterm\n"


@pytest.mark.parametrize("name", ["FROB", "65", "-9", "SIGRTMIN+99", ""])
def test_a_signal_that_is_none_is_refused(oci: GockerOci, name: str) -> None:
    oci.run()
    oci.refused("kill", "--", "c1", name)
    assert oci.status() == "running"


def test_a_stopped_container_is_not_killed(oci: GockerOci) -> None:
    oci.run(args=["true"])
    oci.await_status("stopped")
    assert "kill container c1: container not running" in oci.refused("kill", "c1", "KILL")


def test_a_created_container_is_killed(oci: GockerOci) -> None:
    oci.create()
    oci.ok("kill", "c1", "KILL")
    oci.await_status("stopped")
    assert "it is not created but stopped" in oci.refused("start", "c1")
    oci.ok("delete", "c1")


def test_all_means_every_process(oci: GockerOci) -> None:
    out = oci.run(
        args=[
            *SHELL,
            "trap '' TERM; (trap 'echo child; exit' TERM; while :; do sleep 0.05; done) & echo ready; wait",
        ]
    )
    until(lambda: text_of(out) == "ready\n")
    time.sleep(0.2)  # for the child's trap
    oci.ok("kill", "--all", "c1", "15")
    until(lambda: "child" in text_of(out))


def without(*kinds: str) -> dict[str, Any]:
    """Namespaces but for these."""
    kept = [space for space in config()["linux"]["namespaces"] if space["type"] not in kinds]
    return {"namespaces": kept}


def test_sigkill_ends_everybody_without_a_pid_namespace_too(oci: GockerOci) -> None:
    oci.run(linux=without("pid"), args=[*SHELL, "sleep 1000 & sleep 1000"])
    until(lambda: len(json.loads(oci.ok("ps", "--format", "json", "c1"))) == 3)
    pids = json.loads(oci.ok("ps", "--format", "json", "c1"))
    oci.ok("kill", "c1", "KILL")
    oci.await_status("stopped")
    until(lambda: all(is_dead(pid) for pid in pids))


def is_dead(pid: int) -> bool:
    """Gone, or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] in b"ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_zombie_counts_as_stopped(oci: GockerOci) -> None:
    # Its parent is a process that takes orphans in and reaps none: PR_SET_CHILD_SUBREAPER, prctl(2).
    bundle = oci.bundle()
    program = textwrap.dedent(f"""
        import ctypes, subprocess, sys
        assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0
        command = [{oci.program!r}, "--root", {oci.root!r}]
        def call(*arguments):
            done = subprocess.run([*command, *arguments], stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, stdout=sys.stderr)
            assert done.returncode == 0, arguments
        call("create", "--bundle", {bundle!r}, "c1")
        call("start", "c1")
        call("kill", "c1", "9")
        print("killed", flush=True)
        sys.stdin.read()
        """)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reaper:
        assert reaper.stdin
        assert reaper.stdout
        try:
            assert reaper.stdout.readline() == "killed\n"
            with open(f"/proc/{reaper.pid}/task/{reaper.pid}/children", encoding="ascii") as file:
                (pid,) = file.read().split()
            until(lambda: is_dead(int(pid)))
            assert os.path.exists(f"/proc/{pid}")
            assert oci.status() == "stopped"
            assert "container not running" in oci.refused("kill", "c1", "9")
            oci.ok("delete", "c1")
            assert is_gone(oci)
        finally:
            reaper.stdin.close()


# --- list


def test_a_list_has_a_row_for_each_container(oci: GockerOci) -> None:
    assert oci.ok("list") == "ID   PID   STATUS   BUNDLE   CREATED   OWNER\n"
    assert json.loads(oci.ok("list", "--format", "json")) == []
    oci.create("c1")
    oci.run("c2")
    assert oci.ok("list", "--quiet").split() == ["c1", "c2"]
    rows = [line.split() for line in oci.ok("list").splitlines()]
    assert [(row[0], row[2]) for row in rows] == [("ID", "STATUS"), ("c1", "created"), ("c2", "running")]
    found = json.loads(oci.ok("list", "-f", "json"))
    assert [(row["id"], row["status"], row["pid"]) for row in found] == [
        ("c1", "created", oci.state("c1")["pid"]),
        ("c2", "running", oci.state("c2")["pid"]),
    ]


# --- files and sockets of the caller


def test_the_pid_file_is_whole_when_it_appears(oci: GockerOci, tmp_path: Path) -> None:
    place = tmp_path / "pids"
    place.mkdir()
    (place / "pid").write_text("an old one", encoding="ascii")
    oci.create("c1", "--pid-file", str(place / "pid"))
    assert (place / "pid").read_text(encoding="ascii") == str(oci.state()["pid"])
    assert os.listdir(place) == ["pid"]


def test_a_pid_file_that_cannot_be_written_leaves_no_container(oci: GockerOci, tmp_path: Path) -> None:
    error = oci.refused("create", "-b", oci.bundle(), "--pid-file", f"{tmp_path}/nosuch/pid", "c1")
    assert "write pid file" in error
    assert "ENOENT" in error
    assert is_gone(oci)


def receive_console(listener: socket.socket) -> tuple[int, bytes]:
    """The fd that comes with a connection, and the text with it."""
    connection, _ = listener.accept()
    with connection:
        data, fds, _, _ = socket.recv_fds(connection, 4096, 4)
    (fd,) = fds
    return fd, data


def test_the_console_socket_gets_the_master_of_the_terminal(oci: GockerOci, tmp_path: Path) -> None:
    path = f"{tmp_path}/console.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(10)
        oci.run(
            "c1",
            "--console-socket",
            path,
            terminal=True,
            consoleSize={"height": 33, "width": 77},
            args=[*SHELL, "tty; stty size; read line; echo got $line"],
        )
        master, _ = receive_console(listener)
    try:
        assert os.isatty(master)
        seen = b""
        while b"33 77" not in seen:
            seen += os.read(master, 4096)
        assert b"/dev/" in seen
        os.write(master, b"hello\n")
        while b"got hello" not in seen:
            seen += os.read(master, 4096)
    finally:
        os.close(master)


def test_a_terminal_needs_somebody_at_it(oci: GockerOci, tmp_path: Path) -> None:
    bundle = oci.bundle(terminal=True)
    assert "--console-socket" in oci.refused("create", "-b", bundle, "c1")
    error = oci.refused("create", "-b", bundle, "--console-socket", f"{tmp_path}/nosuch", "c1")
    assert "send console to" in error
    assert is_gone(oci)
    other = oci.bundle(terminal=False)
    assert "process.terminal is not true" in oci.refused(
        "create", "-b", other, "--console-socket", "/x", "c1"
    )


@pytest.mark.parametrize("program", ["/nosuch", "nosuch"])
def test_a_program_that_is_not_there_is_logged_in_the_words_that_engines_look_for(
    oci: GockerOci, tmp_path: Path, program: str
) -> None:
    lines = failing(oci, tmp_path, [program])
    assert "no such file or directory" in lines[-1]["msg"]
    assert (lines[-1]["level"], len(lines[-1]["time"])) == ("error", len("2026-01-31T12:00:00Z"))


@pytest.mark.parametrize("program", ["/etc/passwd", "/etc"])
def test_a_program_that_must_not_be_run_is_logged_as_well(
    oci: GockerOci, tmp_path: Path, program: str
) -> None:
    assert "permission denied" in failing(oci, tmp_path, [program])[-1]["msg"]


def failing(oci: GockerOci, tmp_path: Path, args: list[str]) -> list[dict[str, Any]]:
    """The lines of the log of a container that does not come to run."""
    log = ("--log", f"{tmp_path}/log", "--log-format", "json")
    created = oci(*log, "create", "-b", oci.bundle(args=args), "c1")
    if created.code == 0:
        oci.refused(*log, "start", "c1")
        oci.await_status("stopped")
        oci.ok("delete", "c1")
    assert is_gone(oci)
    return [json.loads(line) for line in text_of(f"{tmp_path}/log").splitlines()]


def test_the_log_is_plain_text_unless_asked_otherwise(oci: GockerOci, tmp_path: Path) -> None:
    error = oci.refused("--log", f"{tmp_path}/log", "state", "nosuch")
    line = text_of(f"{tmp_path}/log")
    assert line.startswith('time="2')
    assert 'level=error msg="use container nosuch: container does not exist' in line
    assert "container does not exist" in error


def test_a_log_that_nobody_reads_is_refused_at_once(oci: GockerOci, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    error = oci.refused("--log", f"{tmp_path}/log", "state", "nosuch")
    assert f"open log {tmp_path}/log: ENXIO" in error


# --- hooks


def hooked(oci: GockerOci, tmp_path: Path, **hooks: str) -> str:
    """A bundle whose hooks are shell commands; `$LOG` is a directory, inside /tmp."""
    log = tmp_path / "log"
    log.mkdir(exist_ok=True)
    document = config()
    document["mounts"].append(
        {"destination": "/tmp", "type": "bind", "source": str(log), "options": ["rbind", "rw"]}
    )
    document["hooks"] = {}
    for kind, text in hooks.items():
        command, _, timeout = text.partition("#")
        place = "/tmp" if kind == "startContainer" else str(log)
        hook: dict[str, Any] = {
            "path": "/bin/sh",
            "args": ["sh", "-c", command],
            "env": [f"LOG={place}", f"KIND={kind}", "PATH=/usr/bin:/bin"],
        }
        document["hooks"][kind] = [{**hook, "timeout": int(timeout)} if timeout else hook]
    return oci.write("hooked", document)


KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
NOTE = "cat >$LOG/$KIND; echo $KIND >>$LOG/order"


def order(tmp_path: Path) -> list[str]:
    path = tmp_path / "log" / "order"
    return path.read_text(encoding="ascii").split() if path.exists() else []


def test_hooks_run_in_their_order_and_are_told_the_state(oci: GockerOci, tmp_path: Path) -> None:
    bundle = hooked(oci, tmp_path, **dict.fromkeys(KINDS, NOTE))
    oci.create(bundle=bundle)
    pid = oci.state()["pid"]
    assert order(tmp_path) == list(KINDS[:3])
    oci.ok("start", "c1")
    assert order(tmp_path) == list(KINDS[:5])
    oci.ok("kill", "c1", "KILL")
    oci.await_status("stopped")
    oci.ok("delete", "c1")
    assert order(tmp_path) == list(KINDS)
    states = {kind: json.loads((tmp_path / "log" / kind).read_text(encoding="utf-8")) for kind in KINDS}
    assert {kind: state["status"] for kind, state in states.items()} == {
        "prestart": "created",
        "createRuntime": "creating",
        "createContainer": "creating",
        "startContainer": "created",
        "poststart": "running",
        "poststop": "stopped",
    }
    for kind, state in states.items():
        assert (state["id"], state["bundle"], state["ociVersion"]) == ("c1", bundle, "1.3.0"), kind
    assert [states[kind]["pid"] for kind in ("prestart", "createRuntime", "poststart")] == [pid] * 3


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_hook_that_fails_before_the_creation_undoes_it_and_is_heard(
    oci: GockerOci, tmp_path: Path, kind: str
) -> None:
    bundle = hooked(oci, tmp_path, **{kind: "echo so it is >&2; exit 3"})
    error = oci.refused("create", "-b", bundle, "c1")
    assert f"{kind} hook" in error
    assert "exit status 3: so it is" in error
    assert is_gone(oci)


@pytest.mark.parametrize("kind", ["startContainer", "poststart"])
def test_a_hook_that_fails_at_the_start_ends_the_container(oci: GockerOci, tmp_path: Path, kind: str) -> None:
    oci.create(bundle=hooked(oci, tmp_path, **{kind: "echo so it is >&2; exit 3"}, poststop=NOTE))
    error = oci.refused("start", "c1")
    assert f"{kind} hook" in error
    assert "so it is" in error
    if kind == "startContainer":  # the other deletes it: OCI runtime spec, Lifecycle, 10
        oci.await_status("stopped")
        oci.ok("delete", "c1")
    assert order(tmp_path) == ["poststop"]
    assert is_gone(oci)


def test_a_hook_that_fails_after_the_end_is_a_warning(oci: GockerOci, tmp_path: Path) -> None:
    # OCI runtime spec, Lifecycle, 13: the lifecycle goes on as if the hook had succeeded.
    oci.create(bundle=hooked(oci, tmp_path, poststop="echo so it is >&2; exit 3"))
    ran = oci("delete", "--force", "c1")
    assert ran.code == 0
    assert "warning: run poststop hook" in ran.err
    assert "so it is" in ran.err
    assert is_gone(oci)


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
def test_a_hook_has_the_time_that_it_is_given(oci: GockerOci, tmp_path: Path, kind: str) -> None:
    begin = time.monotonic()
    error = oci.refused("create", "-b", hooked(oci, tmp_path, **{kind: "sleep 60#1"}), "c1")
    assert "killed after its timeout of 1 s" in error
    assert 1 <= time.monotonic() - begin < 10
    assert is_gone(oci)


def test_a_hook_that_is_not_there_is_named(oci: GockerOci) -> None:
    document = config()
    document["hooks"] = {"createRuntime": [{"path": "/nosuch/hook"}]}
    error = oci.refused("create", "-b", oci.write("bundle", document), "c1")
    assert "/nosuch/hook  # createRuntime hook: ENOENT" in error
    assert is_gone(oci)


# --- a creator that is killed


@pytest.mark.parametrize("share", [step / 8 for step in range(9)])
def test_a_creator_that_is_killed_leaves_nothing_after_the_next_call(oci: GockerOci, share: float) -> None:
    bundle = oci.bundle(args=IDLE)
    begin = time.monotonic()
    oci.create("warm", bundle=bundle)
    whole = time.monotonic() - begin
    oci.ok("delete", "--force", "warm")
    creator = oci.start("create", "--bundle", bundle, "c1")
    time.sleep(whole * share)
    creator.send_signal(signal.SIGKILL)
    creator.wait()
    ran = oci("delete", "--force", "c1")
    assert ran.code == 0, ran
    assert is_gone(oci)


def test_what_a_killed_creator_left_is_in_nobodys_way(oci: GockerOci, tmp_path: Path) -> None:
    creator = oci.start(
        "create", "--bundle", hooked(oci, tmp_path, createRuntime="touch $LOG/here; sleep 60"), "c1"
    )
    until((tmp_path / "log" / "here").exists)
    assert cgroups("c1")
    creator.send_signal(signal.SIGKILL)
    creator.wait()
    ran = oci("create", "--bundle", oci.bundle(), "c1")
    assert ran.code == 0, ran
    assert "c1" in ran.err  # it says what it took back
    assert oci.status() == "created"


def test_the_state_is_for_its_owner_alone(oci: GockerOci) -> None:
    oci.create()
    for path in (oci.root, f"{oci.root}/containers", f"{oci.root}/containers/c1"):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    for name in os.listdir(f"{oci.root}/containers/c1"):
        if name != "start":
            assert stat.S_IMODE(os.stat(f"{oci.root}/containers/c1/{name}").st_mode) == 0o600, name


# --- after a reboot


@pytest.mark.parametrize("verb", ["delete", "kill", "recover"])
def test_what_is_left_of_before_a_reboot_goes_without_the_cgroup_that_another_has_now(
    oci: GockerOci, tmp_path: Path, verb: str
) -> None:
    """Its state on a disk names a cgroup, and a first process, of a container that came later."""
    oci.run()
    old = str(tmp_path / "old")
    shutil.copytree(oci.root, old, ignore=shutil.ignore_patterns("start"), symlinks=True)
    path = Path(old, "containers", "c1", "state.json")
    document = {**json.loads(path.read_text(encoding="ascii")), "boot": "another"}
    path.write_text(json.dumps(document), encoding="ascii")
    before = cgroups("c1")
    first = oci.state()["pid"]

    def call(*arguments: str) -> Ran:
        return oci("--root", old, *arguments)

    if verb == "recover":
        path.rename(path.with_name(".state.json"))
        assert "container c1 of a killed gocker was removed" in call("delete", "--force", "c1").err
    elif verb == "kill":
        assert call("kill", "--all", "c1", "KILL").code == 0
        assert "container not running" in call("kill", "c1", "KILL").err
        assert "it is stopped" in call("exec", "c1", "true").err
    else:
        assert call("delete", "--force", "c1") == Ran(0, "", "", {})
    assert os.path.exists(path) == (verb == "kill")
    assert oci.state()["pid"] == first
    assert cgroups("c1") == before != []
    oci.ok("exec", "c1", "true")
