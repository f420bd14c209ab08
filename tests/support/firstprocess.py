"""Runs steps in a cloned child that ends in the exec stub, and collects all that can be seen of it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from fcntl import F_DUPFD_CLOEXEC, fcntl
from typing import Any, NamedTuple, NoReturn

from gocker.errors import GockerError, errno_name
from gocker.kernel import process, stub
from gocker.plan import Context, Step
from gocker.steps.capabilities import SetCapabilities
from gocker.steps.exec import CloseFds, Exec

HOST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PATIENCE = 20.0  # seconds until a test gives up


class Outcome(NamedTuple):
    """How it ended."""

    code: int  # as a shell's $?: 128+n for a signal
    output: bytes  # standard output and error
    records: list[tuple[int, int]]  # of the stub
    failed: dict[str, Any]  # the step that failed: op, reason, remedy, errno; else empty

    @property
    def text(self) -> str:
        return self.output.decode("utf-8", "surrogateescape")

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def field(self, name: str) -> str:
        """`name` of a /proc/PID/status in the output."""
        return next(line.split(":", 1)[1].strip() for line in self.lines if line.startswith(f"{name}:"))


def program(*argv: str, init: bool = False, env: Sequence[tuple[str, str]] = ()) -> tuple[Step, ...]:
    """The last two steps for `argv`."""
    return CloseFds(), Exec(argv=argv, env=(("PATH", HOST_PATH), *env), init=init)


def keep_only(names: tuple[str, ...]) -> SetCapabilities:
    """The step that leaves these capabilities to root, as `gocker run` does."""
    return SetCapabilities(effective=names, permitted=names)


def launch(
    steps: Sequence[Step],
    *,
    flags: int = 0,
    during: Callable[[int], None] | None = None,
    before: Callable[[], None] | None = None,
    stdin: int | None = None,
    status: bool = True,
    prepare: Callable[[int], None] | None = None,
) -> Outcome:
    """Clone with `flags`, run `before` and the steps in the child; the last one becomes the program.

    `during(pid)` runs here once the program does; `prepare(pid)` before the first step; `status` false
    leaves fd 3 closed.
    """
    stub.stub_fd()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    output, write = os.pipe2(os.O_CLOEXEC)
    reports, report = os.pipe2(os.O_CLOEXEC)
    gate, go = os.pipe2(os.O_CLOEXEC)
    pid, pidfd = process.clone(flags)
    if pid == 0:
        _child(steps, before, theirs.fileno() if status else -1, write, report, gate, go, stdin)
    for fd in (write, report, gate):
        os.close(fd)
    theirs.close()
    try:
        if prepare:
            prepare(pid)
        os.write(go, b"x")
        os.close(go)
        return _observe(pid, pidfd, ours, output, reports, during)
    except BaseException:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(pidfd)
        ours.close()


def _observe(
    pid: int,
    pidfd: int,
    ours: socket.socket,
    output: int,
    reports: int,
    during: Callable[[int], None] | None,
) -> Outcome:
    records: list[tuple[int, int]] = []
    parts: dict[int, bytes] = {output: b"", reports: b""}
    open_fds = {ours.fileno(), output, reports}
    deadline = time.monotonic() + PATIENCE
    while open_fds:
        ready, _, _ = select.select(list(open_fds), [], [], max(0, deadline - time.monotonic()))
        assert ready, f"still running after {PATIENCE} s: {parts} {records}"
        for fd in ready:
            data = ours.recv(4096) if fd == ours.fileno() else os.read(fd, 65536)
            if not data:
                open_fds.discard(fd)
                if fd != ours.fileno():
                    os.close(fd)
            elif fd == ours.fileno():
                record = stub.parse_record(data)
                records.append((record.kind, record.value))
            else:
                parts[fd] += data
        started = ours.fileno() not in open_fds or (stub.STARTED, 0) in records
        if during and started and not parts[reports]:
            during(pid)
            during = None
    status = os.waitpid(pid, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    failed = json.loads(parts[reports]) if parts[reports] else {}
    return Outcome(128 - code if code < 0 else code, parts[output], records, failed)


def _child(
    steps: Sequence[Step],
    before: Callable[[], None] | None,
    status: int,
    write: int,
    report: int,
    gate: int,
    go: int,
    stdin: int | None,
) -> NoReturn:
    op = ""
    try:
        os.close(go)
        os.read(gate, 1)
        status, write, report = (_lift(fd) for fd in (status, write, report))
        stdin = _lift(stdin) if stdin is not None else os.open("/dev/null", os.O_RDONLY)
        ctx = Context(None)
        ctx.fds["stub"] = _lift(stub.stub_fd())
        os.dup2(stdin, 0)
        os.dup2(write, 1)
        os.dup2(write, 2)
        if status >= 0:
            os.dup2(status, stub.STATUS_FD, inheritable=False)
        else:
            os.closerange(stub.STATUS_FD, stub.STATUS_FD + 1)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
            signal.signal(number, signal.SIG_DFL)
        if before:
            before()
        for step in steps:
            op = step.op
            step.execute(ctx)
    except BaseException as error:
        message = {"op": op, "reason": f"{type(error).__name__}: {error}", "remedy": "", "errno": ""}
        if isinstance(error, OSError | GockerError):
            message["errno"] = errno_name(error.errno or 0)
            message["remedy"] = getattr(error, "remedy", "")
        os.write(report, json.dumps(message).encode())
    os._exit(99)


def _lift(fd: int) -> int:
    return fcntl(fd, F_DUPFD_CLOEXEC, 20) if fd >= 0 else fd
