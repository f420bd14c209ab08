"""A seccomp filter that asks: its listener goes to the socket that the config.json names.

    init                            launcher, or who starts a created container      listenerPath
     |-- LISTENER, with memory ------->|                                                  |
     | seccomp()                       |                                                  |
     |-- number of the fd, in memory ->| pidfd_getfd()                                    |
     |                                 |-- state of the process, and the fd ------------->|
     |<------------ taken, in memory --|                                                  |
     | exec                            |                                                  |

From seccomp() to the exec init makes no system call: the filter might ask about it, and nobody would answer.
"""

from __future__ import annotations

import _socket
import json
import os
import select
import sys

from gocker.errors import KernelError
from gocker.kernel.handover import Handover
from gocker.kernel.syscalls import call
from gocker.model import OCI_VERSION
from gocker.plan import Context
from gocker.steps import quote
from gocker.steps.exec import InstallSeccomp
from gocker.steps.hooks import state_document
from gocker.steps.launch import LISTENER

_FD_NAME = "seccompFd"  # OCI runtime spec, config-linux, The Container Process State
_PATIENCE = 10.0  # seconds that whoever listens may take
_NAP = 1  # millisecond


class InstallWithListener(InstallSeccomp):
    """Put a filter in force that asks who listens at a socket of the host."""

    op = "seccomp-listener"

    listener: str  # host path of a SOCK_STREAM socket
    metadata: str = ""  # for who listens
    first: int = 0  # pid of the container's first process, where this is one more of it

    def describe(self) -> str:
        """As for any filter, and who is asked."""
        return f"{super().describe()}, asks {quote(self.listener)}"

    def execute(self, ctx: Context) -> None:
        """seccomp(2) with a listener; return when that has been passed on."""
        assert ctx.channel is not None  # noqa: S101 - init has one
        handover = Handover.new(json.dumps({"path": self.listener, "state": self._state(ctx)}).encode())
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, handover.fd.to_bytes(4, sys.byteorder))
        ctx.channel.sendmsg([LISTENER], [rights])
        if not handover.give(self.install()):
            os._exit(1)  # whoever was to pass it on has ended

    lowers = False  # the listener is handed over in memory that is shared with the launcher

    def _state(self, ctx: Context) -> dict[str, object]:
        assert ctx.spec is not None  # noqa: S101 - it is there whenever something is started
        status = "running" if self.first else ctx.status
        return {
            "ociVersion": OCI_VERSION,
            "fds": [_FD_NAME],
            "pid": ctx.pid,
            "metadata": self.metadata,
            "state": state_document(ctx.spec, status, self.first or ctx.pid),
        }


def pass_on(memory: int, pidfd: int, channel: int) -> None:
    """Fetch the listener of the process behind `pidfd` and send it where the text in `memory` says.

    Return without having done so when that process has something else to say on `channel`, or has ended.
    Takes over the fd `memory`. Raise OSError, KernelError.
    """
    handover = Handover(memory)
    try:
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        while handover.number < 0:
            if poll.poll(_NAP):
                return
        message = json.loads(handover.text())
        listener = _fetch(pidfd, handover.number)
        try:
            _send(message["path"], json.dumps(message["state"]).encode(), listener)
        finally:
            os.close(listener)
        handover.take()
    finally:
        handover.close()


def _fetch(pidfd: int, number: int) -> int:
    try:
        return call("pidfd_getfd", pidfd, number, 0)
    except PermissionError as error:
        remedy = "gocker needs CAP_SYS_PTRACE for it, and kernel.yama.ptrace_scope below 3"
        raise KernelError.from_os("fetch seccomp listener", "", error, remedy=remedy) from error


def _send(path: str, text: bytes, listener: int) -> None:
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, listener.to_bytes(4, sys.byteorder))]
    client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        client.settimeout(_PATIENCE)
        client.connect(path)
        while text:
            text = text[client.sendmsg([text], rights) :]
            rights = []
    except OSError as error:
        raise KernelError.from_os(
            "pass seccomp listener on to",
            path,
            error,
            remedy="failed to connect with seccomp agent: is it there?",
        ) from error
    finally:
        client.close()
