"""A process each: `gocker run` beside the other runtimes."""

from __future__ import annotations

import sys

from bench import WARM_UP, Bench, runs, sound, starters
from peers import COLD, TRUE, Command, Peer, image, oci, runtimes
from result import Table
from timing import Series, take_turns


def measure(bench: Bench) -> list[Table]:
    """From spawn to wait, all of it paid each time."""
    place, rootfs, rounds = bench.place("cold"), bench.base(), bench.rounds(40)
    left_out: list[str] = []
    peers = [
        Peer("gocker", image(bench.program, "base"), "all", env=COLD),
        Peer("gocker-oci", oci(str(bench.oci), place, rootfs), "no overlay, /etc files", env=COLD),
        Peer("python", _python(), "the interpreter of that gocker, started and ended", ""),
        *runtimes(place, rootfs),
    ]
    peers = sound(peers, left_out)
    series = {peer.name: Series(peer.name) for peer in peers}
    with starters() as starter:
        take_turns(rounds + WARM_UP, [runs(peer, starter(peer), series[peer.name], TRUE) for peer in peers])
    return [
        Table(
            "cold",
            f"a process that runs /bin/true of the image base, {rounds} rounds",
            [*series.values()],
            "runc",
            {peer.name: peer.lacks for peer in peers},
            left_out=left_out,
        )
    ]


def _python() -> Command:
    return lambda _, __: [sys.executable, "-c", "pass"]
