"""One more process in a container that runs: started, attended to or let go."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

from gocker import paths
from gocker.audit import AuditLog
from gocker.auditevent import Event
from gocker.errors import GockerError, StateError
from gocker.execplan import plan_exec
from gocker.kernel.cgroupfs import PATIENCE
from gocker.kernel.process import has_ended, pidfd_send_signal
from gocker.lasting import PAUSED, STOPPED, Lasting, status_of
from gocker.launcher import Launcher, give_back_unless_native
from gocker.model import ContainerSpec
from gocker.plan import Plan
from gocker.registry import Registry
from gocker.state import State


class Process:
    """A process that was started in a container; its pidfd is ours until `close`."""

    def __init__(self, pid: int, pidfd: int, console: int) -> None:
        """`console` is the pty master, or -1."""
        self.pid = pid
        self.pidfd = pidfd
        self.console = console

    def close(self) -> None:
        """Let go of it."""
        os.close(self.pidfd)


def execute(
    spec: ContainerSpec,
    lasting: Lasting,
    state: State,
    registry: Registry,
    audit: AuditLog,
    *,
    cgroups: tuple[str, ...] = (),
    paused: bool = False,
    newlines: bool = False,
    stdio: tuple[int, int, int] = (0, 1, 2),
    window: bytes = b"",
    started: Callable[[int, int], None] | None = None,
) -> Process:
    """Start what the process fields of `spec` say in the container of `lasting`.

    `cgroups` are cgroups below the container's; `paused` allows a container that is paused; with `newlines`
    its terminal adds no CR to them; `started` is called with pid and pty master while all can still be undone. Raise GockerError; then nothing is left.
    """
    status = status_of(lasting, state)
    if status == STOPPED or (status == PAUSED and not paused):
        why = "cannot exec in a paused container" if status == PAUSED else f"it is {status}"
        raise StateError("exec in container", lasting.id, why)
    plan = plan_exec(spec, lasting, registry, paths.data_root(), cgroups, newlines=newlines)
    give_back_unless_native(plan, spec)
    audit.prepare()
    launcher = Launcher(plan, spec.replace(rootfs=None))
    ctx = launcher.ctx
    ctx.window = window
    launcher.note(
        "exec.create", command=list(spec.argv), steps=[step.describe() for _, _, step in plan.numbered()]
    )
    asked = 0
    try:
        launcher.start(stdio)
        audit.load()
        asked = len(launcher.events)
        _put_down(
            audit, launcher.events, lasting, plan
        )  # while the process is on its way: a kill leaves this
        launcher.await_program()
        if started is not None:
            started(ctx.pid, launcher.console)
        launcher.note("exec.start", pid=ctx.pid, step_us=[ns // 1000 for ns in launcher.step_ns])
    except BaseException as error:
        _end(launcher)
        launcher.note("exec.failed", "error", reason=str(error))
        raise
    finally:
        launcher.close()
        _put_down(audit, launcher.events[asked:], lasting, plan)
    process = Process(ctx.pid, ctx.pidfd, launcher.console)
    ctx.pidfd = -1
    return process


def _put_down(audit: AuditLog, events: list[Event], lasting: Lasting, plan: Plan) -> None:
    """A log that was good before and takes no more does not end what runs."""
    with contextlib.suppress(GockerError):
        audit.write(events, container=lasting.id, plan=plan.digest)


def _end(launcher: Launcher) -> None:
    """Kill what was started, and take the rest back."""
    ctx = launcher.ctx
    if ctx.pidfd >= 0:
        with contextlib.suppress(ProcessLookupError):
            pidfd_send_signal(ctx.pidfd, signal.SIGKILL)
        if has_ended(ctx.pidfd, PATIENCE):
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, ctx.pidfd, os.WEXITED)
        os.close(ctx.pidfd)
        ctx.pidfd = -1
    launcher.undo()
