"""gocker as a library: what it costs to import, what it takes, what it says of how it went."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gocker
from gocker.embedding.ends import Collector, Feeder
from gocker.embedding.request import make_request, stream_number
from gocker.embedding.result import CompletedContainer, result_of
from gocker.embedding.words import pack, unpack
from gocker.errors import ExecError, GockerError, LimitError, SignalError, StepError
from gocker.receipt import USAGE

IMPORTED_WITH_GOCKER: set[str] = set()
"""The budget of `import gocker`: no module beside it."""

BEFORE_A_CONTAINER = frozenset(
    """
    gocker.audit gocker.auditchain gocker.auditevent gocker.digest gocker.errors gocker.limits gocker.model gocker.paths
    gocker.receipt gocker.record
    """.split()
)
"""What of gocker beside gocker.embedding a program has that runs containers by the fork server."""

NOTHING: dict[str, Any] = {
    "image": None,
    "rootfs": None,
    "limits": None,
    "env": None,
    "cwd": None,
    "user": None,
    "volumes": (),
    "network": None,
    "hostname": None,
    "name": None,
    "options": (),
    "timeout": None,
}


def words(args: Any = ("true",), **given: Any) -> list[str]:
    return list(make_request(args, **{**NOTHING, **given}).words)


def modules_of(program: str) -> set[str]:
    """What is loaded after `program` and was not before."""
    script = f"import sys; before = set(sys.modules)\n{program}\nprint(*set(sys.modules) - before)"
    return set(subprocess.check_output([sys.executable, "-c", script], text=True).split())


def test_to_import_gocker_imports_nothing_else() -> None:
    assert modules_of("import gocker") - {"gocker"} == IMPORTED_WITH_GOCKER


def test_to_name_what_is_run_imports_neither_the_engine_nor_what_is_heavy() -> None:
    loaded = modules_of("import gocker; gocker.run; gocker.Container; gocker.CompletedContainer")
    ours = {name for name in loaded if name.startswith("gocker.") and not name.startswith("gocker.embedding")}
    assert ours <= BEFORE_A_CONTAINER
    assert loaded.isdisjoint(
        {"subprocess", "asyncio", "logging", "socket", "click", "structlog", "stevedore", "ctypes"}
    )


def test_every_public_name_is_there_and_no_other() -> None:
    for name in gocker._PLACES:
        assert getattr(gocker, name) is not None
        assert name in dir(gocker)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        gocker.nonsense  # type: ignore[attr-defined]  # noqa: B018


TYPED = """
import gocker
from typing import assert_type
done = gocker.run(["true"], capture_output=True, limits={"memory": "100m", "pids": 64}, timeout=5, check=True)
assert_type(done, gocker.CompletedContainer)
assert_type(done.returncode, int)
assert_type(done.verdict, gocker.Verdict)
assert_type(done.verdict.kind, str)
async def later() -> None:
    assert_type(await gocker.arun(["true"], text=True), gocker.CompletedContainer)
with gocker.Container(["true"], stdout=gocker.PIPE) as container:
    assert_type(container.poll(), int | None)
    assert_type(container.wait(), int)
try:
    gocker.run(["true"])
except gocker.TimeoutExpired as expired:
    assert_type(expired.result, gocker.CompletedContainer | None)
except gocker.ContainerError as failed:
    assert_type(failed.result, gocker.CompletedContainer)
except gocker.GockerError as error:
    assert_type(error.exit_code, int)
