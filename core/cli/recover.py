"""What each command does first: look for what a killed gocker left."""

from __future__ import annotations

from gocker.cli.show import show_warning
from gocker.state import State


def recover_abandoned() -> None:
    """Look, in two system calls, for what a killed gocker left; import the rest only when there is some.

    Raise StateError.
    """
    for claim in State().abandoned():
        from gocker.recovery import recover

        show_warning(recover(claim))
