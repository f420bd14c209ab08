"""Where one run of the suite works: its directory, the gocker that it measures, the warm server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from peers import Peer
from result import Skipped
from timing import Series, Spawner, SpawnServer, Starter, Turn

HERE = Path(__file__).parent
PATIENCE = 30  # seconds for one command
WARM_UP = 3  # rounds that do not count: caches of gocker (plug-in index, seccomp filter) and of the kernel


class Bench:
    """The environment has GOCKER_ROOT, GOCKER_STATE and GOCKER_AUDIT_LOG below `work` already."""

    def __init__(self, work: Path, program: Path, *, quick: bool) -> None:
        self.work = work
        self.program = program
        self.oci = program.with_name("gocker-oci")
        self.quick = quick
        self._rootfs: Path | None = None

    def rounds(self, count: int) -> int:
        """How many of `count` this run makes."""
        return max(3, count // 4) if self.quick else count

    def place(self, name: str) -> Path:
        """A new directory."""
        path = self.work / name
        path.mkdir()
        return path

    @property
    def rootfs(self) -> Path:
        """Busybox and nothing else."""
        if self._rootfs is None:
            busybox = shutil.which("busybox")
            if not busybox:
                raise SystemExit("busybox is missing: apt-get install busybox-static")
            self._rootfs = self.work / "rootfs"
            for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
                (self._rootfs / name).mkdir(parents=True)
            shutil.copy(busybox, self._rootfs / "bin/busybox")
            for name in ("sh", "true", "cat", "sleep"):
                (self._rootfs / "bin" / name).symlink_to("busybox")
        return self._rootfs

    def base(self) -> Path:
        """A copy of what is in the image `base`, for those who know no images."""
        copy = self.work / "base"
        if not copy.exists():
            subprocess.run([self.program, "run", "base", "/bin/true"], check=True)
            (found,) = (Path(os.environ["GOCKER_ROOT"]) / "images/rootfs").iterdir()
            shutil.copytree(found, copy, symlinks=True)
        return copy

    @property
    def compiled(self) -> bool:
        """Whether the command is the compiled client of a warm server."""
        return self.program.read_bytes()[:4] == b"\x7fELF"

    @contextmanager
    def warm_server(self, state: str = "") -> Iterator[WarmServer]:
        """One that runs meanwhile, in `state` if given. Raise Skipped."""
        if not self.compiled:
            raise Skipped(f"no warm server: {self.program} is not compiled")
        env = {**os.environ, **({"GOCKER_STATE": state} if state else {})}
        done = subprocess.run(
            [self.program, "warm", "start"], capture_output=True, text=True, check=False, env=env
        )
        if done.returncode:
            raise Skipped(f"no warm server: {done.stderr.strip()}")
        try:
            self._prove_warm(env)
            yield WarmServer(int(done.stdout.rpartition(" ")[2]))
        finally:
            subprocess.run([self.program, "warm", "stop"], check=True, capture_output=True, env=env)

    def _prove_warm(self, env: Mapping[str, str]) -> None:
        """A command that no server does is an interpreter more. Raise Skipped."""
        spawner = Spawner()
        argvs = [str(self.oci), "list"], [sys.executable, "-c", "pass"]
        ours, bare = (min(spawner.run(argv, env)[1] for _ in range(5)) for argv in argvs)
        spawner.close()
        if ours > bare / 2:
            raise Skipped(f"gocker-oci list takes {ours:.1f} ms of CPU: the warm server does not do it")

    def said_when_warm(self, command: list[str]) -> str:
        """Why a warm server does not do `command`; "" when it does."""
        env = {**os.environ, "GOCKER_WARM": "explain"}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=env, timeout=PATIENCE
            )
        except subprocess.TimeoutExpired:
            return f"it takes more than {PATIENCE} s"
        return done.stderr.strip()


class WarmServer:
    """The CPU time of a server and of the workers that it has waited for."""

    def __init__(self, pid: int) -> None:
        self._stat = Path(f"/proc/{pid}/stat")

    def cpu(self) -> float:
        """Milliseconds until now; proc_pid_stat(5), so in steps of 10."""
        fields = self._stat.read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) * 1000 / os.sysconf("SC_CLK_TCK")


@contextmanager
def starters() -> Iterator[Callable[[Peer], Starter]]:
    """What starts a peer: this process, or one in the environment that the peer needs. All end afterwards."""
    made: dict[tuple[str, ...], Starter] = {}

    def of(peer: Peer) -> Starter:
        if peer.under not in made:
            made[peer.under] = SpawnServer(peer.under) if peer.under else Spawner()
        return made[peer.under]

    try:
        yield of
    finally:
        for starter in made.values():
            starter.close()


def sound(peers: list[Peer], left_out: list[str]) -> list[Peer]:
    """Those that do what they should; why the others do not is added to `left_out`."""
    found = []
    for peer in peers:
        wrong = peer.probe(os.environ)
        if wrong:
            left_out.append(wrong)
        else:
            found.append(peer)
    return found


def runs(peer: Peer, starter: Starter, series: Series, program: tuple[str, ...]) -> Turn:
    """A turn that times one run of it, from spawn to wait."""

    def turn(number: int) -> None:
        wall, cpu = starter.run(peer.command(f"{number}", program), peer.env)
        if number >= WARM_UP:
            series.add(wall, cpu)

    return turn
