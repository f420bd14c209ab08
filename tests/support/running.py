"""A container with a shell that a test talks to while it runs, and its cgroups as the host sees them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import Popen, TimeoutExpired

from command import SLOWNESS, Gocker, Ran

from gocker.hierarchy import read_host
from gocker.kernel.cgroupfs import read_file
from gocker.model import Hierarchy

_END = b":end of answer:\n"


class Running:
    """One `gocker run -i ... sh`."""

    def __init__(self, process: Popen[bytes], directory: str, parent: str) -> None:
        self.process = process
        self.ran: Ran | None = None  # once it has ended
        self._directory = directory
        self._parent = parent
        self.sh("true")  # it answers: all that there is to set up is set up
        with open(f"{directory}/cid", encoding="ascii") as file:
            self.id = file.read()

    def sh(self, command: str) -> str:
        """What `command` prints on stdout and stderr in the container's shell, stripped."""
        assert self.process.stdin
        assert self.process.stdout
        assert self.process.stderr
        self.process.stdin.write(f"{{ {command}\n}} 2>&1; echo {_END.decode()}".encode())
        self.process.stdin.flush()
        answer = b""
        while not answer.endswith(_END):
            line = self.process.stdout.readline()
            if not line:
                ran = self.end()
                raise AssertionError(f"it ended at {command}: {answer!r} {ran}, {ran.report.get('verdict')}")
            answer += line
        return os.fsdecode(answer.removesuffix(_END).strip())

    def cgroup(self, controller: str) -> str:
        """Its directory in the hierarchy of this controller (kernel's name; `cgroup` is v2 itself)."""
        return read_host().require(controller).directory(f"{self._parent}/gocker/{self.id}")

    def file(self, controller: str, name: str) -> str | None:
        """The stripped text of a file there; None when there is no such file."""
        return read_file(self.cgroup(controller), name)

    def processes(self) -> list[int]:
        """Their ids on the host; pids has a hierarchy wherever gocker runs."""
        return [int(pid) for pid in (self.file("pids", "cgroup.procs") or "").split()]

    def end(self, last: str = "") -> Ran:
        """Let the shell run `last` and end; what gocker did, with its report."""
        if self.ran is None:
            out, err = self.process.communicate(last.encode(), 30 * SLOWNESS)
            self.ran = Ran(self.process.returncode, os.fsdecode(out), os.fsdecode(err), {})
            path = f"{self._directory}/report.json"
            if os.path.exists(path):
                with open(path, encoding="utf-8") as file:
                    self.ran = self.ran._replace(report=json.load(file))
        return self.ran


@contextmanager
def running(gocker: Gocker, *options: str, image: str = "base", parent: str = "") -> Iterator[Running]:
    """A container of `image` with `options`, `parent` its --cgroup-parent; it ends with the context."""
    directory = tempfile.mkdtemp(dir=gocker._scratch)
    files = ("--cidfile", f"{directory}/cid", "--report", f"{directory}/report.json")
    below = ("--cgroup-parent", parent) if parent else ()
    process = gocker.start("run", "-i", *files, *below, *options, *([image] if image else []), "sh")
    try:
        container = Running(process, directory, parent)
        yield container
        container.end()
    finally:
        if process.poll() is None:  # in a test that fails
            try:
                process.communicate(timeout=5 * SLOWNESS)
            except TimeoutExpired:
                process.kill()
                process.communicate()


def version(controller: str) -> Hierarchy:
    """The cgroup version that carries a controller here."""
    return read_host().require(controller).version
