"""Turns what hook.py left in a directory into data files that `coverage combine` reads: collect.py DIR."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing

from coverage import CoverageData


def main(directory: str) -> int:
    """Replace each dump by a data file; name those that hold an error instead; return how many do."""
    broken = 0
    names = sorted(name for name in os.listdir(directory) if name.endswith(".dump"))
    total = CoverageData(f"{directory}/.coverage.children")
    for name in names:
        with open(f"{directory}/{name}", "rb") as file:
            dump = file.read()
        if dump.startswith(b"z"):
            part = CoverageData(no_disk=True)
            part.loads(dump)
            total.update(part)
        elif dump:
            broken += 1
            print(f"{name}: {dump[:200]!r}", file=sys.stderr)
        os.unlink(f"{directory}/{name}")
    total.write()
    for name in os.listdir(directory):
        if not readable(f"{directory}/{name}"):
            print(f"{name} was cut short: its process was killed, or could not write that much")
            os.unlink(f"{directory}/{name}")
    print(f"coverage of {len(names)} first processes of containers, {broken} broken")
    return broken


def readable(path: str) -> bool:
    """Whether `path` is a whole data file."""
    try:
        with closing(sqlite3.connect(path)) as database:
            return bool(database.execute("PRAGMA quick_check").fetchone() == ("ok",))
    except sqlite3.DatabaseError:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
