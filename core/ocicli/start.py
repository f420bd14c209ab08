"""`gocker-oci start`."""

from __future__ import annotations

import os

from gocker import lifecycle
from gocker.lasting import open_first, read_lasting
from gocker.ocicli.common import audit_log
from gocker.state import State


def command(root: str, *, arguments: tuple[str, ...]) -> int:
    """Let the program run."""
    (container,) = arguments
    state = State(root)
    if not os.environ.get("NOTIFY_SOCKET"):
        lifecycle.start(container, state, audit_log())
        return 0
    from gocker.ocicli import notifying

    lasting = read_lasting(state, container)
    pidfd = open_first(lasting)

    def begin() -> None:
        lifecycle.start(container, state, audit_log())

    notifying.start(container, state, begin, lasting.pid, pidfd, wait=True)
    return 0