"""


def test_type_checkers_know_the_public_names(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="needs mypy, of the extra `dev`")
    (tmp_path / "program.py").write_text(TYPED)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-incremental",
        "--cache-dir",
        os.devnull,
        "program.py",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "program.py").write_text("import gocker\ngocker.run('true', limits=3)\ngocker.nonsense\n")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.count("error:") == 2  # a str is a sequence of str: that is found at run time


def test_arguments_become_the_words_of_the_command_line() -> None:
    assert words(["echo", "-n", b"a\xff"]) == ["--", "base", "echo", "-n", "a\udcff"]
    assert words(image="web") == ["--", "web", "true"]
    assert words(rootfs=Path("/srv/root")) == ["--rootfs=/srv/root", "--", "true"]
    assert words(limits={"memory": "100m", "pids": 5, "cpu": 1.5, "memory.oom_kill_disable": True})[:4] == [
        "--limit=memory=100m",
        "--limit=pids=5",
        "--limit=cpu=1.5",
        "--limit=memory.oom_kill_disable=true",
    ]
    assert words(env={"A": "b=c d", "E": ""})[:2] == ["--env=A=b=c d", "--env=E="]
    assert words(cwd="/w", user=0, network="host", hostname="h", name="n")[:5] == [
        "--workdir=/w",
        "--user=0",
        "--network=host",
        "--hostname=h",
        "--name=n",
    ]
    assert words(volumes=["/a:/b:ro"], options=["--read-only"])[:2] == ["--read-only", "--volume=/a:/b:ro"]


def test_a_timeout_is_kept() -> None:
    assert make_request(["true"], **{**NOTHING, "timeout": 0.25}).timeout == 0.25


@pytest.mark.parametrize(
    ("given", "error", "words_of_it"),
    [
        ({"args": "ls -l"}, TypeError, "list of words"),
        ({"args": b"ls"}, TypeError, "list of words"),
        ({"args": Path("/bin/ls")}, TypeError, "list of words"),
        ({"args": []}, ValueError, "empty"),
        ({"args": ["a\0b"]}, ValueError, "null byte"),
        ({"args": ["a", None]}, TypeError, "expected str"),
        ({"image": "a", "rootfs": "/b"}, ValueError, "exclude"),
        ({"limits": {"memory": None}}, TypeError, "limit memory"),
        ({"env": {"A=B": "c"}}, ValueError, "not the name"),
        ({"env": {"": "c"}}, ValueError, "not the name"),
        ({"env": {"A": "\0"}}, ValueError, "null byte"),
        ({"env": {"A": None}}, TypeError, "expected str"),
        ({"volumes": "/a:/b"}, TypeError, "is a list"),
        ({"options": "--read-only"}, TypeError, "is a list"),
        ({"timeout": 0}, ValueError, "above 0"),
        ({"timeout": float("nan")}, ValueError, "above 0"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(
    given: dict[str, Any], error: type[Exception], words_of_it: str
) -> None:
    with pytest.raises(error, match=words_of_it):
        gocker.Container(**{"args": ["true"], **given})


@pytest.mark.parametrize(
    "given",
    [
        {"input": b"", "stdin": gocker.PIPE},
        {"capture_output": True, "stdout": gocker.PIPE},
        {"capture_output": True, "stderr": gocker.DEVNULL},
        {"stdout": gocker.STDOUT},
        {"stdin": -4},
        {"stdin": True},
    ],
)
def test_streams_that_exclude_each_other_are_refused_at_once(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"exclude|no stream"):
        gocker.run(["true"], **given)


def test_the_constants_are_those_of_subprocess() -> None:
    ours = (gocker.PIPE, gocker.STDOUT, gocker.DEVNULL)
    assert ours == (subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL)


def test_a_stream_is_a_constant_an_fd_or_a_file(tmp_path: Path) -> None:
    assert stream_number("stdout", None) is None
    assert stream_number("stderr", gocker.STDOUT) == gocker.STDOUT
    with open(tmp_path / "file", "wb") as file:
        assert stream_number("stdout", file) == file.fileno()


def ended(kind: str = "exit", code: int | None = 3, signal: str | None = None) -> dict[str, Any]:
    report = {
        "container": "0123",
        "name": "n",
        "command": ["true"],
        "plan": "sha256:0",
        "started": "",
        "finished": "",
        "verdict": {"kind": kind, "code": code, "signal": signal, "detail": "detail"},
        "usage": dict.fromkeys(USAGE),
        "limits": {},
    }
    return {"report": report, "warnings": ["w"], "error": None}


@pytest.mark.parametrize(
    ("code", "signal", "returncode"),
    [(0, None, 0), (3, None, 3), (137, None, 137), (137, "SIGKILL", -9), (None, None, 125)],
)
def test_the_exit_status_is_subprocess_s(code: int | None, signal: str | None, returncode: int) -> None:
    result = result_of(("true",), ended(code=code, signal=signal))
    assert result.returncode == returncode
    assert (result.id, result.name, result.warnings) == ("0123", "n", ("w",))


def test_errors_about_the_program_say_what_became_of_it_and_can_be_pickled() -> None:
    result = result_of(("prog", "arg"), ended()).replace(stdout=b"out", stderr=b"err")
    with pytest.raises(gocker.ContainerError) as caught:
        result.check_returncode()
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert str(error) == "container n of ['prog', 'arg']: exit: detail"
        assert (error.returncode, error.output, error.stderr, error.cmd) == (
            3,
            b"out",
            b"err",
            ["prog", "arg"],
        )
        assert error.result == result
    expired = gocker.TimeoutExpired(("prog",), 2.5, b"out", b"err", result)
    for copy in (expired, pickle.loads(pickle.dumps(expired))):
        assert isinstance(copy, gocker.TimeoutExpired)
        assert isinstance(copy, subprocess.TimeoutExpired)
        assert (copy.timeout, copy.output, copy.stderr, copy.result) == (2.5, b"out", b"err", result)


def test_a_good_end_passes_the_check() -> None:
    good: CompletedContainer = result_of(("true",), ended("ok", 0))
    good.check_returncode()


@pytest.mark.parametrize(
    "error",
    [
        GockerError("operate", "target", "reason", remedy="remedy", errno=5),
        LimitError("set limit", "memory", "too small"),
        StepError(3, 50, "mount proc", "EPERM: no", remedy="be root", errno=1),
        ExecError("exec", "prog", "ENOENT: not found", errno=2),
        SignalError("start", "web", 15, "the program ran"),
    ],
)
def test_an_error_comes_over_as_it_was(error: GockerError) -> None:
    error.add_note("a note")
    copy = unpack(pack(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.errno, copy.exit_code, copy.remedy) == (
        str(error),
        error.errno,
        error.exit_code,
        error.remedy,
    )
    assert copy.__notes__ == ["a note"]
    if isinstance(error, StepError):
        assert isinstance(copy, StepError)
        assert (copy.number, copy.total) == (3, 50)


def test_a_class_that_is_no_error_of_gocker_s_is_not_made() -> None:
    assert type(unpack({**pack(GockerError("a", "b", "c")), "class": "os"})) is GockerError


def drained(move: Callable[[], object], times: int = 100) -> None:
    for _ in range(times):
        move()


def test_a_collector_takes_what_there_is_though_others_hold_the_pipe() -> None:
    read, write = os.pipe()
    collector = Collector(read)
    os.write(write, b"one")
    assert collector.step()
    assert not collector.step()
    os.write(write, b"two")
    collector.drain()
    assert (collector.data, collector.fd) == (b"onetwo", -1)
    os.close(write)


def test_a_feeder_never_blocks_and_ends_the_input() -> None:
    read, write = os.pipe()
    feeder = Feeder(write, bytes(1 << 17))
    drained(feeder.step)
    assert feeder.fd >= 0
    got = 0
    while part := os.read(read, 1 << 16):
        got += len(part)
        if feeder.fd >= 0:
            feeder.step()
    assert (got, feeder.fd) == (1 << 17, -1)
    os.close(read)
    read, write = os.pipe()
    os.close(read)
    feeder = Feeder(write, b"for nobody")
    feeder.step()
    assert feeder.fd == -1
