"""The container's first process until it becomes the program: parks, runs the init phase, reports.

One SEQPACKET socket joins it to the launcher; a message is one packet:

    launcher                                  init
       | clone3() ----------------------------->| parked in recv
       | runs the parent phase                  |
       | GO and its pid ---------------------->|
       |                                        | runs the init phase
       |<--------------------- {"host": index} | a step that the launcher executes
       | GO ---------------------------------->|
       |<----------- CONSOLE, with the pty master (only with a terminal)
       |<------------------- {"parked": [ns, ...]}| only of a container that is created first
       | GO ---------------------------------->| waits for whoever starts it (steps/barrier)
       |<------------------- {"ready": [ns, ...]}| just before the filter and the last hop
       |<---------- LISTENER, with some memory  | a filter that asks somebody; steps/seccomplistener
       |<-------------------- {"failed": {...}} | a step failed; then _exit
       |<--------- end of file, by close-on-exec| the program runs
       |<------ records of the stub (kernel/stub)| exec failed, or the life of --init

The child dies with the launcher, by PR_SET_PDEATHSIG, and so does the program unless it is set-user-id.

After the clone nothing is imported and nothing is logged here (SECURITY R7): every module that an
init step needs is loaded by the launcher before. It ends in execve or `os._exit`.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # in no stub
import _socket
import json
import os
import signal
from fcntl import F_DUPFD_CLOEXEC, fcntl
from time import perf_counter_ns
from typing import NoReturn

from gocker.errors import EXIT_GOCKER_FAILED
from gocker.kernel.process import PR_SET_DUMPABLE, PR_SET_PDEATHSIG
from gocker.kernel.progress import Progress
from gocker.kernel.sigmask import SETMASK, change_mask
from gocker.kernel.stub import STATUS_FD
from gocker.kernel.syscalls import prctl
from gocker.lowering import DISARMING, failure_of
from gocker.plan import Context, Step
from gocker.steps.launch import GO, PARK

_PACKET = 64 << 10
_FIRST_FREE = 10  # above the fds that init hands to most programs: 0, 1, 2 and STATUS_FD


def enter(
    steps: tuple[Step, ...],
    ctx: Context,
    channel: _socket.socket,
    stdio: tuple[int, int, int],
    progress: Progress,
) -> NoReturn:
    """Be the first process: run `steps` after GO; the last one execs. `stdio` become 0, 1 and 2."""
    try:
        _run(steps, ctx, channel, stdio, progress)
    finally:
        os._exit(EXIT_GOCKER_FAILED)  # also when nobody is left to be told: this process is not gocker


def _run(
    steps: tuple[Step, ...],
    ctx: Context,
    channel: _socket.socket,
    stdio: tuple[int, int, int],
    progress: Progress,
) -> None:
    index = 0
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _reset_signals()
        channel = ctx.channel = _settle(ctx, channel, stdio)
        word, _, pid = channel.recv(_PACKET).partition(b" ")
        if word != GO or _is_orphan(channel):
            return
        ctx.pid = int(pid)
        times: list[int] = []
        ready, last = False, len(steps) - 1
        for index, step in enumerate(steps):
            progress.step = index
            if not ready and (step.quiet or index == last):
                channel.send(json.dumps({"ready": times}).encode())
                ready = True
            if step.op == PARK:
                channel.send(json.dumps({"parked": times}).encode())
            start = perf_counter_ns()
            if step.at_host:
                channel.send(json.dumps({"host": index}).encode())
                if channel.recv(_PACKET) != GO:
                    return
            else:
                step.execute(ctx)
            if step.op in DISARMING:
                prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                prctl(PR_SET_DUMPABLE, 0)
                if _is_orphan(channel):
                    return
            times.append(perf_counter_ns() - start)
    except BaseException as error:  # noqa: BLE001 - the boundary of the process: all goes to the launcher
        channel.send(json.dumps({"failed": failure_of(index, steps[index], error)}).encode()[:_PACKET])


def _is_orphan(channel: _socket.socket) -> bool:
    """Whether the launcher ended before PR_SET_PDEATHSIG was in force: its end of the socket went first."""
    try:
        return not channel.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False


def _settle(ctx: Context, channel: _socket.socket, stdio: tuple[int, int, int]) -> _socket.socket:
    """Put the fds where the program and the stub expect them; nothing that is still needed lies below."""
    status = STATUS_FD + (
        ctx.spec.preserve_fds if ctx.spec else 0
    )  # above what the caller gives to the program
    free = max(_FIRST_FREE, status + 1)
    ctx.fds = {name: _lift(fd, free) for name, fd in ctx.fds.items()}
    high = [_lift(fd, free) for fd in stdio]
    moved = _lift(channel.detach(), free)
    for target, fd in enumerate(high):
        os.dup2(fd, target)
    os.dup2(moved, status, inheritable=False)
    return _socket.socket(fileno=status)


def _lift(fd: int, free: int) -> int:
    return fcntl(fd, F_DUPFD_CLOEXEC, free) if fd < free else fd


def _reset_signals() -> None:
    """Give the program default dispositions and an empty mask, whatever gocker handles or ignores.

    Not by the signal module's own functions, which make an enum member of each answer: 0.3 ms in a fresh child.
    """
    for number in _CATCHABLE:
        if _signal.getsignal(number) != _signal.SIG_DFL:
            _signal.signal(number, _signal.SIG_DFL)
    change_mask(SETMASK, 0)


_UNCHANGEABLE = {signal.SIGKILL, signal.SIGSTOP, 32, 33}  # the last two are the C library's, nptl(7)
_CATCHABLE = tuple(number for number in range(1, signal.NSIG) if number not in _UNCHANGEABLE)
