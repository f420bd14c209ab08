"""Runs init-phase steps in a child with namespaces of its own, then a shell in the root that they made."""

from __future__ import annotations

import json
import os
import shutil
from time import perf_counter_ns
from typing import Any, NoReturn

from mounting import all_mounts

from gocker.defaults import MASKED_PATHS, READONLY_PATHS, SHM_SIZE
from gocker.errors import GockerError, errno_name
from gocker.kernel import process
from gocker.model import ContainerSpec, IdMap, NamespaceRequest, Rootfs
from gocker.plan import Context, Step

BUSYBOX = "/bin/busybox"
KINDS = {
    "mount": process.CLONE_NEWNS,
    "pid": process.CLONE_NEWPID,
    "ipc": process.CLONE_NEWIPC,
    "uts": process.CLONE_NEWUTS,
    "network": process.CLONE_NEWNET,
}
_APPLETS = ("sh", "cat", "ls", "stat", "echo", "mount", "ps", "readlink", "touch", "dd", "id", "test", "true")


class Failed(Exception):
    """A step failed in the child."""

    def __init__(self, message: dict[str, Any]) -> None:
        super().__init__(message["text"])
        self.op: str = message["op"]
        self.remedy: str = message["remedy"]
        self.errno: str = errno_name(message["errno"])


class Sandbox:
    """A busybox root file system and a container directory below one temporary directory."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.rootfs = f"{base}/rootfs"
        self.container = f"{base}/container"
        os.makedirs(f"{self.rootfs}/bin", mode=0o755)
        shutil.copy(BUSYBOX, f"{self.rootfs}/bin/busybox")
        for name in _APPLETS:
            os.symlink("busybox", f"{self.rootfs}/bin/{name}")
        for name in ("upper", "work", "etc"):
            os.makedirs(f"{self.container}/{name}")
        for name, text in (
            ("hosts", "127.0.0.1 localhost\n"),
            ("hostname", "inside\n"),
            ("resolv.conf", "nameserver 9.9.9.9\n"),
        ):
            with open(f"{self.container}/etc/{name}", "w") as file:
                file.write(text)

    def renew(self) -> None:
        """Make upper and work anew: what a volatile overlay leaves refuses a second mount."""
        for name in ("upper", "work"):
            shutil.rmtree(f"{self.container}/{name}")
            os.mkdir(f"{self.container}/{name}")

    def spec(self, *, shm_size: int = SHM_SIZE, **changes: Any) -> ContainerSpec:
        """A container of this root with everything private and docker's masks.

        The default mounts come before those in `changes`.
        """
        values: dict[str, Any] = {
            "id": "test",
            "name": "test",
            "argv": ("/bin/true",),
            "rootfs": Rootfs(lower=self.rootfs),
            "namespaces": tuple(NamespaceRequest(kind=kind) for kind in (*KINDS, "cgroup")),
            "etc": True,
            "masked_paths": MASKED_PATHS,
            "readonly_paths": READONLY_PATHS,
        }
        values |= changes
        values["mounts"] = all_mounts(
            values["namespaces"],
            changes.get("mounts", ()),
            gid_map=changes.get("gid_map", ()),
            shm_size=shm_size,
        )
        return ContainerSpec(**values)


def run(
    steps: tuple[Step, ...],
    script: str = "true",
    *,
    without: tuple[str, ...] = (),
    maps: tuple[tuple[IdMap, ...], tuple[IdMap, ...]] | None = None,
    ctx: Context | None = None,
    times: list[int] | None = None,
    timed: dict[str, list[int]] | None = None,
) -> str:
    """The standard output and error of `script` in a shell inside, after `steps`.

    `without` names kinds that stay the host's; `maps` are uid and gid maps of a new user namespace;
    `ctx` is one in which host-phase steps ran. Raise Failed when a step fails.
    """
    ctx = ctx or Context(None)
    flags = sum(flag for kind, flag in KINDS.items() if kind not in without)
    flags |= process.CLONE_NEWUSER if maps else 0
    reports, report = os.pipe2(os.O_CLOEXEC)
    output, write = os.pipe2(os.O_CLOEXEC)
    gate, go = os.pipe2(os.O_CLOEXEC)
    pid, pidfd = process.clone(flags)
    if pid == 0:
        _child(steps, ctx, script, report, write, gate, go, user=bool(maps))
    for fd in (report, write, gate, pidfd):
        os.close(fd)
    if maps:
        for kind, entries in zip(("uid", "gid"), maps, strict=True):
            with open(f"/proc/{pid}/{kind}_map", "w") as file:
                file.write("".join(f"{m.inside} {m.outside} {m.count}\n" for m in entries))
    os.write(go, b"x")
    os.close(go)
    message = json.loads(_read_all(reports) or b'{"op": "", "text": "died", "remedy": "", "errno": 0}')
    text = _read_all(output).decode("utf-8", "replace")
    os.waitpid(pid, 0)
    if "text" in message:
        raise Failed(message)
    if timed is not None:
        for op, spent in message["times"]:
            timed.setdefault(op, []).append(spent)
    return text


def _child(
    steps: tuple[Step, ...],
    ctx: Context,
    script: str,
    report: int,
    write: int,
    gate: int,
    go: int,
    *,
    user: bool,
) -> NoReturn:
    op = ""
    try:
        os.close(go)
        os.dup2(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), 0)
        os.read(gate, 1)
        if user:
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        spent: list[tuple[str, int]] = []
        for step in steps:
            op = step.op
            begin = perf_counter_ns()
            step.execute(ctx)
            spent.append((f"{op} {getattr(step, 'target', '')}".strip(), perf_counter_ns() - begin))
        os.write(report, json.dumps({"times": spent}).encode())
        os.dup2(write, 1)
        os.dup2(write, 2)
        os.execve("/bin/busybox", ["sh", "-c", script], {"PATH": "/bin"})
    except BaseException as error:
        message = {"op": op, "text": f"{type(error).__name__}: {error}", "remedy": "", "errno": 0}
        if isinstance(error, OSError | GockerError):
            message["errno"] = error.errno or 0
            message["remedy"] = getattr(error, "remedy", "")
        os.write(report, json.dumps(message).encode())
    finally:
        os._exit(1)  # never back into the test


def _read_all(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, 65536):
        parts.append(part)
    os.close(fd)
    return b"".join(parts)
