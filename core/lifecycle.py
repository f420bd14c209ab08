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
from gocker.auditevent import Event, rfc3339
from gocker.engine import note_create, usage_of
from gocker.errors import AuditError, GockerError, KernelError, StateError
from gocker.hierarchy import read_host
from gocker.kernel import freezer
from gocker.kernel.cgroupfs import PATIENCE, kill_all, processes
from gocker.kernel.process import has_ended, pidfd_send_signal, start_time
from gocker.lasting import (
    CREATED,
    STOPPED,
    Group,
    Lasting,
    boot_id,
    freezers,
    is_frozen,
    open_first,
    read_lasting,
    status_of,
)
from gocker.launcher import Launcher
from gocker.model import ContainerSpec, Hierarchy
from gocker.plan import INIT, plan_from_json
from gocker.planner import Planned, build_plan
from gocker.receipt import Verdict, make_report
from gocker.registry import Registry
from gocker.seccomp import seccomp_step
from gocker.state import Claim, State
from gocker.steps import barrier, hooks

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
    called with the first process's pid and the pty master or -1 while all can still be undone. Raise
    GockerError; then nothing is left of it.
    """
    audit.prepare()
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
        claim.last(lasting.to_bytes())
        if created is not None:
            created(launcher.ctx.pid, launcher.console)
    except BaseException as error:
        _give_up(spec, planned, claim, launcher, audit, begun, error)
        raise
    launcher.release()
    launcher.note("container.created", pid=lasting.pid, step_us=[ns // 1000 for ns in launcher.step_ns])
    _write(audit, launcher, lasting, claim)
    claim.close()
    return lasting


def _lasting(spec: ContainerSpec, planned: Planned, pid: int, begun: int, config: str) -> Lasting:
    controllers: dict[str, list[str]] = {}
    for joined in planned.cgroups.joined:
        controllers.setdefault(joined.path, []).append(joined.plugin.name)
    groups = tuple(
        Group(controllers=tuple(controllers.pop(path, ())), path=path, version=version)
        for path, version in dict(planned.cgroups.kill).items()
    )
    return Lasting(
        id=spec.id,
        bundle=spec.bundle,
        rootfs=spec.rootfs.lower if spec.rootfs else "/",
        pid=pid,
        started=start_time(pid),
        boot=boot_id(),
        created=rfc3339(begun),
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
    launcher: Launcher, claim: Claim, audit: AuditLog, digest: str, failures: list[GockerError]
) -> None:
    failures += [*launcher.remove(), *launcher.undo()]
    if not failures:
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


def start(container: str, spec: ContainerSpec, state: State, audit: AuditLog) -> None:
    """Let the program of a created container run. Raise GockerError; then the container has stopped."""
    audit.prepare()
    claim = state.lasting(container)
    try:
        lasting = read_lasting(state, container)
        status = status_of(lasting, state)
        if status != CREATED:
            raise StateError("start container", container, f"it is not created but {status}")
        pidfd = open_first(lasting)
        data = json.loads(claim.plan)
        launcher = Launcher(plan_from_json(data), spec)
        launcher.total += len(data["phases"][INIT])
        launcher.ctx.pid = lasting.pid
        try:
            _start(launcher, lasting, state, pidfd)
            launcher.note("container.start", pid=lasting.pid)
            _poststart(spec, lasting, pidfd)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(state.start_socket(container))
            _write(audit, launcher, lasting, claim)
            launcher.close()
            os.close(pidfd)
    finally:
        claim.close()


def _start(launcher: Launcher, lasting: Lasting, state: State, pidfd: int) -> None:
    try:
        channel = barrier.connect(state.start_socket(lasting.id))
    except OSError as error:
        raise StateError.from_os("start container", lasting.id, error) from error
    launcher.adopt(channel, pidfd)
    launcher.await_program()


def _poststart(spec: ContainerSpec, lasting: Lasting, pidfd: int) -> None:
    """A poststart hook that fails ends the container. Source: OCI runtime spec, Lifecycle."""
    for hook in spec.hooks:
        if hook.kind == hooks.POSTSTART:
            try:
                hooks.run_hook(hook, spec, lasting.pid)
            except GockerError:
                kill_everything(lasting)
                has_ended(pidfd, PATIENCE)
                raise


def send_signal(container: str, number: int, state: State, *, everybody: bool = False) -> None:
    """Signal the first process, or every process of the container. Raise GockerError.

    SIGKILL ends everybody, as it does in a PID namespace whose first process goes, and thaws what is frozen
    by cgroup v1, where no signal would reach it.
    """
    lasting = read_lasting(state, container)
    if everybody:
        _signal_all(lasting, number)
    else:
        pidfd = _open_to_signal(lasting)
        try:
            if number == signal.SIGKILL and not _is_first(lasting.pid):
                _signal_all(lasting, number)
            pidfd_send_signal(pidfd, number)
        except ProcessLookupError as error:
            if number != signal.SIGKILL:
                raise _not_running("kill container", container) from error
        except OSError as error:
            raise KernelError.from_os("kill container", container, error) from error
        finally:
            os.close(pidfd)
    if number == signal.SIGKILL:
        _thaw(lasting)


def _is_first(pid: int) -> bool:
    """Whether it is process 1 of a PID namespace, whose end is that of all others in it. Source: proc_pid_status(5)."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            ids = next((line.split() for line in file if line.startswith("NSpid:")), [])
    except (FileNotFoundError, ProcessLookupError):
        return True  # nobody is left to be killed by it
    return ids[-1:] == ["1"]


