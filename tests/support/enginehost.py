"""A place on this host where a container engine runs with an OCI runtime and leaves nothing: namespaces of its own."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import NamedTuple

from command import SLOWNESS

CGROUPS = "/sys/fs/cgroup"
IMAGE = "localhost/gocker-test:1"
BUSYBOX = "/bin/busybox"
NODE = "node"  # the host's name inside; slurm looks its node up by it
PATIENCE = 20.0 * SLOWNESS  # seconds for a daemon to answer
# PID 1 of the place: it reaps what the engines' shims orphan, and all ends with it.
FIRST = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
os.write(1, b"ready\\n")
while True:
    signal.sigwait({signal.SIGCHLD})
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
"""


class Ran(NamedTuple):
    """What one command did."""

    code: int
    out: str
    err: str


class EngineHost:
    """Mount, PID, network and UTS namespaces, with a /run, /var/lib and /var/log that end with them.

    `scratch` is a directory that exists, with a short name, since engines put unix sockets there.
    """

    def __init__(self, scratch: str, runtime: str) -> None:
        self.scratch = scratch
        self.runtime = runtime
        self.env: dict[str, str] = {}
        self._cgroups = _cgroups()
        self._tops = set(os.listdir(CGROUPS))
        self._daemons: list[subprocess.Popen[bytes]] = []
        tmpfs = [
            f"mount -t tmpfs -o mode=755 gocker-test {place}" for place in ("/run", "/var/lib", "/var/log")
        ]
        setup = [*tmpfs, f"hostname {NODE}", "ip link set lo up"]
        # Some runtimes give /dev/null to the container's user.
        setup += ["mknod -m 666 /run/null c 1 3", "mount --bind /run/null /dev/null"]
        # getaddrinfo(3) with AI_ADDRCONFIG knows no IPv4, not even 127.0.0.1, where there is no other address.
        setup.append("ip address add 192.0.2.1/32 dev lo")
        if is_crun(runtime) and os.path.exists(f"{CGROUPS}/unified/cgroup.controllers"):
            # Crun refuses a hybrid host where cgroup2 has a controller.
            setup += [
                ": > /run/none",
                f"mount --bind /run/none {CGROUPS}/unified/cgroup.controllers",
            ]
        setup.append(f"exec {shlex.join([sys.executable, '-c', FIRST])}")
        self._holder = subprocess.Popen(
            [
                *("unshare", "--mount", "--pid", "--net", "--uts", "--fork", "--kill-child", "--mount-proc"),
                *("--propagation", "slave", "sh", "-ec", "\n".join(setup)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            _, err = self._holder.communicate()
            raise RuntimeError(f"no namespaces for an engine: {err.decode().strip()}")
        pid = self._holder.pid
        self._first = int(Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii"))

    def _enter(self, argv: Sequence[str]) -> list[str]:
        return ["nsenter", "-t", str(self._first), "-m", "-p", "-n", "-u", "--", *argv]

    def run(
        self,
        *argv: str,
        input: str = "",  # noqa: A002 - the name that subprocess.run gives it
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
        code: int | None = 0,
    ) -> Ran:
        """Run it to its end; `code` is the exit status it must have, None for any."""
        with self._popen(argv, env, subprocess.PIPE) as process:
            try:
                out, err = process.communicate(input.encode(), timeout * SLOWNESS)
            except subprocess.TimeoutExpired:
                self._kill_tree(process)
                out, err = process.communicate()
                raise AssertionError(
                    f"{shlex.join(argv)} took more than {timeout * SLOWNESS} s\n{out.decode()}\n{err.decode()}"
                ) from None
        ran = Ran(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
        if code is not None:
            assert ran.code == code, f"{shlex.join(argv)}: exit status {ran.code}\n{ran.out}\n{ran.err}"
        return ran

    def on_terminal(self, *argv: str, env: Mapping[str, str] | None = None, timeout: float = 60) -> Ran:
        """Run it with a terminal for its input and output, which come as one text."""
        return self.run("script", "-qec", shlex.join(argv), "/dev/null", env=env, timeout=timeout, code=None)

    def daemon(self, *argv: str, ready: Callable[[], bool], env: Mapping[str, str] | None = None) -> None:
        """Start it and wait until `ready` says so."""
        log = f"{self.scratch}/{os.path.basename(argv[0])}.log"
        with open(log, "wb") as file:
            # By a shell, for the /dev/null of the place.
            process = self._popen(("sh", "-c", 'exec "$@" < /dev/null', "sh", *argv), env, file.fileno())
        self._daemons.append(process)
        deadline = time.monotonic() + PATIENCE
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                with open(log, encoding="utf-8", errors="replace") as file:
                    said = file.read()[-3000:]
                raise AssertionError(f"{argv[0]} does not answer (exit status {process.poll()})\n{said}")
            time.sleep(0.1)

    def end_daemons(self) -> None:
        """End them in the order opposite to their start, each by SIGTERM."""
        for process in reversed(self._daemons):
            for pid in _below(process.pid)[:1]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                self._kill_tree(process)
        self._daemons.clear()

    def _popen(self, argv: Sequence[str], env: Mapping[str, str] | None, out: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._enter(argv),
            stdin=subprocess.PIPE if out == subprocess.PIPE else subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE if out == subprocess.PIPE else subprocess.STDOUT,
            env={**os.environ, **self.env, **(env or {})},
            start_new_session=True,
        )

    def _kill_tree(self, process: subprocess.Popen[bytes]) -> None:
        for pid in [*reversed(_below(process.pid)), process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def new_cgroups(self) -> set[str]:
        """The cgroups that were not there when this place was made, those of others on this host included."""
        return _cgroups() - self._cgroups

    def limits(self, controller: str) -> list[str]:
        """What `CONTROLLER.limit_in_bytes` or, on v2, `CONTROLLER.max` says in each new cgroup that has a limit."""
        found = []
        for path in sorted(self.new_cgroups()):
            for name in ("limit_in_bytes", "max"):
                with suppress(OSError):
                    found.append(Path(f"{path}/{controller}.{name}").read_text(encoding="ascii").strip())
        return [value for value in found if value != "max" and int(value) < 1 << 62]

    def close(self, parents: Sequence[str]) -> list[str]:
        """End everything here, and take away the cgroups below `parents`, names at the top of a hierarchy.

        Returns what was left for this to take away: cgroups below those parents.
        """
        self.end_daemons()
        below = [path for path in sorted(self.new_cgroups()) if set(path.split("/")).intersection(parents)]
        with suppress(ProcessLookupError):
            os.kill(self._first, signal.SIGKILL)
        self._holder.communicate()
        deadline = time.monotonic() + PATIENCE
        while left := [path for path in below if os.path.isdir(path)]:
            for path in reversed(left):
                with suppress(OSError):
                    os.rmdir(path)
            if time.monotonic() > deadline:
                break
        for name in set(os.listdir(CGROUPS)) - self._tops:
            # Podman makes a plain directory where a hierarchy of cgroup v1 is not mounted.
            if not os.path.ismount(f"{CGROUPS}/{name}"):
                shutil.rmtree(f"{CGROUPS}/{name}", ignore_errors=True)
        shutil.rmtree(self.scratch, ignore_errors=True)
        return [path for path in below if path.rpartition("/")[2] not in parents]


Place = Callable[..., AbstractContextManager[EngineHost]]
"""What the fixture `place` is."""


def until(condition: Callable[[], bool], patience: float = 10) -> None:
    """Wait until it is so; `patience` is in seconds."""
    deadline = time.monotonic() + patience * SLOWNESS
    while not condition():
        assert time.monotonic() < deadline, f"not so within {patience * SLOWNESS} s"
        time.sleep(0.1)


def is_crun(runtime: str) -> bool:
    """Whether the program says that it is crun."""
    said = subprocess.run([runtime, "--version"], capture_output=True, text=True, check=False).stdout
    return said.startswith("crun")


def systemd_runs() -> bool:
    """Whether it is PID 1 of this host."""
    return Path("/proc/1/comm").read_text(encoding="utf-8") == "systemd\n"


def _cgroups() -> set[str]:
    return {directory for directory, _, _ in os.walk(CGROUPS)}


def _below(pid: int) -> list[int]:
    """The processes that it started and those that these started, parents first."""
    found: list[int] = []
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split():
            found += [int(child), *_below(int(child))]
    return found


def write_rootfs(path: str) -> None:
    """Unpack what IMAGE has into a directory."""
    os.makedirs(path)
    subprocess.run(["tar", "-xC", path], input=_layer(), check=True)


def write_bundle(path: str, args: Sequence[str], annotations: Mapping[str, str] | None = None) -> None:
    """Write an OCI bundle with the files of IMAGE."""
    write_rootfs(f"{path}/rootfs")
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec"]},
        {
            "destination": "/sys",
            "type": "sysfs",
            "source": "sysfs",
            "options": ["ro", "nosuid", "noexec", "nodev"],
        },
    ]
    spec = {
        "ociVersion": "1.0.2",
        "process": {"args": list(args), "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}},
        "root": {"path": f"{path}/rootfs"},
        "hostname": "bundle",
        "mounts": mounts,
        "annotations": dict(annotations or {}),
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "uts", "ipc", "network")]},
    }
    with open(f"{path}/config.json", "w", encoding="utf-8") as file:
        json.dump(spec, file)


def write_image(path: str) -> None:
    """Write IMAGE, busybox alone, in the form of `docker save`: every engine here reads that."""
    blob = _layer()
    digest = hashlib.sha256(blob).hexdigest()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    config = json.dumps(
        {
            "architecture": machine,
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [{"created": "2026-01-01T00:00:00Z"}],
        }
    ).encode()
    name = hashlib.sha256(config).hexdigest()
    manifest = json.dumps(
        [{"Config": f"{name}.json", "RepoTags": [IMAGE], "Layers": [f"{digest}/layer.tar"]}]
    )
    with tarfile.open(path, mode="w", format=tarfile.GNU_FORMAT) as tar:
        _add(tar, f"{name}.json", config)
        _add(tar, f"{digest}/layer.tar", blob)
        _add(tar, "manifest.json", manifest.encode())


def _layer() -> bytes:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        tar.add(BUSYBOX, "bin/busybox")
        applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout
        for applet in applets.split():
            if applet != "busybox":
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(entry)
        _add(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n")
        _add(tar, "etc/group", b"root:x:0:\nuser:x:1000:\n")
        _add(tar, "etc/plain", b"not a program\n")
    return layer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    tar.addfile(entry, io.BytesIO(data))
