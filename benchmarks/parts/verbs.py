"""The verbs of an OCI runtime, each a command: a container's life, and exec into one that runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench import WARM_UP, Bench
from bundle import write_bundle
from peers import COLD, WARM, under
from result import Skipped, Table
from timing import Series, SpawnServer, take_turns

_LIFE = ("create", "state", "start", "kill", "delete")
_SLEEP = ("/bin/sleep", "10000")
_LACKS = "no audit, receipt, read-back"


@dataclass
class _Runtime:
    """One runtime, in a process that its containers' orphans come to."""

    name: str
    program: str
    place: Path
    env: Mapping[str, str]
    bundle: Path
    series: dict[str, Series] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.starter = SpawnServer(under(self.program))
        self.standing_id = f"{self.place.name}-{os.getpid()}"
        self.series = {verb: Series(self.name) for verb in ("exec", *_LIFE)}

    def call(self, verb: str, identity: str, *arguments: str) -> tuple[float, float]:
        options = ["--pid-file", f"{self.place}/pid", "-b", str(self.bundle)] if verb == "create" else []
        argv = [self.program, "--root", f"{self.place}/state", verb, *options, identity, *arguments]
        return self.starter.run(argv, self.env)

    def turn(self, number: int) -> None:
        """A container's life and one exec beside it."""
        identity = f"{self.standing_id}-{number}"
        for verb in _LIFE:
            took = self.call(verb, identity, *(["KILL"] if verb == "kill" else []))
            if verb == "kill":
                self.starter.reap(int((self.place / "pid").read_text()))
            self._note(number, verb, took)
        self._note(number, "exec", self.call("exec", self.standing_id, "/bin/true"))

    def _note(self, number: int, verb: str, took: tuple[float, float]) -> None:
        if number >= WARM_UP:
            self.series[verb].add(*took)

    @contextlib.contextmanager
    def standing(self) -> Iterator[None]:
        """While a container of it runs, to exec into."""
        pid = 0
        try:
            self.call("create", self.standing_id)
            pid = int((self.place / "pid").read_text())
            self.call("start", self.standing_id)
            yield
            self.call("kill", self.standing_id, "KILL")
            self.starter.reap(pid)
            pid = 0
            self.call("delete", self.standing_id)
        finally:
            self.starter.close()
            if pid:  # something went wrong: leave nothing all the same
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                delete = [self.program, "--root", f"{self.place}/state", "delete", "--force"]
                subprocess.run(
                    [*under(self.program), *delete, self.standing_id], check=False, env={**os.environ, **COLD}
                )


def measure(bench: Bench) -> list[Table]:
    """A table for each verb."""
    place, rounds = bench.place("verbs"), bench.rounds(40)
    bundle = write_bundle(place / "bundle", bench.rootfs, _SLEEP, seccomp=True)
    left_out: list[str] = []
    with ExitStack() as stack:
        wanted = [("gocker-oci", str(bench.oci), COLD)]
        try:
            stack.enter_context(bench.warm_server())
            wanted.insert(0, ("gocker-oci warm", str(bench.oci), WARM))
        except Skipped as why:
            left_out.append(f"gocker-oci warm: {why}")
        wanted += [(name, name, {}) for name in ("crun", "runc") if shutil.which(name)]
        runtimes = []
        for name, program, env in wanted:
            own = place / name.replace(" ", "-")
            own.mkdir()
            runtime = _Runtime(name, program, own, env, bundle)
            stack.enter_context(runtime.standing())
            runtimes.append(runtime)
        take_turns(rounds + WARM_UP, [runtime.turn for runtime in runtimes])
    notes = dict.fromkeys(("crun", "runc"), _LACKS)
    return [
        Table(
            f"verbs.{verb}",
            f"{verb} of a container with {' '.join(_SLEEP)}, {rounds} rounds",
            [runtime.series[verb] for runtime in runtimes],
            "crun",
            notes,
            left_out=left_out,
        )
        for verb in ("exec", *_LIFE)
    ]
