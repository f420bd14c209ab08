"""`docker run` where its daemon runs, beside what it starts."""

from __future__ import annotations

import shutil
import subprocess

from bench import WARM_UP, Bench, runs, sound, starters
from bundle import MEMORY
from peers import COLD, TRUE, Peer, gocker, runtimes
from result import Skipped, Table
from timing import Series, take_turns

_IMAGE = "gocker-bench:1"


def measure(bench: Bench) -> list[Table]:
    """From spawn of the client to its end; the daemon's CPU time is not in it."""
    if not shutil.which("docker"):
        raise Skipped("docker is missing")
    said = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    if said.returncode:
        raise Skipped(said.stderr.strip().rpartition("\n")[2])
    place, rounds = bench.place("docker"), bench.rounds(16)
    load = f"tar -C {bench.rootfs} -c . | docker import - {_IMAGE}"
    subprocess.run(["sh", "-c", load], check=True, stdout=subprocess.DEVNULL)
    try:
        head = ["docker", "run", "--rm", "--network", "none", "-m", str(MEMORY), _IMAGE]
        left_out: list[str] = []
        peers = sound(
            [
                Peer("docker", lambda _, argv: [*head, *argv], "no read-back, audit, receipt"),
                Peer("gocker", gocker(bench.program, bench.rootfs), env=COLD),
                *runtimes(place, bench.rootfs),
            ],
            left_out,
        )
        series = {peer.name: Series(peer.name) for peer in peers}
        with starters() as starter:
            turns = [runs(peer, starter(peer), series[peer.name], TRUE) for peer in peers]
            take_turns(rounds + WARM_UP, turns)
    finally:
        subprocess.run(["docker", "rmi", "-f", _IMAGE], check=False, stdout=subprocess.DEVNULL)
    title = f"docker run --rm IMAGE /bin/true, {rounds} rounds"
    notes = {peer.name: peer.lacks for peer in peers}
    return [Table("docker", title, [*series.values()], "docker", notes, left_out=left_out)]
