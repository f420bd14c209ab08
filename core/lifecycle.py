"""The life of a container that outlives its gocker: created by one, started, signalled and deleted by others."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator

from gocker import paths
from gocker.api import CgroupController
from gocker.audit import AuditLog
from gocker.claim import Claim
from gocker.engine import note_create, usage_of
from gocker.errors import GockerError, KernelError, StateError
from gocker.hierarchy import read_host
from gocker.kernel import caller
from gocker.kernel.cgroupfs import PATIENCE, kill_all
from gocker.kernel.process import has_ended, pidfd_send_signal, start_time
from gocker.killing import kill_everything
from gocker.lasting import CREATED, STOPPED, Group, Lasting, boot_id, open_first, read_lasting, status_of
from gocker.launcher import Launcher, give_back_unless_native
from gocker.model import ContainerSpec, Hierarchy
from gocker.owing import BEGUN, owe, write_or_owe
from gocker.plan import INIT, plan_from_json
from gocker.planner import Planned, build_plan
from gocker.receipt import Verdict, make_report
from gocker.recovery import owed_events
from gocker.registry import Registry
from gocker.seccomp import seccomp_step
from gocker.settling import settle
from gocker.state import State
from gocker.steps import barrier, hooks
from gocker.steps.cgroup import MakeCgroup, TakeCgroup, without_cgroups

Stdio = tuple[int, int, int]


def plan(spec: ContainerSpec, registry: Registry, state: State) -> Planned:
    """The launch plan of a container that is created first and started later. Raise GockerError."""
    root = paths.data_root()
    seccomp = seccomp_step(spec, root)
    directory = os.path.join(root, "containers", spec.id)
    return build_plan(spec, registry, read_host(), directory, seccomp, state.start_socket(spec.id))


def create(
    spec: ContainerSpec,
    planned: Planned,
    state: State,
    audit: AuditLog,
    *,
    config: str = "",
    stdio: Stdio = (0, 1, 2),
    window: bytes = b"",
    created: Callable[[int, int], None] | None = None,
) -> Lasting:
    """Set a container up to the point where only its program is missing.

    `config` is the config.json that `spec` was read from; `window` a struct winsize; `created` is
    called with the first process's pid and the pty master, which is then its own, or -1, while all can still be
    undone. Raise GockerError; then nothing is left of it.
    """
    give_back_unless_native(planned.plan, spec)
    audit.prepare()
    _refuse_taken(planned, state)
    claim = state.create(spec.id, spec.id, planned.plan.canonical)
    launcher = Launcher(planned.plan, spec, claim.fd)
    begun = time.time_ns()
    try:
        note_create(launcher, spec, planned)
        launcher.ctx.window = window
        launcher.start(stdio)
        audit.load()
        launcher.await_parked()
        lasting = _lasting(spec, planned, launcher.ctx.pid, begun, config)
        claim.describe(lasting.to_bytes())
        if created is not None:
            console, launcher.console = (
                launcher.console,
                -1,
            )  # it is the other's from here on, even when that fails
            created(launcher.ctx.pid, console)
        launcher.note("container.created", pid=lasting.pid, step_us=[ns // 1000 for ns in launcher.step_ns])
        owe(claim, launcher.events)
        launcher.release()
        claim.last()  # from here on it stays
    except BaseException as error:
        _give_up(spec, planned, claim, launcher, audit, begun, error)
        raise
    write_or_owe(audit, launcher.events, lasting, claim)
    claim.close()
    return lasting


def _refuse_taken(planned: Planned, state: State) -> None:
    """Before there is a plan to undo: a gocker that is killed is not to take another container's cgroup along.

    Raise HierarchyError, or StateError when it is of the same id.
    """
    for step in planned.plan.host:
        if isinstance(step, MakeCgroup) and os.path.lexists(step.path):
            if isinstance(step, TakeCgroup) and step.is_vacant():
                continue
            if os.path.lexists(os.path.dirname(state.start_socket(planned.plan.container))):
                raise StateError(
                    "create container",
                    planned.plan.container,
                    "this id is in use",
                    remedy="choose another id",
                )
            raise step.taken()


def _lasting(spec: ContainerSpec, planned: Planned, pid: int, begun: int, config: str) -> Lasting:
    controllers: dict[str, list[str]] = {}
    for joined in planned.cgroups.joined:
        controllers.setdefault(joined.path, []).append(joined.plugin.name)
    for path, names in planned.cgroups.bare:
        controllers.setdefault(path, []).extend(names)
    groups = tuple(
        Group(controllers=tuple(controllers.pop(path, ())), path=path, version=version)
        for path, version in dict(planned.cgroups.kill).items()
    )
    return Lasting(
        id=spec.id,
        argv=spec.argv,
        hooks=spec.hooks,
        bundle=spec.bundle,
        rootfs=spec.rootfs.lower if spec.rootfs else "/",
        pid=pid,
        started=start_time(pid),
        boot=boot_id(),
        begun=begun,
        owner=os.geteuid(),
        annotations=spec.labels,
        groups=groups,
        config=config,
        digest=planned.plan.digest,
    )


def _give_up(
    spec: ContainerSpec,
    planned: Planned,
    claim: Claim,
    launcher: Launcher,
    audit: AuditLog,
    begun: int,
    error: BaseException,
) -> None:
    """Take everything back, and put that on the record; what fails on the way becomes a note of `error`."""
    failures: list[GockerError] = []
    with _collected(failures):
        claim.end()
    ctx = launcher.ctx
    if ctx.pidfd >= 0:
        for directory, version in planned.cgroups.kill[:1]:
            with _collected(failures):
                kill_all(directory, version)
        with contextlib.suppress(ProcessLookupError):
            pidfd_send_signal(ctx.pidfd, signal.SIGKILL)
        if has_ended(ctx.pidfd, PATIENCE):
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, ctx.pidfd, os.WEXITED)
        os.close(ctx.pidfd)
        ctx.pidfd = -1
    if launcher.console >= 0:
        os.close(launcher.console)
    reason = error if isinstance(error, GockerError) else KernelError("create", spec.id, repr(error))
    verdict = Verdict("setup-failed", reason.exit_code, None, str(reason))
    _note_exit(launcher, spec, planned.plan.digest, begun, verdict, {})
    _take_back(launcher, claim, audit, planned.plan.digest, failures)
    for failure in failures:
        error.add_note(str(failure))


def _note_exit(
    launcher: Launcher, spec: ContainerSpec, digest: str, begun: int, verdict: Verdict, usage: dict[str, int]
) -> None:
    effective = launcher.ctx.effective
    report = make_report(
        spec,
        digest,
        started_ns=begun,
        finished_ns=time.time_ns(),
        verdict=verdict,
        usage=usage,
        effective=effective,
    )
    launcher.note("container.exit", report=report.to_json())


def _take_back(
    launcher: Launcher,
    claim: Claim,
    audit: AuditLog,
    digest: str,
    failures: list[GockerError],
    poststop: Callable[[], None] | None = None,
) -> None:
    """`poststop` runs while a kill would have all this repeated, once nothing is left of the container."""
    failures += [*launcher.remove(), *launcher.undo()]
    if not failures:
        if poststop is not None:
            poststop()
        launcher.note("container.remove")
    with _collected(failures):
        audit.write(launcher.events, container=claim.id, plan=digest)
        if not failures:
            claim.release()
    claim.close()


@contextlib.contextmanager
def _collected(failures: list[GockerError]) -> Iterator[None]:
    """What is raised is one of `failures`, and the rest has its turn."""
    try:
        yield
    except GockerError as error:
        failures.append(error)
    except OSError as error:
        failures.append(KernelError.from_os("undo", "", error))


def start(container: str, state: State, audit: AuditLog) -> None:
    """Let the program of a created container run. Raise GockerError; then the container has stopped."""
    audit.prepare()
    claim = state.lasting(container)
    try:
        if claim.owed:
            settle(claim, state, audit)
        lasting = read_lasting(state, container)
        if lasting.hooks:
            caller.give_back("hooks are the caller's children")
        status = status_of(lasting, state)
        if status != CREATED:
            raise StateError("start container", container, f"it is not created but {status}")
        pidfd = open_first(lasting)
        data = json.loads(claim.plan)
        launcher = Launcher(plan_from_json(data), lasting.spec)
        launcher.total += len(data["phases"][INIT])
        launcher.ctx.pid = lasting.pid
        try:
            claim.owe(BEGUN)
            _start(launcher, lasting, state, pidfd)
            launcher.note("container.start", pid=lasting.pid)
        finally:
            owe(claim, launcher.events)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(state.start_socket(container))
            write_or_owe(audit, launcher.events, lasting, claim)
            launcher.close()
            os.close(pidfd)
        _poststart(lasting, claim, audit)
    finally:
        claim.close()


def _start(launcher: Launcher, lasting: Lasting, state: State, pidfd: int) -> None:
    try:
        channel = barrier.connect(state.start_socket(lasting.id))
    except OSError as error:
        raise StateError.from_os("start container", lasting.id, error) from error
    try:
        launcher.adopt(channel, pidfd)
        launcher.await_program()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            pidfd_send_signal(pidfd, signal.SIGKILL)
        has_ended(pidfd, PATIENCE)
        raise


def _poststart(lasting: Lasting, claim: Claim, audit: AuditLog) -> None:
    """One that fails ends the container, and it is deleted. Source: OCI runtime spec, Lifecycle."""
    try:
        for hook in lasting.hooks:
            if hook.kind == hooks.POSTSTART:
                hooks.run_hook(hook, lasting.spec, lasting.pid)
    except GockerError as error:
        try:
            warnings = _end_and_delete(lasting, claim, Registry(), audit)
        except GockerError as second:
            warnings = [second]
        for warning in warnings:
            error.add_note(str(warning))
        raise


def delete(
    container: str, state: State, registry: Registry, audit: AuditLog, *, force: bool = False
) -> list[GockerError]:
    """Take back what `create` made, of a container that has stopped, or with `force` of any. Raise GockerError.

    Return what the poststop hooks failed with, which is nothing but a warning. Source: OCI runtime spec, Lifecycle.
    """
    audit.prepare()
    claim = state.lasting(container)
    try:
        if claim.owed:
            settle(claim, state, audit)
        lasting = read_lasting(state, container)
        if lasting.hooks:
            caller.give_back("hooks are the caller's children")
        status = status_of(lasting, state)
        if status != STOPPED and not force:
            raise StateError(
                "delete container", container, f"it is not stopped but {status}", remedy="kill it, or --force"
            )
        return _end_and_delete(lasting, claim, registry, audit)
    finally:
        claim.close()


def _end_and_delete(lasting: Lasting, claim: Claim, registry: Registry, audit: AuditLog) -> list[GockerError]:
    claim.end()
    try:
        kill_everything(lasting)
    except (OSError, GockerError) as error:
        claim.last()  # it is there still, and can be deleted later
        if isinstance(error, OSError):
            raise KernelError.from_os("kill container", lasting.id, error) from error
        raise
    return _delete(lasting, claim, registry, audit)


def _delete(lasting: Lasting, claim: Claim, registry: Registry, audit: AuditLog) -> list[GockerError]:
    made = plan_from_json(json.loads(claim.plan))
    if lasting.boot != boot_id():
        made = without_cgroups(made)
    launcher = Launcher(made, None)
    usage = usage_of(controllers_of(lasting, registry), launcher.note)
    kills = usage.get("oom_kills", 0)
    detail = "gocker was not its parent, who knows its exit status"
    if kills:
        detail += f"; the OOM killer killed {kills} of its processes"
    verdict = Verdict("unknown", None, None, detail)
    _note_exit(launcher, lasting.spec, lasting.digest, lasting.begun, verdict, usage)
    owe(claim, [*owed_events(claim), *launcher.events])
    failures: list[GockerError] = []
    warnings: list[GockerError] = []

    def poststop() -> None:
        for hook in lasting.hooks:
            if hook.kind == hooks.POSTSTOP:
                with _collected(warnings):
                    hooks.run_hook(hook, lasting.spec, 0)

    _take_back(launcher, claim, audit, lasting.digest, failures, poststop)
    if failures:
        for other in failures[1:]:
            failures[0].add_note(str(other))
        raise failures[0]
    return warnings


def controllers_of(lasting: Lasting, registry: Registry) -> list[tuple[CgroupController, str, Hierarchy]]:
    """(controller, directory, version) of each that the container is in and that is installed still."""
    names = registry.controller_names()
    return [
        (registry.controller(name), group.path, Hierarchy(group.version))
        for group in lasting.groups
        for name in group.controllers
        if name in names
    ]
