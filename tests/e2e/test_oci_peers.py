"""What configs and scripts that were made for other runtimes rely on, `gocker-oci` does as well."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ocicommand import GockerOci, cgroup_of, config, text_of, until

CAPABILITIES = "/proc/self/status"
CHOWN, SYSLOG = 0, 34  # include/uapi/linux/capability.h


def hook(oci: GockerOci, kind: str, *scripts: str, **process: Any) -> str:
    """A bundle with hooks of this kind, each a script of the host's shell, the container's for startContainer."""
    document = config(**process)
    document["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", script]} for script in scripts]}
    return oci.write("b-c1", document)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one CPU")
def test_the_caller_s_cpus_are_not_the_container_s(oci: GockerOci) -> None:
    all_of_them = sorted(os.sched_getaffinity(0))
    ask = ["sh", "-c", "grep Cpus_allowed_list: /proc/self/status; sleep 1000"]
    one = f"{all_of_them[0]}"
    os.sched_setaffinity(0, {all_of_them[0]})
    try:
        out = oci.run(args=ask)
        until(lambda: "\n" in text_of(out))
        more = oci.ok("exec", "c1", "grep", "Cpus_allowed_list:", "/proc/self/status")
        process = {
            "args": [*ask[:2], ask[2].partition(";")[0]],
            "cwd": "/",
            "execCPUAffinity": {"final": one},
        }
        with open(f"{oci.scratch}/process.json", "w", encoding="utf-8") as file:
            json.dump(process, file)
        asked = oci.ok("exec", "--process", f"{oci.scratch}/process.json", "c1")
    finally:
        os.sched_setaffinity(0, all_of_them)
    assert text_of(out).split()[1] != one
    assert more.split()[1] != one
    assert asked.split()[1] == one


def test_an_exec_that_fails_is_not_taken_for_a_program_that_failed(oci: GockerOci) -> None:
    oci.run()
    assert oci("exec", "c1", "false").code == 1
    assert oci("exec", "c1", "no-such-program").code == 255
    assert oci("exec", "--pid-file", "/no/such/directory", "c1", "true").code == 255
    assert oci("exec", "nobody", "true").code == 255
    assert oci("state", "nobody").code == 1


@pytest.mark.parametrize("env", [[], ["HOME="], ["HOME=/other", "HOME="]])
def test_an_empty_home_is_that_of_the_user(oci: GockerOci, env: list[str]) -> None:
    out = oci.run(args=["sh", "-c", "env; sleep 1000"], env=["PATH=/bin", *env])
    until(lambda: "HOME" in text_of(out))
    lines = [line for line in text_of(out).splitlines() if line.startswith("HOME=")]
    assert lines == ["HOME=/root"]


def test_a_start_container_hook_has_the_program_s_environment(oci: GockerOci) -> None:
    script = 'test "$ONE:$HOME" = two:/root || { env >&2; exit 1; }; test -z "$GOCKER_STATE" || exit 2'
    document = config(env=["PATH=/bin", "ONE=two"])
    document["hooks"] = {"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    oci.run(bundle=oci.write("b-c1", document))


def test_a_create_container_hook_works_in_the_container_s_root(oci: GockerOci, tmp_path: Path) -> None:
    oci.create(bundle=hook(oci, "createContainer", f"pwd -P > {tmp_path}/where; ls > {tmp_path}/there"))
    assert {"bin", "etc", "proc"} <= set(text_of(f"{tmp_path}/there").split())
    assert oci.state()["status"] == "created"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_hook_that_fails_is_told_by_kind_and_number(oci: GockerOci, kind: str) -> None:
    error = oci.refused("create", "-b", hook(oci, kind, "true", "exit 3"), "c1")
    assert f"error running {kind} hook #1: exit status 3" in error


def test_a_cgroup_with_somebody_in_it_is_told_of(oci: GockerOci) -> None:
    oci.run()
    document = json.loads(text_of(f"{oci.scratch}/b-c1/config.json"))
    error = oci.refused("create", "-b", oci.write("again", document), "c2")
    assert "the container's cgroup is not empty" in error


def test_a_capability_of_exec_is_an_ambient_one_where_the_container_has_inheritable_ones(
    oci: GockerOci,
) -> None:
    names = ["CAP_KILL", "CAP_CHOWN", "CAP_SYSLOG"]
    sets = {
        "bounding": names,
        "inheritable": ["CAP_CHOWN", "CAP_SYSLOG"],
        "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "effective": ["CAP_KILL"],
        "ambient": ["CAP_CHOWN"],
    }
    oci.run(capabilities=sets)
    found = oci.ok("exec", "--cap", "CAP_SYSLOG", "c1", "grep", "CapAmb", CAPABILITIES)
    assert int(found.split()[1], 16) == 1 << CHOWN | 1 << SYSLOG


def test_warnings_go_to_a_log_in_text_and_else_to_stderr(oci: GockerOci, tmp_path: Path) -> None:
    sets = {"bounding": ["CAP_KILL", "CAP_NO_SUCH"]}
    bundle = oci.bundle("b-c1", capabilities=sets)
    said = oci("create", "-b", bundle, "c1")
    assert (said.code, said.err.startswith("gocker: warning: ")) == (0, True)
    assert "CAP_NO_SUCH" in said.err
    oci.ok("delete", "--force", "c1")
    oci.ok("--log", f"{tmp_path}/log", "create", "-b", bundle, "c1")
    line = text_of(f"{tmp_path}/log")
    assert "level=warning" in line
    assert "CAP_NO_SUCH" in line
    oci.ok("delete", "--force", "c1")
    # Podman reads a log in JSON as one document, and takes its message.
    oci.ok("--log", f"{tmp_path}/json", "--log-format", "json", "create", "-b", bundle, "c1")
    assert text_of(f"{tmp_path}/json") == ""


def test_json_for_machines_is_written_without_blanks(oci: GockerOci, tmp_path: Path) -> None:
    oci.run()
    assert oci.ok("events", "--stats", "c1").startswith('{"type":"stats","id":"c1","data":{')
    assert oci.ok("list", "--format", "json").startswith('[{"ociVersion":"')
    oci.refused("--log", f"{tmp_path}/log", "--log-format", "json", "state", "nobody")
    assert text_of(f"{tmp_path}/log").startswith('{"level":"error","msg":"')


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_what_is_written_into_a_pipe_has_no_carriage_returns(oci: GockerOci, verb: str) -> None:
    program = ["sh", "-c", "echo one; echo two"]
    if verb == "run":
        words = ["run", "-b", oci.bundle("b-c1", args=program, terminal=True), "c1"]
    else:
        oci.run()
        words = ["exec", "--tty", "c1", *program]
    out = f"{oci.scratch}/written"
    parent, terminal = os.openpty()
    try:
        pid = os.posix_spawn(
            oci.program,
            [oci.program, "--root", oci.root, *words],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, terminal, 0),
                (os.POSIX_SPAWN_OPEN, 1, out, os.O_WRONLY | os.O_CREAT, 0o600),
            ],
        )
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        os.close(parent)
        os.close(terminal)
    assert text_of(out) == "one\ntwo\n"


@pytest.mark.parametrize("verb", ["create", "run", "exec"])
def test_a_socket_gets_a_pidfd_of_the_process(oci: GockerOci, verb: str) -> None:
    path = f"{oci.scratch}/pidfd"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        options = ("--pidfd-socket", path, "--pid-file", f"{oci.scratch}/pid")
        if verb == "exec":
            oci.run()
            oci.ok("exec", "--detach", *options, "c1", "sleep", "1000")
        else:
            detach = ("--detach",) if verb == "run" else ()
            oci.ok(verb, *detach, "--bundle", oci.bundle("b-c1"), *options, "c1")
        with listener.accept()[0] as connection:
            _, fds, _, _ = socket.recv_fds(connection, 16, 1)
    with open(f"/proc/self/fdinfo/{fds[0]}", encoding="ascii") as file:
        (pid,) = [line.split()[1] for line in file if line.startswith("Pid:")]
    os.close(fds[0])
    assert pid == text_of(f"{oci.scratch}/pid")


def test_a_start_container_hook_runs_below_the_program_s_filter(oci: GockerOci) -> None:
    # It is a program of the image as much as the one that is filtered.
    names = ["mkdir", "mkdirat"]
    filtered = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    }
    document = config(linux={"seccomp": filtered})
    script = "mkdir /dev/below || exit 7"
    document["hooks"] = {"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    oci.create(bundle=oci.write("b-c1", document))
    error = oci.refused("start", "c1")
    assert "error running startContainer hook #0: exit status 7" in error
    assert "No space left on device" in error


def test_a_hook_that_the_filter_kills_is_told_of(oci: GockerOci) -> None:
    killed = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL"}],
    }
    document = config(linux={"seccomp": killed}, rlimits=[{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}])
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "exec mkdir /dev/below"]}
    document["hooks"] = {"startContainer": [hook]}
    oci.create(bundle=oci.write("b-c1", document))
    assert "bad system call" in oci.refused("start", "c1")


def test_signal_0_asks_whether_a_container_is_there(oci: GockerOci) -> None:
    oci.run()
    assert oci.ok("kill", "c1", "0") == ""
    oci.ok("kill", "c1", "KILL")
    oci.await_status("stopped")
    assert "not running" in oci.refused("kill", "c1", "0")


def say(pid: int, text: bytes) -> None:
    """As the program would, by the socket that it has."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.sendto(text, f"/proc/{pid}/root/run/notify/notify.sock")


