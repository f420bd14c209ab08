"""Runs a launch plan's host, parent and remove phases, and undoes what it did.

`core/init.py` draws the protocol between the launcher and the child.
"""

from __future__ import annotations

import _socket
import contextlib
import json
import os
import signal
from collections.abc import Callable
from errno import EACCES, EPERM
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NoReturn

from gocker.auditevent import Event
from gocker.errors import ExecError, GockerError, SignalError, StepError, UsageError, errno_name
from gocker.kernel import caller, native, stub
from gocker.kernel.caps import permitted
from gocker.kernel.cgroupfs import PATIENCE
from gocker.kernel.process import has_ended, pidfd_send_signal
from gocker.kernel.progress import Progress
from gocker.lowering import (
    DISARMING,
    FAILED,
    MOST_CHUNKS,
    Code,
    Failure,
    NotLoweredError,
    can_lower,
    failure_of,
    words_from,
)
from gocker.model import ContainerSpec
from gocker.plan import Context, Plan, Step
from gocker.steps.launch import CONSOLE, GO, LISTENER, PARK

if TYPE_CHECKING:
    from gocker.kernel.spawn import Join, Offset

_PACKET = 64 << 10
EXECUTOR = "GOCKER_EXECUTOR"
"""Environment variable: who runs the init phase. `python`, `native`, or `auto`: native where it is built and can."""
PYTHON, NATIVE, AUTO = EXECUTORS = ("python", "native", "auto")
_DEFAULT = AUTO
_NEEDED = ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_DAC_OVERRIDE")


