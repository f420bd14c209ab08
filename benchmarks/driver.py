"""The in-process driver: starts containers one after the other from one Python process.

    driver.py MODE ROOTFS     reads counts from stdin, a line each; for each count prints the nanoseconds
                              and the CPU seconds of so many starts, a line each, then `.`
    driver.py filter FILE     writes the seccomp filter that those starts install

Modes: `launcher` does what start.c does: plan, start, wait, remove, undo. `engine` adds what `gocker run` does
beside: the plan on disk, pipes, audit log, receipt. `run` is gocker.run; `crun` is subprocess.run of crun, with a
bundle for ROOTFS. `threads` and `processes` start BATCH containers in place of one, WIDTH at a time.
GOCKER_EXECUTOR says who runs the init phase.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from subprocess import DEVNULL

import gocker
from gocker import engine, paths
from gocker.audit import AuditLog, current_actor
from gocker.defaults import MASKED_PATHS, READONLY_PATHS, default_mounts
from gocker.hierarchy import read_host
from gocker.kernel.caps import docker_capabilities
from gocker.launcher import Launcher
from gocker.limits import parse_limit
from gocker.model import ContainerSpec, NamespaceRequest, Rootfs, plain_capabilities
from gocker.planner import build_plan
from gocker.registry import Registry
from gocker.seccomp import seccomp_filter, seccomp_step
from gocker.state import new_id

WIDTH, BATCH = 8, 32
_KINDS = ("mount", "uts", "ipc", "pid", "network", "cgroup")
_CAPABILITIES = docker_capabilities((), (), privileged=False)


def make_spec(rootfs: str) -> ContainerSpec:
    """What the command line makes of `run --limit memory=100m --rootfs ROOTFS /bin/true`."""
    identity = new_id()
    return ContainerSpec(
        id=identity,
        name=identity,
        argv=("/bin/true",),
        rootfs=Rootfs(lower=rootfs),
        image=rootfs,
        hostname=identity[:12],
        env=(("PATH", "/bin"),),
        namespaces=tuple(NamespaceRequest(kind=kind) for kind in _KINDS),
        limits=(parse_limit("memory=100m"),),
        mounts=default_mounts(dict.fromkeys(_KINDS, "private")),
        etc=True,
        capabilities=plain_capabilities(_CAPABILITIES),
        masked_paths=MASKED_PATHS,
        readonly_paths=READONLY_PATHS,
    )


def with_launcher(rootfs: str) -> Callable[[], None]:
    """The launcher alone."""
    registry, hierarchies, data = Registry(), read_host(), paths.data_root()
    seccomp = seccomp_step(make_spec(rootfs), data)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def start() -> None:
        spec = make_spec(rootfs)
        directory = os.path.join(data, "containers", spec.id)
        launcher = Launcher(build_plan(spec, registry, hierarchies, directory, seccomp).plan, spec)
        launcher.start((null, null, null))
        launcher.await_program()
        _, status = os.waitpid(launcher.ctx.pid, 0)
        errors = [*launcher.remove(), *launcher.undo()]
        if status or errors:
            raise SystemExit(f"wait status {status:#x}, {errors}")

    return start


def with_engine(rootfs: str) -> Callable[[], None]:
    """All of a run, without the command line."""
    registry = Registry()
    audit = AuditLog(paths.audit_log(), current_actor(sys.argv))

    def start() -> None:
        spec = make_spec(rootfs)
        outcome = engine.run(spec, engine.plan(spec, registry), audit)
        if outcome.error or outcome.warnings or outcome.report.verdict.kind != "ok":
            raise SystemExit(f"{outcome}")

    return start


def with_run(rootfs: str) -> Callable[[], None]:
    """What a program that embeds gocker calls."""

    def start() -> None:
        done = gocker.run(
            ["/bin/true"], rootfs=rootfs, limits={"memory": "100m"}, stdin=DEVNULL, stdout=DEVNULL
        )
        if done.returncode:
            raise SystemExit(f"{done}")

    return start


def with_crun(bundle: str) -> Callable[[], None]:
    """What it would call without gocker."""
    number = 0
    state = os.path.join(bundle, "state")

    def start() -> None:
        nonlocal number
        number += 1
        argv = ["crun", "--root", state, "run", "-b", bundle, f"bench-{os.getpid()}-{number}"]
        subprocess.run(argv, check=True, stdin=DEVNULL, stdout=DEVNULL)

    return start


def with_threads(rootfs: str) -> Callable[[], None]:
    """As many `gocker.run` at a time as WIDTH says, one after the other in each thread."""
    one = with_run(rootfs)
    pool = ThreadPoolExecutor(WIDTH)

    def start() -> None:
        for future in [pool.submit(one) for _ in range(BATCH)]:
            future.result()

    return start


def with_processes(rootfs: str) -> Callable[[], None]:
    """As many processes, each with the engine."""
    one = with_engine(rootfs)

    def start() -> None:
        pids = []
        for _ in range(WIDTH):
            pid = os.fork()
            if not pid:
                status = 1
                try:
                    for _ in range(BATCH // WIDTH):
                        one()
                    status = 0
                finally:
                    os._exit(status)
            pids.append(pid)
        if any(os.waitpid(pid, 0)[1] for pid in pids):
            raise SystemExit("a process failed")

    return start


STARTS = {
    "launcher": with_launcher,
    "engine": with_engine,
    "run": with_run,
    "crun": with_crun,
    "threads": with_threads,
    "processes": with_processes,
}


def main() -> None:
    """Serve counts until the end of input."""
    mode, target = sys.argv[1:]
    if mode == "filter":
        found = seccomp_filter("default", _CAPABILITIES, paths.data_root())
        with open(target, "wb") as file:
            file.write(found.program if found else b"")
        return
    start = STARTS[mode](target)
    start()
    gc.collect()
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            cpu, begin = process_cpu(), time.perf_counter_ns()
            start()
            times.append(f"{time.perf_counter_ns() - begin} {process_cpu() - cpu:.6f}")
        print(*times, ".", sep="\n", flush=True)


def process_cpu() -> float:
    """Seconds of this process and of the children that it has waited for."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    main()
