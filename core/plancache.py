"""Plans made from the last one like them: of containers that differ in nothing but their random ids.

A program that starts many containers asks for the same again and again, and planning it takes a tenth of a start.
What is kept is a plan that was made the long way, and it serves only after a second one, made the long way as well,
has proved to be the first with the one id in place of the other: in each field of each step, in the JSON and in the lines
for the audit log. A plug-in's own namespace handler is told the id and may do with it what it likes, so that
a plan with one is made the long way each time. A command that starts one container does not load this module.
"""

from __future__ import annotations

from typing import Any

from gocker.hierarchy import Hierarchies
from gocker.model import ContainerSpec
from gocker.planner import Planned, build_plan
from gocker.record import Record
from gocker.registry import Registry
from gocker.steps.exec import InstallSeccomp

_SHORT, _LONG = 12, 16  # characters of an id from gocker.state.new_id, and of its short form
_DIGITS = frozenset("0123456789abcdef")
_ROOM = 16  # plans that are kept
_OURS = "gocker.plugins."

_Key = tuple[Any, ...]
_TEXT = object()  # in place of a shape: a text with the id in it


class _Kept:
    """One plan, for whom it is, and, once it has proved itself, where in it the id is."""

    def __init__(self, key: _Key, container: str, planned: Planned) -> None:
        self.key = key
        self.container = container
        self.planned = planned
        self.shape: Any = None
        self.proved: bool | None = None

    def made_for(self, container: str) -> Planned:
        """The same plan with another id."""
        old, new = self.container, container
        shape = self.shape
        planned: Planned = _with(self.planned, shape, ((old, new), (old[:_SHORT], new[:_SHORT])))
        plan, texts = planned.plan.__dict__, self.planned.plan
        plan["canonical"] = _replaced(texts.canonical, old.encode(), new.encode())
        plan["lines"] = tuple([_replaced(line, old, new) for line in texts.lines])
        return planned

    def prove(self, container: str, planned: Planned) -> None:
        """Compare with a plan that was made the long way."""
        self.shape = _shape(self.planned, self.container[:_SHORT])
        made = self.made_for(container)
        self.proved = (
            made == planned
            and made.plan.canonical == planned.plan.canonical
            and made.plan.lines == planned.plan.lines
        )


class PlanCache:
    """`build_plan` with a memory; threads may share one."""

    def __init__(self) -> None:
        self._kept: tuple[_Kept, ...] = ()  # the last used first; replaced as a whole

    def plan(
        self,
        spec: ContainerSpec,
        registry: Registry,
        hierarchies: Hierarchies,
        container_dir: str,
        seccomp: InstallSeccomp | None,
    ) -> Planned:
        """As `gocker.planner.build_plan` makes it, whose errors it raises."""
        container = spec.id
        key = _key(spec, registry, hierarchies, container_dir, seccomp)
        if key is None:
            return build_plan(spec, registry, hierarchies, container_dir, seccomp)
        kept = next((one for one in self._kept if one.key == key), None)
        if kept is not None and kept.proved and kept.container[:_SHORT] not in container:
            self._keep(kept)
            return kept.made_for(container).replace(refused=registry.refused())
        planned = build_plan(spec, registry, hierarchies, container_dir, seccomp)
        if kept is None:
            self._keep(_Kept(key, container, planned))
        elif kept.proved is None:
            kept.prove(container, planned)
        return planned

    def _keep(self, kept: _Kept) -> None:
        if self._kept[:1] != (kept,):
            self._kept = (kept, *(one for one in self._kept if one is not kept))[:_ROOM]


def _is_random(container: str) -> bool:
    """Whether an id has the form of `gocker.state.new_id`: no text has it in it by chance."""
    return len(container) == _LONG and _DIGITS.issuperset(container)


def _key(
    spec: ContainerSpec,
    registry: Registry,
    hierarchies: Hierarchies,
    container_dir: str,
    seccomp: InstallSeccomp | None,
) -> _Key | None:
    """Equal for those that differ in the id alone: in what is the id or its short form, too.

    None for what is to be planned each time.
    """
    fields = spec.__dict__.copy()
    container = fields.pop("id")
    if not _is_random(container) or not container_dir.endswith(f"/{container}"):
        return None
    if spec.namespace("network").mode == "host":  # the plan has what is in /etc/resolv.conf
        return None
    if not all(type(registry.namespace(one.kind)).__module__.startswith(_OURS) for one in spec.namespaces):
        return None
    known = {container: 0, container[:_SHORT]: 1}
    fields["name"] = known.get(spec.name, spec.name)
    fields["hostname"] = known.get(spec.hostname, spec.hostname)
    fields["env"] = [(name, known.get(value, value)) for name, value in spec.env]
    return registry, hierarchies, container_dir[: -len(container)], seccomp, fields


def _replaced(text: Any, old: Any, new: Any) -> Any:
    """`text`, str or bytes, with one id in place of the other, its short form too."""
    return text.replace(old, new).replace(old[:_SHORT], new[:_SHORT])


def _shape(value: Any, short: str) -> Any:
    """Where in `value` an id is that begins with `short`; None where it is not."""
    if isinstance(value, str):
        return _TEXT if short in value else None
    if isinstance(value, Record):
        items: Any = [(name, value.__dict__[name]) for name in type(value).fields]
    elif isinstance(value, dict):
        items = value.items()
    elif type(value) is tuple:
        items = enumerate(value)
    else:
        return None
    return [(name, shape) for name, part in items if (shape := _shape(part, short)) is not None] or None


def _with(value: Any, shape: Any, changes: tuple[tuple[str, str], tuple[str, str]]) -> Any:
    """`value` with another id where `shape` says that there is one; what has none is the same object as before."""
    if shape is _TEXT:
        (old, new), (old_short, new_short) = changes
        return value.replace(old, new).replace(old_short, new_short)
    if type(value) is tuple:
        parts = list(value)
        for index, inner in shape:
            parts[index] = _with(parts[index], inner, changes)
        return tuple(parts)
    if isinstance(value, dict):
        return value | {name: _with(value[name], inner, changes) for name, inner in shape}
    fields = value.__dict__
    made = object.__new__(type(value))
    new_fields = made.__dict__
    for name in type(value).fields:  # and not what was derived from them
        new_fields[name] = fields[name]
    for name, inner in shape:
        new_fields[name] = _with(fields[name], inner, changes)
    return made
