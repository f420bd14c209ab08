"""Run a program to its end, with a text to read and a time to do it in: no module is imported for it."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from gocker.record import Record

_MOST = 64 << 10  # bytes of output that are kept
_NOT_RUN = 127  # as a shell has it
_SIGNALS = (signal.SIGPIPE,)  # which Python ignores


class Ended(Record):
    """How a program ended."""

    status: int | None  # as waitpid(2) has it; None when it took too long and was killed
    output: bytes  # the last of what it wrote to stdout and stderr


def run_program(
    path: str,
    argv: Sequence[str],
    env: Sequence[str] | None,
    text: bytes,
    timeout: float | None = None,
    *,
    before: Callable[[], object] | None = None,
) -> Ended:
    """Run `path` with `text` as its stdin; `env` are NAME=VALUE, None for our own, `timeout` is in seconds.

    `before` is the last that its process does before the exec; what it raises is written to the output. Raise OSError.

    What is not close-on-exec it inherits. One that leaves a child behind with its stdout is not waited
    for longer than itself.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    source, output = _text_file(text), os.pipe2(os.O_CLOEXEC)
    variables = os.environ if env is None else dict(entry.partition("=")[::2] for entry in env)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, source, 0), (os.POSIX_SPAWN_DUP2, output[1], 1)]
        actions.append((os.POSIX_SPAWN_DUP2, output[1], 2))
        if before is None:
            pid = os.posix_spawn(path, tuple(argv), variables, file_actions=actions, setsigdef=_SIGNALS)
        else:
            pid = os.fork()
            if not pid:
                _become(path, argv, variables, (source, output[1], output[1]), before)
    except BaseException:
        for fd in (source, *output):
            os.close(fd)
        raise
    os.close(source)
    os.close(output[1])
    try:
        return _attend(pid, output[0], deadline)
    finally:
        os.close(output[0])


def _become(
    path: str,
    argv: Sequence[str],
    env: Mapping[str, str],
    stdio: tuple[int, int, int],
    before: Callable[[], object],
) -> NoReturn:
    """Be the program, or end."""
    try:
        for target, fd in enumerate(stdio):
            os.dup2(fd, target)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        before()
        os.execve(path, tuple(argv), env)  # noqa: S606 - no shell is wanted
    except BaseException as error:  # noqa: BLE001 - this process has nowhere to go back to
        os.write(2, f"{error}\n".encode("utf-8", "surrogateescape"))
    finally:
        os._exit(_NOT_RUN)


def _text_file(text: bytes) -> int:
    """An fd to read `text` from, however long it is and whether or not it is read."""
    fd = os.memfd_create("stdin", os.MFD_CLOEXEC)
    os.write(fd, text)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _attend(pid: int, output: int, deadline: float | None) -> Ended:
    said = b""
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(output, select.POLLIN)
    try:
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            ready = dict(poll.poll(left))
            if not ready:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                os.waitpid(pid, 0)
                return Ended(None, said)
            if output in ready:
                part = os.read(output, _MOST)
                said = (said + part)[-_MOST:]
                if not part:
                    poll.unregister(output)
            elif pidfd in ready:
                return Ended(os.waitpid(pid, 0)[1], said)
    finally:
        os.close(pidfd)
