"""`gocker-oci pause`."""

from __future__ import annotations

from gocker import controls
from gocker.ocicli.common import audit_log
from gocker.state import State


def command(root: str, *, arguments: tuple[str, ...]) -> int:
    """Freeze it."""
    controls.pause(arguments[0], State(root), audit_log())
    return 0
