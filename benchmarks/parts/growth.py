"""A start where a thousand containers are, against one where none is."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from bench import WARM_UP, Bench
from bundle import write_bundle
from crowd import leave_stopped, multiply, take_away
from drivers import Driver
from peers import COLD, TRUE, WARM, gocker
from result import Skipped, Table
from timing import Series, Spawner, Turn, take_turns

COUNT = 1000
_EACH = 5  # starts a turn, in process


def measure(bench: Bench) -> list[Table]:
    """Both at once, each in a state directory of its own: what disturbs the machine meets both alike."""
    place, rounds = bench.place("growth"), bench.rounds(32)
    model_root = place / "model"
    model = leave_stopped(str(bench.oci), (), model_root, bench.rootfs)
    states = {"none": str(place / "none"), f"{COUNT}": str(place / "many")}
    multiply(model, place / "many/containers", COUNT)
    multiply(model, place / "none/containers", 0)
    tables = []
    spawner = Spawner()
    with ExitStack() as stack:
        stack.callback(spawner.close)
        stack.callback(take_away, str(bench.oci), (), model_root)
        cold = gocker(bench.program, bench.rootfs)

        def run(state: str, series: Series, env: dict[str, str]) -> Turn:
            def turn(number: int) -> None:
                taken = spawner.run(cold("", TRUE), {**env, "GOCKER_STATE": state})
                if number >= WARM_UP:
                    series.add(*taken)

            return turn

        tables.append(_table("cold", "gocker run", states))
        turns = [run(states[one.name], one, {**COLD}) for one in tables[-1].series]
        tables.append(_table("inprocess", "gocker.run in process", states))
        for one in tables[-1].series:
            driver = Driver("run", str(bench.rootfs), {"GOCKER_STATE": states[one.name]})
            stack.callback(driver.close)
            turns.append(_in_process(driver, one))
        warm = [_table("warm", "gocker run, warm", states), _table("oci", "gocker-oci run, warm", states)]
        try:
            for state in states.values():
                stack.enter_context(bench.warm_server(state))
        except Skipped as why:
            for table in warm:
                table.left_out.append(f"warm: {why}")
        else:
            turns += [run(states[one.name], one, {**WARM}) for one in warm[0].series]
            turns += [_oci(bench, spawner, place, states[one.name], one) for one in warm[1].series]
        take_turns(rounds + WARM_UP, turns)
    return [*tables, *warm]


def _table(work: str, title: str, states: dict[str, str]) -> Table:
    said = f"{title} of /bin/true, by how many containers are there"
    notes = {f"{COUNT}": "stopped, state alone: no cgroups or mounts of theirs"}
    return Table(f"growth.{work}", said, [Series(name) for name in states], "none", notes)


def _in_process(driver: Driver, series: Series) -> Turn:
    def turn(number: int) -> None:
        for taken in driver.starts(_EACH):
            if number >= WARM_UP:
                series.add(*taken)

    return turn


def _oci(bench: Bench, spawner: Spawner, place: Path, state: str, series: Series) -> Turn:
    bundle = write_bundle(place / f"bundle-{series.name}", bench.rootfs, TRUE, seccomp=True)

    def turn(number: int) -> None:
        argv = [
            str(bench.oci),
            "--root",
            state,
            "run",
            "-b",
            str(bundle),
            f"bench-{os.getpid()}-{series.name}-{number}",
        ]
        taken = spawner.run(argv, {"GOCKER_STATE": state})
        if number >= WARM_UP:
            series.add(*taken)

    return turn
