"""The streams of a container and the watch over it, with a child of the test as the program."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gocker.kernel.process import disposes
from gocker.signals import Arrival, Signals
from gocker.stdio import Attached, Streams, attend, deliver, drain

PIPE = 64 << 10


class Caller:
    """Who called gocker: three pipes, of which it has the other ends."""

    def __init__(self) -> None:
        pairs = [os.pipe() for _ in range(3)]
        self.targets = (pairs[0][0], pairs[1][1], pairs[2][1])
        self.stdin, self.stdout, self.stderr = pairs[0][1], pairs[1][0], pairs[2][0]

    def end(self) -> tuple[bytes, bytes]:
        """Close gocker's ends; what can still be read from stdout and stderr."""
        for fd in self.targets:
            os.close(fd)
        os.close(self.stdin)
        return read_all(self.stdout), read_all(self.stderr)


def read_all(fd: int) -> bytes:
    with open(fd, "rb", buffering=0) as file:
        return file.readall()


@contextmanager
def program(script: str, streams: Attached) -> Iterator[int]:
    """`sh -c script` on the streams' fds; its pidfd."""
    stdin, stdout, stderr = streams.child_fds
    with subprocess.Popen(["sh", "-c", script], stdin=stdin, stdout=stdout, stderr=stderr) as process:
        streams.started(-1)
        pidfd = os.pidfd_open(process.pid)
        try:
            yield pidfd
        finally:
            process.kill()
            os.close(pidfd)


@pytest.fixture
def caller() -> Iterator[Caller]:
    made = Caller()
    yield made
    for fd in (*made.targets, made.stdin, made.stdout, made.stderr):
        with suppress(OSError):
            os.close(fd)


@pytest.fixture
def signals() -> Iterator[Signals]:
    kept = Signals()
    yield kept
    kept.close()


def nobody(arrival: Arrival) -> None:
    raise AssertionError(arrival)


def test_stdout_and_stderr_are_kept_apart_and_delivered_whole(caller: Caller) -> None:
    streams = Streams(interactive=False, targets=caller.targets)
    with program("echo out; echo err >&2; cat; echo end", streams) as pidfd:
        assert attend(streams, pidfd, None, nobody, None) is False
    drain(streams.outputs)
    streams.close()
    assert caller.end() == (b"out\nend\n", b"err\n")


def test_input_reaches_the_program_and_its_end_too(caller: Caller) -> None:
    streams = Streams(interactive=True, targets=caller.targets)
    os.write(caller.stdin, b"some input")
    os.close(caller.stdin)
    caller.stdin = os.dup(0)
    with program("cat; echo .", streams) as pidfd:
        attend(streams, pidfd, None, nobody, None)
    drain(streams.outputs)
    streams.close()
    assert caller.end()[0] == b"some input.\n"


def test_a_reader_of_stdout_that_sleeps_does_not_hold_up_stderr(caller: Caller) -> None:
    streams = Streams(interactive=False, targets=caller.targets)
    sizes: list[int] = []

    def read_stderr_first() -> None:
        for fd in (caller.stderr, caller.stdout):
            read = 0
            while read < 2 << 20:
                read += len(os.read(fd, PIPE))
            sizes.append(read)

    reader = threading.Thread(target=read_stderr_first)
    reader.start()
    script = "(head -c 2M /dev/zero >&2) & head -c 2M /dev/zero; wait"
    with program(script, streams) as pidfd:
        attend(streams, pidfd, None, nobody, time.monotonic() + 30)
    deliver(streams.outputs, None)
    streams.close()
    reader.join(20)
    assert sizes == [2 << 20, 2 << 20]


def test_the_deadline_comes_although_the_program_is_never_silent(caller: Caller) -> None:
    null = os.open("/dev/null", os.O_WRONLY)
    streams = Streams(interactive=False, targets=(caller.targets[0], null, caller.targets[2]))
    start = time.monotonic()
    with program("exec yes", streams) as pidfd:
        assert attend(streams, pidfd, None, nobody, start + 0.3) is True
    assert 0.3 <= time.monotonic() - start < 5
    streams.close()
    os.close(null)