class Launcher:
    """One execution of one plan. Use: `start`, `await_program`, (the program runs), `remove`, `undo`."""

    def __init__(
        self, plan: Plan, spec: ContainerSpec | None, record: int = -1, *, threads: bool = False
    ) -> None:
        """`spec` is None where a later gocker only undoes; then every step counts as begun.

        `record` is an fd of the file that tells that gocker how far the first process got (kernel.progress).
        `threads` says that this process has others, so that a copy of it is nothing to go on in.
        """
        self.plan = plan
        self.ctx = Context(spec)
        self.events: list[Event] = []  # for the audit log
        self.step_ns: list[int] = []  # host and parent, then init's own
        # begun, in order; the last one may be half done
        self._done: list[Step] = [] if spec else [*plan.host, *plan.parent]
        self._channel: _socket.socket | None = None
        self._progress: Progress | None = None
        self._record_fd = record
        self._ready = False  # init is at its last step
        self._executor: native.Executor | None = None
        self._code: Code | None = None  # what the native executor runs
        self._theirs: _socket.socket | None = None
        self._stdio, self._status, self._forced = (0, 1, 2), stub.STATUS_FD, threads
        self._threads = threads
        self.wait: Callable[[int], object] = (
            bool  # as `await_program` has it, while there is no first process yet
        )
        self.total = plan.total  # steps of the start, for messages
        self.console = -1  # the pty master, when there is a terminal
        self.program_status: int | None = None  # wait status of the program below --init

    def start(self, stdio: tuple[int, int, int]) -> None:
        """Run the host and the parent phase and let the child go; `stdio` are the child's fds.

        Raise StepError; `remove` and `undo` follow all the same.
        """
        ctx, spec = self.ctx, self.ctx.spec
        status = stub.STATUS_FD + (spec.preserve_fds if spec else 0)
        self._stdio, self._status = stdio, status
        if self._is_native():
            if spec and spec.init:
                ctx.fds["stub"] = os.dup(stub.stub_fd(status + 1))
            ours, theirs = _pair()
            self._channel = ours
            self._progress = Progress.of_memory(self._record_fd)
            try:
                # Early: that it is loaded takes no time of its own while the host phase runs.
                self._executor = native.Executor(ours, theirs.fileno(), status, ctx.parent)
                ctx.clone = self._clone
            except BlockingIOError:
                # No more processes in gocker's own cgroup: a copy of this one is born in the container's.
                if self._forced:
                    raise
                self._use_python()
            finally:
                theirs.close()
        else:
            self._progress = Progress(self._record_fd)
            self._use_python()
        try:
            for number, step in enumerate((*self.plan.host, *self.plan.parent), 1):
                self._execute(number, step)
        finally:
            if self._theirs is not None:
                self._theirs.close()
        self._close_fds()
        code = self._code
        with contextlib.suppress(BrokenPipeError):  # it has ended already: await_program sees that, too
            if code is not None and self._executor is not None:
                self._executor.go(ctx.pid, code.chunks, code.named, code.program())
            elif self._channel is not None:
                self._channel.send(GO + b" %d" % ctx.pid)

    def _is_native(self) -> bool:
        """Who is to run the init phase. Raise UsageError."""
        asked = os.environ.get(EXECUTOR) or (AUTO if self._threads or caller.is_other() else _DEFAULT)
        if asked not in EXECUTORS:
            raise UsageError(
                "set", f"{EXECUTOR}={asked}", "no such executor", remedy=f"one of {' '.join(EXECUTORS)}"
            )
        if not self._threads and (
            asked == PYTHON or not any(step.op == "clone" for step in self.plan.parent)
        ):
            return False
        self._forced = asked == NATIVE or self._threads
        found = next((step.op for step in self.plan.init if not can_lower(step)), "")
        reason = ""
        if asked == PYTHON:
            reason = "the environment says otherwise"
        elif found:
            reason = f"the step {found} is the Python executor's alone"
        elif len(self.plan.init) > MOST_CHUNKS:
            reason = f"the plan has more than {MOST_CHUNKS} steps"
        elif not native.is_built():
            reason = "it was not built"
        if reason and self._forced:
            raise UsageError("use", f"{EXECUTOR}={NATIVE}", reason)
        return not reason

    def _use_python(self) -> None:
        """Go on in a copy of this process, for which all is loaded now."""
        from gocker import init

        # Made before the clone, so that the child need not, and out of the way of what the program gets.
        stub.stub_fd(self._status + 1)
        ours, theirs = _pair()
        if self._channel is not None:
            self._channel.close()
        self._channel, self._theirs = ours, theirs
        progress = self._progress
        assert progress is not None  # noqa: S101 - start makes it

        def enter() -> NoReturn:
            ours.close()
            init.enter(self.plan.init, self.ctx, theirs, self._stdio, progress)

        self.ctx.enter = enter
        self.ctx.clone = self.ctx.spawn

    def _clone(
        self, flags: int, joins: tuple[Join, ...], offsets: tuple[Offset, ...], cgroup_fd: int
    ) -> tuple[int, int]:
        """Have the executor make the first process, and lower the init phase meanwhile."""
        ctx, executor, progress = self.ctx, self._executor, self._progress
        assert executor is not None  # noqa: S101 - start makes both
        assert progress is not None  # noqa: S101
        executor.clone(flags, joins, offsets, cgroup_fd, (*self._stdio, progress.fd, *ctx.fds.values()))
        reason = ""
        code = Code(ctx.spec, ctx.window, tuple(ctx.fds), self._status)
        try:
            for step in self.plan.init:
                code.add(step, disarms=step.op in DISARMING, parks=step.op == PARK)
        except (NotLoweredError, NotImplementedError, GockerError, OSError, LookupError, ValueError) as error:
            reason = f"{step.op}: {error}"
        self.wait(executor.fileno())
        pid, pidfd = executor.born()
        if not reason:
            self._code = code
            return pid, pidfd
        with contextlib.suppress(ProcessLookupError):
            pidfd_send_signal(pidfd, signal.SIGKILL)
        ctx.parent.wait(pid)
        os.close(pidfd)
        if self._forced:
            raise UsageError("use", f"{EXECUTOR}={NATIVE}", reason)
        caller.give_back(reason)  # it is taken back first: a copy of this process would have the wrong parent
        self._executor = None
        self._use_python()
        return ctx.spawn(flags, joins, offsets, cgroup_fd)

    def _close_fds(self) -> None:
        """The child has its own copies of what the steps opened for it."""
        for fd in self.ctx.fds.values():
            os.close(fd)
        self.ctx.fds.clear()

    def _execute(self, number: int, step: Step) -> None:
        self._done.append(step)
        begin = perf_counter_ns()
        try:
            step.execute(self.ctx)
        except SignalError:
            raise
        except (OSError, GockerError) as error:
            reason = _reason(error)
            if self.ctx.pidfd >= 0 and has_ended(self.ctx.pidfd):
                reason = f"the first process {self._end_of_first()}: {reason}"
            raise self._failed(number, step.describe(), reason, _remedy(error), error.errno or 0) from error
        self.step_ns.append(perf_counter_ns() - begin)
        if step.event:
            self.note(step.event, **step.audit(self.ctx))

    def await_parked(self, why: Callable[[], str] = str, wait: Callable[[int], object] = bool) -> None:
        """Return when the container has been created and waits for its start; raise as `await_program`."""
        while not self._take(why, wait, "parked"):
            pass
        self._note_init()

    def release(self) -> None:
        """Let go of what was created: from here on it outlives this process."""
        channel = self._channel
        assert channel is not None  # noqa: S101 - start comes first
        with contextlib.suppress(
            BrokenPipeError, ConnectionResetError
        ):  # it was killed: who starts it sees that
            channel.send(GO)
            while channel.recv(_PACKET):
                pass
        self.close()

    def adopt(self, channel: _socket.socket, pidfd: int) -> None:
        """Start what another process created: `channel` is to it, `pidfd` of it; `await_program` follows."""
        self._channel = channel
        self.ctx.pidfd = pidfd
        channel.send(GO)

    def await_program(self, why: Callable[[], str] = str, wait: Callable[[int], object] = bool) -> None:
        """Return when the program has been exec'd; raise StepError or ExecError when it was not.

        `why` is asked, when the first process was killed, what is known about that: "" for nothing.
        `wait` is called with the fd of the socket to init before each read, and may raise.
        """
        while not self._take(why, wait, "running"):
            pass
        self._note_init()

    def _note_init(self) -> None:
        for step in self.plan.init:
            if step.event:
                self.note(step.event, **step.audit(self.ctx))

    def _take(self, why: Callable[[], str], wait: Callable[[int], object], end: str) -> bool:
        """Take one packet of init's or the stub's; True when it has come to `end`."""
        channel = self._channel
        assert channel is not None  # noqa: S101 - start comes first
        wait(channel.fileno())
        packet, control = _receive(channel)
        if packet == CONSOLE:
            self.console = int.from_bytes(control[0][2][:4], "little")
        elif packet == LISTENER:
            self._pass_on(int.from_bytes(control[0][2][:4], "little"), channel)
        elif packet.startswith(b"{"):
            return self._hear(json.loads(packet), channel, end)
        elif packet.startswith(FAILED):
            self._lowered_failed(Failure.parse(packet))
        elif packet:
            return self._record(packet)
        elif not self._ready or self._fell_short():
            raise self._died(why)
        return not packet

    def _hear(self, message: dict[str, Any], channel: _socket.socket, end: str) -> bool:
        if "failed" in message:
            self._init_failed(message["failed"])
        elif "host" in message:
            index = message["host"]
            self._execute(self._number(index), self.plan.init[index])
            channel.send(GO)
        else:
            self.step_ns += message.get("parked") or message.get("ready") or ()
            self._ready = "ready" in message
        return "parked" in message and end == "parked"

    def _pass_on(self, memory: int, channel: _socket.socket) -> None:
        from gocker.steps.seccomplistener import pass_on

        try:
            pass_on(memory, self.ctx.pidfd, channel.fileno())
        except (OSError, GockerError) as error:
            with contextlib.suppress(ProcessLookupError):  # else it waits, whoever made it, and is of no use
                pidfd_send_signal(self.ctx.pidfd, signal.SIGKILL)
            raise self._failed(
                self.plan.total, "seccomp listener", str(error), _remedy(error), error.errno or 0
            ) from error

    def _fell_short(self) -> bool:
        """Whether the first process ended between its last word and its last step, of which a filter keeps it."""
        progress = self._progress
        return progress is not None and progress.step < len(self.plan.init) - 1

    def _number(self, index: int) -> int:
        """Of a step of the init phase."""
        return len(self.plan.host) + len(self.plan.parent) + index + 1

    def _died(self, why: Callable[[], str]) -> StepError:
        """It ended without a word: say how, and at which step."""
        with contextlib.suppress(ProcessLookupError):  # it has ended, unless it lost nothing but its socket
            pidfd_send_signal(self.ctx.pidfd, signal.SIGKILL)
        has_ended(self.ctx.pidfd, PATIENCE)
        index = max(0, self._progress.step if self._progress else 0)
        known = why()
        reason = f"the first process {self._end_of_first()}{f': {known}' if known else ''}"
        what = self.plan.init[index].describe() if self.plan.init else "start it"
        return self._failed(self._number(index), what, reason, "", 0)

    def _end_of_first(self) -> str:
        try:
            status = self.ctx.parent.peek(self.ctx.pidfd)
        except ChildProcessError:  # another process made it, and is its parent
            return "has ended" if has_ended(self.ctx.pidfd) else "does not end"
        if status is None:
            return "does not end"
        code = os.waitstatus_to_exitcode(status)
        if code >= 0:
            return f"ended with exit status {code}"
        from gocker.receipt import signal_name

        return f"was ended by {signal_name(-code)}"

    def _record(self, packet: bytes) -> bool:
        """Take a record of the stub; True when it says that the program runs."""
        record = stub.parse_record(packet)
        if record.kind == stub.EXEC_FAILED:
            reason = f"{errno_name(record.value)}: {os.strerror(record.value)}"
            raise ExecError("exec", self._command(), reason, errno=record.value)
        if record.kind == stub.ENDED:
            self.program_status = record.value
        return True

    def _command(self) -> str:
        spec = self.ctx.spec
        return (spec.argv[0] or "''") if spec and spec.argv else ""

    def _init_failed(self, failure: dict[str, Any]) -> NoReturn:
        number, what = self._number(failure["index"]), failure["what"]
        error = self._failed(number, what, failure["reason"], failure["remedy"], failure["errno"])
        if failure["exec"]:
            name = self._command()
            raise ExecError("exec", name, failure["reason"], remedy=failure["remedy"], errno=failure["errno"])
        raise error

    def _lowered_failed(self, failure: Failure) -> NoReturn:
        """The words are those that `execute` has for it."""
        code = self._code
        if code is None:
            self._init_failed(words_from(failure))
        self._init_failed(failure_of(failure.place, code.step(failure), code.error(failure)))

    def _failed(self, number: int, what: str, reason: str, remedy: str, errno: int) -> StepError:
        total = self.total
        remedy = remedy or _privileges_missing(errno)
        self.note("step.failed", "error", step=number, total=total, describe=what, reason=reason)
        return StepError(number, total, what, reason, remedy=remedy, errno=errno)

    def collect_records(self) -> None:
        """After the end: take what the --init stub said about the program."""
        channel = self._channel
        if channel is None:
            return
        channel.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while packet := _receive(channel)[0]:
                if packet in (CONSOLE, LISTENER) or packet.startswith((b"{", FAILED)):
                    continue  # init's, in a start that was given up
                try:
                    self._record(packet)
                except GockerError as error:
                    # A program with CAP_SYS_PTRACE can take the socket of the --init stub: what it says
                    # there may be wrong, but must not keep the container from being removed.
                    self.note("status.refused", "warning", reason=error.reason)

    def remove(self) -> list[GockerError]:
        """Run the remove phase, every step of it; return the errors."""
        errors: list[GockerError] = []
        for step in self.plan.remove:
            if self._attempt(step.execute, step, errors) and step.event:
                self.note(step.event, **step.audit(self.ctx))
        return errors

    def undo(self) -> list[GockerError]:
        """Take back, in reverse, every step that was begun; return the errors."""
        errors: list[GockerError] = []
        self.close()
        while self._done:
            step = self._done.pop()
            if step.undoable:
                self._attempt(step.undo, step, errors)
        return errors

    def close(self) -> None:
        """Give up the socket to init and the memory shared with it."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._executor is not None:
            self._executor.reap()
            self._executor = None
        if self._progress is not None:
            self._progress.close()
            self._progress = None

    def _attempt(self, action: Callable[[Context], None], step: Step, errors: list[GockerError]) -> bool:
        """Whatever comes of it, the others have their turn."""
        try:
            action(self.ctx)
        except Exception as error:  # noqa: BLE001 - a bug in one step must not leave the rest undone
            failed = GockerError("undo", step.describe(), _reason(error), remedy=_remedy(error))
            failed.__cause__ = error
            errors.append(failed)
            self.note("undo.failed", "error", describe=step.describe(), reason=failed.reason)
            return False
        return True

    def note(self, event: str, level: str = "info", /, **fields: Any) -> None:
        """Put something on the record."""
        self.events.append(Event.now(event, level, **fields))


def is_for_threads(plan: Plan, spec: ContainerSpec) -> bool:
    """Whether a process with other threads can start it: natively, that is."""
    try:
        return Launcher(plan, spec, threads=True)._is_native()
    except UsageError:
        return False


def give_back_unless_native(plan: Plan, spec: ContainerSpec) -> None:
    """Where this process works for another, let that one start what only a copy of a Python process can."""
    if caller.is_other():
        if spec.hooks or spec.preserve_fds:
            caller.give_back("hooks and fds are the caller's own")
        if not Launcher(plan, spec)._is_native():
            caller.give_back("the plan needs the Python executor")


def _pair() -> tuple[_socket.socket, _socket.socket]:
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)


def _receive(channel: _socket.socket) -> tuple[bytes, list[tuple[int, int, bytes]]]:
    """One packet and what came with it. A child that ended before it read GO resets the connection once."""
    space = _socket.CMSG_SPACE(4)
    try:
        packet, control, _, _ = channel.recvmsg(_PACKET, space, _socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        packet, control, _, _ = channel.recvmsg(_PACKET, space, _socket.MSG_CMSG_CLOEXEC)
    return packet, control


def _reason(error: Exception) -> str:
    if isinstance(error, GockerError):
        return error.reason
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        return f"{errno_name(error.errno or 0)}: {error.strerror or error}{where}"
    return f"{type(error).__name__}: {error}"


def _privileges_missing(number: int) -> str:
    """What a gocker without the privileges that it needs is told about a step that was not permitted."""
    if number not in (EPERM, EACCES):
        return ""
    if os.geteuid() != 0:
        return "run gocker as root"
    lacking = sorted(name for name in _NEEDED if name not in permitted())
    return f"gocker needs {' '.join(lacking)}; inside docker: run it with --privileged" if lacking else ""


def _remedy(error: Exception) -> str:
    return error.remedy if isinstance(error, GockerError) else ""
