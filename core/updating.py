"""Changes the limits of a container while it lives: all that are asked for, or none."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping

from gocker.audit import AuditLog
from gocker.auditevent import Event
from gocker.cgroupplan import by_controller, cgroup_of, check_keys, refuse_absent
from gocker.errors import GockerError, HierarchyError, KernelError, LimitError, StateError
from gocker.hierarchy import Hierarchies, Place, read_host
from gocker.kernel import cgroupfs
from gocker.lasting import STOPPED, Lasting, read_lasting, status_of
from gocker.limits import LimitRequest
from gocker.model import ContainerSpec, Hierarchy
from gocker.owing import write_or_owe
from gocker.plan import HOST, PHASES, Context, Step
from gocker.record import Record
from gocker.recorder import GroupRecorder, Phases
from gocker.registry import Registry
from gocker.state import State
from gocker.steps.cgroup import EnableControllers, InheritFile, WriteEntry, WriteLimit, table_row

_CHANGEABLE = (WriteLimit, EnableControllers, InheritFile)  # and what is derived from them


class Change(Record):
    """A step of an update, and what takes it back."""

    step: Step
    back: tuple[str, str] = ("", "")  # the file and the text that it had; () where it had none


def update(
    container: str,
    spec: ContainerSpec,
    requests: Iterable[LimitRequest],
    state: State,
    registry: Registry,
    audit: AuditLog,
) -> dict[str, str]:
    """Set limits of a container that has not stopped: all of `requests`, or none of them.

    `spec` is what it was created from. What was asked before holds on where nothing else is asked of the
    controller's key. Return the labels of best-effort limits that do not bind, and why. Raise GockerError.
    """
    audit.prepare()
    claim = state.lasting(container)
    try:
        lasting = read_lasting(state, container)
        if status_of(lasting, state) == STOPPED:
            raise StateError("update container", container, "container not running")
        asked = by_controller(requests)
        ctx = Context(spec)
        steps = _plan_update(asked, spec, lasting, registry, read_host(), ctx.unbound)
        events: list[Event] = []
        undo: list[Change] = []
        updates = merge(lasting.updates, [one for group in asked.values() for one in group.values()])
        told = Told(spec, container, steps)
        try:
            told.change()
            for group in steps:
                _apply(group, ctx, undo)
            claim.last(lasting.replace(updates=updates).to_bytes())
        except GockerError as error:
            told.take_back(error)
            _take_back(undo, error)
            events.append(Event.now("update.failed", "error", reason=str(error)))
            raise
        else:
            written = [change.step for change in undo if change.step.event]
            events += [Event.now(step.event, **step.audit(ctx)) for step in dict.fromkeys(written)]
        finally:
            write_or_owe(audit, events, lasting, claim)
    finally:
        claim.close()
    return ctx.unbound


class Told:
    """What systemd knows of the limits of a scope: before they are written, since it writes them itself."""

    def __init__(self, spec: ContainerSpec, container: str, steps: list[list[Step]]) -> None:
        """Nothing where the cgroup is gocker's own. Raise KernelError."""
        self._unit = ""
        if not spec.scope:
            return
        from gocker.steps.scope import properties_of

        writes = [step for group in steps for step in group if isinstance(step, WriteLimit)]
        try:
            before = [text_before(step) for step in writes]
        except OSError as error:
            raise KernelError.from_os("update container", container, error) from error
        self._unit = cgroup_of(spec).rpartition("/")[2]
        self._new = properties_of((step.file, step.value) for step in writes)
        self._old = properties_of(before)

    def change(self) -> None:
        """Tell it the new ones. Raise HierarchyError."""
        if self._unit and self._new:
            from gocker.systemd import Systemd

            with Systemd() as systemd:
                systemd.change(self._unit, self._new)

    def take_back(self, error: GockerError) -> None:
        """Tell it the old ones; what that fails with becomes a note of `error`."""
        if self._unit and self._old:
            from gocker.systemd import Systemd

            try:
                with Systemd() as systemd:
                    systemd.change(self._unit, self._old)
            except HierarchyError as failure:
                error.add_note(str(failure))


def merge(old: Iterable[LimitRequest], new: Iterable[LimitRequest]) -> tuple[LimitRequest, ...]:
    """Both, the new one of each label that both have; pure."""
    return tuple({request.label: request for request in (*old, *new)}.values())


