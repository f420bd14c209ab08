"""The hooks of a config.json."""

from __future__ import annotations

from gocker.model import Hook
from gocker.oci.fields import Section
from gocker.oci.process import environment
from gocker.steps.hooks import (
    CREATE_CONTAINER,
    CREATE_RUNTIME,
    POSTSTART,
    POSTSTOP,
    PRESTART,
    START_CONTAINER,
)

KINDS = (PRESTART, CREATE_RUNTIME, CREATE_CONTAINER, START_CONTAINER, POSTSTART, POSTSTOP)
_MAX_TIMEOUT = 10 * 365 * 86400  # seconds


def read_hooks(root: Section) -> tuple[Hook, ...]:
    """All of them, kind by kind. Raise UsageError."""
    section = root.section("hooks")
    if section is None:
        return ()
    hooks = [_hook(item, kind) for kind in KINDS for item in section.sections(kind)]
    section.finish()
    return tuple(hooks)


def _hook(section: Section, kind: str) -> Hook:
    hook = Hook(
        kind=kind,
        path=section.absolute("path"),
        args=section.texts("args"),
        env=None
        if section.get("env") is None
        else tuple(f"{name}={value}" for name, value in environment(section)),
        timeout=section.number("timeout", (1, _MAX_TIMEOUT), "a number of seconds"),
    )
    section.finish()
    return hook
