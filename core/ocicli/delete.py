"""`gocker-oci delete`."""

from __future__ import annotations

import errno

from gocker import lifecycle
from gocker.cli.show import show_warning
from gocker.errors import StateError
from gocker.ocicli.common import audit_log
from gocker.registry import Registry
from gocker.state import State


def command(root: str, *, arguments: tuple[str, ...], force: bool) -> int:
    """Delete it."""
    remove(arguments[0], State(root), Registry(), force=force)
    return 0


def remove(container: str, state: State, registry: Registry, *, force: bool) -> None:
    """Delete it and show what its poststop hooks failed with. Raise GockerError."""
    try:
        warnings = lifecycle.delete(container, state, registry, audit_log(), force=force)
    except StateError as error:
        if force and error.errno == errno.ENOENT:  # also when another has just done it
            return
        raise
    for warning in warnings:
        show_warning(str(warning))
