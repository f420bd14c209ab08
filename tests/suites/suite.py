"""Runs the programs of a suite of others against one OCI runtime: time-outs, nothing left behind, a table."""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

CACHE = Path(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))) / "gocker-suites"
INSIDE = "GOCKER_SUITE_INSIDE"  # set in the mount namespace that `enter` makes
CGROUPS = Path("/sys/fs/cgroup")
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
PATIENCE = 10.0  # seconds that killed processes and their cgroups have to go
NOTE_LENGTH = 160


class Outcome(NamedTuple):
    """What one test came to: `word` is pass, fail, skip or timeout."""

    word: str
    seconds: float
    detail: str = ""


class Job(NamedTuple):
    """One test as a program: its name, command and what is added to its environment."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str


class Ended(NamedTuple):
    """How a program ended: its status as os.waitstatus_to_exitcode gives it, None when it took too long."""

    code: int | None
    seconds: float
    out: str
    err: str


Judge = Callable[[Ended], tuple[str, str]]
"""From how it ended to (pass, fail or skip; why)."""


def judge_tap(ended: Ended) -> tuple[str, str]:
    """Judge a TAP producer, several documents in a row included.

    A document without a test, `1..0`, has failed when a diagnostic names an error: some tests of
    runtime-tools say it in no other way.
    """
    if ended.code != 0:
        return "fail", _last_line(ended.err) or f"exit status {ended.code}"
    lines = ended.out.splitlines()
    bad = [line for line in lines if line.startswith("not ok") and "# TODO" not in line]
    if bad:
        return "fail", bad[0]
    good = [line for line in lines if line.startswith("ok ")]
    if good and all(re.search(r"# ?skip", line, re.IGNORECASE) for line in good):
        return "skip", good[0].partition("#")[2].strip()
    planned = sum(int(line.partition("..")[2].split()[0]) for line in lines if line.startswith("1.."))
    if planned != len(good):
        return "fail", f"planned {planned} tests, ran {len(good)}"
    if not good:
        for line in lines:
            said, _, error = line.strip().partition('"error": ')
            if not said and error:
                return "fail", error.strip('",').split("\\n")[0]
    return "pass", ""


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    lines = [line for line in lines if not re.fullmatch(r"exit status \d+", line)] or lines
    return lines[-1] if lines else ""


def enter(runtime: str) -> None:
    """Start this program again in a mount namespace of its own, with a /run and a /dev/null of its own.

    Crun refuses a hybrid host where cgroup2 has a controller: there it sees none.
    """
    if os.environ.get(INSIDE):
        return
    # A /dev/null of its own too: some runtimes give it to the container's user.
    script = (
        "mount -t tmpfs -o mode=755 gocker-suite /run && mknod -m 666 /run/null c 1 3"
        " && mount --bind /run/null /dev/null"
    )
    controllers = CGROUPS / "unified/cgroup.controllers"
    version = subprocess.run([runtime, "--version"], capture_output=True, text=True, check=False).stdout
    if version.startswith("crun") and controllers.exists():
        script += f" && : > /run/none && mount --bind /run/none {controllers}"
    script += ' && exec "$@"'
    again = [sys.executable, *sys.argv]
    os.environ[INSIDE] = "1"
    os.execvp("unshare", ["unshare", "-m", "--propagation", "slave", "sh", "-c", script, "sh", *again])


class Runner:
    """Runs programs one after another, each to its end or to a time limit; what they start ends with them.

    `ours` matches the name of a cgroup that a test may leave, or of one above it that a test makes.
    """

    def __init__(self, scratch: str, ours: str, timeout: float) -> None:
        self.scratch = scratch
        self.timeout = timeout
        self._ours = re.compile(ours)
        self._before = frozenset(_cgroups())
        # Orphans become our children, so that they are found, and reaped soon: a zombie counts as running.
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl PR_SET_CHILD_SUBREAPER")
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})

    def run(self, job: Job) -> Ended:
        """Run it with a TMPDIR of its own, which is gone when this returns."""
        place = tempfile.mkdtemp(prefix="t", dir=self.scratch)
        os.chmod(place, 0o755)  # some containers' users look for their files below
        out, err = f"{self.scratch}/out", f"{self.scratch}/err"
        began = time.monotonic()
        new = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.chdir(job.cwd.format(place=place))
        pid = os.posix_spawn(
            job.argv[0],
            list(job.argv),
            {**os.environ, "TMPDIR": place, **job.env},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, out, new, 0o600),
                (os.POSIX_SPAWN_OPEN, 2, err, new, 0o600),
            ],
            setsid=True,
            setsigmask=(),
        )
        code = self._wait(pid, began + self.timeout)
        seconds = time.monotonic() - began
        os.chdir("/")
        stuck = self._end_all()
        self._clean(place)
        said = _read(err) + (f"\nleft running: {stuck}" if stuck else "")
        return Ended(code, seconds, _read(out), said)

    def _wait(self, pid: int, deadline: float) -> int | None:
        while True:
            code = _reap(pid)
            if code is not None:
                return code
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            signal.sigtimedwait({signal.SIGCHLD}, left)

    def _end_all(self) -> list[int]:
        """Kill children until there is none; those that do not die."""
        deadline = time.monotonic() + PATIENCE
        while pids := _children():
            for pid in pids:
                _thaw(pid)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                return pids
            signal.sigtimedwait({signal.SIGCHLD}, 0.05)
            _reap(-1)
        return []

    def _clean(self, place: str) -> None:
        for line in reversed(_read("/proc/self/mountinfo").splitlines()):
            mountpoint = line.split()[4]
            if mountpoint.startswith(self.scratch):
                subprocess.run(["umount", "-l", mountpoint], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(place, ignore_errors=True)
        for path in sorted(_cgroups() - self._before, reverse=True):
            if any(self._ours.fullmatch(part) for part in path.split("/")):
                with suppress(OSError):  # one that is not empty is not ours
                    os.rmdir(path)


def _reap(wanted: int) -> int | None:
    """Reap every child that ended; the exit code of `wanted` when it is among them."""
    code = None
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == wanted:
                code = os.waitstatus_to_exitcode(ended[1])
    return code


def _children() -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and name != str(os.getpid()):
            fields = _read(f"/proc/{name}/stat").rpartition(")")[2].split()
            if fields and int(fields[1]) == os.getpid():
                found.append(int(name))
    return found


def _thaw(pid: int) -> None:
    """A process in a frozen cgroup does not die of SIGKILL on v1."""
    for line in _read(f"/proc/{pid}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "freezer" and path != "/":
            with suppress(OSError):
                (CGROUPS / f"freezer{path}/freezer.state").write_text("THAWED")


def _cgroups() -> set[str]:
    return {directory for directory, _, _ in os.walk(CGROUPS)}


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def arguments(name: str, description: str) -> argparse.ArgumentParser:
    """The options that every suite has. `name` is that of its file of expected results."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--runtime", required=True, help="the OCI runtime: a path, or a name on PATH")
    parser.add_argument("--only", action="append", metavar="NAME", help="tests by name, * and ? allowed")
    parser.add_argument("--timeout", type=float, default=60, help="seconds that one test may take (60)")
    parser.add_argument("--source", help="the suite's built tree")
    parser.add_argument("--column", help="whose expected results to compare with (the runtime's name)")
    parser.add_argument("--record", action="store_true", help="write the results into the expected ones")
    parser.add_argument("--results", type=Path, help=f"JSON file to write ({CACHE}/{name}-RUNTIME.json)")
    parser.add_argument("--quiet", action="store_true", help="of the table, only what is not as expected")
    return parser


