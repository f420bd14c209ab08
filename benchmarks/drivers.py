"""A driver.py that serves: starts within one Python process, taken in turns with others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from bench import HERE
from result import Skipped

DRIVER = str(HERE / "driver.py")


class Driver:
    """One process of it."""

    def __init__(
        self, mode: str, target: str, env: Mapping[str, str] | None = None, under: Sequence[str] = ()
    ) -> None:
        """`env` is added to ours. Raise Skipped when it cannot start a container."""
        self._process = subprocess.Popen(
            [*under, sys.executable, DRIVER, mode, target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, **(env or {})},
        )
        try:
            self.starts(0)
        except SystemExit as failed:
            raise Skipped(f"{mode}: {failed}") from None

    def starts(self, count: int) -> list[tuple[float, float]]:
        """(wall, CPU) of each of so many starts, in milliseconds. Raise SystemExit with what it said."""
        process = self._process
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(f"{count}\n")
        except BrokenPipeError:
            self._fail()
        found = []
        for line in iter(process.stdout.readline, ".\n"):
            if not line:
                self._fail()
            wall, cpu = line.split()
            found.append((int(wall) / 1e6, float(cpu) * 1e3))
        return found

    def _fail(self) -> None:
        _, said = self._process.communicate()
        last = said.strip().rpartition("\n")[2]
        raise SystemExit(last or f"ended with status {self._process.returncode}")

    def close(self) -> None:
        """End it."""
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream:
                stream.close()
        self._process.wait()