def test_a_deadline_far_off_does_not_trouble_poll(caller: Caller) -> None:
    streams = Streams(interactive=False, targets=caller.targets)
    with program("true", streams) as pidfd:
        assert attend(streams, pidfd, None, nobody, time.monotonic() + 1e9) is False
    streams.close()


def test_signals_are_passed_on_in_the_order_in_which_they_came(caller: Caller, signals: Signals) -> None:
    streams = Streams(interactive=False, targets=caller.targets)
    came: list[int] = []
    os.kill(os.getpid(), signal.SIGUSR1)  # before there is a program

    with program("exec sleep 100", streams) as pidfd:

        def forward(arrival: Arrival) -> None:
            came.append(arrival.number)
            if arrival.number == signal.SIGUSR1:
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

        assert attend(streams, pidfd, signals, forward, time.monotonic() + 20) is False
    streams.close()
    assert came == [signal.SIGUSR1, signal.SIGTERM]


class Noted(Streams):
    """Streams that write down what a terminal would act on."""

    def __init__(self, targets: tuple[int, int, int]) -> None:
        super().__init__(interactive=False, targets=targets)
        self.noted: list[str] = []

    def window_changed(self) -> None:
        self.noted.append("window")

    def resumed(self) -> None:
        self.noted.append("resumed")


def test_a_new_window_size_and_a_continuation_are_not_the_programs_but_the_terminals(
    caller: Caller, signals: Signals
) -> None:
    streams = Noted(caller.targets)
    os.kill(os.getpid(), signal.SIGWINCH)
    os.kill(os.getpid(), signal.SIGCONT)
    with program("true", streams) as pidfd:
        attend(streams, pidfd, signals, nobody, None)
    streams.close()
    assert sorted(streams.noted) == ["resumed", "window"]


def fill(caller: Caller, streams: Streams, size: int) -> None:
    """A program that writes `size` bytes to a reader that sleeps, and ends."""
    with program(f"head -c {size} /dev/zero", streams) as pidfd:
        attend(streams, pidfd, None, nobody, time.monotonic() + 20)
    drain(streams.outputs)


def test_a_slow_reader_gets_the_tail_long_after_the_end(caller: Caller) -> None:
    streams = Streams(interactive=False, targets=caller.targets)
    fill(caller, streams, 2 * PIPE)
    assert [pump.name for pump in streams.outputs] == ["stdout"]  # it waits
    got: list[bytes] = []

    def read_late() -> None:
        time.sleep(0.3)
        while sum(map(len, got)) < 2 * PIPE:
            got.append(os.read(caller.stdout, PIPE))

    reader = threading.Thread(target=read_late)
    reader.start()
    assert deliver(streams.outputs, None) is None
    reader.join(10)
    assert b"".join(got) == bytes(2 * PIPE)
    assert streams.outputs == []


def test_a_signal_puts_an_end_to_waiting_for_a_reader(caller: Caller, signals: Signals) -> None:
    streams = Streams(interactive=False, targets=caller.targets)
    fill(caller, streams, 2 * PIPE)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    os.kill(os.getpid(), signal.SIGUSR1)  # asks for no end
    arrival = deliver(streams.outputs, signals)
    timer.join()
    assert arrival is not None
    assert arrival.number == signal.SIGTERM
    streams.close()


def test_one_pipe_carries_both_when_both_go_to_one_place(caller: Caller) -> None:
    targets = (caller.targets[0], caller.targets[1], os.dup(caller.targets[1]))
    streams = Streams(interactive=False, targets=targets)
    with program("for i in 1 2 3 4 5 6; do echo o$i; echo e$i >&2; done", streams) as pidfd:
        attend(streams, pidfd, None, nobody, None)
    drain(streams.outputs)
    streams.close()
    os.close(targets[2])
    assert caller.end()[0].split() == [word for i in range(1, 7) for word in (b"o%d" % i, b"e%d" % i)]