def resolve(runtime: str) -> str:
    """The runtime's absolute path; ends the program when there is none."""
    found = shutil.which(runtime)
    if not found:
        sys.exit(f"{runtime}: no such program")
    return os.path.abspath(found)


def select(names: Iterable[str], patterns: Sequence[str] | None) -> list[str]:
    """Those that one of the patterns matches, all without patterns."""
    chosen = [name for name in names if not patterns or any(fnmatch.fnmatch(name, part) for part in patterns)]
    if not chosen:
        sys.exit(f"no test is called {' or '.join(patterns or ['anything'])}")
    return chosen


def run_all(runner: Runner, jobs: Sequence[Job], judge: Judge) -> dict[str, Outcome]:
    """Each job's outcome; progress goes to stderr."""
    outcomes = {}
    for number, job in enumerate(jobs, 1):
        ended = runner.run(job)
        word, why = ("timeout", f"more than {runner.timeout:g} s") if ended.code is None else judge(ended)
        outcomes[job.name] = Outcome(word, round(ended.seconds, 2), why)
        keep = Path(runner.scratch) / "logs"
        keep.mkdir(exist_ok=True)
        (keep / f"{job.name}.log").write_text(ended.out + ended.err, errors="replace")
        print(f"{number}/{len(jobs)} {job.name}: {word}", file=sys.stderr)
    return outcomes


