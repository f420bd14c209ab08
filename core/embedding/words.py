"""Gocker's errors on their way from an attendant to the program, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gocker import errors
from gocker.errors import GockerError


def pack(error: GockerError) -> dict[str, Any]:
    """An error as JSON."""
    known = ("operation", "target", "reason", "remedy", "errno", "number", "total", "exit_code")
    fields = {name: getattr(error, name) for name in known if hasattr(error, name)}
    return {**fields, "class": type(error).__name__, "notes": list(getattr(error, "__notes__", ()))}


def unpack(data: Mapping[str, Any]) -> GockerError:
    """The error that `pack` had, as far as its class is gocker's own."""
    found = getattr(errors, str(data["class"]), None)
    kind = found if isinstance(found, type) and issubclass(found, GockerError) else GockerError
    error: GockerError = Exception.__new__(kind)
    GockerError.__init__(
        error, data["operation"], data["target"], data["reason"], remedy=data["remedy"], errno=data["errno"]
    )
    for name in ("number", "total", "exit_code"):
        if name in data:
            setattr(error, name, data[name])
    for note in data["notes"]:
        error.add_note(note)
    return error