@pytest.mark.parametrize("shared", [True, False])
def test_one_file_is_one_place_only_by_one_description(caller: Caller, tmp_path: Path, shared: bool) -> None:
    path = tmp_path / "log"
    first = os.open(path, os.O_WRONLY | os.O_CREAT)
    second = os.dup(first) if shared else os.open(path, os.O_WRONLY)
    streams = Streams(interactive=False, targets=(caller.targets[0], first, second))
    _, stdout, stderr = (os.fstat(fd).st_ino for fd in streams.child_fds)
    assert (stdout == stderr) is shared
    streams.close()
    os.close(first)
    os.close(second)


def test_the_end_of_stdout_is_passed_on_while_the_program_runs(caller: Caller) -> None:
    streams = Streams(interactive=False, targets=caller.targets, end_stdout=True)
    ended: list[float] = []

    def read() -> None:
        read_all(os.dup(caller.stdout))
        ended.append(time.monotonic())

    reader = threading.Thread(target=read)
    reader.start()
    with program("echo x; exec >&-; exec sleep 1", streams) as pidfd:
        attend(streams, pidfd, None, nobody, time.monotonic() + 20)
    program_ended = time.monotonic()
    reader.join(10)
    assert ended
    assert ended[0] < program_ended - 0.3
    os.fstat(caller.targets[1])  # the number stays taken
    streams.close()


def test_without_being_told_so_stdout_stays_the_callers(caller: Caller) -> None:
    streams = Streams(interactive=False, targets=caller.targets)
    with program("echo x", streams) as pidfd:
        attend(streams, pidfd, None, nobody, None)
    drain(streams.outputs)
    streams.close()
    os.write(caller.targets[1], b"more")
    assert caller.end()[0] == b"x\nmore"


def test_lost_output_is_an_error_and_does_not_stop_the_rest(caller: Caller) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    streams = Streams(interactive=False, targets=(caller.targets[0], full, caller.targets[2]))
    with program("trap '' PIPE; echo x; sleep 0.1; echo y; echo still here >&2", streams) as pidfd:
        assert attend(streams, pidfd, None, nobody, None) is False
    drain(streams.outputs)
    streams.close()
    os.close(full)
    assert "write stdout: ENOSPC" in str(streams.error)
    assert b"still here" in caller.end()[1]


def test_streams_that_never_started_give_all_back(caller: Caller) -> None:
    before = len(os.listdir("/proc/self/fd"))
    streams = Streams(interactive=True, targets=caller.targets)
    assert streams.outputs == []
    streams.close()
    streams.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_a_process_does_about_a_signal_is_read_from_the_kernel() -> None:
    script = "trap 'true' USR1; trap '' USR2; echo; read line"
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        acts = {
            name: disposes(process.pid, getattr(signal, f"SIG{name}")) for name in ("USR1", "USR2", "TERM")
        }
        assert acts == {"USR1": True, "USR2": True, "TERM": False}
        process.kill()
    with pytest.raises(FileNotFoundError):
        disposes(process.pid, signal.SIGTERM)


@pytest.mark.parametrize("wait", ["signal.sigwait([15])", "signal.pause()", "time.sleep(100)"])
def test_a_program_that_blocks_a_signal_is_given_it(wait: str) -> None:
    code = f"import signal, time; signal.pthread_sigmask(0, [15]); print(flush=True); {wait}"
    with subprocess.Popen(["/usr/bin/python3", "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            for _ in range(5):
                assert disposes(process.pid, signal.SIGTERM)
        finally:
            process.kill()


def test_a_shell_that_blocks_all_signals_while_it_forks_does_not_wait_for_them() -> None:
    with subprocess.Popen(["sh", "-c", "while :; do /bin/true; done"]) as process:
        try:
            assert sum(disposes(process.pid, signal.SIGTERM) for _ in range(50)) <= 20
        finally:
            process.kill()


def test_nothing_is_left_to_poll_once_all_is_closed(caller: Caller) -> None:
    streams = Streams(interactive=False, targets=caller.targets)
    with program("exec >&- 2>&-; sleep 0.3", streams) as pidfd:
        start = time.process_time()
        attend(streams, pidfd, None, nobody, None)
        assert time.process_time() - start < 0.2  # it sleeps too
        assert select.select([pidfd], [], [], 0)[0]
    assert streams.pumps == []
    streams.close()
