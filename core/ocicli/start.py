"""`gocker-oci start`."""

from __future__ import annotations

from gocker import lifecycle
from gocker.lasting import read_lasting
from gocker.ocicli.common import audit_log, spec_of_lasting
from gocker.registry import Registry
from gocker.state import State


def command(root: str, *, arguments: tuple[str, ...]) -> int:
    """Let the program run."""
    (container,) = arguments
    state = State(root)
    spec = spec_of_lasting(read_lasting(state, container), Registry())
    lifecycle.start(container, spec, state, audit_log())
    return 0
