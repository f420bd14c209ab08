"""What an attack works with: bundles with a hostile image, the runtime under a hard limit, things of the host to hit."""

from __future__ import annotations

import copy
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from . import host

SECRET = "gattack-secret-of-the-host"
HOST = f"{host.LAB}/host"
SECRET_FILE = f"{HOST}/secret"
MARK = "gattack-environment-of-the-host"
CAPABILITIES = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
]
BASE: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "process": {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": ["/bin/inside", "look"],
        "env": ["PATH=/bin", "TERM=dumb"],
        "cwd": "/",
        "capabilities": {
            "bounding": CAPABILITIES,
            "effective": CAPABILITIES,
            "permitted": CAPABILITIES,
            "inheritable": [],
            "ambient": [],
        },
        "noNewPrivileges": True,
    },
    "root": {"path": "rootfs", "readonly": False},
    "hostname": "gattack",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        },
        {
            "destination": "/sys",
            "type": "sysfs",
            "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"],
        },
    ],
    "linux": {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [
            {"type": "pid"},
            {"type": "ipc"},
            {"type": "uts"},
            {"type": "mount"},
            {"type": "network"},
            {"type": "cgroup"},
        ],
        "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    },
}
CRASHES = (
    "Traceback (most recent call last)",
    "panic:",
    "goroutine ",
    "runtime error:",
    "core dumped",
    "internal error",
)


class Runtime(NamedTuple):
    """An OCI runtime: how it is called here, and its program's path."""

    name: str
    path: str

    @property
    def is_crun(self) -> bool:
        """Whether it is crun, which needs to be shown another host."""
        return os.path.basename(os.path.realpath(self.path)).startswith("crun")


class Verdict(NamedTuple):
    """`broken`, `held`, `not-applicable`, or `unclear` when the runtime did not do what it must be able to."""

    status: str
    reason: str


def broken(reason: str) -> Verdict:
    """The attack got what it wanted."""
    return Verdict("broken", reason)


def held(reason: str) -> Verdict:
    """It did not."""
    return Verdict("held", reason)


def not_applicable(reason: str) -> Verdict:
    """It cannot be tried, and why."""
    return Verdict("not-applicable", reason)


class Unclear(Exception):
    """The runtime fails at what is no attack: nothing can be said about the attack."""


class Done(NamedTuple):
    """A call of the runtime that has ended."""

    code: int
    out: str
    err: str
    seconds: float
    rss_mib: int
    timed_out: bool

    @property
    def ran(self) -> bool:
        """Whether the container's program started."""
        return "program=ran" in self.out or "loader=ran" in self.out

    @property
    def refusal(self) -> str:
        """The end of what it said, for the table."""
        if self.timed_out:
            return f"no end after {self.seconds:.0f} s"
        lines = [line for line in self.err.strip().splitlines() if line.strip()]
        text = lines[-1].strip() if lines else f"exit status {self.code}"
        return "".join(c if c.isprintable() else "?" for c in text)[-160:]

    @property
    def crash(self) -> str:
        """How it crashed, or nothing."""
        if self.timed_out:
            return "it hangs"
        if self.code < 0:
            return f"killed by {signal.Signals(-self.code).name}"
        for sign in CRASHES:
            if sign in self.err:
                return f"crashes: {sign.strip(':')}"
        return ""

    def values(self, key: str) -> list[str]:
        """What the program printed as `key=value`."""
        return [line.partition("=")[2] for line in self.out.splitlines() if line.partition("=")[0] == key]

    def value(self, key: str) -> str:
        """The first of them, or nothing."""
        return (self.values(key) or [""])[0]

    def must_run(self) -> Done:
        """Raise Unclear unless the program ran: for what is no attack before the program starts."""
        if not self.ran:
            raise Unclear(f"the program did not run: {self.refusal}")
        return self

    def must_succeed(self) -> Done:
        """Raise Unclear unless it ended with 0."""
        if self.code != 0 or self.timed_out:
            raise Unclear(f"did not succeed: {self.refusal}")
        return self


