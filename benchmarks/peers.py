"""The runtimes that are compared, and what each needs to run a program in the same isolation."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bundle import MEMORY, write_bundle

PROBE = (
    "/bin/sh",
    "-c",
    "echo $$; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; :",
)
PROBED = f"1\n{MEMORY}\n"  # it is pid 1, and its limit binds
TRUE = ("/bin/true",)
LACKS = "no overlay, /etc files, audit, read-back, receipt"
LACKS_BWRAP = "namespaces, /proc and /dev alone: no limit, cgroup of its own, hostname, seccomp and so on"
WARM: Mapping[str, str] = {}
COLD: Mapping[str, str] = {"GOCKER_WARM": "off"}  # the client then execs the Python command at once
Command = Callable[[str, tuple[str, ...]], list[str]]  # (a fresh id, the program) to argv


@dataclass(frozen=True)
class Peer:
    """One way to run a program, from no container to no container."""

    name: str
    command: Command
    lacks: str = ""  # what it does not do of what the others do
    probed: str = PROBED  # what PROBE prints in it
    under: tuple[str, ...] = ()  # a command that runs what follows in an environment that it needs
    env: Mapping[str, str] = field(default_factory=dict)

    def probe(self, environment: Mapping[str, str]) -> str:
        """What is wrong with it on this host; "" when it runs what it should."""
        argv = [*self.under, *self.command("probe", PROBE)]
        env = {**environment, **self.env}
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env, timeout=30)
        except subprocess.TimeoutExpired:
            return f"{self.name}: {' '.join(argv)}: takes more than 30 s"
        if done.returncode or done.stdout != self.probed:
            said = f"exit status {done.returncode}, {done.stdout!r}, {done.stderr.strip()!r}"
            return f"{self.name}: {' '.join(argv)}: {said}"
        return ""


def gocker(program: Path, rootfs: Path) -> Command:
    """`gocker run` with a limit."""
    head = [str(program), "run", "--limit", f"memory={MEMORY}", "--rootfs", str(rootfs)]
    return lambda _, argv: [*head, *argv]


def image(program: Path, name: str) -> Command:
    """`gocker run` of an image, with a limit."""
    head = [str(program), "run", "--limit", f"memory={MEMORY}", name]
    return lambda _, argv: [*head, *argv]


def oci(program: str, base: Path, rootfs: Path, *, seccomp: bool = True) -> Command:
    """`run` of an OCI runtime; a bundle for each program, since its config.json names it."""
    made: dict[tuple[str, ...], Path] = {}
    base = base / f"{Path(program).name}{'' if seccomp else '-plain'}"

    def command(identity: str, argv: tuple[str, ...]) -> list[str]:
        if argv not in made:
            made[argv] = write_bundle(base / f"bundle-{len(made)}", rootfs, argv, seccomp=seccomp)
        named = f"{base.name}-{os.getpid()}-{identity}"
        return [program, "--root", f"{base}/state", "run", "-b", str(made[argv]), named]

    return command


def runtimes(work: Path, rootfs: Path) -> list[Peer]:
    """Those that are on PATH; their bundles go below `work`."""
    peers = []
    for name in ("runc", "crun"):
        if shutil.which(name):
            same = oci(name, work, rootfs)
            less = oci(name, work, rootfs, seccomp=False)
            peers += [
                Peer(name, same, LACKS, under=under(name)),
                Peer(f"{name} plain", less, f"no seccomp; {LACKS}", under=under(name)),
            ]
    if shutil.which("bwrap"):
        peers.append(Peer("bwrap", _bwrap(rootfs), LACKS_BWRAP, "1\n"))
    return peers


def _bwrap(rootfs: Path) -> Command:
    head = ["bwrap", "--unshare-all", "--as-pid-1", "--bind", str(rootfs), "/", "--proc", "/proc"]
    return lambda _, argv: [*head, "--dev", "/dev", "--", *argv]


def under(runtime: str) -> tuple[str, ...]:
    """Crun refuses a hybrid host where cgroup2 has a controller: let it see none, in a mount namespace of its own."""
    controllers = Path("/sys/fs/cgroup/unified/cgroup.controllers")
    if Path(runtime).name != "crun" or not controllers.exists():
        return ()
    hide = f'mount --bind /dev/null {controllers} && exec "$@"'
    return ("unshare", "-m", "--propagation", "slave", "sh", "-c", hide, "sh")


def version(name: str) -> str:
    """The first line of what it says; "" when it is not there."""
    if not shutil.which(name):
        return ""
    done = subprocess.run([name, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]
