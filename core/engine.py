"""The life of one container in the foreground: start, attend, judge, remove."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from gocker import paths
from gocker.api import CgroupController
from gocker.audit import AuditLog
from gocker.claim import Claim
from gocker.errors import AuditError, GockerError, KernelError, SignalError
from gocker.hierarchy import read_host
from gocker.kernel.cgroupfs import PATIENCE, DirReader, kill_all
from gocker.kernel.process import disposes, has_ended, pidfd_send_signal
from gocker.launcher import Launcher, give_back_unless_native
from gocker.model import ContainerSpec, Hierarchy
from gocker.planner import Planned, build_plan
from gocker.record import Record
from gocker.registry import Registry
from gocker.seccomp import seccomp_step
from gocker.signals import ENDING, GONE, Arrival, Arrivals, Signals
from gocker.state import State
from gocker.stdio import Attached, Streams, attend, deliver, drain

if TYPE_CHECKING:
    from resource import struct_rusage

    from gocker.plancache import PlanCache
    from gocker.receipt import Report


class Outcome(Record):
    """How a run ended."""

    report: Report
    error: GockerError | None  # why the program did not run, or why gocker gave up on it
    warnings: tuple[str, ...]  # best-effort limits that do not bind, and what could not be undone
    step_ns: tuple[int, ...] = ()  # how long the steps took, in order, as far as is known
    marks: tuple[
        tuple[str, int], ...
    ] = ()  # what had been done when, time.perf_counter_ns(): begun go ran ended removed


def plan(spec: ContainerSpec, registry: Registry, *, cache: bool = True) -> Planned:
    """The launch plan of `spec` on this host. Nothing is touched but, with `cache`, gocker's own caches."""
    root = paths.data_root()
    seccomp = seccomp_step(spec, root if cache else "")
    make = _planner() if cache else build_plan
    return make(spec, registry, read_host(), os.path.join(root, "containers", spec.id), seccomp)


def _planner() -> Callable[..., Planned]:
    """A process that plans a second start is likely to plan many."""
    global _plans, _planned  # noqa: PLW0603 - of the process, as its registry is
    if _plans is None:
        if not _planned:
            _planned = True
            return build_plan
        from gocker.plancache import PlanCache

        _plans = PlanCache()
    return _plans.plan


_planned = False
_plans: PlanCache | None = None


def run(spec: ContainerSpec, planned: Planned, audit: AuditLog, *, end_stdout: bool = False) -> Outcome:
    """Run a plan with gocker's own standard streams and signals; return when nothing of it is left.

    `end_stdout` says that nobody else needs stdout: its reader sees the end of it when the program
    closes its own. Raise GockerError when not even the record of the start can be made.
    """
    streams = _attach(spec, end_stdout=end_stdout)
    try:
        signals = Signals()
        try:
            return run_with(spec, planned, audit, streams, signals)
        finally:
            signals.close()
    finally:
        streams.close()


def run_with(
    spec: ContainerSpec,
    planned: Planned,
    audit: AuditLog,
    streams: Attached,
    signals: Arrivals,
    started: Callable[[int], object] = bool,
    *,
    threads: bool = False,
) -> Outcome:
    """As `run`, with somebody else's streams and signals, which stay theirs to close.

    `started` is called with the first process's pid once the program runs; `threads` is for the launcher.
    """
    give_back_unless_native(planned.plan, spec)
    audit.prepare()
    claim = State().create(spec.id, spec.name, planned.plan.canonical)
    return _Run(spec, planned, audit, claim, streams, signals, started, threads=threads).run()


def _attach(spec: ContainerSpec, *, end_stdout: bool) -> Attached:
    if not spec.terminal:
        owner = root_outside(spec)
        return Streams(interactive=spec.interactive, owner=owner, end_stdout=end_stdout)
    from gocker.console import Terminal  # termios and tty cost 0.3 ms

    return Terminal(interactive=spec.interactive)


def root_outside(spec: ContainerSpec) -> tuple[int, int] | None:
    """Who the root of a user namespace of its own is on the host."""
    uids = [ids.outside for ids in spec.uid_map if ids.inside == 0]
    gids = [ids.outside for ids in spec.gid_map if ids.inside == 0]
    return (uids[0], gids[0]) if uids and gids else None


