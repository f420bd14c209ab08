"""`podman run` with each runtime, each in a place of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import WARM_UP, Bench, WarmServer
from bundle import MEMORY
from peers import under
from result import Skipped, Table
from timing import Series, SpawnServer, Turn, take_turns

_IMAGE = "localhost/gocker-bench:1"
_CGROUPS = Path("/sys/fs/cgroup")
_CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
netns = "none"

[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "measured"

[engine.runtimes]
measured = ["{runtime}"]
"""
_STORAGE = """
[storage]
driver = "overlay"
graphroot = "{place}/root"
runroot = "{place}/runroot"
"""
# Podman passes few variables on to the runtime: gocker's own directories are the default ones there.
_PLACE = (
    'for each in /run /var/lib /var/log; do mount -t tmpfs -o mode=755 gocker-bench "$each"; done\n'
    "unset GOCKER_ROOT GOCKER_STATE GOCKER_AUDIT_LOG\n"
)


class _Place:
    """Mount namespace with a /run, /var/lib and /var/log that end with it, an image, and perhaps a warm server."""

    def __init__(self, bench: Bench, directory: Path, runtime: str, rootfs: Path, *, warm: bool) -> None:
        directory.mkdir()
        (directory / "containers.conf").write_text(_CONF.format(runtime=runtime))
        (directory / "storage.conf").write_text(_STORAGE.format(place=directory))
        env = {
            "CONTAINERS_CONF": f"{directory}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{directory}/storage.conf",
        }
        self._gocker, said = str(bench.program), directory / "said"
        script = _PLACE
        if warm:
            script += f"{shlex.join([self._gocker, 'warm', 'start'])} > {said}\n"
        inner = ("unshare", "-m", "--propagation", "slave", "sh", "-ec", f'{script}exec "$@"', "sh")
        self.starter = SpawnServer((*under(runtime), *inner), env)
        tar = ["sh", "-c", f"tar -C {rootfs} -c . | podman import -q - {_IMAGE}"]
        self.starter.run(tar, {})
        self.server = WarmServer(int(said.read_text().rpartition(" ")[2])) if warm else None

    def turn(self, series: Series) -> Turn:
        options = ("--rm", "--network", "none", "-m", str(MEMORY), "--memory-swap", str(MEMORY))

        def turn(number: int) -> None:
            wall, cpu = self.starter.run(("podman", "run", *options, _IMAGE, "/bin/true"), {})
            if number >= WARM_UP:
                series.add(wall, cpu)

        return turn

    def close(self) -> None:
        if self.server:
            self.starter.run((self._gocker, "warm", "stop"), {})
        self.starter.close()


def measure(bench: Bench) -> list[Table]:
    """From spawn of podman to its end. Its CPU time is without conmon and what that starts."""
    for program in ("podman", "conmon"):
        if not shutil.which(program):
            raise Skipped(f"{program} is missing: apt-get install podman")
    place, rounds = bench.place("podman"), bench.rounds(24)
    table = Table("podman", f"podman run --rm IMAGE /bin/true, {rounds} rounds", [], "crun")
    wanted = [("gocker-oci", str(bench.oci), False)]
    if bench.compiled:
        wanted.insert(0, ("gocker-oci warm", str(bench.oci), True))
    else:
        table.left_out.append(f"gocker-oci warm: {bench.program} is not compiled")
    wanted += [(name, found, False) for name in ("crun", "runc") if (found := shutil.which(name))]
    with ExitStack() as stack:
        stack.enter_context(_left_alone())
        turns, warm = [], None
        for name, runtime, is_warm in wanted:
            one = _Place(bench, place / name.replace(" ", "-"), runtime, bench.rootfs, warm=is_warm)
            stack.callback(one.close)
            warm = one.server or warm
            table.series.append(Series(name))
            turns.append(one.turn(table.series[-1]))
        before = warm.cpu() if warm else 0
        take_turns(rounds + WARM_UP, turns)
        if warm and warm.cpu() - before < rounds:  # each takes some milliseconds
            table.series = [one for one in table.series if one.name != "gocker-oci warm"]
            table.left_out.append("gocker-oci warm: podman's runtime does not use the server")
    return [table]


@contextmanager
def _left_alone() -> Iterator[None]:
    """Takes away the cgroups that podman makes at the top of each hierarchy and leaves there."""
    before = _tops()
    try:
        yield
    finally:
        for path in sorted(_tops() - before):
            for directory, _, _ in os.walk(path, topdown=False):
                subprocess.run(["rmdir", "--ignore-fail-on-non-empty", directory], check=False)


def _tops() -> set[Path]:
    return {path for where in ("*", "*/*") for path in _CGROUPS.glob(where) if path.is_dir()}
