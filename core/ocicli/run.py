"""`gocker-oci run`."""

from __future__ import annotations

import os
from typing import Any

from gocker import lifecycle
from gocker.lasting import open_first
from gocker.ocicli.attending import attend_to, keep_newlines
from gocker.ocicli.common import audit_log
from gocker.ocicli.create import prepare
from gocker.ocicli.delete import remove


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
            lifecycle.start(spec.id, state, audit_log())
            if detach:
                return 0
            return attendant.wait(made.pid, pidfd, consoles[0] if consoles else -1)
        finally:
            os.close(pidfd)
            if not (detach or keep):
                remove(spec.id, state, preparation.registry, force=True)
