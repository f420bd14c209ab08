"""gocker inside another program: this one, with its threads, its event loop, its signals and its fds."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import SLOWNESS, Gocker

import gocker
from gocker import paths
from gocker.embedding import carrier
from gocker.errors import ExecError, LimitError, StateError, UsageError
from gocker.images import resolve_image
from gocker.kernel.native import is_built
from gocker.kernel.process import PR_SET_DUMPABLE
from gocker.kernel.syscalls import prctl

PR_GET_DUMPABLE = 3
PATIENCE = 10 * SLOWNESS


@pytest.fixture(autouse=True, params=["server", "thread"])
def attendant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each test is run with both that carry an attendant; afterwards the fork server goes."""
    kind: str = request.param
    if kind == "server":
        monkeypatch.setenv("GOCKER_EXECUTOR", "python")
    elif not is_built():
        pytest.skip("needs the native executor, which no compiler was there to build")
    yield kind
    carrier.stop()


def living() -> list[str]:
    """The containers that some gocker answers for, by what is on disk."""
    directory = f"{paths.state_root()}/containers"
    return os.listdir(directory) if os.path.isdir(directory) else []


def events(container: str) -> list[dict[str, Any]]:
    with open(paths.audit_log(), encoding="ascii") as file:
        lines = [json.loads(line) for line in file if container in line]
    return [line for line in lines if line["container"] == container]


def soon(condition: Any) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_output_exit_status_verdict_and_usage_come_back() -> None:
    done = gocker.run(["sh", "-c", "echo out; echo err >&2; exit 3"], capture_output=True)
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 3)
    assert (done.verdict.kind, done.verdict.code) == ("exit", 3)
    assert done.usage["wall_us"]
    assert done.args == ("sh", "-c", "echo out; echo err >&2; exit 3")
    assert living() == []


def test_what_killed_the_program_is_a_negative_number_as_subprocess_has_it() -> None:
    done = gocker.run(["sh", "-c", "kill -9 $$"], options=["--init"])
    assert (done.returncode, done.verdict.kind, done.verdict.signal) == (-9, "signal", "SIGKILL")


def test_input_larger_than_a_pipe_goes_in_and_comes_out() -> None:
    data = os.urandom(1 << 20)
    assert gocker.run(["cat"], input=data, capture_output=True).stdout == data


def test_a_program_that_reads_none_of_its_input_is_no_error() -> None:
    assert gocker.run(["true"], input=bytes(1 << 20)).returncode == 0


def test_a_large_output_on_both_streams_is_taken_at_once() -> None:
    script = "head -c 1m /dev/zero; head -c 1m /dev/zero >&2; head -c 1m /dev/zero"
    done = gocker.run(["sh", "-c", script], capture_output=True)
    assert (len(done.stdout), len(done.stderr)) == (2 << 20, 1 << 20)