class _Run:
    """One run, from the claim on its id to the last event."""

    def __init__(
        self,
        spec: ContainerSpec,
        planned: Planned,
        audit: AuditLog,
        claim: Claim,
        streams: Attached,
        signals: Arrivals,
        started: Callable[[int], object],
        *,
        threads: bool,
    ) -> None:
        self.spec = spec
        self.planned = planned
        self.audit = audit
        self.claim = claim
        self.streams = streams
        self.signals = signals
        self.started = started
        self.marks: list[tuple[str, int]] = []
        self.digest = planned.plan.digest
        self.launcher = Launcher(planned.plan, spec, claim.fd, threads=threads)
        self.timed_out = False
        self.ended_by = 0  # the signal whose default action ended a PID 1
        self.status: int | None = None
        self.rusage: struct_rusage | None = None

    def run(self) -> Outcome:
        started = time.time_ns()
        note_create(self.launcher, self.spec, self.planned)
        error: GockerError | None = None
        try:
            self._start_and_attend()
        except GockerError as failure:
            error = failure
        except OSError as failure:
            error = KernelError.from_os("attend to", self.spec.name, failure)
        except BaseException as bug:
            self._finish(started, KernelError("run", self.spec.name, f"{type(bug).__name__}: {bug}"))
            raise
        return self._finish(started, error)

    def _finish(self, started: int, error: GockerError | None) -> Outcome:
        """End it, take everything back, and put that on the record before the plan goes.

        Whatever is not done in the end is left to the next gocker, with the plan.
        """
        self._mark("ended")
        failures = self._kill()
        drain(self.streams.outputs)
        if lost := self.streams.error:
            self.launcher.note("output.lost", "error", reason=str(lost))
        report = self._report(started, error)
        if report.verdict.kind == "oom":
            self.launcher.note("container.oom", "warning", detail=report.verdict.detail)
        self.launcher.note("container.exit", report=report.to_json())
        self._keep()
        failures += [*self.launcher.remove(), *self.launcher.undo()]
        if not failures:
            self.launcher.note("container.remove")
        try:
            self._write_events()
            if not failures:
                self.claim.release()
        except AuditError as failure:
            error = _with(error, failure)
            self._owe(error)
        except GockerError as failure:
            failures.append(failure)
        self.claim.close()
        self._mark("removed")
        if lost := self._deliver():
            error = _with(error, lost)
        unbound = {**self.planned.cgroups.unbound, **self.launcher.ctx.unbound}
        warnings = [f"limit {label} does not bind: {why}" for label, why in unbound.items()]
        return Outcome(
            report=report,
            error=error,
            warnings=(*warnings, *map(str, failures)),
            step_ns=tuple(self.launcher.step_ns),
            marks=tuple(self.marks),
        )

    def _deliver(self) -> GockerError | None:
        """Pass on the rest of the output; last, since nothing of the container shall wait for a slow reader.

        Return what stood in the way, now or before.
        """
        if arrival := deliver(self.streams.outputs, self.signals):
            return SignalError("write", "output", arrival.number, "its reader had it all")
        return self.streams.error

    def _start_and_attend(self) -> None:
        launcher = self.launcher
        launcher.ctx.window = self.streams.window
        self._mark("begun")
        launcher.wait = self._await_init
        launcher.start(self.streams.child_fds)
        self._mark("go")
        self._load()
        launcher.await_program(self._out_of_memory, self._await_init)
        self._mark("ran")
        self.streams.started(launcher.console)
        self.started(launcher.ctx.pid)
        launcher.note(
            "container.start", pid=launcher.ctx.pid, step_us=[ns // 1000 for ns in launcher.step_ns]
        )
        self._write_events()  # while the program runs
        deadline = None if self.spec.timeout is None else time.monotonic() + self.spec.timeout
        self.timed_out = attend(self.streams, launcher.ctx.pidfd, self.signals, self._forward, deadline)

    def _mark(self, what: str) -> None:
        self.marks.append((what, time.perf_counter_ns()))

    def _load(self) -> None:
        """Do what can be done while the first process sets itself up: imports, 1.5 ms, and what is known by then."""
        import resource  # noqa: F401 - os.wait4 does

        from gocker import receipt  # noqa: F401

        self._write_events()

    def _await_init(self, channel: int) -> None:
        """Wait until init has something to say; until there is a program, a signal may end the start."""
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        poll.register(self.signals.fd, select.POLLIN)
        while all(fd != channel for fd, _ in poll.poll()):
            if arrival := self.signals.ending():
                raise SignalError("start", self.spec.name, arrival.number, "the program ran")

    def _forward(self, arrival: Arrival) -> None:
        from gocker.receipt import signal_name

        number, ctx = arrival.number, self.launcher.ctx
        if number == GONE:  # and the program with it, but for one that gave up PR_SET_PDEATHSIG
            number = signal.SIGKILL
        try:
            lost = number in ENDING and self._is_first() and not disposes(ctx.pid, number)
            pidfd_send_signal(ctx.pidfd, signal.SIGKILL if lost else number)
        except (ProcessLookupError, FileNotFoundError):
            return  # it ended meanwhile: attend sees that next
        if lost:
            self.ended_by = number
        sender = {"sender_pid": arrival.pid, "sender_uid": arrival.uid}
        self.launcher.note("container.signal", signal=signal_name(number), by_default=lost, **sender)

    def _is_first(self) -> bool:
        """Whether the program is PID 1 inside: the kernel drops signals that it does not care about.

        gocker then does what the default action would: ^C ends a `sleep`, in a container or not.
        """
        return self.spec.namespace("pid").mode == "private" and not self.spec.init

    def _kill(self) -> list[GockerError]:
        """End every process of the container and take the first one's status; return what stood in the way."""
        ctx = self.launcher.ctx
        if ctx.pidfd < 0:
            return []
        failures: list[GockerError] = []
        # With its first process a PID namespace has ended; who else is in the cgroup, its removal meets.
        alone = self.spec.namespace("pid").mode == "private" and has_ended(ctx.pidfd)
        for directory, version in () if alone else self.planned.cgroups.kill[:1]:
            try:
                kill_all(directory, version)
            except OSError as error:
                failures.append(KernelError.from_os("kill cgroup", directory, error))
            except GockerError as error:
                failures.append(error)
        with contextlib.suppress(ProcessLookupError):  # it has ended
            pidfd_send_signal(ctx.pidfd, signal.SIGKILL)
        if has_ended(ctx.pidfd, PATIENCE):
            self.status, self.rusage = ctx.parent.wait(ctx.pid)
        else:
            failures.append(KernelError("end", f"process {ctx.pid}", "it outlives SIGKILL"))
        os.close(ctx.pidfd)
        ctx.pidfd = -1
        try:
            self.launcher.collect_records()
        except GockerError as error:
            failures.append(error)
        if self.launcher.program_status is not None:
            self.status = self.launcher.program_status
        if self.ended_by and self.status == signal.SIGKILL:
            self.status = self.ended_by  # a wait status, as if the kernel had done it
        return failures

    def _out_of_memory(self) -> str:
        """Whether the OOM killer was at work in the container, by its own counters; "" when it was not."""
        kills = self._counters().get("oom_kills", 0)
        limit = self.launcher.ctx.effective.get("memory", ("", ""))[1]
        return f"out of memory, at a limit of {limit or 'unknown'} bytes" if kills else ""

    def _report(self, started: int, error: GockerError | None) -> Report:
        """The receipt, from the counters that the cgroups still hold."""
        from gocker.receipt import judge, make_report

        finished = time.time_ns()
        ctx = self.launcher.ctx
        usage = self._counters()
        verdict = judge(
            self.status,
            usage.get("oom_kills", 0),
            self.timed_out,
            error,
            ctx.effective,
            usage=usage,
            timeout=self.spec.timeout,
        )
        return make_report(
            self.spec,
            self.digest,
            started_ns=started,
            finished_ns=finished,
            verdict=verdict,
            usage=usage,
            effective=ctx.effective,
            unbound={**self.planned.cgroups.unbound, **ctx.unbound},
        )

    def _counters(self) -> dict[str, int]:
        """What the controllers' `stats` say; where none counts CPU time, wait4 says it for the first process."""
        joined = [(one.plugin, one.path, one.place.version) for one in self.planned.cgroups.joined]
        usage = usage_of(joined, self.launcher.note)
        if self.rusage is not None:
            usage.setdefault("cpu_user_us", round(self.rusage.ru_utime * 1e6))
            usage.setdefault("cpu_system_us", round(self.rusage.ru_stime * 1e6))
        return usage

    def _write_events(self) -> None:
        """Those that cannot be written are kept for the next attempt."""
        self.audit.write(self.launcher.events, container=self.spec.id, plan=self.digest)
        self.launcher.events = []

    def _keep(self) -> None:
        """Should gocker be killed before the log has it, the next one knows how the program ended."""
        try:
            self._leave_events()
        except GockerError as failure:
            self.launcher.note("record.lost", "warning", reason=str(failure))

    def _owe(self, error: GockerError) -> None:
        """Leave to the next gocker the events that could not be written; `error` is told when that fails too."""
        try:
            self._leave_events()
        except GockerError as second:
            error.add_note(f"{len(self.launcher.events)} events of {self.spec.name} are lost: {second}")

    def _leave_events(self) -> None:
        events = [event.asdict() for event in self.launcher.events]
        self.claim.owe(json.dumps(events, default=str).encode("ascii"))


def note_create(launcher: Launcher, spec: ContainerSpec, planned: Planned) -> None:
    """Put on the record what is about to be made, and what cannot be had."""
    for plugin in planned.refused:
        launcher.note("plugin.refused", "warning", **plugin.asdict())
    launcher.note(
        "container.create",
        name=spec.name,
        image=spec.image,
        command=list(spec.argv),
        limits={request.label: request.value for request in spec.limits},
        labels=dict(spec.labels),
        steps=planned.plan.lines,
    )


def usage_of(
    joined: Iterable[tuple[CgroupController, str, Hierarchy]], note: Callable[..., None]
) -> dict[str, int]:
    """What the `stats` of (controller, directory, version) say; a plug-in's bug is put on the record by `note`."""
    usage: dict[str, int] = {}
    for plugin, path, version in joined:
        try:
            usage.update(plugin.stats(DirReader(path, version)))
        except Exception as failure:  # noqa: BLE001 - a plug-in's bug costs its own counters, not the run
            reason = f"{type(failure).__name__}: {failure}"
            note("controller.stats", "error", controller=plugin.name, reason=reason)
    return usage


def _with(first: GockerError | None, second: GockerError) -> GockerError:
    """The first error is shown, the others are attached to it."""
    if first is None or first is second:
        return second
    if str(first) != str(second):
        first.add_note(str(second))
    return first
