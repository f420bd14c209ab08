"""Eight at a time: containers per second."""

from __future__ import annotations

from bench import WARM_UP, Bench, sound, starters
from driver import BATCH, WIDTH
from drivers import Driver
from peers import TRUE, Peer, image, oci, runtimes
from result import Skipped, Table
from timing import Series, Starter, Turn, take_turns

_NOTES = {
    "gocker.run": f"{WIDTH} threads of one process",
    "engine, processes": f"{WIDTH} processes, each one after the other",
}


def measure(bench: Bench) -> list[Table]:
    """Turns of BATCH containers each."""
    place, rootfs, rounds = bench.place("together"), bench.rootfs, bench.rounds(16)
    table = Table(
        "together",
        f"{WIDTH} at a time, {rounds} turns of {BATCH} containers",
        [],
        "crun",
        unit="containers/s",
    )
    peers = [peer for peer in runtimes(place, rootfs) if peer.name in {"crun", "runc", "bwrap"}]
    drivers: dict[str, Driver] = {}
    turns: list[Turn] = []
    try:
        for name, mode in (("gocker.run", "threads"), ("engine, processes", "processes")):
            try:
                drivers[name] = Driver(mode, str(rootfs))
            except Skipped as why:
                table.left_out.append(f"{name}: {why}")
        for name, driver in drivers.items():
            table.series.append(Series(name))
            turns.append(_in_process(driver, table.series[-1]))
        try:
            with bench.warm_server():
                ours = [
                    Peer("gocker warm", image(bench.program, "base"), "of the image base"),
                    Peer("gocker-oci warm", oci(str(bench.oci), place, rootfs), "no overlay, /etc files"),
                ]
                _measure(rounds, [*ours, *peers], turns, table)
        except Skipped as why:
            table.left_out.append(f"gocker warm, gocker-oci warm: {why}")
            _measure(rounds, peers, turns, table)
    finally:
        for driver in drivers.values():
            driver.close()
    return [table]


def _measure(rounds: int, peers: list[Peer], turns: list[Turn], table: Table) -> None:
    peers = sound(peers, table.left_out)
    series = {peer.name: Series(peer.name) for peer in peers}
    with starters() as starter:
        mine = [_by_commands(peer, starter(peer), series[peer.name]) for peer in peers]
        take_turns(rounds + WARM_UP, [*turns, *mine])
    table.series += series.values()
    table.notes = {**_NOTES, **{peer.name: peer.lacks for peer in peers}}


def _in_process(driver: Driver, series: Series) -> Turn:
    def turn(number: int) -> None:
        ((wall, cpu),) = driver.starts(1)
        if number >= WARM_UP:
            series.add(BATCH / wall * 1e3, cpu / BATCH)

    return turn


def _by_commands(peer: Peer, starter: Starter, series: Series) -> Turn:
    def turn(number: int) -> None:
        argvs = [peer.command(f"{number}-{i}", TRUE) for i in range(BATCH)]
        wall, cpu = starter.together(argvs, WIDTH, peer.env)
        if number >= WARM_UP:
            series.add(BATCH / wall * 1e3, cpu / BATCH)

    return turn
