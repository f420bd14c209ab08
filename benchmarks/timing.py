"""Times of processes and of starts, taken in turns."""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

PR_SET_CHILD_SUBREAPER = 36
Turn = Callable[[int], None]


@dataclass
class Series:
    """The samples of one contender, in the unit of its table."""

    name: str
    values: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # ms; user and system, of all that was waited for

    def add(self, value: float, cpu: float | None = None) -> None:
        """One more sample."""
        self.values.append(value)
        if cpu is not None:
            self.cpu.append(cpu)

    def row(self, base: Series | None, note: str) -> dict[str, Any]:
        """Medians and quartiles; with `base`, the ratio of the medians to its."""
        low, middle, high = quartiles(self.values)
        cpu = statistics.median(self.cpu) if self.cpu else None
        base_cpu = statistics.median(base.cpu) if base and base.cpu else None
        return {
            "name": self.name,
            "samples": len(self.values),
            "median": middle,
            "quartile1": low,
            "quartile3": high,
            "min": min(self.values),
            "max": max(self.values),
            "cpu_ms": cpu,
            "ratio": middle / statistics.median(base.values) if base else None,
            "cpu_ratio": cpu / base_cpu if cpu is not None and base_cpu else None,
            "note": note,
        }


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The first, the median and the third."""
    if len(values) == 1:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def take_turns(rounds: int, contenders: Sequence[Turn]) -> None:
    """Call each once a round, in an order drawn anew: what disturbs the machine meets all alike.

    In a fixed order each would always run in the wake of the same other.
    """
    draw = random.Random(1)  # the same draws each time
    for number in range(rounds):
        for contender in draw.sample(contenders, len(contenders)):
            contender(number)


class Starter(Protocol):
    """Starts programs with stdin and stdout on /dev/null; (wall, CPU) are in milliseconds."""

    def run(self, argv: Sequence[str], env: Mapping[str, str]) -> tuple[float, float]:
        """From spawn to wait; raise SystemExit unless it ends with 0. `env` is added to ours."""

    def together(
        self, argvs: Sequence[Sequence[str]], width: int, env: Mapping[str, str]
    ) -> tuple[float, float]:
        """All of them, `width` at a time."""

    def reap(self, pid: int) -> None:
        """Wait for a container's first process, which its runtime left to us."""

    def close(self) -> None:
        """End it."""


class Spawner:
    """Starts programs as fast as the C library can, without a shell, and waits for each."""

    def __init__(self, *, reaps: bool = False) -> None:
        """`reaps`: orphans come to this process, and podman waits until its conmon is reaped."""
        self._any = reaps
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def _spawn(self, argv: Sequence[str], env: Mapping[str, str]) -> int:
        actions = [(os.POSIX_SPAWN_DUP2, self._null, 0), (os.POSIX_SPAWN_DUP2, self._null, 1)]
        return os.posix_spawnp(
            argv[0],
            list(argv),
            {**os.environ, **env},
            file_actions=actions,
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # as from a shell: Python ignores them
        )

    def run(self, argv: Sequence[str], env: Mapping[str, str]) -> tuple[float, float]:
        """As Starter has it."""
        begin = time.perf_counter_ns()
        pid = self._spawn(argv, env)
        ended = 0
        while ended != pid:
            ended, status, usage = os.wait4(-1 if self._any else pid, 0)
        wall = time.perf_counter_ns() - begin
        if status:
            raise SystemExit(f"{' '.join(argv)}: wait status {status:#x}")
        return wall / 1e6, (usage.ru_utime + usage.ru_stime) * 1e3

    def together(
        self, argvs: Sequence[Sequence[str]], width: int, env: Mapping[str, str]
    ) -> tuple[float, float]:
        """As Starter has it."""
        waiting, running, cpu = list(reversed(argvs)), dict[int, Sequence[str]](), 0.0
        begin = time.perf_counter_ns()
        while waiting or running:
            while waiting and len(running) < width:
                argv = waiting.pop()
                running[self._spawn(argv, env)] = argv
            pid, status, usage = os.wait4(-1, 0)
            if pid not in running:  # what a runtime left to us
                continue
            if status:
                raise SystemExit(f"{' '.join(running[pid])}: wait status {status:#x}")
            del running[pid]
            cpu += usage.ru_utime + usage.ru_stime
        return (time.perf_counter_ns() - begin) / 1e6, cpu * 1e3

    def reap(self, pid: int) -> None:
        """As Starter has it."""
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)

    def close(self) -> None:
        """As Starter has it."""
        os.close(self._null)


class SpawnServer:
    """A Spawner in a process of its own, which the command `under` may have put into another environment.

    The time to ask and to answer is not in what it measures. Orphans become its children.
    """

    def __init__(self, under: Sequence[str] = (), env: Mapping[str, str] | None = None) -> None:
        self._server = subprocess.Popen(
            [*under, sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, **(env or {})},
        )

    def _ask(self, *request: Any) -> tuple[float, float]:
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps(request) + "\n")
        answer = self._server.stdout.readline()
        if not answer:
            raise SystemExit(f"failed: {request}")
        wall, cpu = map(float, answer.split())
        return wall, cpu

    def run(self, argv: Sequence[str], env: Mapping[str, str]) -> tuple[float, float]:
        """As Starter has it."""
        return self._ask("run", argv, env)

    def together(
        self, argvs: Sequence[Sequence[str]], width: int, env: Mapping[str, str]
    ) -> tuple[float, float]:
        """As Starter has it."""
        return self._ask("together", argvs, width, env)

    def reap(self, pid: int) -> None:
        """As Starter has it."""
        self._ask("reap", pid)

    def close(self) -> None:
        """As Starter has it."""
        assert self._server.stdin
        self._server.stdin.close()
        try:
            self._server.wait(10)
        except subprocess.TimeoutExpired:  # what it waits for does not end
            self._server.kill()
            self._server.wait()
        assert self._server.stdout
        self._server.stdout.close()


def serve() -> None:
    """Be the process of a SpawnServer."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    spawner = Spawner(reaps=True)
    for line in sys.stdin:
        verb, *arguments = json.loads(line)
        answer = getattr(spawner, verb)(*arguments)
        print(*(answer or (0, 0)), flush=True)


if __name__ == "__main__":
    serve()