@pytest.mark.parametrize("verb", ["start", "run"])
def test_a_start_waits_for_the_program_to_be_ready_and_passes_that_on(oci: GockerOci, verb: str) -> None:
    path = f"{oci.scratch}/caller"
    env = {**os.environ, "NOTIFY_SOCKET": path}
    bundle = oci.bundle("b-c1", args=["sh", "-c", 'echo "$NOTIFY_SOCKET"; sleep 1000'])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
        caller.bind(path)
        caller.settimeout(20)
        if verb == "start":
            oci.ok("create", "--bundle", bundle, "c1", env=env)
            out = oci.out
            starting = oci.start("start", "c1", env=env)
        else:
            starting = oci.start("run", "--detach", "--bundle", bundle, "c1", env=env)
            out = oci.out
        until(lambda: text_of(out) == "/run/notify/notify.sock\n")
        pid = oci.state()["pid"]
        say(pid, b"STATUS=nearly\nMAINPID=1\nFDSTORE=1")
        assert caller.recv(100) == b"STATUS=nearly"
        assert starting.poll() is None
        say(pid, b"READY=1")
        assert caller.recv(100) == b"READY=1\nMAINPID=%d" % pid
        assert starting.wait(20) == 0
    assert ",ro," in f",{mount_options(pid, '/run/notify')},"
    oci.ok("delete", "--force", "c1")
    assert os.listdir(f"{oci.root}/containers") == []


