"""Measures gocker beside its peers, as root.

Makes an environment of its own in .venv-bench unless --gocker names a program. README.md says what is
measured and why so. The exit status is 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TREE = HERE.parent
INSIDE = "GOCKER_BENCH_INSIDE"  # names the program, in the process that measures
NAMES = ("cold", "warm", "inprocess", "verbs", "together", "podman", "docker", "growth", "list", "audit")
_PATIENCE = 300  # seconds for a part

_ENVIRONMENT = """
set -euo pipefail
export GOCKER_VENV=$1/.venv-bench
source "$1/.ci/lib.sh"
find_python
need busybox-static bubblewrap crun gcc libc6-dev libseccomp2 runc
install_gocker ''
rm -f "$venv"/lib/python3*/site-packages/*.pth  # setuptools' runs at each start of this Python
"""


def main() -> None:
    """Parse, prepare, and measure in a process of its own, by the Python of the gocker that is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a quarter of the rounds")
    parser.add_argument(
        "--only", metavar="PART", action="append", choices=NAMES, help=f"of {', '.join(NAMES)}; repeatable"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all results there")
    parser.add_argument("--svg", metavar="FILE", type=Path, help="draw them there")
    parser.add_argument("--gocker", metavar="PROGRAM", type=Path, help="an installed one, not this tree's")
    options = parser.parse_args()
    if os.geteuid():
        parser.error("needs root")
    for name in ("PYTHONDONTWRITEBYTECODE", "GOCKER_EXECUTOR", "GOCKER_WARM"):
        os.environ.pop(name, None)
    if INSIDE in os.environ:
        program = Path(os.environ.pop(INSIDE))
        sys.exit(measure(program, options.only or NAMES, options))
    program = options.gocker
    if program is None:
        subprocess.run(["bash", "-c", _ENVIRONMENT, "bench", str(TREE)], check=True)
        program = TREE / ".venv-bench/bin/gocker"
    os.environ[INSIDE] = str(program.absolute())
    python = interpreter(program)
    os.execv(python, [python, str(HERE / "run.py"), *sys.argv[1:]])


def interpreter(program: Path) -> str:
    """Of the Python command, which stands beside a compiled one."""
    script = program.with_name(f"{program.name}-python")
    return (script if script.exists() else program).read_text().partition("\n")[0].removeprefix("#!")


def measure(program: Path, names: tuple[str, ...] | list[str], options: argparse.Namespace) -> int:
    """Print a table as soon as it is there, write the files; the exit status."""
    from bars import BARS
    from bench import Bench
    from host import describe, versions
    from parts import PARTS
    from plot import plot
    from report import bars_text, table_text
    from result import Skipped

    def late(*_: object) -> None:
        raise Skipped(f"it takes more than {_PATIENCE} s")

    signal.signal(signal.SIGALRM, late)
    host = describe()
    if host["busy"] > 0.1:
        print(f"others take {host['busy']:.0%} of this machine: the ratios will be off", file=sys.stderr)
    tables: dict[str, Any] = {}
    skipped: dict[str, str] = {name: "not asked for" for name in PARTS if name not in names}
    work = Path(tempfile.mkdtemp(prefix="gocker-bench-", dir="/var/tmp"))
    os.environ.update(
        GOCKER_ROOT=f"{work}/data",
        GOCKER_STATE=f"{work}/state",
        GOCKER_AUDIT_LOG=f"{work}/audit/audit.jsonl",
    )
    try:
        bench = Bench(work, program, quick=options.quick)
        for name in (name for name in PARTS if name in names):
            signal.alarm(_PATIENCE)
            try:
                for table in PARTS[name](bench):
                    tables[table.key] = table.to_json()
                    print(table_text(table.key, tables[table.key]), end="\n\n", flush=True)
            except Skipped as why:
                skipped[name] = str(why)
                print(f"{name}: skipped: {why}", end="\n\n", flush=True)
    finally:
        signal.alarm(0)
        shutil.rmtree(work, ignore_errors=True)
    bars = [bar.judge(tables, skipped) for bar in BARS]
    print(bars_text(bars))
    said = versions()
    if options.json:
        results = {"host": host, "versions": said, "tables": tables, "skipped": skipped, "bars": bars}
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    if options.svg:
        caption = f"Linux {host['kernel']}, {host['cpus']} × {host['cpu']}; " + ", ".join(said.values())
        options.svg.write_text(plot(tables, caption))
    return int(any(bar["met"] is False for bar in bars))


if __name__ == "__main__":
    main()
