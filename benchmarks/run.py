"""Measures gocker's start beside its peers: python benchmarks/run.py [--quick] [--json FILE] (as root).

Makes an environment of its own in .venv-bench unless --gocker names a program. README.md says what is
measured and why so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TREE = HERE.parent
INSIDE = "GOCKER_BENCH_INSIDE"  # names the program, in the process that measures
COLD_BAR, INPROCESS_BAR = 2.5, 4.0

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
    """Parse, prepare, and measure in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the rounds")
    parser.add_argument("--json", metavar="FILE", help="write all results there")
    parser.add_argument(
        "--gocker", metavar="PROGRAM", type=Path, help="an installed one, in place of this tree's"
    )
    options = parser.parse_args()
    if os.geteuid():
        parser.error("needs root")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if INSIDE in os.environ:
        measure(Path(os.environ[INSIDE]), quick=options.quick, file=options.json)
        return
    program = options.gocker
    if program is None:
        subprocess.run(["bash", "-c", _ENVIRONMENT, "bench", str(TREE)], check=True)
        program = TREE / ".venv-bench/bin/gocker"
    os.environ[INSIDE] = str(program.absolute())
    interpreter = program.read_text().partition("\n")[0].removeprefix("#!")
    os.execv(interpreter, [interpreter, str(HERE / "run.py"), *sys.argv[1:]])


def measure(program: Path, *, quick: bool, file: str | None) -> None:
    """All of it; ends with status 1 when a bar is missed."""
    busy = busy_share()
    if busy > 0.1:
        print(f"others take {busy:.0%} of this machine: the ratios will be off", file=sys.stderr)
    work = Path(tempfile.mkdtemp(prefix="gocker-bench-", dir="/var/tmp"))
    try:
        os.environ.update(
            GOCKER_ROOT=f"{work}/data",
            GOCKER_STATE=f"{work}/state",
            GOCKER_AUDIT_LOG=f"{work}/audit/audit.jsonl",
        )
        results: dict[str, Any] = {
            "host": {
                "kernel": platform.release(),
                "machine": platform.machine(),
                "cpus": os.cpu_count(),
                "busy": busy,
            },
            "versions": {"python": platform.python_version(), **peer_versions()},
            "cold": measure_cold(work, program, 10 if quick else 40),
            "inprocess": measure_inprocess(work, 6 if quick else 24),
        }
    finally:
        shutil.rmtree(work)
    if file:
        Path(file).write_text(json.dumps(results, indent=2) + "\n")
    bars = [results[part]["bar"] for part in ("cold", "inprocess")]
    for bar in bars:
        verdict = "met" if bar["ratio"] <= bar["at_most"] else "MISSED"
        print(f"{bar['of']} against {bar['to']}: {bar['ratio']:.2f}, at most {bar['at_most']}: {verdict}")
    sys.exit(any(bar["ratio"] > bar["at_most"] for bar in bars))


def busy_share() -> float:
    """How much of the CPUs' time others take right now, 0 to 1; /proc/stat, proc_stat(5)."""

    def look() -> tuple[int, int]:
        times = [int(word) for word in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
        return sum(times), times[3] + times[4]  # all; idle and waiting for disks

    before = look()
    time.sleep(2)
    all_of_it, idle = (new - old for old, new in zip(before, look(), strict=True))
    return 1 - idle / all_of_it


def peer_versions() -> dict[str, str]:
    """The first line of what each says."""
    found = {}
    for name in ("runc", "crun", "bwrap"):
        if shutil.which(name):
            done = subprocess.run([name, "--version"], stdout=subprocess.PIPE, text=True, check=True)
            found[name] = done.stdout.partition("\n")[0]
    return found


def measure_cold(work: Path, program: Path, rounds: int) -> dict[str, Any]:
    """A process each: `gocker run` beside the other runtimes."""
    from peers import Peer, find_peers, make_rootfs
    from timing import Series, Spawner, SpawnServer, table, take_turns

    spawner = Spawner()
    rootfs = make_rootfs(work / "rootfs")
    peers = []
    for peer in find_peers(work, rootfs, program):
        wrong = peer.probe()
        if wrong:
            print(f"left out: {wrong}", file=sys.stderr)
        else:
            peers.append(peer)
    series = {peer.name: Series(peer.name) for peer in peers}
    warm_up = 3  # caches of gocker (plug-in index, seccomp filter) and of the kernel

    def contender(peer: Peer) -> Callable[[int], None]:
        starter = SpawnServer(peer.under) if peer.under else spawner

        def run(number: int) -> None:
            wall, cpu = starter.run(peer.command(f"{number}", ("/bin/true",)))
            if number >= warm_up:
                series[peer.name].wall.append(wall)
                series[peer.name].cpu.append(cpu)

        return run

    take_turns(rounds + warm_up, [contender(peer) for peer in peers])
    base = series.get("runc plain")
    rows = [one.row(base) for one in series.values()]
    notes = {peer.name: peer.lacks for peer in peers}
    print(
        table(f"cold: a process that runs /bin/true, {rounds} rounds", rows, "runc plain", notes), end="\n\n"
    )
    ratio = series["gocker"].row(base)["ratio"]
    if ratio is None:
        raise SystemExit("runc is missing: apt-get install runc")
    return {
        "rows": rows,
        "bar": {"of": "gocker run", "to": "runc run without seccomp", "ratio": ratio, "at_most": COLD_BAR},
    }


def measure_inprocess(work: Path, rounds: int) -> dict[str, Any]:
    """Starts one after the other from one process: the launcher beside start.c."""
    from timing import Series, table, take_turns

    each = 10  # starts a turn
    yardstick, filters, layers = work / "start", work / "filter", work / "layers"
    layers.mkdir()
    subprocess.run(["gcc", "-O2", "-o", yardstick, HERE / "start.c"], check=True)
    driver = [sys.executable, str(HERE / "inprocess.py")]
    subprocess.run([*driver, "filter", str(filters)], check=True)
    rootfs = work / "rootfs"
    series = {name: Series(name) for name in ("C", "launcher", "engine")}
    servers = {
        name: subprocess.Popen(
            [*driver, name, str(rootfs)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        for name in ("launcher", "engine")
    }

    def in_c(_: int) -> None:
        argv = [str(path) for path in (yardstick, rootfs, layers, filters, each)]
        done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
        series["C"].wall += [int(line) / 1e6 for line in done.stdout.split()]

    def in_python(name: str) -> Callable[[int], None]:
        stdin, stdout = servers[name].stdin, servers[name].stdout
        assert stdin
        assert stdout

        def run(_: int) -> None:
            stdin.write(f"{each}\n")
            for line in iter(stdout.readline, ".\n"):
                if not line:
                    raise SystemExit(f"{name}: ended early")
                series[name].wall.append(int(line) / 1e6)

        return run

    try:
        take_turns(rounds, [in_c, in_python("launcher"), in_python("engine")])
    finally:
        for server in servers.values():
            assert server.stdin
            server.stdin.close()
            server.wait()
    rows = [one.row(series["C"]) for one in series.values()]
    notes = {
        "C": "start.c: the launcher's system calls, unchecked",
        "launcher": "plan, start, wait, remove, undo",
        "engine": "the same, with plan on disk, pipes, audit log and receipt",
    }
    print(table(f"in process: from nothing to nothing, {rounds * each} starts", rows, "C", notes), end="\n\n")
    ratio = series["launcher"].row(series["C"])["ratio"]
    return {
        "rows": rows,
        "bar": {"of": "launcher", "to": "start.c", "ratio": ratio, "at_most": INPROCESS_BAR},
    }


if __name__ == "__main__":
    main()
