"""A warm server: what is done by it is what the command does itself, and whatever is killed, nothing is left."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import warming
from command import SLOWNESS
from session import Session

PATIENCE = 30 * SLOWNESS
SELF = "gocker: not by the warm server: "


class Commands(NamedTuple):
    """The compiled commands, with a server behind them."""

    gocker: str
    oci: str
    directory: str

    def run(self, *args: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        return run([self.gocker, "run", *args], **options)


def run(argv: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    options["env"] = {**os.environ, "GOCKER_WARM": "explain", **(options.get("env") or {})}
    if "input" in options:
        del options["stdin"]
    return subprocess.run(argv, check=False, timeout=PATIENCE, **options)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, places: Any) -> Iterator[Commands]:
    """The commands; a server starts with them."""
    if "GOCKER_TEST_BIN" in os.environ:
        directory = os.environ["GOCKER_TEST_BIN"]
        yield Commands(f"{directory}/gocker", f"{directory}/gocker-oci", directory)
        return
    with warming.warm(str(tmp_path_factory.mktemp("warm"))) as directory:
        yield Commands(f"{directory}/gocker", f"{directory}/gocker-oci", directory)


@pytest.fixture
def warm(installed: Commands) -> Commands:
    """A server is there."""
    if not warming.server(installed.directory):
        warming.start(installed.directory)
    warming.ready(installed.directory)
    return installed


def both(warm: Commands, *args: str, **options: Any) -> tuple[Any, Any]:
    """What the server and what the command itself makes of it: exit status and output."""
    found = []
    for mode in ("explain", "off"):
        env = {**(options.get("env") or {}), "GOCKER_WARM": mode}
        done = warm.run(*args, **{**options, "env": env})
        assert SELF.encode() not in done.stderr, done
        found.append(
            (done.returncode, done.stdout, done.stderr.replace(b"GOCKER_WARM=off", b"GOCKER_WARM=explain"))
        )
    return found[0], found[1]


def test_a_caller_that_posix_spawn_made_is_served(warm: Commands, tmp_path: Path) -> None:
    env = {**os.environ, "GOCKER_WARM": "explain"}
    with open(tmp_path / "errors", "wb") as errors:
        actions = [(os.POSIX_SPAWN_DUP2, errors.fileno(), 2)]
        pid = os.posix_spawn(warm.gocker, [warm.gocker, "run", "base", "true"], env, file_actions=actions)
        _, status = os.waitpid(pid, 0)
    assert (status, (tmp_path / "errors").read_bytes()) == (0, b"")


@pytest.mark.parametrize(
    "script",
    [
        "echo out; echo err >&2; exit 7",
        "kill -9 $$",
        "sh -c 'kill -TERM $$'; echo $?",
        "id; ulimit -a; umask; pwd",
        "cat /proc/self/oom_score_adj /proc/self/loginuid; grep -E 'Cpus_allowed|Sig|Cap|Seccomp' /proc/self/status",
        "ls -l /proc/self/fd | wc -l; cat /proc/self/mountinfo | wc -l",
    ],
)
def test_output_and_exit_status_are_those_of_the_command(warm: Commands, script: str) -> None:
    one, other = both(warm, "base", "sh", "-c", script)
    assert one == other


@pytest.mark.parametrize(
    "args", [("base", "nosuch"), ("nosuch", "true"), ("--limit", "memory=1k", "base", "true"), ("--nosuch",)]
)
def test_errors_are_those_of_the_command(warm: Commands, args: tuple[str, ...]) -> None:
    one, other = both(warm, *args)
    assert one == other
    assert one[0]


def test_input_is_the_callers(warm: Commands) -> None:
    one, other = both(warm, "-i", "base", "cat", input=b"\0\xffabc" * 100_000)
    assert one == other
    assert len(one[1]) == 500_000


def test_environment_of_the_caller_is_what_an_option_names(warm: Commands) -> None:
    one, other = both(warm, "-e", "MINE", "base", "sh", "-c", "echo $MINE", env={"MINE": "a\udcff b"})
    assert one == other
    assert one[1] == b"a\xff b\n"


def test_paths_are_of_the_callers_working_directory(warm: Commands, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("MINE=here")
    one, other = both(warm, "--env-file", "file", "base", "sh", "-c", "echo $MINE", cwd=tmp_path)
    assert one == other
    assert one[1] == b"here\n"


def test_files_are_made_with_the_callers_umask(warm: Commands, tmp_path: Path) -> None:
    for mode in ("explain", "off"):
        report = tmp_path / f"report-{mode}"
        done = warm.run("--report", str(report), "base", "true", umask=0o037, env={"GOCKER_WARM": mode})
        assert (done.returncode, done.stderr) == (0, b"")
        assert report.stat().st_mode & 0o777 == 0o640


def test_limits_of_resources_are_the_callers(warm: Commands) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.nice(5)

    one, other = both(warm, "base", "sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -c; nice", preexec_fn=few)
    assert one == other
    assert one[1].split()[:3] == [b"100", b"200", b"0"]


def test_the_actor_of_the_audit_log_is_the_caller(warm: Commands) -> None:
    process = subprocess.Popen(
        [warm.gocker, "run", "-e", "SECRET=x", "base", "true"],
        env={**os.environ, "GOCKER_WARM": "explain"},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.communicate(timeout=PATIENCE)[1] == b""
    with open(os.environ["GOCKER_AUDIT_LOG"], encoding="utf-8") as file:
        actors = [event["actor"] for event in map(json.loads, file) if event["actor"]["pid"] == process.pid]
    assert actors
    assert {tuple(actor["command"]) for actor in actors} == {
        (warm.gocker, "run", "-e", "SECRET=***", "base", "true")
    }
    assert {actor["uid"] for actor in actors} == {os.getuid()}


def start(warm: Commands, *args: str, **options: Any) -> subprocess.Popen[bytes]:
    """`gocker run ARGS`, whose program has said that it is ready."""
    process = subprocess.Popen(
        [warm.gocker, "run", *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "GOCKER_WARM": "explain"},
        **options,
    )
    assert process.stdout
    assert process.stdout.readline() == b"ready\n", process.communicate(timeout=PATIENCE)
    return process


def test_the_container_is_a_child_of_the_caller(warm: Commands) -> None:
    process = start(warm, "base", "sh", "-c", "echo ready; sleep 1000")
    (child,) = children(process.pid)
    with open(f"/proc/{child}/cmdline", "rb") as file:
        assert file.read().startswith(b"sh\0")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 128 + 15


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def test_a_signal_has_its_sender_on_the_record(warm: Commands) -> None:
    process = start(warm, "base", "sh", "-c", "trap 'exit 5' USR1; echo ready; while :; do sleep 0.02; done")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(PATIENCE) == 5
    with open(os.environ["GOCKER_AUDIT_LOG"], encoding="utf-8") as file:
        events = [json.loads(line) for line in file]
    (event,) = [e for e in events if e["event"] == "container.signal" and e["actor"]["pid"] == process.pid]
    assert (event["signal"], event["sender_pid"], event["sender_uid"]) == (
        "SIGUSR1",
        os.getpid(),
        os.getuid(),
    )


def test_nohup_holds(warm: Commands) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = start(warm, "base", "sh", "-c", "echo ready; sleep 0.5; exit 3", preexec_fn=ignore)
    process.send_signal(signal.SIGHUP)
    assert process.wait(PATIENCE) == 3


def test_a_terminal_is_the_callers(warm: Commands) -> None:
    session = Session(
        [warm.gocker, "run", "-it", "base", "sh"], rows=33, columns=99, env={"GOCKER_WARM": "explain"}
    )
    try:
        assert SELF not in session.expect("# ")
        assert session.is_raw()
        session.press("stty size; tty\r")
        session.expect("33 99\r\n/dev/pts/0\r\n")
        session.resize(40, 100)
        time.sleep(0.3)
        session.press("stty size\r")
        session.expect("40 100\r\n")
        session.press("exit 4\r")
        assert session.wait() == 4
        assert session.settings() == session.before
    finally:
        session.close()


KILLS = [0.0, 0.002, 0.005, 0.01, 0.02, 0.04]


@pytest.mark.parametrize("after", KILLS)
def test_a_client_that_is_killed_leaves_nothing(warm: Commands, after: float) -> None:
    pid = warming.server(warm.directory)
    process = subprocess.Popen(
        [warm.gocker, "run", "base", "sleep", "1000"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    time.sleep(after)
    process.kill()
    process.communicate(timeout=PATIENCE)
    settled(warm, pid)


@pytest.mark.parametrize("after", [*KILLS, 0.3])
def test_a_worker_that_is_killed_leaves_nothing(warm: Commands, after: float) -> None:
    pid = warming.server(warm.directory)
    before = set(warming.workers(pid))
    process = subprocess.Popen(
        [warm.gocker, "run", "base", "sleep", "1000"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    time.sleep(after)
    busy = [worker for worker in before if is_busy(worker)]
    for worker in busy:
        os.kill(worker, signal.SIGKILL)
    time.sleep(0.05)
    started_anew = process.poll() is None and os.readlink(f"/proc/{process.pid}/exe") != warm.gocker
    if not busy or started_anew:  # it had not got so far; or not begun, and the command does it itself
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)
    assert out == b""
    if busy and not started_anew:
        assert process.returncode == 125
        assert b"was killed" in err
    settled(warm, pid)


def is_busy(worker: int) -> bool:
    """Whether it has taken a command: an idle one has the server's listener open, and nothing else of that name."""
    try:
        links = [os.readlink(f"/proc/{worker}/fd/{fd}") for fd in os.listdir(f"/proc/{worker}/fd")]
        with open(f"/proc/{worker}/stat", encoding="ascii") as file:
            return "Z" not in file.read().rpartition(")")[2].split()[:1] and "/dev/null" not in links[1:2]
    except FileNotFoundError:
        return False


