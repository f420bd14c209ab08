"""`list` of a thousand containers."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import WARM_UP, Bench
from crowd import leave_stopped, multiply, take_away
from peers import COLD, WARM, under
from result import Skipped, Table
from timing import Series, Spawner, Turn, take_turns

from parts.growth import COUNT


def measure(bench: Bench) -> list[Table]:
    """Copies of the state of a stopped container, for each runtime in its own form."""
    place, rounds = bench.place("list"), bench.rounds(12)
    table = Table("list", f"list of {COUNT} stopped containers, {rounds} rounds", [], "crun")
    programs = {"gocker-oci": str(bench.oci)}
    programs.update((name, name) for name in ("crun", "runc") if shutil.which(name))
    with ExitStack() as stack:
        spawner = Spawner()
        stack.callback(spawner.close)
        roots: dict[str, Path] = {}
        for name, program in programs.items():
            root = roots[name] = place / name
            model = leave_stopped(program, under(program), root, bench.rootfs)
            stack.callback(take_away, program, under(program), root)
            multiply(model, model.parent, COUNT)
        rows: list[tuple[str, str, Mapping[str, str]]] = [
            (name, name, COLD if name == "gocker-oci" else {}) for name in programs
        ]
        try:
            stack.enter_context(bench.warm_server())
            rows.insert(0, ("gocker-oci warm", "gocker-oci", WARM))
        except Skipped as why:
            table.left_out.append(f"gocker-oci warm: {why}")
        turns = []
        for row, name, env in rows:
            table.series.append(Series(row))
            argv = [programs[name], "--root", str(roots[name]), "list"]
            turns.append(_listing(spawner, argv, env, table.series[-1]))
        take_turns(rounds + WARM_UP, turns)
    return [table]


def _listing(spawner: Spawner, argv: Sequence[str], env: Mapping[str, str], series: Series) -> Turn:
    def turn(number: int) -> None:
        taken = spawner.run(argv, env)
        if number >= WARM_UP:
            series.add(*taken)

    return turn
