"""The gocker command as a user runs it: a program with arguments, output, an exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

SLOWNESS = float(os.environ.get("GOCKER_TEST_SLOWNESS", "1"))
"""How much slower than on the host programs run, in an emulated guest: 20."""


WARM = "GOCKER_TEST_WARM" in os.environ
"""Whether the commands are the compiled ones with a warm server behind them, for the whole session."""


def program(name: str) -> str:
    """The path of a command."""
    return os.path.join(os.environ.get("GOCKER_TEST_BIN") or os.path.dirname(sys.executable), name)


class Ran(NamedTuple):
    """What one gocker did. Text is surrogateescape text."""

    code: int
    out: str
    err: str
    report: dict[str, Any]  # only of `Gocker.run`; empty when none was written

    @property
    def verdict(self) -> str:
        """The report's verdict in one word, "" without a report."""
        return str(self.report.get("verdict", {}).get("kind", ""))


class Gocker:
    """Call it with the arguments of the command line."""

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch
        self._program = program("gocker")

    def __call__(
        self,
        *args: str | bytes,
        input: str | None = None,  # noqa: A002 - the name that subprocess.run gives it
        env: Mapping[str, str] | None = None,
        timeout: float = 30,
        under: Sequence[str] = (),
    ) -> Ran:
        """Run it to its end. `env` is added to ours; `timeout` is in seconds of this host.

        `under` is a command such as setpriv that runs it in its turn.
        """
        process = self.start(*args, env=env, under=under)
        stdin = None if input is None else os.fsencode(input)
        try:
            out, err = process.communicate(stdin, timeout * SLOWNESS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                out, err = process.communicate(timeout=5 * SLOWNESS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out, err = process.communicate()
            raise AssertionError(
                f"gocker {args} took more than {timeout * SLOWNESS} s\n{os.fsdecode(out)}\n{os.fsdecode(err)}"
            ) from None
        return Ran(process.returncode, os.fsdecode(out), os.fsdecode(err), {})

    def run(
        self,
        *args: str | bytes,
        input: str | None = None,  # noqa: A002
        env: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> Ran:
        """`gocker run --report FILE ARGS`, with the report."""
        path = f"{self._scratch}/report.json"
        ran = self("run", "--report", path, *args, input=input, env=env, timeout=timeout)
        try:
            with open(path, encoding="utf-8") as file:
                report = json.load(file)
        except FileNotFoundError:
            return ran
        os.unlink(path)
        return ran._replace(report=report)

    def start(
        self, *args: str | bytes, env: Mapping[str, str] | None = None, under: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        """Start it in a process group of its own, with pipes; the caller waits for it."""
        # By the interpreter, since `under` may take the right to execute files of ours.
        by_python = under and not WARM
        program = [*under, sys.executable, "-m", "gocker"] if by_python else [*under, self._program]
        return subprocess.Popen(
            [*program, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
