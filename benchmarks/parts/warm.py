"""The same processes while a warm server is there."""

from __future__ import annotations

from bench import WARM_UP, Bench, runs, sound, starters
from peers import TRUE, Peer, image, oci, runtimes
from result import Skipped, Table
from timing import Series, take_turns


def measure(bench: Bench) -> list[Table]:
    """From spawn to wait. The CPU time of gocker has that of the workers in it."""
    place, rootfs, rounds = bench.place("warm"), bench.base(), bench.rounds(60)
    left_out: list[str] = []
    with bench.warm_server() as server:
        ours = [
            Peer("gocker warm", image(bench.program, "base"), "all"),
            Peer("gocker-oci warm", oci(str(bench.oci), place, rootfs), "no overlay, /etc files"),
        ]
        for peer in ours:
            why = bench.said_when_warm(peer.command("try", TRUE))
            if why:
                raise Skipped(f"{peer.name}: {why}")
        peers = sound([*ours, *runtimes(place, rootfs)], left_out)
        series = {peer.name: Series(peer.name) for peer in peers}
        before = server.cpu()
        with starters() as starter:
            take_turns(
                rounds + WARM_UP, [runs(peer, starter(peer), series[peer.name], TRUE) for peer in peers]
            )
        each = (server.cpu() - before) / (rounds + WARM_UP) / len(ours)
        for peer in ours:
            series[peer.name].cpu = [cpu + each for cpu in series[peer.name].cpu]
    return [
        Table(
            "warm",
            f"a process that runs /bin/true of the image base, with a warm server, {rounds} rounds",
            [*series.values()],
            "crun",
            {peer.name: peer.lacks for peer in peers},
            left_out=left_out,
        )
    ]
