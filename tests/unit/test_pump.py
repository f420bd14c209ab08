"""A pump between real pipes, sockets, files and terminals; no container."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import socket
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gocker.pump import Pump

PIPE = 64 << 10  # bytes that a pipe holds, pipe(7)


@pytest.fixture
def fds() -> Iterator[list[int]]:
    """Closed at the end, those that are still open."""
    opened: list[int] = []
    yield opened
    for fd in opened:
        with contextlib.suppress(OSError):
            os.close(fd)


@pytest.fixture(autouse=True)
def hurry() -> Iterator[None]:
    """A step that blocks is what these tests are about: it ends in a failure."""

    def too_long(*_: object) -> None:
        raise AssertionError("it blocks")

    old = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


def pipe(fds: list[int]) -> tuple[int, int]:
    ends = os.pipe()
    fds.extend(ends)
    return ends


def feed(fd: int, data: bytes) -> bytes:
    """Write what goes in now; the rest."""
    os.set_blocking(fd, False)
    try:
        return data[os.write(fd, data) :]
    except BlockingIOError:
        return data


def open_fds() -> set[int]:
    fds = set()
    for fd in range(200):
        with contextlib.suppress(OSError):
            os.fstat(fd)
            fds.add(fd)
    return fds


def is_ready(pump: Pump) -> bool:
    poll = select.poll()
    poll.register(*pump.interest())
    return bool(poll.poll(0))


def test_all_bytes_arrive_in_order_and_the_reader_sees_the_end(fds: list[int]) -> None:
    source, write = pipe(fds)
    read, target = pipe(fds)
    pump = Pump("stdin", source, target, owned=True)
    data, arrived = os.urandom(5 * PIPE + 17), b""
    rest = data
    while rest or pump.open:
        rest = feed(write, rest) if rest else b""
        if not rest and write in fds:
            os.close(write)
            fds.remove(write)
        while pump.open and is_ready(pump):
            pump.step()
            arrived += os.read(read, PIPE) if select.select([read], [], [], 0)[0] else b""
    while part := os.read(read, PIPE):
        arrived += part
    assert arrived == data
    assert pump.error is None


@given(
    sizes=st.lists(st.integers(1, 9000), max_size=12),
    takes=st.lists(st.integers(1, 9000), max_size=12),
    through_socket=st.booleans(),
)
def test_no_pattern_of_writes_and_reads_loses_or_swaps_a_byte(
    sizes: list[int], takes: list[int], through_socket: bool
) -> None:
    fds: list[int] = []
    source, write = pipe(fds)
    if through_socket:
        ends = socket.socketpair()
        read, target = (end.detach() for end in ends)
    else:
        read, target = os.pipe()
    pump = Pump("stdout", source, target)
    sent, arrived = b"", b""
    for number in range(max(len(sizes), len(takes))):
        if number < len(sizes):
            part = bytes([number]) * sizes[number]
            sent += part[: len(part) - len(feed(write, part))]
        for _ in range(4):
            if is_ready(pump):
                pump.step()
        if number < len(takes) and select.select([read], [], [], 0)[0]:
            arrived += os.read(read, takes[number])
    os.close(write)
    while pump.open:
        pump.drain()
        if select.select([read], [], [], 0)[0]:
            arrived += os.read(read, 1 << 20)
    os.close(target)
    while part := os.read(read, 1 << 20):
        arrived += part
    os.close(read)
    assert arrived == sent


def test_it_is_never_ahead_of_the_reader_by_more_than_a_pipe(fds: list[int]) -> None:
    source, write = pipe(fds)
    _, target = pipe(fds)
    pump = Pump("stdout", source, target)
    sent = 0
    for _ in range(50):
        sent += PIPE - len(feed(write, b"x" * PIPE))
        while is_ready(pump):
            pump.step()
    assert sent == 2 * PIPE  # one full pipe on either side
    assert pump.interest() == (target, select.POLLOUT)


def test_a_full_target_is_waited_for_and_then_goes_on(fds: list[int]) -> None:
    source, write = pipe(fds)
    read, target = pipe(fds)
    feed(target, b"y" * PIPE)
    os.set_blocking(target, True)
    os.write(write, b"tail")
    pump = Pump("stdout", source, target)
    pump.step()
    assert pump.interest() == (target, select.POLLOUT)
    assert not is_ready(pump)
    assert os.read(read, PIPE) == b"y" * PIPE
    pump.step()
    assert os.read(read, PIPE) == b"tail"
    assert pump.interest() == (source, select.POLLIN)


def test_a_reader_that_went_away_ends_it_and_the_writer_hears_of_it(fds: list[int]) -> None:
    source, write = pipe(fds)
    read, target = pipe(fds)
    os.close(read)
    os.write(write, b"x")
    pump = Pump("stdout", source, target)
    pump.step()
    assert not pump.open
    assert pump.error is None
    with pytest.raises(BrokenPipeError):
        os.write(write, b"x")


def test_a_socket_whose_reader_went_away_is_no_error_either(fds: list[int]) -> None:
    source, write = pipe(fds)
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        os.write(write, b"x")
        pump = Pump("stdout", source, ours.fileno())
        while pump.open:
            pump.step()
        assert pump.error is None


def test_a_full_disk_is_an_error_that_names_the_stream(fds: list[int]) -> None:
    source, write = pipe(fds)
    full = os.open("/dev/full", os.O_WRONLY)
    fds.append(full)
    os.write(write, b"x")
    pump = Pump("stdout", source, full)
    while pump.open:
        pump.step()
    assert str(pump.error) == "write stdout: ENOSPC: No space left on device"
    with pytest.raises(BrokenPipeError):
        os.write(write, b"x")


def test_a_directory_as_input_is_an_error_and_the_program_sees_the_end(fds: list[int]) -> None:
    read, target = pipe(fds)
    pump = Pump("stdin", os.open("/", os.O_RDONLY), target, owned=True)
    while pump.open:
        pump.step()
    assert str(pump.error) == "read stdin: EISDIR: Is a directory"
    assert os.read(read, 1) == b""


def test_a_file_opened_to_append_gets_everything_behind_what_is_there(fds: list[int], tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"before\n")
    target = os.open(tmp_path / "log", os.O_WRONLY | os.O_APPEND)
    source, write = pipe(fds)
    data = os.urandom(PIPE)
    feed(write, data)
    os.close(write)
    pump = Pump("stdout", source, target)
    pump.drain()
    os.close(target)
    assert not pump.open
    assert (tmp_path / "log").read_bytes() == b"before\n" + data


def test_a_file_as_input_is_passed_on_whole(fds: list[int], tmp_path: Path) -> None:
    data = os.urandom(3 * PIPE + 1)
    (tmp_path / "in").write_bytes(data)
    read, target = pipe(fds)
    pump = Pump("stdin", os.open(tmp_path / "in", os.O_RDONLY), target, owned=True)
    arrived = b""
    while pump.open:
        pump.step()
        if select.select([read], [], [], 0)[0]:
            arrived += os.read(read, 1 << 20)
    while part := os.read(read, 1 << 20):
        arrived += part
    assert arrived == data


def test_the_callers_description_keeps_its_flags(fds: list[int]) -> None:
    source, write = pipe(fds)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        before = fcntl.fcntl(ours, fcntl.F_GETFL)
        os.write(write, b"x")
        pump = Pump("stdout", source, ours.fileno())
        pump.step()
        pump.step()
        assert theirs.recv(9) == b"x"
        pump.close()
        assert fcntl.fcntl(ours, fcntl.F_GETFL) == before  # and it is open


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_target_that_its_owner_made_non_blocking_is_waited_for(fds: list[int], kind: str) -> None:
    source, write = pipe(fds)
    if kind == "pipe":
        read, target = pipe(fds)
    else:
        read, target = (end.detach() for end in socket.socketpair())
        fds += [read, target]
    while not feed(target, b"y" * PIPE):
        pass
    os.write(write, b"tail")
    pump = Pump("stdout", source, target)
    for _ in range(5):
        pump.step()  # also when poll was wrong
    assert pump.open
    assert not is_ready(pump)
    seen = b""
    while b"tail" not in seen:
        seen += os.read(read, PIPE)
        if is_ready(pump):
            pump.step()
    assert pump.error is None


def test_a_source_that_its_owner_made_non_blocking_and_is_empty_is_waited_for(fds: list[int]) -> None:
    source, write = pipe(fds)
    os.set_blocking(source, False)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pump = Pump("stdin", source, ours.fileno())
        pump.step()
        assert pump.open
        os.write(write, b"x")
        pump.step()
        pump.step()
        assert theirs.recv(9) == b"x"


def test_a_terminal_that_is_stopped_does_not_stop_the_pump(fds: list[int]) -> None:
    master, slave = pty.openpty()
    fds += [master, slave]
    tty.setraw(slave)
    termios.tcflow(slave, termios.TCOOFF)  # as ^S does
    source, write = pipe(fds)
    feed(write, b"x" * PIPE)
    pump = Pump("stdout", source, slave)
    for _ in range(10):
        pump.step()  # would block here
    assert pump.open
    termios.tcflow(slave, termios.TCOON)
    arrived = 0
    while arrived < PIPE:
        if is_ready(pump):
            pump.step()
        if select.select([master], [], [], 0)[0]:
            arrived += len(os.read(master, PIPE))
    assert os.get_blocking(slave)


def test_where_the_kernel_cannot_splice_a_pipe_is_written_no_more_than_it_takes(fds: list[int]) -> None:
    source, write = pipe(fds)
    read, target = pipe(fds)
    feed(target, b"y" * (PIPE - 4096))
    os.set_blocking(target, True)
    feed(write, b"x" * PIPE)
    pump = Pump("stdout", source, target)
    pump._splice = False
    while is_ready(pump):
        pump.step()  # would block here
    assert os.read(read, PIPE) == b"y" * (PIPE - 4096) + b"x" * 4096


@pytest.mark.parametrize("kind", ["terminal", "socket"])
def test_all_that_it_opened_is_closed_and_the_target_is_not(fds: list[int], kind: str) -> None:
    pair = pty.openpty() if kind == "terminal" else tuple(end.detach() for end in socket.socketpair())
    fds += pair
    source, write = pipe(fds)
    before = open_fds()
    pump = Pump("stdout", source, pair[1])
    os.write(write, b"x")
    pump.step()
    pump.step()
    pump.close()
    assert before - open_fds() == {source}
    assert os.read(pair[0], 9) == b"x"
    os.fstat(pair[1])


def test_a_terminal_that_hung_up_ends_it_without_an_error(fds: list[int]) -> None:
    master, slave = pty.openpty()
    os.close(slave)
    fds.append(master)
    _, target = pipe(fds)
    pump = Pump("terminal", os.dup(master), target)
    while pump.open:
        pump.step()
    assert pump.error is None


def test_drain_leaves_what_a_slow_reader_does_not_take_and_ends_when_it_did(fds: list[int]) -> None:
    source, write = pipe(fds)
    read, target = pipe(fds)
    feed(target, b"y" * PIPE)
    os.write(write, b"tail")
    os.close(write)
    pump = Pump("stdout", source, target)
    pump.drain()
    assert pump.open
    assert os.read(read, PIPE) == b"y" * PIPE
    pump.drain()
    assert os.read(read, PIPE) == b"tail"
    assert not pump.open


def test_drain_does_not_wait_for_a_writer_that_lives_on(fds: list[int]) -> None:
    source, write = pipe(fds)
    read, target = pipe(fds)
    os.write(write, b"last words")
    pump = Pump("stdout", source, target)
    pump.drain()
    assert not pump.open
    assert os.read(read, PIPE) == b"last words"


def test_what_follows_the_end_is_done_once(fds: list[int]) -> None:
    source, write = pipe(fds)
    _, target = pipe(fds)
    calls: list[str] = []
    pump = Pump("stdout", source, target, at_end=lambda: calls.append("end"))
    os.close(write)
    pump.step()
    pump.close()
    assert calls == ["end"]
