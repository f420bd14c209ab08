"""What goes through a container's standard streams arrives, in order, apart, and at the right speed."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import SLOWNESS, Gocker

PATIENCE = 30 * SLOWNESS
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(gocker: Gocker) -> Start:
    """`gocker run ARGS` with the streams that the test gives it; they are /dev/null unless given."""

    def run(*args: str, **streams: Any) -> subprocess.Popen[bytes]:
        fds = {name: streams.get(name, subprocess.DEVNULL) for name in ("stdin", "stdout", "stderr")}
        others = {name: value for name, value in streams.items() if name not in fds}
        return subprocess.Popen([gocker._program, "run", *args], **fds, **others)

    return run


def random_file(path: Path, size: int) -> str:
    """Its sha256."""
    data = os.urandom(1 << 20) * (size >> 20)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_stdout_and_stderr_come_apart(gocker: Gocker) -> None:
    ran = gocker("run", "base", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (ran.code, ran.out, ran.err) == (3, "out\n", "err\n")


def test_a_hundred_megabytes_go_in_and_out_unchanged(start: Start, tmp_path: Path) -> None:
    size = 100 << 20 if SLOWNESS == 1 else 8 << 20
    expected = random_file(tmp_path / "in", size)
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as target:
        process = start("-i", "base", "cat", "-", stdin=source, stdout=target)
        assert process.wait(PATIENCE) == 0
    assert digest(tmp_path / "out") == expected


def test_they_go_through_pipes_unchanged_too(gocker: Gocker) -> None:
    data = os.urandom(1 << 20) * 8
    process = gocker.start("run", "-i", "base", "sh", "-c", "tee /dev/stderr")
    out, err = process.communicate(data, PATIENCE)
    assert process.returncode == 0
    assert out == data
    assert err == data


def test_a_consumer_that_wants_stderr_first_gets_both_whole(start: Start) -> None:
    size = 10 << 20
    script = f"(head -c {size} /dev/zero >&2) & head -c {size} /dev/zero; wait"
    process = start("base", "sh", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    assert len(process.stderr.read(size)) == size
    assert len(process.stdout.read()) == size
    assert process.stderr.read() == b""
    assert process.wait(PATIENCE) == 0


def test_a_program_is_held_back_by_a_reader_that_does_not_read(start: Start) -> None:
    script = "i=0; while :; do head -c 64k /dev/zero; i=$((i + 1)); echo $i >&2; done"
    process = start("base", "sh", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr
    assert process.stdout
    time.sleep(1.5 * min(SLOWNESS, 5))
    os.set_blocking(process.stderr.fileno(), False)
    written = int((process.stderr.read() or b"0").split()[-1])
    assert 1 <= written <= 4  # two pipes of 64 KiB, and head's own buffer
    process.terminate()
    process.stdout.close()
    assert process.wait(PATIENCE) == 128 + 15
    process.stderr.close()


def test_a_slow_reader_gets_the_tail_after_the_container_has_gone(start: Start, tmp_path: Path) -> None:
    cid = tmp_path / "cid"
    process = start("--cidfile", str(cid), "base", "seq", "20000", stdout=subprocess.PIPE)
    assert process.stdout
    deadline = time.monotonic() + PATIENCE
    log = os.environ["GOCKER_AUDIT_LOG"]
    while True:  # it is removed, and on the record, before the reader has it all
        time.sleep(0.05)
        name = cid.read_text() if cid.exists() else "?"
        with open(log, encoding="utf-8") as file:
            if any(
                e["event"] == "container.remove" and e["container"] == name for e in map(json.loads, file)
            ):
                break
        assert time.monotonic() < deadline
    assert process.poll() is None
    assert process.stdout.read() == b"".join(b"%d\n" % i for i in range(1, 20001))
    assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("options", [(), ("--init",)])
def test_a_reader_that_leaves_ends_the_program(start: Start, options: tuple[str, ...]) -> None:
    process = start(*options, "base", "yes", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    assert process.stdout.read(2) == b"y\n"
    process.stdout.close()
    # As PID 1 it does not get the signal (pid_namespaces(7)) but the error.
    assert process.wait(PATIENCE) == (128 + 13 if options else 1)
    words = process.stderr.read()
    process.stderr.close()
    assert (b"Broken pipe" in words) is not bool(options)
    assert b"gocker" not in words


def run_sh(gocker: Gocker, command: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """A line of shell in which `gocker` is the command."""
    function = f'gocker() {{ "{gocker._program}" "$@"; }}; '
    return subprocess.run(
        ["bash", "-c", function + command], cwd=cwd, capture_output=True, timeout=PATIENCE, check=False
    )


@pytest.mark.parametrize(
    ("redirection", "out", "err"),
    [
        (">&-", b"", b"err\n"),
        ("2>&-", b"out\n", b""),
        ("<&- >&- 2>&-", b"", b""),
        (">/dev/null", b"", b"err\n"),
    ],
)
def test_closed_streams_stay_quiet(
    gocker: Gocker, tmp_path: Path, redirection: str, out: bytes, err: bytes
) -> None:
    ran = run_sh(gocker, f"gocker run base sh -c 'echo out; echo err >&2' {redirection}", tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, out, err)


@pytest.mark.parametrize(
    ("source", "seen"), [("<&-", b"."), ("</dev/null", b"."), ("<file", b"text."), ("< <(echo x)", b"x\n.")]
)
def test_input_comes_from_whatever_there_is_and_ends(
    gocker: Gocker, tmp_path: Path, source: str, seen: bytes
) -> None:
    (tmp_path / "file").write_text("text")
    ran = run_sh(gocker, f"gocker run -i base sh -c 'cat; printf .' {source}", tmp_path)
    assert (ran.returncode, ran.stdout) == (0, seen)


def test_without_i_the_program_reads_nothing_and_the_caller_keeps_its_input(
    gocker: Gocker, tmp_path: Path
) -> None:
    ran = run_sh(gocker, "echo mine | (gocker run base cat; cat)", tmp_path)
    assert ran.stdout == b"mine\n"


def test_the_null_device_that_is_stdin_is_not_the_hosts(gocker: Gocker) -> None:
    ran = gocker("run", "base", "stat", "-L", "-c", "%t:%T %d", "/proc/self/fd/0", "/dev/null")
    stdin, own = ran.out.splitlines()
    assert stdin == own
    assert stdin.split() != ["1:3", str(os.stat("/dev/null").st_dev)]
    assert stdin.startswith("1:3")


def test_lines_are_added_to_a_log(gocker: Gocker, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    ran = run_sh(gocker, "gocker run base sh -c 'echo out; echo err >&2' >>log 2>>log", tmp_path)
    assert ran.returncode == 0
    text = (tmp_path / "log").read_text()
    assert text.startswith("before\n")
    assert sorted(text.splitlines()) == ["before", "err", "out"]


@pytest.mark.parametrize("target", ["2>&1", ">log 2>&1; cat log", ">>log 2>&1; cat log"])
def test_lines_of_both_kinds_keep_their_order_in_one_place(
    gocker: Gocker, tmp_path: Path, target: str
) -> None:
    loop = "for i in 1 2 3 4 5 6 7 8; do echo out $i; echo err $i >&2; done"
    ran = run_sh(gocker, f"gocker run base sh -c '{loop}' {target}", tmp_path)
    assert ran.stdout.decode().splitlines() == [f"{kind} {i}" for i in range(1, 9) for kind in ("out", "err")]


def test_a_socket_is_as_good_as_a_pipe(start: Start) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = start("-i", "base", "sh", "-c", "cat; echo end", stdin=theirs, stdout=theirs)
        theirs.close()
        data = os.urandom(1 << 20)

        def write() -> None:
            ours.sendall(data)
            ours.shutdown(socket.SHUT_WR)

        writer = threading.Thread(target=write)
        writer.start()
        seen = b""
        while part := ours.recv(1 << 16):
            seen += part
        writer.join()
        assert process.wait(PATIENCE) == 0
    assert seen == data + b"end\n"


def test_output_that_cannot_be_written_is_said_and_fails_the_run(gocker: Gocker, tmp_path: Path) -> None:
    ran = run_sh(gocker, "gocker run base sh -c 'echo out; echo err >&2' >/dev/full", tmp_path)
    assert ran.returncode == 125
    assert ran.stderr == b"err\ngocker: write stdout: ENOSPC: No space left on device\n"


def test_the_verdict_is_the_programs_although_its_output_was_lost(gocker: Gocker, tmp_path: Path) -> None:
    ran = run_sh(gocker, "gocker run --report report base sh -c 'echo out; exit 4' >/dev/full", tmp_path)
    assert ran.returncode == 125
    assert json.loads((tmp_path / "report").read_text())["verdict"]["code"] == 4


def test_a_program_that_closes_its_stdout_ends_it_for_the_reader_and_goes_on(start: Start) -> None:
    script = "echo x; exec >&-; echo later >&2; exec sleep 2"
    process = start("base", "sh", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    assert process.stdout.read() == b"x\n"
    assert process.poll() is None
    assert process.stderr.read() == b"later\n"
    assert process.wait(PATIENCE) == 0


def test_what_a_program_leaves_behind_does_not_hold_the_streams_open(gocker: Gocker) -> None:
    start = time.monotonic()
    ran = gocker("run", "base", "sh", "-c", "sleep 1000 & echo done")
    assert (ran.code, ran.out) == (0, "done\n")
    assert time.monotonic() - start < 20 * SLOWNESS


def test_nor_does_it_in_the_hosts_pid_namespace(gocker: Gocker) -> None:
    ran = gocker("run", "--pid", "host", "base", "sh", "-c", "setsid sleep 1000 & echo done")
    assert (ran.code, ran.out) == (0, "done\n")  # the traces fixture sees that the sleep has gone


@pytest.mark.parametrize(
    "options", [("-u", "1000"), ("-u", "1000", "--userns", "private"), ("--userns", "private")]
)
def test_any_user_can_open_its_own_streams(gocker: Gocker, options: tuple[str, ...]) -> None:
    script = "cat /dev/stdin; echo out >/dev/stdout; echo err >/dev/stderr"
    process = gocker.start("run", "-i", *options, "base", "sh", "-c", script)
    assert process.communicate(b"in\n", PATIENCE) == (b"in\nout\n", b"err\n")


def test_a_chatty_program_is_ended_at_its_timeout(start: Start, tmp_path: Path) -> None:
    report = tmp_path / "report"
    began = time.monotonic()
    process = start("--timeout", "0.5", "--report", str(report), "base", "yes")
    assert process.wait(PATIENCE) == 128 + 9
    assert time.monotonic() - began < 10 * SLOWNESS
    assert json.loads(report.read_text())["verdict"]["kind"] == "timeout"
