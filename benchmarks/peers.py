"""The runtimes that are compared, and what each needs to run /bin/true in the same isolation."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gocker
from gocker.defaults import MASKED_PATHS, READONLY_PATHS
from gocker.kernel.caps import docker_capabilities

MEMORY = 100 << 20
NAMESPACES = ("pid", "mount", "uts", "ipc", "network", "cgroup")
PROBE = (
    "/bin/sh",
    "-c",
    "echo $$; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; :",
)
PROBED = f"1\n{MEMORY}\n"  # it is pid 1, and its limit binds
_HARDENED = ["nosuid", "noexec", "nodev"]


@dataclass(frozen=True)
class Peer:
    """One way to run a program, cold: from no process to no process."""

    name: str
    command: Callable[[str, tuple[str, ...]], list[str]]  # (a fresh id, the program) to argv
    lacks: str = ""  # what it does not do of what the others do
    probed: str = PROBED  # what PROBE prints in it
    under: tuple[str, ...] = ()  # a command that runs what follows in an environment that it needs

    def probe(self) -> str:
        """What is wrong with it on this host; "" when it runs what it should."""
        argv = [*self.under, *self.command("probe", PROBE)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode or done.stdout != self.probed:
            return (
                f"{' '.join(argv)}: exit status {done.returncode}, {done.stdout!r}, {done.stderr.strip()!r}"
            )
        return ""


def make_rootfs(directory: Path) -> Path:
    """Busybox and nothing else."""
    busybox = shutil.which("busybox")
    if not busybox:
        raise SystemExit("busybox is missing: apt-get install busybox-static")
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (directory / name).mkdir(parents=True)
    shutil.copy(busybox, directory / "bin/busybox")
    for name in ("sh", "true", "cat"):
        (directory / "bin" / name).symlink_to("busybox")
    return directory


def find_peers(work: Path, rootfs: Path, program: Path) -> list[Peer]:
    """The command itself and those on PATH; their bundles go below `work`."""
    peers = [Peer("gocker", _gocker(program, rootfs)), Peer("python", _python(program), "only starts", "")]
    lacks = "no overlay, /etc files, audit, read-back, receipt"
    for runtime in ("runc", "crun"):
        if shutil.which(runtime):
            same = _oci(runtime, work / "seccomp", rootfs, seccomp=True)
            less = _oci(runtime, work / "plain", rootfs, seccomp=False)
            under = _under(runtime)
            peers += [
                Peer(runtime, same, lacks, under=under),
                Peer(f"{runtime} plain", less, f"no seccomp; {lacks}", under=under),
            ]
    if shutil.which("bwrap"):
        lacks = "namespaces, /proc and /dev alone: no limit, cgroup of its own, hostname, seccomp and so on"
        peers.append(Peer("bwrap", _bwrap(rootfs), lacks, "1\n"))
    return peers


def _gocker(program: Path, rootfs: Path) -> Callable[[str, tuple[str, ...]], list[str]]:
    head = [str(program), "run", "--limit", f"memory={MEMORY}", "--rootfs", str(rootfs)]
    return lambda _, argv: [*head, *argv]


def _python(program: Path) -> Callable[[str, tuple[str, ...]], list[str]]:
    interpreter = program.read_text().partition("\n")[0].removeprefix("#!")
    return lambda _, __: [interpreter, "-c", "pass"]


def _bwrap(rootfs: Path) -> Callable[[str, tuple[str, ...]], list[str]]:
    head = ["bwrap", "--unshare-all", "--as-pid-1", "--bind", str(rootfs), "/", "--proc", "/proc"]
    return lambda _, argv: [*head, "--dev", "/dev", "--", *argv]


def _under(runtime: str) -> tuple[str, ...]:
    """Crun refuses a hybrid host where cgroup2 has a controller: let it see none, in a mount namespace of its own."""
    controllers = Path("/sys/fs/cgroup/unified/cgroup.controllers")
    if runtime != "crun" or not controllers.exists():
        return ()
    hide = f'mount --bind /dev/null {controllers} && exec "$@"'
    return ("unshare", "-m", "--propagation", "slave", "sh", "-c", hide, "sh")


def _oci(
    runtime: str, base: Path, rootfs: Path, *, seccomp: bool
) -> Callable[[str, tuple[str, ...]], list[str]]:
    """A bundle for each program, since its config.json names it."""
    made: dict[tuple[str, ...], Path] = {}

    def command(identity: str, argv: tuple[str, ...]) -> list[str]:
        if argv not in made:
            bundle = made[argv] = base / f"{runtime}-{len(made)}"
            bundle.mkdir(parents=True)
            (bundle / "config.json").write_text(json.dumps(_config(rootfs, argv, seccomp=seccomp)))
        state = str(base / f"{runtime}-state")
        return [runtime, "--root", state, "run", "-b", str(made[argv]), f"{base.name}-{identity}"]

    return command


def _config(rootfs: Path, argv: tuple[str, ...], *, seccomp: bool) -> dict[str, Any]:
    """What `docker run -m 100m` writes, but for what it makes on the host: no overlay, no /etc files."""
    capabilities = list(docker_capabilities((), (), privileged=False))
    linux: dict[str, Any] = {
        "resources": {
            "devices": [{"allow": False, "access": "rwm"}],
            "memory": {"limit": MEMORY, "swap": MEMORY},
            "pids": {"limit": 4096},
        },
        "namespaces": [{"type": name} for name in NAMESPACES],
        "maskedPaths": list(MASKED_PATHS),
        "readonlyPaths": list(READONLY_PATHS),
    }
    if seccomp:
        linux["seccomp"] = _seccomp(capabilities)
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(argv),
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "noNewPrivileges": True,
        },
        "root": {"path": str(rootfs), "readonly": False},
        "hostname": "bench",
        "mounts": [
            _mount("/proc", "proc", []),
            _mount("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
            _mount(
                "/dev/pts",
                "devpts",
                ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
            _mount("/dev/shm", "tmpfs", [*_HARDENED, "mode=1777", "size=65536k"]),
            _mount("/dev/mqueue", "mqueue", _HARDENED),
            _mount("/sys", "sysfs", [*_HARDENED, "ro"]),
            _mount("/sys/fs/cgroup", "cgroup", [*_HARDENED, "ro"]),
        ],
        "linux": linux,
    }


def _mount(target: str, kind: str, options: list[str]) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": kind, "options": options}


def _seccomp(capabilities: list[str]) -> dict[str, Any]:
    """The same profile, docker's conditions applied as docker does before it writes config.json."""
    text = (Path(gocker.__file__).parent / "data/seccomp-default.json").read_text()
    profile = json.loads(text)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    kernel = tuple(map(int, os.uname().release.split(".")[:2]))

    def holds(condition: dict[str, Any]) -> list[bool]:
        return [
            *(set(condition[key]) <= {*capabilities} for key in ("caps",) if condition.get(key)),
            *(machine in condition[key] for key in ("arches",) if condition.get(key)),
            *(
                kernel >= tuple(map(int, condition[key].split(".")))
                for key in ("minKernel",)
                if condition.get(key)
            ),
        ]

    rules = []
    for rule in profile["syscalls"]:
        if all(holds(rule.get("includes", {}))) and not any(holds(rule.get("excludes", {}))):
            kept = ("names", "action", "errnoRet", "args")
            rules.append({key: rule[key] for key in kept if rule.get(key) is not None})
    own = {"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}[machine]
    defaults = {key: profile[key] for key in ("defaultAction", "defaultErrnoRet") if key in profile}
    return {**defaults, "architectures": [own], "syscalls": rules}
