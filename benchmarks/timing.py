"""Times of processes and of starts, taken in turns, and what is said of them."""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Series:
    """The samples of one contender, in milliseconds."""

    name: str
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # user and system, of all processes that were waited for

    def row(self, base: Series | None) -> dict[str, Any]:
        """Medians and quartiles; with `base`, the ratio of the medians to its."""
        low, middle, high = quartiles(self.wall)
        return {
            "name": self.name,
            "samples": len(self.wall),
            "median_ms": middle,
            "quartile1_ms": low,
            "quartile3_ms": high,
            "min_ms": min(self.wall),
            "cpu_ms": statistics.median(self.cpu) if self.cpu else None,
            "ratio": middle / statistics.median(base.wall) if base else None,
            "cpu_ratio": statistics.median(self.cpu) / statistics.median(base.cpu)
            if base and base.cpu and self.cpu
            else None,
        }


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The first, the median and the third."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def take_turns(rounds: int, contenders: Sequence[Callable[[int], None]]) -> None:
    """Call each once a round, in an order drawn anew: what disturbs the machine meets all alike.

    In a fixed order each would always run in the wake of the same other.
    """
    draw = random.Random(1)  # the same draws each time
    for number in range(rounds):
        for contender in draw.sample(contenders, len(contenders)):
            contender(number)


class Spawner:
    """Starts programs as fast as the C library can, without a shell, and waits for each."""

    def __init__(self) -> None:
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def run(self, argv: list[str]) -> tuple[float, float]:
        """(wall, CPU) in milliseconds, from spawn to wait; raise SystemExit unless it ends with 0."""
        actions = [(os.POSIX_SPAWN_DUP2, self._null, 0), (os.POSIX_SPAWN_DUP2, self._null, 1)]
        begin = time.perf_counter_ns()
        pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
        wall = time.perf_counter_ns() - begin
        if status:
            raise SystemExit(f"{' '.join(argv)}: wait status {status:#x}")
        return wall / 1e6, (usage.ru_utime + usage.ru_stime) * 1e3


class SpawnServer:
    """A Spawner in a process of its own, which the command `under` has put into another environment."""

    def __init__(self, under: Sequence[str]) -> None:
        argv = [*under, sys.executable, __file__]
        self._server = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def run(self, argv: list[str]) -> tuple[float, float]:
        """As Spawner does; the time to ask and to answer is not in it."""
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps(argv) + "\n")
        answer = self._server.stdout.readline()
        if not answer:
            raise SystemExit(f"{' '.join(argv)}: failed")
        wall, cpu = map(float, answer.split())
        return wall, cpu


def table(title: str, rows: Sequence[dict[str, Any]], base: str, notes: dict[str, str]) -> str:
    """Plain text, a row each."""
    head = f"{'':16}{'median':>9}{'quartiles':>17}{'min':>8}{'CPU':>8}{'ratio':>8}{'CPU':>7}"
    lines = [f"{title}, in ms; ratios to {base}", head]
    for row in rows:
        spread = f"{row['quartile1_ms']:.2f}-{row['quartile3_ms']:.2f}"
        cells = [f"{row['name']:16}{row['median_ms']:9.2f}{spread:>17}{row['min_ms']:8.2f}"]
        cells += [
            f"{row[key]:{width}.2f}" if row[key] is not None else " " * width for key, width in _OPTIONAL
        ]
        note = notes.get(row["name"], "")
        lines.append(("".join(cells) + (f"  {note}" if note else "")).rstrip())
    return "\n".join(lines)


_OPTIONAL = (("cpu_ms", 8), ("ratio", 8), ("cpu_ratio", 7))


if __name__ == "__main__":  # of a SpawnServer
    _spawner = Spawner()
    for _line in sys.stdin:
        print(*_spawner.run(json.loads(_line)), flush=True)
