"""The client as the parent of what a worker starts: gocker.kernel.native.Parent by messages."""

from __future__ import annotations

import _socket
import array
import contextlib
import os
import signal
from resource import struct_rusage

from gocker.warm import protocol

_PACKET = 256
_UNKNOWN = -1  # the executor's pid, until somebody waits for it


class ClientParent:
    """Starts executors in the client, and asks it how its children ended."""

    def __init__(self, channel: _socket.socket) -> None:
        """`channel` is to the client."""
        self._channel = channel
        self._spawning = 0  # executors that the client has not told the pid of yet

    def spawn(self, executor: int, channel: int, number: int) -> int:
        """Have it started; what comes of it is asked for later, since the host phase need not wait for it. Raise OSError."""
        fds = array.array("i", (executor, channel)).tobytes()
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)
        self._channel.sendmsg([protocol.message(protocol.SPAWN, number)], [rights])
        self._spawning += 1
        return _UNKNOWN

    def reap_executor(self, pid: int) -> None:
        """Have that done. Raise OSError when it could not be started."""
        while self._spawning:
            self._spawning -= 1
            packet = self._exchange(b"", [])
            if not packet:
                return
            started = protocol.parse_answer(packet, protocol.SPAWNED)
            if started < 0:
                raise OSError(-started, os.strerror(-started))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._channel.send(protocol.message(protocol.REAP))

    def wait(self, pid: int) -> tuple[int, struct_rusage | None]:
        """Ask; a client that is gone took its children with it, by PR_SET_PDEATHSIG."""
        packet = self._ask(protocol.message(protocol.WAIT, pid))
        if not packet:
            return signal.SIGKILL, None
        status = protocol.parse_answer(packet, protocol.WAITED)
        if status < 0:
            raise ChildProcessError(10, "No child processes")
        return status, struct_rusage(protocol.parse_usage(packet))

    def peek(self, pidfd: int) -> int | None:
        """Ask."""
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pidfd.to_bytes(4, "little"))
        packet = self._ask(protocol.message(protocol.PEEK), [rights])
        if not packet:
            return int(signal.SIGKILL)
        status = protocol.parse_answer(packet, protocol.PEEKED)
        if status == protocol.FAILED:
            raise ChildProcessError(10, "No child processes")
        return None if status == protocol.ALIVE else status

    def _ask(self, message: bytes, rights: list[tuple[int, int, bytes]] | None = None) -> bytes:
        """The answer; b"" when there is nobody left to give one."""
        self.reap_executor(_UNKNOWN)
        return self._exchange(message, rights or [])

    def _exchange(self, message: bytes, rights: list[tuple[int, int, bytes]]) -> bytes:
        try:
            if message:
                self._channel.sendmsg([message], rights)
            return self._channel.recv(_PACKET)
        except (BrokenPipeError, ConnectionResetError):
            return b""