class Bundle:
    """A bundle with the hostile image: /bin/inside and empty directories; `spec` is written when it is run."""

    def __init__(self, directory: str, programs: str, spec: dict[str, Any]) -> None:
        self.directory = directory
        self.rootfs = f"{directory}/rootfs"
        self.spec = spec
        self.raw: bytes | None = None
        for name in ("bin", "dev", "proc", "sys", "tmp", "etc", "data"):
            os.makedirs(f"{self.rootfs}/{name}")
        shutil.copy(f"{programs}/inside", f"{self.rootfs}/bin/inside")

    def path(self, name: str) -> str:
        """The path on the host of /NAME in the image."""
        return f"{self.rootfs}/{name.lstrip('/')}"

    def link(self, name: str, target: str) -> None:
        """Put a symbolic link where something may have been."""
        path = self.path(name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with suppress(FileNotFoundError):
            os.unlink(path)
        os.symlink(target, path)

    def file(self, name: str, content: str | bytes = "", mode: int = 0o644) -> None:
        """Put a file in the image."""
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.chmod(path, mode)

    def run_inside(self, *arguments: str) -> None:
        """Let the program be /bin/inside with `arguments`."""
        self.spec["process"]["args"] = ["/bin/inside", *arguments]

    def mount(self, destination: str, source: str, kind: str = "bind", options: Sequence[str] = ()) -> None:
        """Add a mount."""
        chosen = list(options) or (["rbind", "rw"] if kind == "bind" else [])
        self.spec["mounts"].append(
            {"destination": destination, "type": kind, "source": source, "options": chosen}
        )

    def without_mount(self, destination: str) -> None:
        """Take mounts at and below `destination` out of the configuration."""
        self.spec["mounts"] = [
            entry
            for entry in self.spec["mounts"]
            if entry["destination"] != destination and not entry["destination"].startswith(f"{destination}/")
        ]

    def without_namespace(self, kind: str) -> None:
        """Share the namespace with the host."""
        spaces = self.spec["linux"]["namespaces"]
        self.spec["linux"]["namespaces"] = [entry for entry in spaces if entry["type"] != kind]

    def write(self) -> None:
        """Write config.json, unless something else lies there."""
        path = f"{self.directory}/config.json"
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            return
        with open(path, "wb") as file:
            file.write(self.raw if self.raw is not None else json.dumps(self.spec).encode())


class Lab:
    """One runtime on one throwaway host."""

    def __init__(self, runtime: Runtime, programs: str, token: str, patience: float) -> None:
        self.runtime = runtime
        self.programs = programs
        self.token = token  # names what is made in cgroups
        self.patience = patience  # factor for all limits
        self.state = f"{host.LAB}/state"
        self.calls = 0
        self.crashes: list[str] = []  # of any call
        os.makedirs(HOST)
        os.makedirs(f"{host.LAB}/tmp", mode=0o1777)
        with open(SECRET_FILE, "w", encoding="utf-8") as file:
            file.write(SECRET)
        self.sleepers: list[subprocess.Popen[bytes]] = []
        self.files = self.runtime_files()  # before one of them is overwritten

    def bundle(self, name: str = "bundle") -> Bundle:
        """A new bundle, with a cgroup of its own."""
        spec = copy.deepcopy(BASE)
        spec["linux"]["cgroupsPath"] = f"/{self.token}/{name}"
        return Bundle(f"{host.LAB}/{name}", self.programs, spec)

    def call(
        self,
        *arguments: str,
        timeout: float = 8,
        state: str | None = None,
        env: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        stdin: int = subprocess.DEVNULL,
        before: Callable[[], None] | None = None,
    ) -> Done:
        """Call the runtime, at most `timeout` seconds; output goes to files, so that nobody waits for a container."""
        self.calls += 1
        base = f"{host.LAB}/tmp/call{self.calls}"
        started = time.monotonic()
        environment = {"PATH": os.environ["PATH"], "TMPDIR": f"{host.LAB}/tmp", "GATTACK_HOST": MARK}
        environment |= {name: f"{host.LAB}/gocker-{name[7:].lower()}" for name in _PLACES}
        if executor := os.environ.get("GOCKER_TEST_EXECUTOR"):
            environment["GOCKER_EXECUTOR"] = executor
        with open(f"{base}.out", "wb") as out, open(f"{base}.err", "wb") as err:
            process = subprocess.Popen(
                [self.runtime.path, "--root", state or self.state, *arguments],
                stdin=stdin,
                stdout=out,
                stderr=err,
                env=environment | (env or {}),
                cwd="/",
                pass_fds=pass_fds,
                preexec_fn=before,  # noqa: PLW1509  no threads here
            )
            code, rss, timed_out = _wait(process.pid, timeout * self.patience)
            process.returncode = code
        # What this process had when it forked counts for the child, too: getrusage(2), NOTES.
        rss = rss if rss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss else 0
        done = Done(
            code,
            _read(f"{base}.out"),
            _read(f"{base}.err"),
            time.monotonic() - started,
            rss // 1024,
            timed_out,
        )
        if done.crash and not timed_out:
            self.crashes.append(f"{done.crash} in {' '.join(arguments)[:40]!r}")
        return done

    def run(self, bundle: Bundle, name: str = "c1", *options: str, **limits: Any) -> Done:
        """`run`, in the foreground."""
        bundle.write()
        return self.call("run", "--bundle", bundle.directory, *options, name, **limits)

    def create(self, bundle: Bundle, name: str = "c1", *options: str, **limits: Any) -> Done:
        """`create`."""
        bundle.write()
        return self.call("create", "--bundle", bundle.directory, *options, name, **limits)

    def up(
        self, bundle: Bundle, name: str = "c1", state: str | None = None, wait_for: str = "program=ran"
    ) -> str:
        """Create and start a container, wait for a line of its program; return the path of its output."""
        self.create(bundle, name, state=state).must_succeed()
        output = f"{host.LAB}/tmp/call{self.calls}.out"
        self.call("start", name, state=state).must_succeed()
        if not self.wait(lambda: wait_for in _read(output)):
            raise Unclear(f"the container did not say {wait_for!r}")
        return output

    def exec(self, arguments: Sequence[str], name: str = "c1", *options: str, **changes: Any) -> Done:
        """`exec --process` with the base configuration's process and `changes`."""
        limits: dict[str, Any] = {
            key: changes.pop(key)
            for key in ("timeout", "env_of_call", "before", "pass_fds")
            if key in changes
        }
        if "env_of_call" in limits:
            limits["env"] = limits.pop("env_of_call")
        process = copy.deepcopy(BASE["process"]) | {"args": list(arguments)} | changes
        path = f"{host.LAB}/tmp/process{self.calls}.json"
        with open(path, "w", encoding="utf-8") as file:
            json.dump({key: value for key, value in process.items() if value is not None}, file)
        return self.call("exec", *options, "--process", path, name, **limits)

    def pid_of(self, name: str = "c1", state: str | None = None) -> int:
        """From `state`."""
        done = self.call("state", name, state=state).must_succeed()
        try:
            return int(json.loads(done.out)["pid"])
        except (ValueError, KeyError) as error:
            raise Unclear(f"state says no pid: {done.out[:100]}") from error

    def wait(self, condition: Callable[[], bool], seconds: float = 4) -> bool:
        """Wait for something."""
        end = time.monotonic() + seconds * self.patience
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True

    def sleeper(self) -> subprocess.Popen[bytes]:
        """A process of the host that does no harm and shall see none."""
        process = subprocess.Popen(["sleep", "60"], start_new_session=True, env={"PATH": os.environ["PATH"]})
        self.sleepers.append(process)
        return process

    def host_directory(self, name: str) -> str:
        """A directory of the host for an attack to aim at."""
        path = f"{HOST}/{name}"
        os.makedirs(path)
        return path

    def host_file(self, name: str, content: str = "intact") -> str:
        """A file of the host for an attack to aim at."""
        path = f"{HOST}/{name}"
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
        os.chmod(path, 0o600)
        return path

    def runtime_files(self) -> list[str]:
        """The files that run when the runtime is called: its program, and the interpreter of a script."""
        found = [os.path.realpath(self.runtime.path)]
        for _ in range(4):
            with open(found[-1], "rb") as file:
                first = file.readline(400)
            if not first.startswith(b"#!"):
                break
            words = first[2:].decode().split()
            interpreter = words[0]
            if os.path.basename(interpreter) == "env":
                interpreter = shutil.which(words[1]) or interpreter
            found.append(os.path.realpath(interpreter))
        return found

    def overwritten(self) -> str:
        """Which of those a hostile program has written to."""
        for path in self.files:
            with open(path, "rb") as file:
                if file.read(9) == b"#!gattack":
                    return path
        return ""


_PLACES = ("GOCKER_ROOT", "GOCKER_STATE", "GOCKER_AUDIT_LOG")


def text_of(path: str) -> str:
    """What a program has printed to `path` so far."""
    return _read(path)


def is_alive(process: subprocess.Popen[bytes]) -> bool:
    """Whether it still runs."""
    return process.poll() is None


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return file.read(1 << 20).decode("utf-8", "backslashreplace")


def _wait(pid: int, timeout: float) -> tuple[int, int, bool]:
    """Exit code as subprocess has it, peak resident KiB, whether it had to be killed."""
    end = time.monotonic() + timeout
    pause, timed_out = 0.001, False
    while True:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), usage.ru_maxrss, timed_out
        if time.monotonic() > end and not timed_out:
            os.kill(pid, signal.SIGKILL)
            timed_out = True
        time.sleep(pause)
        pause = min(pause * 1.5, 0.01)
