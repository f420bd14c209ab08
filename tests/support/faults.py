"""Runs broken gockers, in two warm processes of tests/fault/drive.py, and judges what is left of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

Job = dict[str, Any]
DRIVE = os.path.join(os.path.dirname(__file__), "..", "fault", "drive.py")
OCI_DRIVE = os.path.join(os.path.dirname(__file__), "..", "fault", "ocidrive.py")


class Drivers:
    """A few drivers side by side; `base` is a directory for all that they make, `script` what they run."""

    def __init__(self, base: str, count: int = 2, script: str = DRIVE) -> None:
        self._script = script
        self._idle: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        self._all = [self._start(f"{base}/driver{number}") for number in range(count)]
        for driver in self._all:
            self._idle.put(driver)

    def _start(self, base: str) -> subprocess.Popen[str]:
        os.mkdir(base)
        return subprocess.Popen(
            [sys.executable, self._script, base], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, job: Job) -> dict[str, Any]:
        """What came of one job; drive.py has the fields of both."""
        driver = self._idle.get()
        try:
            assert driver.stdin
            assert driver.stdout
            driver.stdin.write(json.dumps(job) + "\n")
            driver.stdin.flush()
            answer: dict[str, Any] = json.loads(driver.stdout.readline())
        finally:
            self._idle.put(driver)
        assert "broken" not in answer, f"{job}\n{answer['broken']}"
        return answer

    def run_all(self, jobs: Iterable[Job]) -> list[dict[str, Any]]:
        """As `run`, for many, in order."""
        with ThreadPoolExecutor(len(self._all)) as pool:
            return list(pool.map(self.run, jobs))

    def close(self) -> None:
        for driver in self._all:
            driver.communicate()
