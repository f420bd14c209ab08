"""The wait between a container's creation and its start, which is another process's doing."""

from __future__ import annotations

import _socket
import contextlib
import os
import signal
import struct
from typing import Any, NoReturn

from gocker.kernel import ids, stub
from gocker.kernel.process import PR_SET_PDEATHSIG
from gocker.kernel.syscalls import prctl
from gocker.lowering import Code
from gocker.plan import Context, Step
from gocker.steps.launch import GO, PARK

_KEY = "start"  # of ctx.fds
_BACKLOG = 8
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class ListenForStart(Step):
    """Make the socket that a created container is started by, in its directory of the run-time state (R11)."""

    op = "listen-for-start"
    undoable = True

    path: str  # host path; the directory is 0700

    def describe(self) -> str:
        """`socat UNIX-LISTEN:PATH`."""
        return f"socat UNIX-LISTEN:{self.path},type=5 -"

    def execute(self, ctx: Context) -> None:
        """Leave the listening socket in `ctx.fds`; bound by fd, since such a path has at most 107 bytes."""
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        directory, _, name = self.path.rpartition("/")
        parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{parent}/{name}")
            listener.listen(_BACKLOG)
        finally:
            os.close(parent)
        ctx.fds[_KEY] = listener.detach()

    def undo(self, ctx: Context) -> None:
        """Remove the socket from its directory."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


class AwaitStart(Step):
    """Let the launcher go, and wait until somebody starts the container, who is told from then on."""

    op = PARK

    def describe(self) -> str:
        """`accept START`."""
        return "wait for the start"

    def execute(self, ctx: Context) -> None:
        """Nothing of the launcher's stays open: what it held, it must be able to let go.

        It ends when it sees the end of this socket; until then PR_SET_PDEATHSIG is in force.
        """
        assert ctx.channel is not None  # noqa: S101 - init has one
        if ctx.channel.recv(len(GO)) != GO:
            os._exit(0)
        prctl(PR_SET_PDEATHSIG, 0)
        listener = _socket.socket(fileno=ctx.fds.pop(_KEY))
        number = ctx.channel.fileno()  # what the program gets lies below it, and outlives an exec
        kept = filter(ids.outlives_exec, range(number))
        ids.close_all_but({*kept, *ctx.fds.values(), listener.fileno(), stub.stub_fd()})
        # The kernel keeps from process 1 of a PID namespace what it does not handle.
        before = {number: signal.signal(number, _end) for number in _ENDING}
        while True:
            fd, _ = listener._accept()  # type: ignore[attr-defined]  # in no stub
            if not _is_creators(fd, listener):
                os.close(fd)
                continue
            if fd != number:
                os.dup2(fd, number, inheritable=False)
                os.close(fd)
            if ctx.channel.recv(len(GO)) == GO:
                break
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        listener.close()
        ctx.status = "created"

    def emit(self, code: Code) -> None:
        """The same."""
        listener = code.fds.pop(_KEY)
        kept = bytes(code.fds.values())
        code.builtin("await_start", listener, code.data(kept or 1), len(kept))
        code.release(listener)


def _is_creators(connection: int, listener: _socket.socket) -> bool:
    """Whether who connects is the user who made the socket, wherever its mode may let others in (SECURITY R11).

    Both are seen from the same user namespace, where an id that is not mapped is the overflow id. Source: unix(7).
    """
    client = _socket.socket(fileno=connection)
    ours, theirs = _uid(listener), _uid(client)
    client.detach()
    return theirs == ours


def _uid(peer: _socket.socket) -> int:
    """Of SO_PEERCRED: who connected, or for a listening socket who listens."""
    data = peer.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(data)[1]
    return uid


def _end(number: int, _frame: object) -> NoReturn:
    os._exit(128 + number)


def connect(path: str, timeout: float | None = None) -> Any:
    """A socket to the created container whose ListenForStart has `path`; `timeout` is in seconds. Raise OSError."""
    client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    client.settimeout(timeout)
    directory, _, name = path.rpartition("/")
    parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        client.connect(f"/proc/self/fd/{parent}/{name}")
    except BaseException:
        client.close()
        raise
    finally:
        os.close(parent)
    return client
