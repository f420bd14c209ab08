"""A created container is started by the user who created it, and by nobody else."""

from __future__ import annotations

import _socket
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gocker.plan import Context
from gocker.steps.barrier import AwaitStart, ListenForStart, connect
from gocker.steps.launch import GO

_PATIENCE = 20.0  # seconds


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[str]:
    """The path of the socket of a first process that waits for its start; its mode keeps nobody out."""
    tmp_path.chmod(0o755)
    path = f"{tmp_path}/start"
    ctx = Context(None)
    step = ListenForStart(path=path)
    step.execute(ctx)
    os.chmod(path, 0o666)
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            ctx.channel = theirs
            AwaitStart().execute(ctx)
            ctx.channel.send(b"started")
        finally:
            os._exit(0)
    theirs.close()
    os.close(ctx.fds.pop("start"))
    ours.send(GO)
    yield path
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    ours.close()
    step.undo(ctx)


def said(path: str) -> bytes:
    """What the first process answers to a start; b"" when it hangs up."""
    channel = connect(path, _PATIENCE)
    try:
        channel.send(GO)
        answer: bytes = channel.recv(16)
    except (BrokenPipeError, ConnectionResetError):
        answer = b""
    finally:
        channel.close()
    return answer


def as_user(uid: int, path: str, work: Callable[[str], bytes]) -> bytes:
    """What `work` returns with that effective uid, in the socket's directory: nothing above is open to all."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir(os.path.dirname(path))
            os.seteuid(uid)
            os.write(writer, b"=" + work(os.path.basename(path)))
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        answer = file.read()
    os.waitpid(pid, 0)
    assert answer[:1] == b"=", "it could not even connect"
    return answer[1:]


def directly(name: str) -> bytes:
    client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    client.settimeout(_PATIENCE)
    client.connect(name)
    try:
        client.send(GO)
        return client.recv(16)
    except (BrokenPipeError, ConnectionResetError):
        return b""


def test_who_created_it_starts_it(waiting: str) -> None:
    assert said(waiting) == b"started"


def test_another_user_is_not_listened_to(waiting: str) -> None:
    assert as_user(1000, waiting, directly) == b""
    assert as_user(0, waiting, directly) == b"started", "it waits on for the right one"
