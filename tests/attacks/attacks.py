"""All attacks, in the order of the table: by rule, then as written."""

from __future__ import annotations

from . import (  # noqa: F401  each adds its attacks to the list
    by_cgroup,
    by_descriptor,
    by_environment,
    by_id,
    by_input,
    by_mask,
    by_path,
    by_privilege,
    by_program,
    by_root,
    by_state,
)
from .suite import LISTED

ATTACKS = dict(sorted(LISTED.items(), key=lambda item: int(item[1].rule[1:])))

__all__ = ["ATTACKS"]
