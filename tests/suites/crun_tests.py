"""Crun's own Python tests against one runtime: `--runtime PATH`, each test alone with a time limit.

They are in no way part of this project: `--source`, or GOCKER_CRUN_TESTS, names a tree of
https://github.com/containers/crun whose tests were built as its README says.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import suite

NAME = "crun-tests"
OURS = r"(crun-)?test[\w.-]*|crun[\w.-]*|frozen"
OTHERS = {
    "test_custom_handler": "crun's own handlers, which are plug-ins of crun",
    "test_checkpoint_restore": "CRIU",
}
ADAPT = """#!/bin/sh
# Crun has options of its own; leave out those that say what is so anyway.
left=$#
while [ "$left" -gt 0 ]; do
	case $1:$2 in
	--cgroup-manager:cgroupfs | --config:config.json)
		shift 2
		left=$((left - 2))
		;;
	*)
		set -- "$@" "$1"
		shift
		left=$((left - 1))
		;;
	esac
done
exec {runtime} "$@"
"""
TERMINAL = {"test_terminal", "test_tty"}  # their tests skip themselves without one
LIST = """
import json, runpy, sys
sys.path.insert(0, sys.argv[1].rpartition("/")[0])
import tests_utils
tests_utils.tests_main = lambda tests: print(json.dumps(list(tests)))
tests_utils.__all__ = list(getattr(tests_utils, "__all__", [])) + ["tests_main"]
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def tests_of(file: Path, python: str, env: dict[str, str]) -> list[str]:
    """The names of the tests in one file, as the file itself registers them."""
    listed = subprocess.run(
        [python, "-c", LIST, str(file)], capture_output=True, text=True, check=False, env=env
    )
    for line in listed.stdout.splitlines():
        if line.startswith("["):
            return [str(name) for name in json.loads(line)]
    sys.exit(f"{file.name}: no list of tests: {listed.stderr[-300:]}")


def takes_cruns_options(runtime: str) -> bool:
    """Whether the runtime knows what crun's tests put before each command."""
    asked = [runtime, "--cgroup-manager", "cgroupfs", "--version"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


def judge(ended: suite.Ended) -> tuple[str, str]:
    """One line of TAP, and what was logged on the way."""
    for line in ended.out.splitlines():
        if found := re.match(r"(not )?ok \d+ - \S+ ?(#SKIP)?(.*)", line):
            if found[1]:
                return "fail", _reason(ended.err)
            return ("skip", found[3].strip(" #")) if found[2] else ("pass", "")
    return "fail", _reason(ended.err) or f"exit status {ended.code}"


def _reason(log: str) -> str:
    lines = [line.removeprefix("# ") for line in log.splitlines() if line.strip("# ")]
    lines = [line for line in lines if not line.startswith(("Test environment", "Traceback", "  "))]
    for mark in ("Output: ", "Process output: ", "Exception message: "):
        for line in reversed(lines):
            if line.startswith(mark) and line.removeprefix(mark) not in {"", "None", "b''"}:
                return line.removeprefix(mark)
    return next((line for line in lines if not line.startswith("Test '")), lines[0] if lines else "")


def main() -> int:
    """Run what the options say."""
    parser = suite.arguments(NAME, "crun's own Python tests against one OCI runtime")
    parser.add_argument(
        "--python", default=sys.executable, help="the Python for the tests (3.12 or newer: one more test)"
    )
    parser.set_defaults(timeout=40.0)
    options = parser.parse_args()
    runtime = suite.resolve(options.runtime)
    source = Path(options.source or os.environ.get("GOCKER_CRUN_TESTS") or suite.CACHE / "crun").absolute()
    init = source / "tests/init"
    if not init.exists():
        sys.exit(f"{source}: no tree of containers/crun with built tests: see tests/suites/README.md")
    suite.enter(runtime)
    env = {
        "OCI_RUNTIME": runtime,
        "INIT": str(init),
        "LANG": "C",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(Path(__file__).parent / "standin"),
    }
    tests: dict[str, tuple[Path, str]] = {}
    for file in sorted(source.glob("tests/test_*.py")):
        if file.stem not in OTHERS:
            for test in tests_of(file, options.python, {**os.environ, **env}):
                tests[f"{file.stem.removeprefix('test_')}.{test}"] = (file, test)
    names = suite.select(tests, options.only)

    def jobs(scratch: str) -> Sequence[suite.Job]:
        if not takes_cruns_options(runtime):
            env["OCI_RUNTIME"] = f"{scratch}/{os.path.basename(runtime)}"
            Path(env["OCI_RUNTIME"]).write_text(ADAPT.replace("{runtime}", runtime))
            os.chmod(env["OCI_RUNTIME"], 0o755)
        made = []
        for name in names:
            file, test = tests[name]
            argv = [options.python, str(file)]
            if file.stem in TERMINAL:
                argv = ["/usr/bin/script", "-qec", shlex.join(argv), "/dev/null"]
            made.append(suite.Job(name, argv, {**env, "RUN_TESTS": test}, "{place}"))
        return made

    return suite.run_suite(options, NAME, runtime, OURS, jobs, judge)


if __name__ == "__main__":
    sys.exit(main())
