"""`gocker-oci run`."""

from __future__ import annotations

import os
from typing import Any

from gocker import lifecycle
from gocker.lasting import Lasting, open_first
from gocker.ocicli.attending import attend_to, keep_newlines
from gocker.ocicli.common import audit_log
from gocker.ocicli.create import prepare
from gocker.ocicli.delete import remove
from gocker.state import State


def command(root: str, *, detach: bool, keep: bool, **options: Any) -> int:
    """Create, start, and unless it is to stay, wait and delete; the program's exit status."""
    preparation = prepare(root, **options, foreground=not detach)
    spec, state = preparation.spec, preparation.state
    attended = not detach and spec.terminal and not options["console_socket"]
    consoles: list[int] = []

    def opened(console: int) -> None:
        consoles.append(console)
        keep_newlines(console)

    with attend_to(spec, terminal=attended) as attendant:
        made = preparation.create(attendant.stdio, attendant.window, opened if attended else None)
        pidfd = open_first(made)
        try:
            _start(made, state, pidfd, wait=detach)
            if detach:
                return 0
            return attendant.wait(made.pid, pidfd, consoles[0] if consoles else -1)
        finally:
            os.close(pidfd)
            if not (detach or keep):
                remove(spec.id, state, preparation.registry, force=True)


def _start(made: Lasting, state: State, pidfd: int, *, wait: bool) -> None:
    def begin() -> None:
        lifecycle.start(made.id, state, audit_log())

    if not os.environ.get("NOTIFY_SOCKET"):
        begin()
        return
    from gocker.ocicli import notifying

    notifying.start(made.id, state, begin, made.pid, pidfd, wait=wait)