def mount_options(pid: int, place: str) -> str:
    (line,) = [line for line in text_of(f"/proc/{pid}/mountinfo").splitlines() if line.split()[4] == place]
    return line.split()[5]


def test_a_start_does_not_wait_for_a_program_that_ends(oci: GockerOci) -> None:
    env = {**os.environ, "NOTIFY_SOCKET": f"{oci.scratch}/nobody"}
    oci.ok("create", "--bundle", oci.bundle("b-c1", args=["true"]), "c1", env=env)
    oci.ok("start", "c1", env=env)
    assert oci.status() == "stopped"


def test_a_run_in_the_foreground_passes_on_that_its_program_is_ready(oci: GockerOci) -> None:
    path = f"{oci.scratch}/caller"
    bundle = oci.bundle("b-c1", args=["sh", "-c", "sleep 1000"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
        caller.bind(path)
        caller.settimeout(20)
        running = oci.start("run", "--bundle", bundle, "c1", env={**os.environ, "NOTIFY_SOCKET": path})
        until(lambda: '"running"' in oci("state", "c1").out, 20)
        pid = oci.state()["pid"]
        say(pid, b"READY=1")
        assert caller.recv(100) == b"READY=1\nMAINPID=%d" % pid
        oci.ok("kill", "c1", "KILL")
        assert running.wait(20) == 137


def test_a_dev_may_be_read_only(oci: GockerOci) -> None:
    document = config(args=["sh", "-c", "touch /dev/new || echo no; : > /dev/null && echo null; sleep 1000"])
    for mount in document["mounts"]:
        if mount["destination"] == "/dev":
            mount["options"].append("ro")
    document["mounts"].append({"destination": "/dev/shm", "type": "tmpfs", "source": "shm"})
    out = oci.run(bundle=oci.write("b-c1", document))
    until(lambda: text_of(out) == "no\nnull\n")
    pid = oci.state()["pid"]
    assert ",ro," in f",{mount_options(pid, '/dev')},"
    assert ",rw," in f",{mount_options(pid, '/dev/shm')},"


def test_debug_shows_the_plan(oci: GockerOci, tmp_path: Path) -> None:
    bundle = oci.bundle("b-c1", linux={"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "flags": []}})
    said = oci("--debug", "create", "-b", bundle, "c1")
    assert said.code == 0
    assert 'level=debug msg="init: pivot_root' in said.err
    oci.ok("delete", "--force", "c1")
    assert oci("--debug", "--log", f"{tmp_path}/log", "create", "-b", bundle, "c1").err == ""
    assert "level=debug" in text_of(f"{tmp_path}/log")


def test_an_exec_joins_a_cgroup_of_the_controllers_that_are_named(oci: GockerOci) -> None:
    linux = {"resources": {"pids": {"limit": 20}}}
    oci.run(linux=linux)
    pid = oci.state()["pid"]
    line = next(line for line in text_of(f"/proc/{pid}/cgroup").splitlines() if ":pids:" in line)
    below = f"/sys/fs/cgroup/pids{line.split(':')[2]}/below"
    os.mkdir(below)
    oci.ok(
        "exec", "--detach", "--cgroup", "pids:below", "--pid-file", f"{oci.scratch}/pid", "c1", "sleep", "99"
    )
    joined = text_of(f"/proc/{text_of(f'{oci.scratch}/pid')}/cgroup").splitlines()
    assert [part for part in joined if part.endswith("/below")] == [f"{line}/below"]
    assert "unknown controller nosuch" in oci.refused("exec", "--cgroup", "nosuch:/", "c1", "true")
    missing = oci.refused("exec", "--cgroup", "pids:other", "c1", "true")
    assert "adding pid of the new process: no such file or directory" in missing


def test_an_exec_joins_a_cgroup_for_each_option(oci: GockerOci) -> None:
    oci.run(linux={"resources": {"pids": {"limit": 20}}})
    made = []
    for name in ("pids", "memory"):
        found = [
            line for line in text_of(f"/proc/{oci.state()['pid']}/cgroup").splitlines() if f":{name}:" in line
        ]
        if not found:
            pytest.skip(f"no v1 {name} hierarchy")
        made += [f"{found[0]}/in-{name}"]
        os.mkdir(f"/sys/fs/cgroup/{name}{found[0].split(':')[2]}/in-{name}")
    asked = ["--cgroup", "pids:in-pids", "--cgroup", "memory:in-memory"]
    oci.ok("exec", "--detach", *asked, "--pid-file", f"{oci.scratch}/pid", "c1", "sleep", "99")
    joined = text_of(f"/proc/{text_of(f'{oci.scratch}/pid')}/cgroup").splitlines()
    assert {line for line in joined if "/in-" in line} == set(made)


def cgroups_of(pid: int) -> dict[str, str]:
    """Path by controllers, of each hierarchy that is mounted where it can be written."""
    found = dict(line.split(":", 2)[1:] for line in text_of(f"/proc/{pid}/cgroup").splitlines())
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        mounts = [line.split() for line in file if " - cgroup" in line]
    options = {
        word for fields in mounts for word in fields[-1].split(",") if "ro" not in fields[5].split(",")
    }
    unified = any(fields[fields.index("-") + 1] == "cgroup2" for fields in mounts)
    return {
        names: path
        for names, path in found.items()
        if (set(names.split(",")) <= options if names else unified)
    }


def test_a_container_is_in_its_cgroup_in_every_hierarchy(oci: GockerOci) -> None:
    oci.run()
    first = cgroups_of(oci.state()["pid"])
    assert set(first.values()) == {cgroup_of("c1")}
    oci.ok("exec", "--detach", "--pid-file", f"{oci.scratch}/pid", "c1", "sleep", "99")
    assert cgroups_of(int(text_of(f"{oci.scratch}/pid"))) == first
    oci.ok("delete", "--force", "c1")
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        tops = [line.split()[4] for line in file if " - cgroup" in line]
    assert not [top for top in tops if os.path.exists(f"{top}{cgroup_of('c1')}")]


def places_of(path: str) -> list[str]:
    """The directory of a cgroup in each hierarchy."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return [f"{line.split()[4]}{path}" for line in file if " - cgroup" in line]


@pytest.fixture
def named() -> Iterator[str]:
    """A cgroup that somebody made for a container, in the hierarchy with the controller pids."""
    path = f"/named-{os.getpid()}"
    own = f"{path}/own"
    (place,) = [place for place in places_of(path) if "/pids/" in place] or places_of(path)[:1]
    os.makedirs(f"{place}/own")
    yield own
    for directory in (f"{place}/own", place):
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(directory)


def there(path: str) -> str:
    """Where it is in the first hierarchy that has it."""
    return next(place for place in places_of(path) if os.path.isdir(place))


def test_an_empty_cgroup_that_the_caller_made_is_taken_and_goes_with_the_container(
    oci: GockerOci, named: str
) -> None:
    place = there(named)
    inode = os.stat(place).st_ino
    oci.run(linux={"cgroupsPath": named})
    assert text_of(f"{place}/cgroup.procs").split() == [str(oci.state()["pid"])]
    assert os.stat(place).st_ino == inode
    oci.ok("delete", "--force", "c1")
    assert not os.path.exists(place)
    assert os.path.isdir(os.path.dirname(place))


def test_the_cgroup_of_a_container_that_has_stopped_is_not_taken(oci: GockerOci, named: str) -> None:
    oci.run(linux={"cgroupsPath": named}, args=["true"])
    oci.await_status("stopped")
    bundle = oci.bundle("b-c2", linux={"cgroupsPath": named})
    assert "another container has it" in oci.refused("create", "-b", bundle, "c2")
    assert os.path.isdir(there(named))
    oci.ok("delete", "c1")
    oci.ok("create", "-b", bundle, "c2")
    oci.ok("delete", "--force", "c2")


def test_a_cgroup_with_cgroups_below_is_not_taken(oci: GockerOci, named: str) -> None:
    os.mkdir(f"{there(named)}/below")
    try:
        assert "EEXIST" in oci.refused("create", "-b", oci.bundle("b", linux={"cgroupsPath": named}), "c1")
    finally:
        os.rmdir(f"{there(named)}/below")


def test_an_empty_cpuset_above_is_filled(oci: GockerOci) -> None:
    if not os.path.isdir("/sys/fs/cgroup/cpuset"):
        pytest.skip("no cgroup v1 cpuset")
    pod = f"/sys/fs/cgroup/cpuset/pod-{os.getpid()}"
    os.mkdir(pod)
    try:
        assert text_of(f"{pod}/cpuset.cpus").strip() == ""
        oci.run(linux={"cgroupsPath": f"/pod-{os.getpid()}/one"})
        assert text_of(f"{pod}/cpuset.cpus") == text_of("/sys/fs/cgroup/cpuset/cpuset.cpus")
        assert text_of(f"{pod}/cpuset.mems") == text_of("/sys/fs/cgroup/cpuset/cpuset.mems")
        oci.ok("delete", "--force", "c1")
    finally:
        os.rmdir(pod)


def test_a_container_that_has_stopped_has_no_processes(oci: GockerOci) -> None:
    oci.run(args=["true"])
    oci.await_status("stopped")
    assert oci.ok("ps", "--format", "json", "c1") == "[]\n"
    (heading,) = oci.ok("ps", "c1").splitlines()
    assert "PID" in heading.split()


def test_a_root_that_is_named_has_to_be_there_to_be_listed(oci: GockerOci, tmp_path: Path) -> None:
    root, oci.root = oci.root, f"{tmp_path}/misspelt"
    said = oci.refused("list")
    oci.root = root
    assert "misspelt: ENOENT" in said


def test_the_template_has_a_cgroup_namespace_where_cgroup2_is_alone(oci: GockerOci, tmp_path: Path) -> None:
    oci.ok("spec", "-b", str(tmp_path))
    document = json.loads(text_of(f"{tmp_path}/config.json"))
    kinds = [entry["type"] for entry in document["linux"]["namespaces"]]
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        controllers = any(" - cgroup " in line and ",name=" not in line for line in file)
    assert ("cgroup" in kinds) == (not controllers)


def test_a_pids_limit_of_0_on_the_command_line_lets_no_process_start(oci: GockerOci) -> None:
    oci.run(linux={"resources": {"pids": {"limit": 20}}})
    oci.ok("update", "--pids-limit", "0", "c1")
    assert "fork" in oci("exec", "c1", "sh", "-c", "true & wait").err


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT"])
def test_a_created_container_ends_by_a_signal_that_ends_programs(oci: GockerOci, name: str) -> None:
    oci.create()
    oci.ok("kill", "c1", name)
    oci.await_status("stopped")


def test_a_started_program_has_the_signals_of_a_new_one(oci: GockerOci) -> None:
    out = oci.run(args=["sh", "-c", "cat /proc/self/status; sleep 1000"])
    until(lambda: "Seccomp" in text_of(out))
    caught = dict(line.split() for line in text_of(out).splitlines() if line.startswith("Sig"))
    assert int(caught["SigIgn:"], 16) & (1 << 14 | 1 << 1 | 1 << 0 | 1 << 2) == 0
    assert int(caught["SigCgt:"], 16) == 0


def test_sigkill_reaches_who_is_left_of_a_container_without_a_pid_namespace(oci: GockerOci) -> None:
    document = config(args=["sh", "-c", "sleep 1000 & exec sleep 1000"])
    linux = document["linux"]
    linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] != "pid"]
    document["mounts"][0] = {**document["mounts"][0], "type": "bind", "source": "/proc", "options": ["rbind"]}
    oci.run(bundle=oci.write("b-c1", document))
    first = oci.state()["pid"]
    until(lambda: len(json.loads(oci.ok("ps", "--format", "json", "c1"))) == 2)
    (other,) = set(json.loads(oci.ok("ps", "--format", "json", "c1"))) - {first}
    os.kill(first, signal.SIGKILL)
    oci.await_status("stopped")
    assert os.path.exists(f"/proc/{other}/cwd")
    oci.ok("kill", "c1", "KILL")
    until(lambda: not os.path.exists(f"/proc/{other}/cwd"))
    assert "not running" in oci.refused("kill", "c1", "KILL")


def test_an_exec_in_a_paused_container_says_so(oci: GockerOci) -> None:
    oci.run()
    oci.ok("pause", "c1")
    assert "cannot exec in a paused container" in oci.refused("exec", "c1", "true")
    oci.ok("resume", "c1")


@pytest.mark.parametrize(("propagation", "tag"), [("slave", "master:"), ("private", "-")])
def test_a_root_follows_the_host_s_mounts_when_it_is_to(oci: GockerOci, propagation: str, tag: str) -> None:
    document = config(args=["cat", "/proc/self/mountinfo"], linux={"rootfsPropagation": propagation})
    bundle = oci.write("b-c1", document)
    script = 'mount --make-rshared / && exec "$0" --root "$1" run --bundle "$2" c1'
    command = ["unshare", "-m", "sh", "-c", script, oci.program, oci.root, bundle]
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    (root,) = [line.split() for line in done.stdout.splitlines() if line.split()[4] == "/"]
    assert root[6].startswith(tag), root


def bound(source: str, target: str, *options: str, **more: Any) -> dict[str, Any]:
    return {"type": "bind", "source": source, "destination": target, "options": [*options], **more}


@pytest.fixture
def rooted(oci: GockerOci, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A config whose root is the test's own copy of the image."""
    document = config()
    root = f"{tmp_path}/rootfs"
    subprocess.run(["cp", "-a", document["root"]["path"], root], check=True)
    document["root"] = {"path": root}
    for name in ("mnt", "final"):
        os.makedirs(f"{root}/{name}", exist_ok=True)
    yield document
    oci("delete", "--force", "c1")


def said_inside(oci: GockerOci, document: dict[str, Any], script: str) -> str:
    document["process"]["args"] = ["sh", "-c", f"{script}; sleep 1000"]
    document["process"]["capabilities"] = {}
    bundle = oci.write("b-c1", document)
    ran = oci("run", "--detach", "-b", bundle, "c1")
    assert ran.code == 0, ran
    out = oci.out
    until(lambda: text_of(out) != "")
    return text_of(out)


@pytest.mark.parametrize("maps", [{}, {"uidMappings": [], "gidMappings": []}], ids=["plain", "mapped"])
def test_a_source_in_the_root_has_the_mounts_made_before_it(
    oci: GockerOci, rooted: dict[str, Any], tmp_path: Path, maps: dict[str, Any]
) -> None:
    root = rooted["root"]["path"]
    os.makedirs(tmp_path / "host/below")
    (tmp_path / "host/below/file").write_text("from the host\n")
    for name in maps:
        maps = {**maps, name: [{"containerID": 0, "hostID": 1000, "size": 10}]}
    rooted["mounts"] += [
        bound(f"{tmp_path}/host", "/mnt", "rbind", "rprivate"),
        bound(f"{root}/mnt", f"{root}/final", "rbind", "rprivate", **maps),
    ]
    said = said_inside(oci, rooted, "cat /final/below/file; stat -c %u /final/below/file")
    assert said == f"from the host\n{1000 if maps else 0}\n"


def test_a_source_in_the_root_does_not_lead_out_of_it_by_a_link(
    oci: GockerOci, rooted: dict[str, Any], tmp_path: Path
) -> None:
    root = rooted["root"]["path"]
    (tmp_path / "secret").write_text("of the host\n")
    os.symlink(f"{tmp_path}/secret", f"{root}/link")
    rooted["mounts"].append(bound(f"{root}/link", "/final/file", "bind"))
    assert "in the root: ENOENT" in oci.refused("create", "-b", oci.write("b-c1", rooted), "c1")


@pytest.mark.parametrize("source", ["/proc", "/proc/sys", "/"])
def test_a_source_in_the_root_is_not_the_own_proc_past_its_masks(
    oci: GockerOci, rooted: dict[str, Any], source: str
) -> None:
    root = rooted["root"]["path"]
    rooted["mounts"].append(bound(f"{root}{source}", "/final", "rbind"))
    assert "the container's own /proc" in oci.refused("create", "-b", oci.write("b-c1", rooted), "c1")


@pytest.mark.parametrize(("asked", "found"), [("rw", "rw"), ("nosuid", "ro")])
def test_a_bind_is_writable_where_that_is_asked_for_and_else_as_on_the_host(
    oci: GockerOci, rooted: dict[str, Any], tmp_path: Path, asked: str, found: str
) -> None:
    closed = f"{tmp_path}/closed"
    os.mkdir(closed)
    subprocess.run(["mount", "--bind", closed, closed], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", closed], check=True)
        rooted["mounts"].append(bound(closed, "/mnt", "bind", asked))
        said = said_inside(oci, rooted, "grep ' /mnt ' /proc/self/mounts")
        oci.ok("delete", "--force", "c1")
    finally:
        subprocess.run(["umount", closed], check=True)
    assert found in said.split()[3].split(",")


@pytest.mark.parametrize("options", [["ro"], ["hidepid=invisible"], ["subset=pid"], ["noatime"]])
def test_the_options_of_proc_are_those_of_the_config(oci: GockerOci, options: list[str]) -> None:
    document = config()
    document["mounts"][0]["options"] = ["nosuid", *options]
    said = said_inside(oci, document, "grep ' /proc ' /proc/self/mounts")
    assert {*options, "nosuid", "nodev", "noexec"} <= set(said.split()[3].split(","))


def test_proc_has_no_programs_and_no_option_that_it_does_not_know(oci: GockerOci) -> None:
    for option, reason in (("exec", "noexec"), ("nosuch=1", "nosuch")):
        document = config()
        document["mounts"][0]["options"] = [option]
        assert reason in oci.refused("create", "-b", oci.write("b-c1", document), "c1")