def _thaw(lasting: Lasting) -> None:
    """Let what was killed while it was frozen by cgroup v1 come to its end."""
    for group in freezers(lasting):
        if group.version == Hierarchy.V1.value and freezer.is_frozen(group.path, group.version):
            freezer.thaw(group.path, group.version)


def _signal_all(lasting: Lasting, number: int) -> None:
    for pid in _members(lasting):
        with contextlib.suppress(ProcessLookupError):
            _signal_member(pid, number, lasting)


def _open_to_signal(lasting: Lasting) -> int:
    try:
        return open_first(lasting)
    except StateError as error:
        raise _not_running("kill container", lasting.id) from error


def _not_running(operation: str, container: str) -> StateError:
    return StateError(operation, container, "container not running")


def _members(lasting: Lasting) -> list[int]:
    return processes(lasting.groups[0].path) if lasting.groups else [lasting.pid]


def _signal_member(pid: int, number: int, lasting: Lasting) -> None:
    """By a pidfd, which is of the container still when it is held."""
    pidfd = os.pidfd_open(pid)
    try:
        if pid in _members(lasting):
            pidfd_send_signal(pidfd, number)
    finally:
        os.close(pidfd)


def kill_everything(lasting: Lasting) -> None:
    """SIGKILL for every process, a frozen container thawed so that they can go. Raise GockerError, OSError."""
    if is_frozen(lasting):
        _signal_all(lasting, signal.SIGKILL)  # before the thaw: nothing runs on
        _thaw(lasting)
    for group in lasting.groups[:1]:
        kill_all(group.path, group.version)
    with contextlib.suppress(StateError, ProcessLookupError):
        pidfd = open_first(lasting)
        try:
            pidfd_send_signal(pidfd, signal.SIGKILL)
            has_ended(pidfd, PATIENCE)
        finally:
            os.close(pidfd)


def delete(
    container: str,
    spec: ContainerSpec,
    state: State,
    registry: Registry,
    audit: AuditLog,
    *,
    force: bool = False,
) -> None:
    """Take back what `create` made, of a container that has stopped, or with `force` of any. Raise GockerError."""
    audit.prepare()
    claim = state.lasting(container)
    try:
        lasting = read_lasting(state, container)
        status = status_of(lasting, state)
        if status != STOPPED and not force:
            raise StateError(
                "delete container", container, f"it is not stopped but {status}", remedy="kill it, or --force"
            )
        try:
            kill_everything(lasting)
        except OSError as error:
            raise KernelError.from_os("kill container", container, error) from error
        _delete(lasting, spec, claim, registry, audit)
    finally:
        claim.close()


def _delete(lasting: Lasting, spec: ContainerSpec, claim: Claim, registry: Registry, audit: AuditLog) -> None:
    launcher = Launcher(plan_from_json(json.loads(claim.plan)), None)
    usage = usage_of(controllers_of(lasting, registry), launcher.note)
    kills = usage.get("oom_kills", 0)
    detail = "gocker was not its parent, who knows its exit status"
    if kills:
        detail += f"; the OOM killer killed {kills} of its processes"
    _note_exit(launcher, spec, lasting.digest, time.time_ns(), Verdict("unknown", None, None, detail), usage)
    failures: list[GockerError] = []
    claim.end()
    _take_back(launcher, claim, audit, lasting.digest, failures)
    for hook in spec.hooks:
        if hook.kind == hooks.POSTSTOP:
            with _collected(failures):
                hooks.run_hook(hook, spec, 0)
    if failures:
        for other in failures[1:]:
            failures[0].add_note(str(other))
        raise failures[0]


def controllers_of(lasting: Lasting, registry: Registry) -> list[tuple[CgroupController, str, Hierarchy]]:
    """(controller, directory, version) of each that the container is in and that is installed still."""
    names = registry.controller_names()
    return [
        (registry.controller(name), group.path, Hierarchy(group.version))
        for group in lasting.groups
        for name in group.controllers
        if name in names
    ]


def write_or_owe(audit: AuditLog, events: list[Event], lasting: Lasting, claim: Claim) -> None:
    """What the log cannot take is owed to it; the container lives, so nobody is told but by the next command."""
    try:
        audit.write(events, container=lasting.id, plan=lasting.digest)
    except AuditError:
        claim.owe(json.dumps([event.asdict() for event in events], default=str).encode("ascii"))


def _write(audit: AuditLog, launcher: Launcher, lasting: Lasting, claim: Claim) -> None:
    write_or_owe(audit, launcher.events, lasting, claim)
    launcher.events = []
