"""Fuzzes all that gocker reads for as long as it is told: `python tests/fuzz/fuzz.py --minutes 10`.

The exit status is 1 when something was found, with the smallest example of it.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "support")]

import live  # noqa: E402 - by the path above
import targets  # noqa: E402
from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

LIVE_SHARE = 0.4  # of the time
_ROUND = {"in process": 300, "live": 10}  # examples between two looks at the clock


class Fuzzer:
    """Goes round all targets until the time is over, and counts.

    The n-th round of a target is the same whenever the number is, however long the others took.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.counts: Counter[str] = Counter()
        self.found: dict[str, str] = {}

    def round(
        self, name: str, strategy: st.SearchStrategy[Any], target: Callable[[Any], object], examples: int
    ) -> None:
        """Some examples of one target; what was found is kept."""

        def body(example: Any) -> None:
            self.counts[name] += 1
            target(example)

        own = random.Random(f"{self.number} {name} {self.counts[name]}")
        phases = [Phase.generate] if examples == _ROUND["live"] else [Phase.generate, Phase.shrink]
        test = settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        )(seed(own.getrandbits(64))(given(strategy)(body)))
        try:
            test()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            self.found[name] = "".join(traceback.format_exception(error))

    def run(self, seconds: float, host: live.Live) -> None:
        """All targets but those in which something was found, for so long."""
        running: dict[str, Callable[[Any], object]] = {
            "gocker-oci create, delete": host.oci,
            "gocker run": host.run,
        }
        strategies = {"gocker-oci create, delete": live.CHANGES, "gocker run": live.WORDS}
        begin = time.monotonic()
        spent = 0.0
        while (now := time.monotonic() - begin) < seconds:
            if spent < LIVE_SHARE * now:
                name = min(running, key=lambda one: (one in self.found, self.counts[one]))
                self.round(name, strategies[name], running[name], _ROUND["live"])
                spent += time.monotonic() - begin - now
            else:
                rest = [one for one in targets.TARGETS if one not in self.found] or list(targets.TARGETS)
                name = min(rest, key=lambda one: self.counts[one])
                self.round(name, *targets.TARGETS[name], _ROUND["in process"])
            if len(self.found) == len(running) + len(targets.TARGETS):
                break


def fuzz(seconds: float, number: int) -> Fuzzer:
    """For so long, from a directory of its own."""
    before = os.getcwd()
    fuzzer = Fuzzer(number)
    with tempfile.TemporaryDirectory(prefix="gocker-fuzz-") as directory:
        os.chdir(directory)
        try:
            host = live.Live(f"{directory}/live")
            targets.check()
            host.check()
            fuzzer.run(seconds, host)
            assert host.created, "no container was created"
        finally:
            os.chdir(before)
    return fuzzer


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    fuzzer = fuzz(options.minutes * 60, options.seed)
    for name, count in sorted(fuzzer.counts.items()):
        print(f"{count:8} {name}{'  FOUND' if name in fuzzer.found else ''}")
    for name, text in fuzzer.found.items():
        print(f"\n{name}:\n{text}")
    return 1 if fuzzer.found else 0


if __name__ == "__main__":
    sys.exit(main())