def settled(warm: Commands, pid: int) -> None:
    """What is left after a kill the next command takes back, and the server goes on."""
    deadline = time.monotonic() + PATIENCE
    while any(is_busy(worker) for worker in warming.workers(pid)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    done = warm.run("base", "true", env={"GOCKER_WARM": "off"})
    assert done.returncode == 0, done
    assert warming.server(warm.directory) == pid


def test_a_server_that_is_killed_ends_nothing_that_is_under_way(warm: Commands) -> None:
    pid = warming.server(warm.directory)
    workers = warming.workers(pid)
    process = start(warm, "base", "sh", "-c", "echo ready; sleep 1; exit 3")
    os.kill(pid, signal.SIGKILL)
    assert process.wait(PATIENCE) == 3
    assert warming.gone(workers)
    done = warm.run("base", "true")
    assert (done.returncode, done.stderr) == (0, b"")  # by itself, in silence
    warming.start(warm.directory)
    assert warm.run("base", "true").stderr == b""


def test_stop_leaves_no_trace_and_lets_commands_end(warm: Commands) -> None:
    pid = warming.server(warm.directory)
    workers = warming.workers(pid)
    process = start(warm, "base", "sh", "-c", "echo ready; sleep 1; exit 3")
    assert run([warm.gocker, "warm", "stop"]).stdout == b"the warm server has ended\n"
    assert not os.path.exists(f"{os.environ['GOCKER_STATE']}/warm")
    assert run([warm.gocker, "warm", "status"]).returncode == 3
    assert process.wait(PATIENCE) == 3
    assert warming.gone([pid, *workers])


def test_it_ends_when_nobody_needs_it(warm: Commands) -> None:
    run([warm.gocker, "warm", "stop"])
    warming.start(warm.directory, "--idle-timeout", "1")
    pids = [warming.server(warm.directory), *warming.workers(warming.server(warm.directory))]
    assert warming.gone(pids)
    assert not os.path.exists(f"{os.environ['GOCKER_STATE']}/warm")


def test_a_second_start_finds_the_first(warm: Commands) -> None:
    pid = warming.server(warm.directory)
    assert f"process {pid}\n".encode() in run([warm.gocker, "warm", "start"]).stdout


def test_a_change_of_what_is_installed_ends_it(warm: Commands) -> None:
    pid = warming.server(warm.directory)
    library = os.environ["PYTHONPATH"]
    Path(library, "new-1.0.dist-info").mkdir()
    try:
        done = warm.run("base", "true")
        assert done.returncode == 0
        assert warming.gone([pid])
    finally:
        os.rmdir(f"{library}/new-1.0.dist-info")


def cold(done: subprocess.CompletedProcess[bytes], reason: str) -> None:
    """It did it itself, for this reason."""
    assert done.returncode == 0, done
    assert f"{SELF}{reason}\n".encode() in done.stderr, done


def test_a_caller_with_fewer_capabilities_does_it_itself(warm: Commands) -> None:
    done = run(["setpriv", "--bounding-set", "-sys_time", warm.gocker, "version"])
    cold(done, "other surroundings")


def test_a_caller_that_gave_up_new_privileges_does_it_itself(warm: Commands) -> None:
    cold(run(["setpriv", "--no-new-privs", warm.gocker, "version"]), "other surroundings")


@pytest.mark.parametrize("kind", ["--mount", "--uts", "--net", "--ipc", "--cgroup"])
def test_a_caller_in_another_namespace_does_it_itself(warm: Commands, kind: str) -> None:
    cold(run(["unshare", kind, warm.gocker, "version"]), "other surroundings")


def test_a_caller_with_other_groups_does_it_itself(warm: Commands) -> None:
    cold(run(["setpriv", "--groups", "12345", warm.gocker, "version"]), "other surroundings")


def test_another_user_does_not_even_find_it(warm: Commands) -> None:
    # 0700 folders: the fallback is silent, and fails where it would fail without a server.
    done = run(["setpriv", "--reuid", "65534", "--clear-groups", warm.gocker, "version"])
    assert SELF.encode() not in done.stderr


def test_a_program_that_is_not_the_client_is_refused(warm: Commands, tmp_path: Path) -> None:
    for name in ("gocker", "gocker-python"):
        (tmp_path / name).write_bytes(Path(warm.directory, name).read_bytes())
        (tmp_path / name).chmod(0o755)
    cold(run([str(tmp_path / "gocker"), "version"]), "not the client of this installation")


@pytest.mark.parametrize("variable", ["PYTHONOPTIMIZE", "LD_LIBRARY_PATH", "MALLOC_ARENA_MAX"])
def test_a_variable_that_steers_the_interpreter_is_honoured(warm: Commands, variable: str) -> None:
    cold(run([warm.gocker, "version"], env={variable: "1"}), "its environment asks for another interpreter")


def test_gockers_own_variables_count(warm: Commands, tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    done = warm.run("base", "true", env={"GOCKER_AUDIT_LOG": str(log)})
    assert (done.returncode, done.stderr) == (0, b"")
    assert log.stat().st_size


def test_a_plan_for_the_python_executor_is_the_commands_own(warm: Commands) -> None:
    done = warm.run("base", "true", env={"GOCKER_EXECUTOR": "python"})
    cold(done, "the plan needs the Python executor")


def test_garbage_on_the_socket_harms_nobody(warm: Commands) -> None:
    import socket

    pid = warming.server(warm.directory)
    for data in (b"x", b"\0" * 300, os.urandom(5000)):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(f"{os.environ['GOCKER_STATE']}/warm/socket")
            client.send(data)
            assert len(client.recv(100)) == 8  # COLD
    assert warm.run("base", "true").stderr == b""
    assert warming.server(warm.directory) == pid


def test_eight_at_a_time(warm: Commands) -> None:
    processes = [
        subprocess.Popen(
            [warm.gocker, "run", "base", "sh", "-c", f"exit {number}"],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "GOCKER_WARM": "explain"},
        )
        for number in range(8)
    ]
    assert [process.wait(PATIENCE) for process in processes] == list(range(8))


def test_the_verbs_of_an_engine_are_done_by_it(warm: Commands, oci: Any) -> None:
    oci.program = warm.oci
    env = {**os.environ, "GOCKER_WARM": "explain"}
    oci.create("c1")
    state = json.loads(oci.ok("state", "c1", env=env))
    assert state["status"] == "created"
    with open(f"/proc/{state['pid']}/stat", encoding="ascii") as file:
        assert int(file.read().rpartition(")")[2].split()[1]) != warming.server(warm.directory)
    oci.ok("start", "c1", env=env)
    assert oci.ok("exec", "c1", "echo", "hi", env=env) == "hi\n"
    assert oci("exec", "c1", "sh", "-c", "exit 9", env=env).code == 9
    oci.ok("kill", "c1", "KILL", env=env)
    deadline = time.monotonic() + PATIENCE
    while json.loads(oci.ok("state", "c1", env=env))["status"] != "stopped":
        assert time.monotonic() < deadline
    oci.ok("delete", "c1", env=env)


def test_hooks_are_the_commands_own(warm: Commands, oci: Any) -> None:
    bundle = oci.bundle("b-c1")
    path = f"{bundle}/config.json"
    document = json.loads(Path(path).read_text())
    document["hooks"] = {"prestart": [{"path": "/bin/true"}]}
    Path(path).write_text(json.dumps(document))
    oci.program = warm.oci
    ran = oci("create", "--bundle", bundle, "c1", env={**os.environ, "GOCKER_WARM": "explain"})
    assert ran.code == 0
    assert ran.err == f"{SELF}hooks and fds are the caller's own\n"
    oci.ok("delete", "--force", "c1", env={**os.environ, "GOCKER_WARM": "off"})


def test_a_closed_stream_is_the_commands_own_matter(warm: Commands) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{warm.gocker} version >&-"], check=False, capture_output=True, timeout=PATIENCE
    )
    assert done.returncode == 0, sys.executable