class Expected:
    """The file of expected results of a suite: `{"tests": {TEST: {COLUMN: WORD, "note": WHY}}}` and facts about it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data: dict[str, Any] = {"tests": {}}
        if path.exists():
            self.data = json.loads(path.read_text())

    def word(self, test: str, column: str) -> str:
        """What is expected; "" when nothing is known."""
        return str(self.data["tests"].get(test, {}).get(column, ""))

    def note(self, test: str) -> str:
        """Why it is as it is, when that takes words."""
        return str(self.data["tests"].get(test, {}).get("note", ""))

    def record(self, column: str, outcomes: Mapping[str, Outcome]) -> None:
        """Write the column; the others and the notes stay."""
        tests = self.data["tests"]
        for test, outcome in outcomes.items():
            tests.setdefault(test, {})[column] = outcome.word
        self.data["tests"] = dict(sorted(tests.items()))
        lines = [f"    {json.dumps(test)}: {json.dumps(row)}" for test, row in self.data["tests"].items()]
        facts = [
            f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in self.data.items() if key != "tests"
        ]
        body = ",\n".join([*facts, '  "tests": {\n' + ",\n".join(lines) + "\n  }"])
        self.path.write_text("{\n" + body + "\n}\n")


def worse(expected: str, word: str) -> bool:
    """Whether it is a step back: only what should pass can break."""
    return expected == "pass" and word != "pass"


def conclude(options: argparse.Namespace, name: str, runtime: str, outcomes: dict[str, Outcome]) -> int:
    """Print the table, write the results, compare; the exit status: 1 when something expected did not pass."""
    expected = Expected(Path(__file__).parent / "expected" / f"{name}.json")
    program = os.path.basename(runtime)
    column = options.column or program
    width = max(map(len, outcomes))
    bad = []
    for test, outcome in sorted(outcomes.items()):
        want = expected.word(test, column)
        mark = ""
        if worse(want, outcome.word):
            bad.append(test)
            mark = f" EXPECTED {want}"
        elif want and want != outcome.word:
            mark = f" (was {want})"
        if mark or not options.quiet:
            why = (outcome.detail or expected.note(test))[:NOTE_LENGTH]
            print(f"{test:{width}}  {outcome.word:7} {outcome.seconds:6.2f}{mark}  {why}".rstrip())
    count = {
        word: sum(o.word == word for o in outcomes.values()) for word in ("pass", "fail", "skip", "timeout")
    }
    total = sum(outcome.seconds for outcome in outcomes.values())
    if options.record:
        expected.record(column, outcomes)
    results = options.results or CACHE / f"{name}-{program}{'-part' if options.only else ''}.json"
    results.parent.mkdir(parents=True, exist_ok=True)
    report = {"suite": name, "runtime": runtime, "count": count, "seconds": round(total, 1)}
    report["tests"] = {test: outcome._asdict() for test, outcome in sorted(outcomes.items())}
    results.write_text(json.dumps(report, indent=1) + "\n")
    said = ", ".join(f"{number} {word}" for word, number in count.items())
    print(f"{name} with {program}: {said} of {len(outcomes)} in {total:.0f} s; results in {results}")
    if bad:
        print(f"{len(bad)} not as expected of {column}: {' '.join(bad)}")
    return 1 if bad else 0


def run_suite(
    options: argparse.Namespace,
    name: str,
    runtime: str,
    ours: str,
    jobs: Callable[[str], Sequence[Job]],
    judge: Judge,
) -> int:
    """All of it, for a suite that can say its jobs from a scratch directory.

    Two runs at once would use cgroups of the same names, and take away each other's: the second waits.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another run of a suite to end", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        outcomes = _run_alone(options, name, runtime, ours, jobs, judge)
    return conclude(options, name, runtime, outcomes)


def _run_alone(
    options: argparse.Namespace,
    name: str,
    runtime: str,
    ours: str,
    jobs: Callable[[str], Sequence[Job]],
    judge: Judge,
) -> dict[str, Outcome]:
    # Short, since the suites put unix sockets below; gocker's own places, so that it leaves none on the host.
    scratch = tempfile.mkdtemp(prefix="gs", dir="/tmp")
    os.chmod(scratch, 0o755)
    os.environ.update(
        GOCKER_ROOT=f"{scratch}/data", GOCKER_STATE=f"{scratch}/state", GOCKER_AUDIT_LOG=f"{scratch}/audit"
    )
    try:
        runner = Runner(scratch, ours, options.timeout)
        outcomes = run_all(runner, jobs(scratch), judge)
        logs = CACHE / f"logs/{name}-{os.path.basename(runtime)}"
        shutil.copytree(f"{scratch}/logs", logs, dirs_exist_ok=True)
    finally:
        os.chdir("/")
        shutil.rmtree(scratch, ignore_errors=True)
    return outcomes
