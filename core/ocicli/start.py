"""`gocker-oci start`."""

from __future__ import annotations

from gocker import lifecycle
from gocker.ocicli.common import audit_log
from gocker.state import State


def command(root: str, *, arguments: tuple[str, ...]) -> int:
    """Let the program run."""
    lifecycle.start(arguments[0], State(root), audit_log())
    return 0
