"""`gocker-oci delete`."""

from __future__ import annotations

import errno

from gocker import lifecycle
from gocker.cli.show import show_warning
from gocker.errors import StateError
from gocker.lasting import read_lasting
from gocker.ocicli.common import audit_log, spec_of_lasting
from gocker.registry import Registry
from gocker.state import State


def command(root: str, *, arguments: tuple[str, ...], force: bool) -> int:
    """Delete it."""
    (container,) = arguments
    state, registry = State(root), Registry()
    try:
        spec = spec_of_lasting(read_lasting(state, container), registry)
        warnings = lifecycle.delete(container, spec, state, registry, audit_log(), force=force)
    except StateError as error:
        if force and error.errno == errno.ENOENT:  # also when another has just done it
            return 0
        raise
    for warning in warnings:
        show_warning(str(warning))
    return 0
