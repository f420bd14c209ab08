"""linux.cgroupsPath as `slice:prefix:name`: the scope of systemd's that it names, and where its cgroup is."""

from __future__ import annotations

import string

from gocker.errors import UsageError

DEFAULT_SLICE, DEFAULT_PREFIX = "system.slice", "gocker"
_LETTERS = frozenset(f"{string.ascii_letters}{string.digits}:-_.\\@")  # systemd.unit(5)
_MAX_NAME = 255
_SLICE = ".slice"
_ROOT = "-.slice"


def is_scope(path: str) -> bool:
    """Whether it has that form; pure."""
    return path.count(":") == 2 and "/" not in path


def scope_path(path: str) -> str:
    """The path of the scope's cgroup below that of systemd; pure. Raise UsageError."""
    place, prefix, name = path.split(":")
    if name.endswith((_SLICE, ".scope")):
        raise _error(path, "its name is to have no suffix: gocker makes a scope of it")
    unit = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    if not name or not _LETTERS.issuperset(unit) or len(unit) > _MAX_NAME or unit[0] in "._":
        raise _error(path, "prefix and name make no name of a unit")
    return f"{_slice_path(place or DEFAULT_SLICE, path)}/{unit}"


def _slice_path(place: str, path: str) -> str:
    """`/a.slice/a-b.slice` of `a-b.slice`. Source: systemd.slice(5)."""
    if place == _ROOT:
        return ""
    parts = place.removesuffix(_SLICE).split("-")
    good = place.endswith(_SLICE) and all(parts) and _LETTERS.issuperset(place) and place[0] not in "._"
    if not good or len(place) > _MAX_NAME:
        raise _error(path, "what is before the first colon is no name of a slice")
    return "".join(f"/{'-'.join(parts[: end + 1])}{_SLICE}" for end in range(len(parts)))


def _error(path: str, reason: str) -> UsageError:
    return UsageError("read cgroupsPath", repr(path), reason, remedy="for example system.slice:gocker:web")