def test_text_is_decoded_with_plain_line_ends() -> None:
    done = gocker.run(["printf", "gr\\303\\274n\\r\\nblau"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("grün\nblau", "")
    done = gocker.run(["cat"], input="grün", stdout=gocker.PIPE, encoding="latin-1")
    assert done.stdout == "grün"


def test_text_that_is_not_text_is_an_error_and_leaves_nothing() -> None:
    with pytest.raises(UnicodeDecodeError):
        gocker.run(["printf", "\\377"], capture_output=True, text=True)
    assert living() == []
    assert gocker.run(["printf", "\\377"], capture_output=True, errors="replace").stdout == "\ufffd"


def test_stderr_goes_where_stdout_goes_in_order() -> None:
    done = gocker.run(
        ["sh", "-c", "echo 1; echo 2 >&2; echo 3"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert (done.stdout, done.stderr) == (b"1\n2\n3\n", None)


def test_without_a_word_the_program_writes_to_our_own_streams_and_reads_nothing(capfd: Any) -> None:
    gocker.run(["sh", "-c", "cat; echo out; echo err >&2"])
    assert capfd.readouterr() == ("out\n", "err\n")


def test_files_are_read_and_written(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"text" * 50_000)
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as target:
        gocker.run(["cat"], stdin=source, stdout=target, stderr=gocker.DEVNULL)
        assert os.get_blocking(source.fileno())
    assert (tmp_path / "out").read_bytes() == b"text" * 50_000


def test_a_timeout_kills_and_removes_the_container_and_carries_its_output() -> None:
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        gocker.run(["sh", "-c", "echo so far; exec sleep 60"], timeout=0.5, capture_output=True, text=True)
    error = caught.value
    assert isinstance(error, gocker.TimeoutExpired)
    assert (error.output, error.timeout) == ("so far\n", 0.5)
    assert error.result is not None
    assert error.result.verdict.kind == "timeout"
    assert living() == []


def test_check_raises_with_the_verdict() -> None:
    assert gocker.run(["true"], check=True).verdict.kind == "ok"
    with pytest.raises(subprocess.CalledProcessError) as caught:
        gocker.run(["sh", "-c", "echo out; exit 7"], check=True, capture_output=True)
    error = caught.value
    assert isinstance(error, gocker.ContainerError)
    assert (error.returncode, error.stdout, error.verdict.kind) == (7, b"out\n", "exit")
    assert error.usage["wall_us"]


def test_a_limit_binds_and_the_verdict_says_so() -> None:
    done = gocker.run(
        ["sh", "-c", "head -c 200m /dev/zero | tail"], limits={"memory": "40m"}, stderr=gocker.DEVNULL
    )
    assert (done.verdict.kind, done.returncode) == ("oom", 137)
    assert done.limits["memory"] == {"asked": "40m", "effective": 40 << 20}


def test_limits_may_be_numbers() -> None:
    assert gocker.run(["true"], limits={"pids": 64}).limits["pids"]["effective"] == 64


def test_what_gocker_cannot_do_is_raised_as_its_own_error() -> None:
    with pytest.raises(LimitError, match="unknown unit"):
        gocker.run(["true"], limits={"memory": "100q"})
    with pytest.raises(UsageError, match="no such option"):
        gocker.run(["true"], options=["--nonsense"])
    with pytest.raises(UsageError, match="tty"):
        gocker.run(["true"], options=["--tty"])
    with pytest.raises(gocker.GockerError, match="no-such-image"):
        gocker.run(["true"], image="no-such-image")
    assert living() == []


def test_a_program_that_is_not_there_is_an_error_with_its_exit_status() -> None:
    with pytest.raises(ExecError, match="not found") as caught:
        gocker.run(["no-such-program"])
    assert caught.value.exit_code == 127
    with pytest.raises(ExecError):
        gocker.Container(["no-such-program"]).start()
    assert living() == []


def test_environment_directory_user_and_names_are_those_asked_for() -> None:
    done = gocker.run(
        ["sh", "-c", 'echo "$A" "$PWD" $(id -u) $(hostname)'],
        env={"A": "b c\n=d"},
        cwd="/usr",
        user=1000,
        hostname="host",
        name="embedded",
        capture_output=True,
        text=True,
    )
    assert done.stdout == "b c\n=d /usr 1000 host\n"
    assert done.name == "embedded"


def test_a_root_file_system_is_found_from_where_the_program_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    base = Path(resolve_image("base"))
    gocker.run(["true"])
    monkeypatch.chdir(base.parent)
    assert gocker.run(["echo", "here"], rootfs=base.name, stdout=gocker.PIPE).stdout == b"here\n"


def test_volumes_are_bound(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host")
    assert (
        gocker.run(["cat", "/v/file"], volumes=[f"{tmp_path}:/v:ro"], stdout=gocker.PIPE).stdout
        == b"of the host"
    )


def test_arguments_may_be_longer_than_a_packet() -> None:
    words = ["a" * 100_000] * 8
    assert gocker.run(["sh", "-c", "echo $#", *words], stdout=gocker.PIPE).stdout == b"7\n"


def test_the_actor_of_the_audit_log_is_this_program() -> None:
    done = gocker.run(["true"])
    story = events(done.id)
    assert {"container.create", "container.start", "container.exit", "container.remove"} <= {
        line["event"] for line in story
    }
    actors = [line["actor"] for line in story]
    assert {actor["pid"] for actor in actors} == {os.getpid()}
    assert actors[0]["command"] == sys.argv


def test_nothing_of_the_program_is_changed() -> None:
    def look() -> list[object]:
        handlers = [signal.getsignal(number) for number in signal.valid_signals()]
        with open("/proc/self/status", encoding="ascii") as file:
            umask = [line for line in file if line.startswith(("Umask", "SigBlk", "SigIgn", "SigCgt"))]
        return [
            handlers,
            umask,
            os.getcwd(),
            prctl(PR_GET_DUMPABLE),
            signal.pthread_sigmask(signal.SIG_BLOCK, []),
        ]

    prctl(PR_SET_DUMPABLE, 1)
    before = look()
    gocker.run(["true"], capture_output=True)
    with pytest.raises(gocker.GockerError):
        gocker.run(["no-such-program"])
    assert look() == before


def test_no_fd_is_left_open() -> None:
    def one_of_each() -> None:
        gocker.run(["cat"], input=b"text", capture_output=True)
        gocker.run(["true"], stdout=gocker.DEVNULL)
        for bad in (["no-such-program"],):
            with pytest.raises(gocker.GockerError):
                gocker.run(bad, input=b"text", capture_output=True)
        with pytest.raises(gocker.TimeoutExpired):
            gocker.run(["sleep", "60"], timeout=0.1, capture_output=True)
        with gocker.Container(["cat"], stdin=gocker.PIPE, stdout=gocker.PIPE):
            pass
        asyncio.run(gocker.arun(["true"], capture_output=True))

    one_of_each()  # the fork server's socket, the executor
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    one_of_each()
    gc.collect()
    assert soon(lambda: set(os.listdir("/proc/self/fd")) == before), os.listdir("/proc/self/fd")


def test_eight_threads_run_containers_at_once() -> None:
    found: dict[int, tuple[bytes, int]] = {}

    def one(number: int) -> None:
        done = gocker.run(
            ["sh", "-c", f"cat; sleep 1; exit {number}"], input=b"%d" % number, capture_output=True
        )
        found[number] = done.stdout, done.returncode

    gocker.run(["true"])
    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: (b"%d" % number, number) for number in range(8)}
    assert time.monotonic() - begin < 6 * SLOWNESS
    assert living() == []


def test_asyncio_gathers_eight() -> None:
    async def all_of_them() -> list[gocker.CompletedContainer]:
        each = (
            gocker.arun(
                ["sh", "-c", f"cat; sleep 1; exit {number}"],
                input=f"{number}",
                capture_output=True,
                text=True,
            )
            for number in range(8)
        )
        return await asyncio.gather(*each)

    gocker.run(["true"])
    begin = time.monotonic()
    done = asyncio.run(all_of_them())
    assert [(one.stdout, one.returncode) for one in done] == [(f"{number}", number) for number in range(8)]
    assert time.monotonic() - begin < 6 * SLOWNESS
    assert living() == []


def test_the_event_loop_goes_on_meanwhile() -> None:
    async def tick(ticks: list[float]) -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.01)

    async def both() -> list[float]:
        ticks: list[float] = []
        ticking = asyncio.create_task(tick(ticks))
        await gocker.arun(["sleep", "0.5"])
        ticking.cancel()
        return ticks

    gocker.run(["true"])
    assert len(asyncio.run(both())) > 10


def test_asyncio_raises_what_run_raises() -> None:
    with pytest.raises(gocker.ContainerError):
        asyncio.run(gocker.arun(["false"], check=True))
    with pytest.raises(gocker.TimeoutExpired):
        asyncio.run(gocker.arun(["sleep", "60"], timeout=0.2))
    with pytest.raises(ExecError):
        asyncio.run(gocker.arun(["no-such-program"]))
    assert living() == []


def test_a_task_that_is_cancelled_leaves_no_container() -> None:
    async def cancelled() -> None:
        task = asyncio.create_task(gocker.arun(["sleep", "60"], capture_output=True))
        while not living():  # noqa: ASYNC110 - what is waited for is on disk
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert living() == []

    asyncio.run(cancelled())


def test_a_container_lives_on_when_the_thread_that_started_it_has_ended() -> None:
    """PR_SET_PDEATHSIG would kill it: it is about the thread that made the first process."""
    made: list[gocker.Container] = []
    script = ["sh", "-c", "read word; echo got $word"]
    thread = threading.Thread(
        target=lambda: made.append(gocker.Container(script, stdin=gocker.PIPE, stdout=gocker.PIPE).start())
    )
    thread.start()
    thread.join()
    time.sleep(0.2)
    assert made[0].poll() is None
    assert made[0].communicate(b"it\n") == (b"got it\n", None)
    assert made[0].returncode == 0


def test_a_container_is_started_looked_at_and_waited_for() -> None:
    container = gocker.Container(["sh", "-c", "read a; exit 4"], stdin=gocker.PIPE)
    with pytest.raises(StateError, match="not started"):
        container.poll()
    assert container.start() is container
    assert os.path.exists(f"/proc/{container.pid}")
    assert living() == [container.id]
    assert (container.poll(), container.returncode, container.result) == (None, None, None)
    with pytest.raises(StateError, match="started before"):
        container.start()
    assert container.stdin is not None
    container.stdin.write(b"\n")
    container.stdin.flush()
    assert container.wait(PATIENCE) == 4
    assert living() == []
    assert container.poll() == 4
    assert container.result is not None
    assert container.result.verdict.kind == "exit"


def test_waiting_for_a_while_kills_nothing_and_loses_no_output() -> None:
    with gocker.Container(
        ["sh", "-c", "echo 1; read a; echo 2"], stdin=gocker.PIPE, stdout=gocker.PIPE
    ) as container:
        with pytest.raises(gocker.TimeoutExpired):
            container.wait(0.1)
        assert container.stdin is not None
        stdin = os.dup(container.stdin.fileno())
        with pytest.raises(gocker.TimeoutExpired) as caught:
            container.communicate(timeout=0.3)
        os.close(stdin)
        assert caught.value.result is None
        assert container.communicate() == (b"1\n2\n", None)


def test_output_is_read_as_it_comes() -> None:
    options: dict[str, Any] = {"stdin": gocker.PIPE, "stdout": gocker.PIPE, "text": True}
    with gocker.Container(["sh", "-c", "while read a; do echo got $a; done"], **options) as container:
        assert container.stdin is not None
        assert container.stdout is not None
        for word in ("one", "two"):
            container.stdin.write(f"{word}\n")
            container.stdin.flush()
            assert container.stdout.readline() == f"got {word}\n"
    assert container.returncode == 0


def test_signals_reach_the_program() -> None:
    script = ["sh", "-c", "trap 'echo term; exit 5' TERM; echo ready; while :; do sleep 0.05; done"]
    with gocker.Container(script, stdout=gocker.PIPE) as container:
        assert container.stdout is not None
        assert container.stdout.readline() == b"ready\n"
        container.terminate()
        assert container.stdout.readline() == b"term\n"
        assert container.wait() == 5
    assert ["SIGTERM", os.getpid()] in [
        [line.get("signal"), line.get("sender_pid")] for line in events(container.id)
    ]
    container.kill()  # of no effect any more
    container = gocker.Container(["sleep", "60"]).start()
    container.send_signal(signal.SIGINT)
    assert container.wait(PATIENCE) == -signal.SIGINT
    container = gocker.Container(["sleep", "60"]).start()
    container.kill()
    assert container.wait(PATIENCE) == -signal.SIGKILL


def test_an_exception_in_a_with_block_kills_the_container() -> None:
    with pytest.raises(ZeroDivisionError), gocker.Container(["sleep", "60"]):
        raise ZeroDivisionError
    assert living() == []


def test_a_container_that_nobody_has_any_more_is_killed() -> None:
    container = gocker.Container(["sleep", "60"]).start()
    assert living() == [container.id]
    del container
    gc.collect()
    assert soon(lambda: living() == [])


def test_a_fork_of_the_program_has_no_say_over_its_containers() -> None:
    container = gocker.Container(["sh", "-c", "read a; exit 6"], stdin=gocker.PIPE).start()
    child = os.fork()
    if child == 0:
        try:
            container.kill()
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    time.sleep(0.1)
    assert container.poll() is None
    container.communicate(b"\n")
    assert container.returncode == 6


def test_a_plan_that_only_a_copy_of_a_process_can_carry_out_goes_to_the_server(
    attendant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if attendant == "server":
        pytest.skip("needs a thread as the attendant, which this one is not")
    monkeypatch.setattr("gocker.embedding.attendant.is_for_threads", lambda *_: False)
    assert carrier._server is None
    assert gocker.run(["cat"], input=b"text", capture_output=True).stdout == b"text"
    assert carrier._server is not None
    with pytest.raises(ExecError):
        gocker.run(["no-such-program"])


def test_the_server_is_made_anew_when_the_program_has_other_rights(attendant: str) -> None:
    if attendant == "thread":
        pytest.skip("needs the fork server, which this attendant does not use")
    gocker.run(["true"])
    first, groups = carrier.the_server().pid, os.getgroups()
    assert carrier.the_server().pid == first
    os.setgroups([*groups, 54321])
    try:
        gocker.run(["true"])
        second = carrier.the_server().pid
    finally:
        os.setgroups(groups)
    assert second != first
    assert not os.path.exists(f"/proc/{first}")


def test_a_server_that_was_killed_is_an_error_and_then_another_is_started(attendant: str) -> None:
    if attendant == "thread":
        pytest.skip("needs the fork server, which this attendant does not use")
    gocker.run(["true"])
    os.kill(carrier.the_server().pid, signal.SIGKILL)
    os.waitid(os.P_PID, carrier.the_server().pid, os.WEXITED | os.WNOWAIT)
    assert gocker.run(["true"]).returncode == 0


PROGRAM = """
import sys, threading
import gocker
threads = [threading.Thread(target=lambda: gocker.run(["true"])) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("ready", flush=True)
how = sys.argv[1]
if how == "run":
    gocker.run(["sleep", "60"], capture_output=True)
elif how == "forget":
    gocker.Container(["sleep", "60"]).start()
elif how == "wait":
    gocker.Container(["sleep", "60"]).start().wait()
"""


def program(how: str) -> subprocess.Popen[bytes]:
    """A program with gocker in it, in which `sleep 60` runs or is about to."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize("how", ["run", "wait"])
@pytest.mark.parametrize("whole_group", [False, True])
def test_an_interrupt_kills_and_removes_the_container(how: str, whole_group: bool) -> None:
    process = program(how)
    assert soon(living)
    if whole_group:
        os.killpg(process.pid, signal.SIGINT)  # as the terminal's ^C
    else:
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert err.endswith(b"KeyboardInterrupt\n")
    assert living() == []


def test_a_program_that_ends_takes_its_containers_along() -> None:
    process = program("forget")
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, b"", b"")
    assert living() == []


def test_a_program_that_is_killed_leaves_nothing_for_long(gocker: Gocker, attendant: str) -> None:
    process = program("run")
    assert soon(living)
    process.kill()
    process.communicate()
    if attendant == "server":  # which sees to it by itself
        assert soon(lambda: living() == [])
    gocker("run", "base", "true")
    assert living() == []
