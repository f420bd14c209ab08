"""`python -m tests.mutants [--only R4]`: take each defence out of a copy of the tree, and see that its tests fail."""

from __future__ import annotations

import argparse
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import NamedTuple

from . import page
from .listed import ALIVE, MUTANTS
from .mutant import TREE, Mutant, mutated, read

_SPOKEN = re.compile(r"^(PASSED|FAILED|ERROR) (\S.*?)(?: - (.*))?$", re.MULTILINE)
_LIMIT = 300  # seconds for the tests of one mutant


class Result(NamedTuple):
    """What became of one mutant."""

    mutant: str
    status: str  # killed, survived, broken: not even what is harmless works
    by: tuple[str, ...]
    wrong: tuple[str, ...]  # tests that should have failed and did not
    seconds: float


class Copy:
    """A copy of the tree, installed in an environment of its own."""

    def __init__(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="gocker-mutants-")
        self.tree = f"{self.directory}/tree"
        names = subprocess.run(
            ["git", "-C", TREE, "ls-files", "-z", "-co", "--exclude-standard"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split("\0")
        for name in filter(None, names):
            if os.path.isfile(f"{TREE}/{name}"):
                os.makedirs(os.path.dirname(f"{self.tree}/{name}"), exist_ok=True)
                shutil.copy2(f"{TREE}/{name}", f"{self.tree}/{name}")
        venv = f"{self.directory}/venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
        self.python = f"{venv}/bin/python"
        (packages,) = glob.glob(f"{venv}/lib/python3*/site-packages")
        with open(f"{packages}/others.pth", "w", encoding="utf-8") as file:
            file.writelines(f"{path}\n" for path in sys.path if path.endswith("-packages"))
        pip = [sys.executable, "-m", "pip", "--python", self.python, "install", "-q"]
        subprocess.run(
            [*pip, "--no-build-isolation", "--no-deps", "--ignore-installed", self.tree],
            check=True,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"},
        )
        self.package = f"{packages}/gocker"
        if not os.path.exists(f"{self.package}/init.py"):
            raise SystemExit(f"python -m tests.mutants: nothing was installed in {self.package}")

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.directory)

    def put(self, file: str, text: str) -> None:
        """Give a file of the package this text, in the tree and where it was installed."""
        installed = file.removeprefix("core/") if file.startswith("core/") else file
        for path in (f"{self.tree}/{file}", f"{self.package}/{installed}"):
            with open(path, "w", encoding="utf-8") as out:
                out.write(text)
            stem = os.path.splitext(os.path.basename(path))[0]
            for old in glob.glob(f"{os.path.dirname(path)}/__pycache__/{stem}.*.pyc"):
                os.unlink(old)

    def test(self, tests: tuple[str, ...]) -> dict[str, str]:
        """PASSED, FAILED or ERROR by test, UNCLEAR of an attack that says nothing; one that was skipped is not there."""
        away = tempfile.mkdtemp(dir=self.directory)
        command = [self.python, "-m", "pytest", "-q", "-rA", "--tb=no", "-p", "no:cacheprovider"]
        command += ["-c", f"{self.tree}/pyproject.toml", "--rootdir", self.tree]
        command += [f"{self.tree}/{test}" for test in dict.fromkeys(tests)]
        process = subprocess.Popen(
            command,
            cwd=away,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "COLUMNS": "400"},
        )
        try:
            output, _ = process.communicate(timeout=_LIMIT)
        except subprocess.TimeoutExpired:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            output, _ = process.communicate()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(10)
        found: dict[str, str] = {}
        for spoken, path, message in _SPOKEN.findall(output):
            name = path.removeprefix("../tree/")
            status = "UNCLEAR" if message.startswith("AssertionError: unclear") else spoken
            if found.get(name) != "FAILED":
                found[name] = status
        if not found:
            print(output[-3000:], file=sys.stderr)
        return found


def failed(found: dict[str, str], test: str) -> bool:
    """A test with parameters whose id names none fails when one of them does."""
    return any(
        status in {"FAILED", "ERROR"} and (name == test or name.startswith(f"{test}["))
        for name, status in found.items()
    )


def passed(found: dict[str, str], test: str) -> bool:
    """All of its parameters, and at least one."""
    mine = [status for name, status in found.items() if name == test or name.startswith(f"{test}[")]
    return bool(mine) and set(mine) == {"PASSED"}


def try_out(copy: Copy, mutant: Mutant) -> Result:
    """Take the defence out, run its tests, put it back."""
    begun = time.monotonic()
    text = read(mutant, copy.tree)
    copy.put(mutant.file, mutated(mutant, text))
    try:
        found = copy.test((*ALIVE, *mutant.tests))
    finally:
        copy.put(mutant.file, text)
    by = tuple(test for test in mutant.tests if failed(found, test))
    wrong = tuple(test for test in mutant.tests if test not in by)
    status = "survived" if wrong else "killed"
    if not all(passed(found, test) for test in ALIVE):
        status = "broken"
    return Result(mutant.name, status, by, wrong, round(time.monotonic() - begun, 1))


def chosen(words: list[str]) -> list[Mutant]:
    """By rule, verb or part of the name; all without words."""
    if not words:
        return list(MUTANTS)
    return [
        mutant
        for mutant in MUTANTS
        if any(
            word == mutant.rule or word in mutant.verbs.split() or (len(word) > 3 and word in mutant.name)
            for word in words
        )
    ]


def main(arguments: list[str] | None = None) -> int:
    """Return 0 when every mutant was killed by each of its tests, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument(
        "--only", action="append", metavar="WORD", default=[], help="a rule (R4), verb or name"
    )
    parser.add_argument("--list", action="store_true", help="name the mutants and end")
    parser.add_argument("--no-baseline", action="store_true", help="believe that the tests pass as it is")
    parser.add_argument("--seconds", type=float, default=0, help="begin no mutant after as many")
    parser.add_argument("--update", metavar="FILE", help="write the table between the marks in FILE, and end")
    options = parser.parse_args(arguments)
    mutants = chosen(options.only)
    if options.update:
        page.update(options.update)
        return 0
    if options.list:
        for mutant in mutants:
            print(f"{mutant.name:44} {mutant.rule:4} {mutant.verbs:24} {mutant.file}")
        return 0
    if os.geteuid() != 0:
        print("python -m tests.mutants: needs root: containers are started", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    copy = Copy()
    try:
        return run(copy, mutants, options.seconds, baseline=not options.no_baseline)
    finally:
        copy.close()


def run(copy: Copy, mutants: list[Mutant], seconds: float, *, baseline: bool) -> int:
    """First the tests as it is, then one mutant after the other."""
    if baseline:
        tests = (*ALIVE, *(test for mutant in mutants for test in mutant.tests))
        found = copy.test(tests)
        bad = [test for test in dict.fromkeys(tests) if not passed(found, test)]
        if bad:
            print("do not pass with all defences: " + " ".join(bad), file=sys.stderr)
            return 1
    begun, counts = time.monotonic(), {"killed": 0, "survived": 0, "broken": 0}
    for mutant in mutants:
        if seconds and time.monotonic() - begun > seconds:
            break
        result = try_out(copy, mutant)
        counts[result.status] += 1
        print(
            f"{result.status:9} {mutant.rule:4} {mutant.name:44} {result.seconds:5} s  "
            f"{' '.join(page.short(test) for test in result.by)}"
            f"{'  NOT BY ' if result.wrong else ''}{' '.join(page.short(test) for test in result.wrong)}",
            flush=True,
        )
    print(", ".join(f"{count} {status}" for status, count in counts.items()))
    return 1 if counts["survived"] or counts["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
