"""sd_notify(3): a socket inside for the program, and its news passed on to the socket that the caller has.

create   makes a directory in the container's state, and mounts it inside, read-only
start    binds the socket in it, lets the program go, and waits for READY=1
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable

from gocker.errors import GockerError
from gocker.model import ContainerSpec, Mount
from gocker.planner import Planned
from gocker.state import State
from gocker.steps.host import MakeDirectory

VARIABLE = "NOTIFY_SOCKET"
_PLACE, _NAME = "/run/notify", "notify.sock"
_OPTIONS = ("bind", "ro", "nosuid", "nodev", "noexec")
_PASSED_ON = (b"READY=", b"STATUS=")  # the rest is for systemd about a process that it does not know
_MAX = 4096  # bytes of a message


def with_socket(spec: ContainerSpec, state: State) -> ContainerSpec:
    """`spec` with the directory and the variable."""
    mount = Mount(kind="bind", source=_directory(state, spec.id), target=_PLACE, options=_OPTIONS)
    env = (*(pair for pair in spec.env if pair[0] != VARIABLE), (VARIABLE, f"{_PLACE}/{_NAME}"))
    return spec.replace(mounts=(*spec.mounts, mount), env=env)


def with_directory(planned: Planned, state: State) -> Planned:
    """`planned` with the directory made first; its end is that of the container's state."""
    plan = planned.plan
    step = MakeDirectory(path=_directory(state, plan.container), mode=0o755, private=True)
    return planned.replace(plan=plan.replace(host=(step, *plan.host)))


def start(
    container: str, state: State, begin: Callable[[], object], pid: int, pidfd: int, *, wait: bool
) -> None:
    """Call `begin`, and return when the container's first process, `pid`, is ready or has ended.

    Without `wait` return at once. Raise GockerError.
    """
    caller, directory = os.environ.get(VARIABLE, ""), _directory(state, container)
    if not caller or not os.path.isdir(directory):
        begin()
        return
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listen(directory))
        begin()
        if wait:
            _pass_on(listener, caller, pid, pidfd)
            return
        stack.pop_all()
    from threading import Thread

    Thread(target=_pass_on, args=(listener, caller, pid, pidfd), daemon=True).start()


def _directory(state: State, container: str) -> str:
    return f"{os.path.dirname(state.start_socket(container))}/notify"


def _listen(directory: str) -> socket.socket:
    """Bound by fd, since such a path has at most 107 bytes; whoever the program is may write to it."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_NAME, dir_fd=parent)  # of a start that was killed
            listener.bind(f"/proc/self/fd/{parent}/{_NAME}")
            os.chmod(f"/proc/self/fd/{parent}/{_NAME}", 0o777)  # noqa: S103 - for the container alone, which sees it
        finally:
            os.close(parent)
    except OSError as error:
        listener.close()
        raise GockerError.from_os("listen for sd_notify in", directory, error) from error
    return listener


def _pass_on(listener: socket.socket, caller: str, pid: int, pidfd: int) -> None:
    """Until it is ready, or has ended."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if listener.fileno() not in ready:
            return
        lines = [line for line in listener.recv(_MAX).split(b"\n") if line.startswith(_PASSED_ON)]
        if b"READY=1" in lines:
            lines.append(b"MAINPID=%d" % pid)
        if lines:
            _send(caller, b"\n".join(lines))
        if b"READY=1" in lines:
            return


def _send(caller: str, text: bytes) -> None:
    """A caller that does not listen any more misses it."""
    address = f"\0{caller[1:]}" if caller.startswith("@") else caller
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as client,
    ):
        client.sendto(text, address)
