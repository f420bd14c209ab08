"""`gocker-oci list`."""

from __future__ import annotations

import json
import os

from gocker.errors import StateError, UsageError
from gocker.lasting import read_lasting
from gocker.ocicli.flags import DEFAULT_ROOT
from gocker.ocicli.state import document
from gocker.state import State

_COLUMNS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")


def command(root: str, *, arguments: tuple[str, ...], format: str, quiet: bool) -> int:  # noqa: A002, ARG001
    """Print them; a root that was named has to be there, as with runc: it may be misspelt."""
    if format not in {"table", "json"}:
        raise UsageError("set --format", format, "not table or json")
    if not os.path.isdir(root) and root != DEFAULT_ROOT:
        raise StateError("list containers in", root, "ENOENT: no such directory", remedy="see --root")
    state = State(root)
    ids = state.lasting_ids()
    if quiet:
        print("".join(f"{container}\n" for container in ids), end="")
        return 0
    rows = []
    for container in ids:
        try:
            rows.append(document(read_lasting(state, container), state))
        except StateError:  # it was deleted meanwhile
            continue
    if format == "json":
        print(json.dumps(rows, separators=(",", ":")))
        return 0
    table = [_COLUMNS, *(tuple(str(row[name.lower()]) for name in _COLUMNS) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(_COLUMNS))]
    for row in table:
        print("   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0