def _plan_update(
    asked: Mapping[str, dict[str, LimitRequest]],
    spec: ContainerSpec,
    lasting: Lasting,
    registry: Registry,
    hierarchies: Hierarchies,
    unbound: dict[str, str],
) -> list[list[Step]]:
    """The steps for each controller. Nothing is written yet: what is wrong anywhere is said first."""
    found = []
    for name, requests in sorted(asked.items()):
        if name not in registry.controller_names() and all(one.best_effort for one in requests.values()):
            unbound.update(dict.fromkeys(requests, f"no controller plug-in {name} is installed"))
            continue
        plugin = registry.controller(name)
        check_keys(plugin, requests)
        place = hierarchies.place_of(plugin.kernel_names)
        if place is None or place.readonly:
            refuse_absent(plugin, hierarchies, requests, unbound)
            continue
        path = _path(name, place, spec, lasting)
        before = [request for request in (*spec.limits, *lasting.updates) if request.name == name]
        whole = {request.label: request for request in merge(before, requests.values())}
        phases: Phases = {phase: [] for phase in PHASES}
        recorder = GroupRecorder(name, place.version, path, place.mountpoint, whole, phases)
        if place.version is Hierarchy.V2 and plugin.kernel_names[Hierarchy.V2] != "cgroup":
            recorder.enable(plugin.kernel_names[Hierarchy.V2])
        values = {request.key: request.value for request in whole.values()}
        plugin.set(recorder, plugin.parse(values))
        for step in phases[HOST]:
            if not isinstance(step, _CHANGEABLE):
                label = next(iter(requests))
                raise LimitError("update limit", label, f"{name} cannot change while the container lives")
        found.append(phases[HOST])
    return found


def _path(name: str, place: Place, spec: ContainerSpec, lasting: Lasting) -> str:
    """The container's directory there. Raise HierarchyError when it has none."""
    path = place.directory(cgroup_of(spec))
    if any(group.path == path for group in lasting.groups):
        return path
    raise HierarchyError(
        "update limit",
        name,
        f"the container is not in {path}",
        remedy="a container gets into a hierarchy when it is created: ask for a limit there",
    )


def _apply(steps: list[Step], ctx: Context, done: list[Change]) -> None:
    """Execute the steps of one controller; what each may have changed is in `done` before it is begun.

    What the kernel refuses because it does not go with a value that another of them is about to
    change (a memory limit above the old sum of memory and swap) is tried once more behind them.
    """
    later = []
    for step in steps:
        try:
            _execute(step.replace(required=True) if isinstance(step, WriteLimit) else step, ctx, done)
        except LimitError as error:
            if error.errno == errno.EINVAL and len(steps) > 1:
                later.append(step)
            else:
                _execute(step, ctx, done)  # it raises, or says why a limit of best effort does not bind
    for step in later:
        _execute(step, ctx, done)


def _execute(step: Step, ctx: Context, done: list[Change]) -> None:
    try:
        back = text_before(step) if isinstance(step, WriteLimit) else ("", "")
        done.append(Change(step=step, back=back))
        step.execute(ctx)
    except OSError as error:
        raise KernelError.from_os("update limit", step.describe(), error) from error


def text_before(step: WriteLimit) -> tuple[str, str]:
    """The file that the step writes, and what to write to it to have things as they are now. Raise OSError."""
    row = isinstance(step, WriteEntry) and step.row
    others = step.fallback if isinstance(step, WriteEntry) else ()
    for file, value in ((step.file, step.value), *others):
        text = cgroupfs.read_file(step.path, file)
        if text is not None:
            return file, row_before(value, text) if row else plain_before(text)
    return "", ""


def row_before(row: str, table: str) -> str:
    """The line to write so that `table` has what it has about the first word of `row`; pure.

    Without a line there is no limit: v1 has 0 for it, v2 `max` behind each word.
    """
    if line := table_row(row, table):
        return line
    first, *words = row.split()
    return " ".join([first, *(f"{word.partition('=')[0]}=max" if "=" in word else "0" for word in words)])


def plain_before(text: str) -> str:
    """The value in a file of one: memory.oom_control shows more lines than the one it takes; pure."""
    lines = text.splitlines()
    if len(lines) > 1:
        return lines[0].split()[-1]
    return text or "\n"


def _take_back(done: list[Change], error: GockerError) -> None:
    """Write the old texts back, from the last one on, and once more what the kernel refused at first."""
    pending = [change for change in reversed(done) if change.back[0]]
    for last in (False, True):
        refused = []
        for change in pending:
            step = change.step
            assert isinstance(step, WriteLimit)  # noqa: S101 - nothing else has a text before
            try:
                cgroupfs.write_file(step.path, *change.back)
            except OSError as failure:
                refused.append(change)
                if last:
                    file = os.path.join(step.path, change.back[0])
                    error.add_note(str(KernelError.from_os("write back", file, failure)))
        pending = refused
