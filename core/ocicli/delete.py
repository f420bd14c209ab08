"""`gocker-oci delete`."""

from __future__ import annotations

import errno

from gocker import lifecycle
from gocker.errors import StateError
from gocker.lasting import read_lasting
from gocker.ocicli.common import audit_log, spec_of_lasting
from gocker.ocicli.create import recover_abandoned
from gocker.registry import Registry
from gocker.state import State


def command(root: str, *, arguments: tuple[str, ...], force: bool) -> int:
    """Delete it."""
    (container,) = arguments
    state, registry = State(root), Registry()
    recover_abandoned(state)
    try:
        lasting = read_lasting(state, container)
    except StateError as error:
        if force and error.errno == errno.ENOENT:
            return 0
        raise
    spec = spec_of_lasting(lasting, registry)
    lifecycle.delete(container, spec, state, registry, audit_log(), force=force)
    return 0
