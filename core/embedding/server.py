"""The fork server: a helper process with one thread and all imported, which forks an attendant for each container.

    the program                           server                          attendant
       | posix_spawn (its first container) -->|
       |-- request, fds by SCM_RIGHTS ------->| fork ------------------------->|
       |<======================= the channel of gocker.embedding ============>|
       | its end -- end of file ------------->| waits for the attendants, ends | kills, removes, ends

It ignores the terminal's signals and SIGTERM: the program decides, and the end of the program is seen by the end of
the socket, whatever ended it.
"""

from __future__ import annotations

import _socket
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

_CHANNEL = 3  # the server's end
_PACKET = b"attend"
_MAX_FDS = 8
_PROGRAM = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from gocker.embedding.server import main; main()"

Rights = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, ...]]


def _rights() -> Rights:
    return os.getresuid(), os.getresgid(), tuple(os.getgroups())


class Server:
    """The program's side."""

    def __init__(self) -> None:
        """Start it, by posix_spawn: nothing of the program is copied. Raise OSError."""
        self._rights = _rights()
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            program = sys.executable or "/usr/bin/python3"
            words = [program, "-I", "-c", _PROGRAM, json.dumps([os.path.abspath(path) for path in sys.path])]
            # Above 3 first, so that none of the three is overwritten before it is taken.
            high = [_lift(fd) for fd in (null, theirs.fileno())]
            actions = [(os.POSIX_SPAWN_DUP2, high[0], 0), (os.POSIX_SPAWN_DUP2, high[0], 1)]
            actions.append((os.POSIX_SPAWN_DUP2, high[1], _CHANNEL))
            try:
                self.pid = os.posix_spawn(program, words, os.environ, file_actions=actions)
            finally:
                for fd in high:
                    os.close(fd)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(null)
        self._socket = ours

    def fits(self) -> bool:
        """Whether it is there, and has the rights that the program has now."""
        if self._rights != _rights():
            return False
        try:
            return bool(self._socket.recv(1, _socket.MSG_DONTWAIT | _socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def request(self, channel: _socket.socket, message: Mapping[str, Any], fds: list[int]) -> None:
        """Have an attendant forked for `message`; it has copies of `channel` and `fds`. Raise OSError."""
        here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            memory = os.memfd_create("gocker-request")  # of any length; a packet is not
            try:
                with open(memory, "wb", closefd=False) as file:
                    file.write(json.dumps({**message, "environ": _environment()}).encode("ascii"))
                numbers = [memory, here, channel.fileno(), *fds]
                rights = b"".join(number.to_bytes(4, sys.byteorder) for number in numbers)
                self._socket.sendmsg([_PACKET], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
            finally:
                os.close(memory)
        finally:
            os.close(here)

    def stop(self) -> None:
        """Let it end and wait for it, and so for the attendants."""
        self._socket.close()
        with contextlib.suppress(ChildProcessError):  # the program waits for every child itself
            os.waitpid(self.pid, 0)

    def forget(self) -> None:
        """It is another process's."""
        self._socket.close()


def _lift(fd: int) -> int:
    from fcntl import F_DUPFD_CLOEXEC, fcntl

    return fcntl(fd, F_DUPFD_CLOEXEC, _CHANNEL + 1)


def _environment() -> dict[str, str]:
    """What gocker itself looks at; it may have changed since the server was started."""
    wanted = ("HOME", "XDG_STATE_HOME")
    return {name: text for name, text in os.environ.items() if name.startswith("GOCKER_") or name in wanted}


def main() -> None:
    """Be the server, until the program ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # attendants reap themselves
    os.closerange(_CHANNEL + 1, 1 << 20)  # what the program leaves open for its own children
    os.set_inheritable(_CHANNEL, False)
    channel = _socket.socket(fileno=_CHANNEL)
    _load()
    while True:
        packet, fds = _receive(channel)
        if packet != _PACKET:
            break
        if os.fork() == 0:
            channel.close()
            _serve(fds)
        for fd in fds:
            os.close(fd)
    channel.close()
    with contextlib.suppress(ChildProcessError):
        os.waitpid(-1, 0)  # with SIGCHLD ignored: until the last one has ended. Source: wait(2)
    os._exit(0)


def _load() -> None:
    """All that a start needs, once."""
    import gc
    import resource  # noqa: F401

    from gocker import receipt  # noqa: F401
    from gocker.audit import load_structlog
    from gocker.embedding.attendant import registry
    from gocker.errors import GockerError
    from gocker.kernel import stub

    with contextlib.suppress(GockerError, OSError):  # the start that needs it says what is wrong
        load_structlog()
        stub.stub_fd(10)
        registry().standing_controllers()
        registry().namespaces()
    gc.collect()
    gc.freeze()


def _receive(channel: _socket.socket) -> tuple[bytes, list[int]]:
    packet, control, _, _ = channel.recvmsg(
        len(_PACKET), _socket.CMSG_SPACE(4 * _MAX_FDS), _socket.MSG_CMSG_CLOEXEC
    )
    data = b"".join(part for _, _, part in control)
    return packet, [int.from_bytes(data[at : at + 4], sys.byteorder) for at in range(0, len(data), 4)]


def _serve(received: list[int]) -> None:
    """Be an attendant; never return."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # it waits for the container's first process
        memory, here, number, *fds = received
        os.fchdir(here)
        os.close(here)
        with open(memory, "rb") as file:
            file.seek(0)
            message = json.load(file)
        for name in _environment():
            del os.environ[name]
        os.environ.update(message["environ"])
        from gocker.embedding.attendant import attend

        attend(_socket.socket(fileno=number), message, fds)
        status = 0
    finally:
        os._exit(status)
