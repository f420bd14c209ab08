"""What every plug-in has to be: well declared, and without I/O while a start is planned."""
# ruff: noqa: S101 - tests assert, and their names are sentences

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gocker.api import (
    API_VERSION,
    Plugin,
)


def check_identity(plugin: type[Plugin]) -> None:
    """Assert that its name and its version are of the right shape, and for this gocker."""
    name, version = plugin.name, plugin.api_version
    assert name[:1].isalpha(), f"name {name!r}: [a-z][a-z0-9_]*"
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_"), f"name {name!r}: [a-z][a-z0-9_]*"
    assert isinstance(version, tuple), f"api_version {version!r}: (major, minor)"
    assert [type(part) for part in version] == [int, int], f"api_version {version!r}: (major, minor)"
    major, minor = API_VERSION
    assert version[0] == major, f"api_version {version}, this gocker has {API_VERSION}"
    assert version[1] <= minor, f"api_version {version}, this gocker has {API_VERSION}"


_events: list[str] | None = None
_IO = frozenset({"open", "os", "socket", "subprocess", "shutil", "glob", "ctypes"})


def _note(event: str, _: tuple[Any, ...]) -> None:
    if _events is not None and event.partition(".")[0] in _IO:
        _events.append(event)


@contextmanager
def watch() -> Iterator[list[str]]:
    """The I/O that happens inside, by the names of Python's audit events."""
    global _events  # noqa: PLW0603 - an audit hook cannot be taken away, only told to be quiet
    if not _hooked:
        sys.addaudithook(_note)
        _hooked.append(True)
    found: list[str] = []
    _events = found
    try:
        yield found
    finally:
        _events = None


_hooked: list[bool] = []
