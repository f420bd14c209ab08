"""The `gocker-oci` command as its callers run it, with bundles of their own."""

from __future__ import annotations

import copy
import glob
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from command import SLOWNESS, Gocker, Ran, program

CONFIG: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "process": {
        "cwd": "/",
        "args": ["sleep", "1000"],
        "env": ["PATH=/usr/bin:/bin"],
        "user": {"uid": 0, "gid": 0},
    },
    "root": {"readonly": True},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["newinstance", "ptmxmode=0666"],
        },
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("mount", "pid", "uts", "ipc", "network", "cgroup")],
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
    },
}
IDLE = ["sleep", "1000"]


def cgroup_of(container: str) -> str:
    """The path of its cgroup: ids are short here, and several sessions may run on one host."""
    return f"/gocker/t{os.getpid()}.{GockerOci.made}-{container}"


class GockerOci:
    """Call it with the arguments of the command line. Output goes to files, since a container keeps its stdout."""

    made = 0  # how many there were

    def __init__(self, scratch: str) -> None:
        GockerOci.made += 1
        self.scratch = scratch
        self.root = f"{scratch}/root"
        os.makedirs(self.root, 0o700, exist_ok=True)
        self.program = program("gocker-oci")
        self.out = f"{scratch}/out"  # of the last call, and of what it created
        self._calls = 0

    def start(self, *args: str, stdin: bytes = b"", **options: Any) -> subprocess.Popen[bytes]:
        """Start it; `out` names its output from then on."""
        self._calls += 1
        self.out = f"{self.scratch}/out.{self._calls}"
        with open(f"{self.scratch}/in", "wb") as file:
            file.write(stdin)
        with (
            open(f"{self.scratch}/in", "rb") as given,
            open(self.out, "wb") as out,
            open(f"{self.out}.err", "wb") as err,
        ):
            return subprocess.Popen(
                [self.program, "--root", self.root, *args],
                stdin=given,
                stdout=out,
                stderr=err,
                start_new_session=True,
                **options,
            )

    def __call__(self, *args: str, stdin: bytes = b"", timeout: float = 30, **options: Any) -> Ran:
        """Run it to its end."""
        process = self.start(*args, stdin=stdin, **options)
        out = self.out
        try:
            process.wait(timeout * SLOWNESS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"gocker-oci {args} took more than {timeout * SLOWNESS} s") from None
        return Ran(process.returncode, _text(out), _text(f"{out}.err"), {})

    def ok(self, *args: str, **options: Any) -> str:
        """The same, which succeeds in silence but for its stdout."""
        ran = self(*args, **options)
        assert (ran.code, ran.err) == (0, ""), ran
        return ran.out

    def refused(self, *args: str, **options: Any) -> str:
        """The same, which fails; its one line on stderr."""
        ran = self(*args, **options)
        assert ran.code == (255 if "exec" in args else 1), ran
        assert "Traceback" not in ran.err
        assert ran.err.startswith("gocker: ")
        return ran.err

    def bundle(
        self, name: str = "bundle", /, *, linux: Mapping[str, Any] | None = None, **process: Any
    ) -> str:
        """The directory of a bundle; `linux` and `process` change these members, `None` takes one out."""
        return self.write(name, config(linux=linux, **process))

    def write(self, name: str, document: Mapping[str, Any]) -> str:
        """The directory of a bundle with this config, for the container that ends its name, or c1."""
        section = document.get("linux", {})
        container = name.rpartition("-")[2] if "-" in name else "c1"
        document = {**document, "linux": {"cgroupsPath": cgroup_of(container), **section}}
        directory = f"{self.scratch}/{name}"
        os.makedirs(directory, exist_ok=True)
        with open(f"{directory}/config.json", "w", encoding="utf-8") as file:
            json.dump(document, file)
        return directory

    def create(self, container: str = "c1", *options: str, bundle: str = "", **process: Any) -> str:
        """A created container; the path of its output."""
        self.ok("create", "--bundle", bundle or self.bundle(f"b-{container}", **process), *options, container)
        return self.out

    def run(self, container: str = "c1", *options: str, **process: Any) -> str:
        """A running container; the path of its output."""
        out = self.create(container, *options, **process)
        self.ok("start", container)
        return out

    def state(self, container: str = "c1") -> dict[str, Any]:
        """Its state."""
        found: dict[str, Any] = json.loads(self.ok("state", container))
        return found

    def status(self, container: str = "c1") -> str:
        """Of the container."""
        return str(self.state(container)["status"])

    def await_status(self, status: str, container: str = "c1") -> None:
        """Return when it has it."""
        until(lambda: self.status(container) == status)

    def clean_up(self) -> None:
        """Delete what a test has left running."""
        for container in self.ok("list", "-q").split():
            self("delete", "--force", container)


def config(*, linux: Mapping[str, Any] | None = None, **process: Any) -> dict[str, Any]:
    """A config of the image `base`, with members of `linux` and `process` changed."""
    document = copy.deepcopy(CONFIG)
    (document["root"]["path"],) = glob.glob(f"{os.environ['GOCKER_ROOT']}/images/rootfs/sha256-*")
    document["linux"] |= linux or {}
    document["process"] |= process
    return document


@contextmanager
def gocker_oci(scratch: str, gocker: Gocker) -> Iterator[GockerOci]:
    """The command; `gocker` makes the image."""
    if not glob.glob(f"{os.environ['GOCKER_ROOT']}/images/rootfs/sha256-*"):
        assert gocker("run", "base", "true").code == 0
    command = GockerOci(scratch)
    yield command
    command.clean_up()


def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds * SLOWNESS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def text_of(path: str) -> str:
    return _text(path)


def _text(path: str) -> str:
    with open(path, "rb") as file:
        return os.fsdecode(file.read())
