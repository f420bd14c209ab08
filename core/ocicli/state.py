"""`gocker-oci state`."""

from __future__ import annotations

import json
from typing import Any

from gocker.auditevent import rfc3339
from gocker.lasting import STOPPED, Lasting, read_lasting, status_of
from gocker.model import OCI_VERSION
from gocker.state import State


def command(root: str, *, arguments: tuple[str, ...]) -> int:
    """Print it. Source: OCI runtime spec, State."""
    state = State(root)
    print(json.dumps(document(read_lasting(state, arguments[0]), state), indent=2))
    return 0


def document(lasting: Lasting, state: State) -> dict[str, Any]:
    """The state, with what runc adds to it."""
    status = status_of(lasting, state)
    return {
        "ociVersion": OCI_VERSION,
        "id": lasting.id,
        "pid": 0 if status == STOPPED else lasting.pid,
        "status": status,
        "bundle": lasting.bundle,
        "rootfs": lasting.rootfs,
        "created": rfc3339(lasting.begun),
        "owner": _name(lasting.owner),
        "annotations": dict(lasting.annotations),
    }


def _name(uid: int) -> str:
    """Of the user, "" for one without an entry."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""
