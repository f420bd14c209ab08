"""`gocker-oci ps`."""

from __future__ import annotations

import json

from gocker import controls
from gocker.errors import GockerError, UsageError
from gocker.lasting import STOPPED, read_lasting, status_of
from gocker.state import State

_OPTIONS = ("-ef",)


def command(root: str, *, arguments: tuple[str, ...], format: str) -> int:  # noqa: A002 - the option's name
    """As a table by the host's `ps`, or the bare ids as JSON."""
    container, *options = arguments
    for words in (["--format=json"], ["--format", "json"]):  # behind the id they would be the host's
        if options == words:
            format, options = "json", []  # noqa: A001 - the option's name
    if format not in {"table", "json"}:
        raise UsageError("set --format", format, "not table or json")
    state = State(root)
    stopped = status_of(read_lasting(state, container), state) == STOPPED
    pids = [] if stopped else controls.pids_of(container, state)
    if format == "json":
        print(json.dumps(pids, separators=(",", ":")))
        return 0
    print("".join(f"{line}\n" for line in rows_of(_listing(options or _OPTIONS), set(pids))), end="")
    return 0


def _listing(options: list[str] | tuple[str, ...]) -> str:
    """What `ps` prints. Raise GockerError."""
    import subprocess

    try:
        done = subprocess.run(
            ["ps", *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise GockerError.from_os(
            "list processes by", "ps", error, remedy="install procps, or use --format json"
        ) from error
    if done.returncode:
        reason = done.stderr.decode("utf-8", "backslashreplace").strip().partition("\n")[0]
        raise GockerError(
            "list processes by", f"ps {' '.join(options)}", reason or f"exit status {done.returncode}"
        )
    return done.stdout.decode("utf-8", "surrogateescape")


def rows_of(listing: str, pids: set[int]) -> list[str]:
    """The heading, and the lines about one of `pids`; raise UsageError without a column PID."""
    heading, *lines = listing.splitlines() or [""]
    names = heading.split()
    if "PID" not in names:
        raise UsageError(
            "list processes", heading, "there is no column PID", remedy="ask ps for one: -o pid,args"
        )
    column = names.index("PID")
    return [heading, *(line for line in lines if _pid(line, column) in pids)]


def _pid(line: str, column: int) -> int:
    words = line.split(maxsplit=column + 1)
    return int(words[column]) if len(words) > column and words[column].isdigit() else -1
