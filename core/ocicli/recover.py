"""What every verb does first: what a killed gocker-oci left halfway is brought to an end."""

from __future__ import annotations

from gocker.errors import GockerError
from gocker.state import State


def recover_abandoned(state: State, *, quiet: bool) -> None:
    """Take back or complete what was left; `quiet` says nothing of it. Raise StateError."""
    for claim in state.abandoned():
        from gocker.recovery import recover

        _say(recover(claim), quiet=quiet)
    for claim in state.indebted():
        from gocker.ocicli.common import audit_log
        from gocker.settling import settle

        try:
            settle(claim, state, audit_log())
        except (GockerError, OSError) as error:
            _say(f"container {claim.id} is left for later: {error}", quiet=quiet)


def _say(line: str, *, quiet: bool) -> None:
    if not quiet:
        from gocker.cli.show import show_warning

        show_warning(line)
