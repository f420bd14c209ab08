"""--systemd-cgroup: the plan of a container whose cgroup is a scope that systemd makes."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

from gocker.errors import HierarchyError, UsageError
from gocker.hierarchy import read_host
from gocker.oci.scope import DEFAULT_PREFIX, DEFAULT_SLICE
from gocker.plan import Step
from gocker.planner import Planned
from gocker.steps.cgroup import MakeCgroup, RemoveCgroup, WriteLimit
from gocker.steps.launch import Clone
from gocker.steps.scope import INFINITY, Property, ReleaseScope, StartScope, StopScope, properties_of

_BOOTED = "/run/systemd/system"  # sd_booted(3)
_ANNOTATION = "org.systemd.property."
_OURS = frozenset({"Delegate", "PIDs", "Slice"})
_NEEDED_AT_ONCE = 2  # processes, while one keeps the scope until the other is born in it
_NUMBERS = {
    "byte": "y",
    "int16": "n",
    "uint16": "q",
    "int32": "i",
    "uint32": "u",
    "int64": "x",
    "uint64": "t",
    "double": "d",
}


def require_systemd(booted: str = _BOOTED) -> None:
    """Raise HierarchyError on a host where systemd makes no scopes that gocker can use."""
    reason = ""
    if not os.path.isdir(booted):
        reason = "systemd does not run this host"
    elif (mode := read_host().mode) != "v2":
        reason = f"it needs a host with cgroup v2 alone, the mode of this one is {mode}"
    elif find_spec("jeepney") is None:
        reason = "jeepney, a dependency of gocker's, is not installed for this Python"
    if reason:
        raise HierarchyError(
            "use",
            "the systemd cgroup manager",
            reason,
            remedy="set the caller's cgroup manager to cgroupfs: leave --systemd-cgroup out",
        )


def with_path(document: dict[str, Any], container: str) -> dict[str, Any]:
    """The config with a cgroupsPath, where it has none; pure."""
    linux = document.get("linux", {})
    if not isinstance(linux, dict) or linux.get("cgroupsPath"):
        return document
    return {**document, "linux": {**linux, "cgroupsPath": f"{DEFAULT_SLICE}:{DEFAULT_PREFIX}:{container}"}}


def with_scope(planned: Planned, annotations: tuple[tuple[str, str], ...]) -> Planned:
    """`planned` with the scope where the container's own cgroup was to be made; pure. Raise UsageError.

    Raise UsageError for an annotation that is no property.
    """
    plan = planned.plan
    (made,) = [step for step in plan.host if isinstance(step, MakeCgroup) and step.version == "v2"]
    unit = made.path.rpartition("/")[2]
    writes = [step for step in plan.host if isinstance(step, WriteLimit)]
    late = [step for step in writes if step.file == "pids.max" and _below(step.value, _NEEDED_AT_ONCE)]
    start = StartScope(
        path=made.path,
        base=made.base,
        version=made.version,
        unit=unit,
        properties=_properties(
            made.path, plan.name, [step for step in writes if step not in late], annotations
        ),
    )
    host = [start if step is made else step for step in plan.host if step not in late]
    parent: list[Step] = []
    for step in plan.parent:
        parent.append(step)
        if isinstance(step, Clone):
            parent += [ReleaseScope(unit=unit), *late]
    remove = [
        StopScope(path=step.path, base=step.base, controller=step.controller, version=step.version, unit=unit)
        if isinstance(step, RemoveCgroup) and step.path == made.path and step.controller == "cgroup"
        else step
        for step in plan.remove
    ]
    return planned.replace(plan=plan.replace(host=tuple(host), parent=tuple(parent), remove=tuple(remove)))


def _below(text: str, number: int) -> bool:
    return text.isdecimal() and int(text) < number


def _properties(
    path: str, name: str, writes: list[WriteLimit], annotations: tuple[tuple[str, str], ...]
) -> tuple[Property, ...]:
    """What every scope has, what the limits are, what annotations add or have otherwise."""
    above = path.split("/")[-2]
    accounting = ("CPU", "IO", "Memory", "Tasks")
    found: list[Property] = [
        ("Description", "s", f"gocker container {name}"),
        ("Slice", "s", above if above.endswith(".slice") else "-.slice"),
        ("Delegate", "b", True),
        ("DefaultDependencies", "b", False),
        ("CollectMode", "s", "inactive-or-failed"),
        *((f"{kind}Accounting", "b", True) for kind in accounting),
        ("TasksMax", "t", INFINITY),  # systemd has a default, which nobody asked for
        *properties_of((step.file, step.value) for step in writes),
    ]
    for annotation, text in annotations:
        if annotation.startswith(_ANNOTATION):
            found.append(annotated(annotation.removeprefix(_ANNOTATION), text))
    return tuple({one[0]: one for one in found}.values())


def annotated(name: str, text: str) -> Property:
    """The property of an annotation `org.systemd.property.NAME`; pure. Raise UsageError.

    The value is in GVariant's text form; a NAMESec is taken as NAMEUSec, as runc and crun do.
    """
    label = f"{_ANNOTATION}{name}"
    if name in _OURS or not (name.isascii() and name.isalpha() and name[0].isupper()):
        raise UsageError("read annotation", label, "not a property that a container may set")
    try:
        kind, value = _variant(text.strip())
    except ValueError as error:
        raise UsageError(
            "read annotation",
            label,
            f"{text!r} is not a value that gocker understands",
            remedy="for example 'text', true, 5, uint64 5, ['a', 'b']",
        ) from error
    if name.endswith("Sec") and not name.endswith("USec") and kind in _NUMBERS.values():
        return f"{name[:-3]}USec", "t", int(value * 1_000_000)
    return name, kind, value


def _variant(text: str) -> tuple[str, Any]:
    """(D-Bus signature, value). Raise ValueError."""
    if text.startswith("["):
        if not text.endswith("]"):
            raise ValueError(text)
        items = [_variant(item) for item in _items(text[1:-1])]
        kinds = {kind for kind, _ in items}
        if len(kinds) != 1:
            raise ValueError(text)
        return f"a{kinds.pop()}", tuple(value for _, value in items)
    if text in {"true", "false"}:
        return "b", text == "true"
    if text[:1] in {"'", '"'}:
        return "s", _string(text)
    kind, space, number = text.partition(" ")
    if not space:
        kind, number = "double" if "." in text else "int32", text
    if kind not in _NUMBERS:
        raise ValueError(text)
    return _NUMBERS[kind], _number(kind, number.strip())


def _number(kind: str, text: str) -> int | float:
    if kind == "double":
        return float(text)
    value = int(text, 0)
    bits = int(kind.lstrip("uint") or 8) if kind != "byte" else 8
    low, high = (0, 1 << bits) if kind[0] in "ub" else (-(1 << bits - 1), 1 << bits - 1)
    if not low <= value < high:
        raise ValueError(text)
    return value


def _string(text: str) -> str:
    """Without its quotes; a backslash takes the next character as it is."""
    quote, rest = text[0], iter(text[1:])
    found: list[str] = []
    for letter in rest:
        if letter == quote:
            if next(rest, None) is not None:
                raise ValueError(text)
            return "".join(found)
        found.append(next(rest, "") if letter == "\\" else letter)
    raise ValueError(text)


def _items(text: str) -> list[str]:
    """Split at commas that are not within quotes."""
    items, quote, escaped = [""], "", False
    for letter in text:
        if letter == "," and not quote:
            items.append("")
            continue
        items[-1] += letter
        if escaped:
            escaped = False
        elif letter == "\\" and quote:
            escaped = True
        elif quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
    return [item.strip() for item in items]
