"""Starts one after the other from one process, from no directory to no directory."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from bench import HERE, Bench
from bundle import write_bundle
from drivers import DRIVER, Driver
from peers import TRUE, under, version
from result import Skipped, Table
from timing import Series, Turn, take_turns

_EACH = 10  # starts a turn
_NATIVE, _PYTHON = {"GOCKER_EXECUTOR": "native"}, {"GOCKER_EXECUTOR": "python"}
_NOTES = {
    "C": "start.c: the launcher's system calls, unchecked",
    "launcher native": "plan, start, wait, remove, undo",
    "launcher python": "the same, by the Python executor",
    "engine native": "with plan on disk, pipes, audit log and receipt",
    "engine python": "the same, by the Python executor",
    "gocker.run": "what a program calls, all in all",
    "subprocess crun": "subprocess.run of `crun run`: no overlay, /etc files, audit, read-back, receipt",
}


def measure(bench: Bench) -> list[Table]:
    """Beside start.c and subprocess.run of crun."""
    place, rootfs, rounds = bench.place("inprocess"), bench.rootfs, bench.rounds(24)
    table = Table("inprocess", f"in process, {rounds * _EACH} starts", [], "C", _NOTES)
    bundle = write_bundle(place / "bundle", rootfs, TRUE, seccomp=True)
    wanted: list[tuple[str, str, Path, Mapping[str, str], tuple[str, ...]]] = [
        ("launcher native", "launcher", rootfs, _NATIVE, ()),
        ("launcher python", "launcher", rootfs, _PYTHON, ()),
        ("engine native", "engine", rootfs, _NATIVE, ()),
        ("engine python", "engine", rootfs, _PYTHON, ()),
        ("gocker.run", "run", rootfs, {}, ()),
    ]
    if version("crun"):
        wanted.append(("subprocess crun", "crun", bundle, {}, under("crun")))
    drivers: dict[str, Driver] = {}
    series = {"C": Series("C")}
    try:
        for name, mode, target, env, below in wanted:
            try:
                drivers[name] = Driver(mode, str(target), env, below)
                series[name] = Series(name)
            except Skipped as why:
                table.left_out.append(f"{name}: {why}")
        turns = [_in_c(place, rootfs, series["C"])]
        turns += [_in_python(driver, series[name]) for name, driver in drivers.items()]
        take_turns(rounds, turns)
    finally:
        for driver in drivers.values():
            driver.close()
    table.series = [*series.values()]
    return [table]


def _in_c(place: Path, rootfs: Path, series: Series) -> Turn:
    yardstick, filters, layers = place / "start", place / "filter", place / "layers"
    layers.mkdir()
    subprocess.run(["gcc", "-O2", "-o", yardstick, HERE / "start.c"], check=True)
    subprocess.run([sys.executable, DRIVER, "filter", str(filters)], check=True)
    argv = [str(path) for path in (yardstick, rootfs, layers, filters, _EACH)]

    def turn(_: int) -> None:
        done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
        for line in done.stdout.split():
            series.add(int(line) / 1e6)

    return turn


def _in_python(driver: Driver, series: Series) -> Turn:
    def turn(_: int) -> None:
        found = driver.starts(_EACH)
        for wall, _cpu in found:
            series.add(wall)
        series.cpu.append(statistics.fmean(cpu for _wall, cpu in found))

    return turn
