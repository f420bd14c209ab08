"""What `gocker doctor` tries for real: processes, cgroups and whole containers that leave nothing behind."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from gocker import paths
from gocker.api import CgroupController
from gocker.defaults import MASKED_PATHS, READONLY_PATHS, default_mounts
from gocker.errors import GockerError, KernelError, errno_name
from gocker.hierarchy import Hierarchies, Place
from gocker.kernel import cgroupfs, process, stub
from gocker.kernel.caps import docker_capabilities
from gocker.kernel.spawn import Offset, spawn
from gocker.launcher import Launcher
from gocker.model import ContainerSpec, Hierarchy, IdMap, NamespaceRequest, Rootfs, plain_capabilities
from gocker.plan import HOST, INIT, PARENT, PHASES, REMOVE, Context
from gocker.planner import build_plan
from gocker.receipt import signal_name
from gocker.recorder import GroupRecorder, Phases
from gocker.registry import Registry
from gocker.seccomp import seccomp_step
from gocker.state import new_id
from gocker.steps.cgroup import EnableControllers, MakeCgroup

ID_MAP = IdMap(inside=0, outside=100000, count=65536)
"""What `--userns private` maps unless asked otherwise."""
_PATIENCE = 10.0  # seconds until a trial program that does not end is given up
_PRIVATE = ("mount", "uts", "ipc", "pid", "network", "cgroup")  # of a plain `gocker run`
_FORBIDDEN = frozenset({errno.EPERM, errno.EACCES})
_NO_ARGUMENTS = 126  # how the stub ends when it is started as a program


def in_child(
    action: Callable[[], str],
    flags: int = 0,
    *,
    offsets: tuple[Offset, ...] = (),
    cgroup_fd: int = -1,
    meanwhile: Callable[[int], None] | None = None,
) -> str:
    """What `action` returns in a process of its own, in new namespaces `flags` (CLONE_NEW*).

    `meanwhile(pid)` runs here before it does; `offsets` and `cgroup_fd` are as in `spawn`. What it
    raises there is raised here: OSError as it is, anything else as GockerError.
    """
    reports, report = os.pipe2(os.O_CLOEXEC)
    gate, go = os.pipe2(os.O_CLOEXEC)

    def enter() -> NoReturn:
        os.close(go)
        os.read(gate, 1)
        os.write(report, json.dumps(_outcome(action)).encode())
        os._exit(0)

    try:
        try:
            pid, pidfd = spawn(enter, flags, (), offsets, cgroup_fd)
        finally:
            os.close(report)
            os.close(gate)
        try:
            if meanwhile is not None:
                meanwhile(pid)
        finally:
            os.close(go)
            go = -1
            with open(os.dup(reports), "rb") as file:
                data = file.read()
            _, status = os.waitpid(pid, 0)
            os.close(pidfd)
    finally:
        os.close(reports)
        if go >= 0:
            os.close(go)
    return _text(data, status)


def _outcome(action: Callable[[], str]) -> dict[str, Any]:
    try:
        return {"text": action()}
    except GockerError as error:
        return {"error": [error.operation, error.target, error.reason, error.remedy], "errno": error.errno}
    except BaseException as error:  # noqa: BLE001 - the boundary of a process
        if isinstance(error, OSError) and error.errno:
            return {"errno": error.errno}
        return {"error": ["try", "", f"{type(error).__name__}: {error}", ""], "errno": 0}


def _text(data: bytes, status: int) -> str:
    if not data:
        raise KernelError("try", "", f"the process {_end(status)}")
    outcome = json.loads(data)
    number = outcome.get("errno", 0)
    if "error" in outcome:
        operation, target, reason, remedy = outcome["error"]
        raise GockerError(operation, target, reason, remedy=remedy, errno=number)
    if number:
        raise OSError(number, os.strerror(number))
    return str(outcome["text"])


def nearest_directory(path: str) -> str:
    """`path`, or what is there above it."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


@contextlib.contextmanager
def scratch() -> Iterator[str]:
    """A directory on the file system of gocker's data, or of what it would be made on.

    Raise KernelError, and UsageError as `paths.data_root` does.
    """
    there = nearest_directory(paths.data_root())
    try:
        made = tempfile.TemporaryDirectory(prefix="gocker-doctor-", dir=there)
    except OSError as error:
        number = error.errno or 0
        remedy = "" if number in _FORBIDDEN else "set GOCKER_ROOT to a directory that can be written"
        raise KernelError.from_os("make a directory in", there, error, remedy=remedy) from error
    with made as directory:
        yield directory


@contextlib.contextmanager
def unchanged_delegation(unified: Place | None) -> Iterator[None]:
    """Take back the controllers that trials enable in the topmost cgroup, unless containers have come meanwhile."""
    if unified is None:
        yield
        return
    top = unified.mountpoint
    before = _enabled(top)
    try:
        yield
    finally:
        new = sorted(_enabled(top) - before)
        if new and not os.path.isdir(unified.directory("/gocker")):
            with contextlib.suppress(OSError):  # EBUSY: someone uses it by now
                cgroupfs.write_file(top, "cgroup.subtree_control", " ".join(f"-{name}" for name in new))


def _enabled(directory: str) -> set[str]:
    return set((cgroupfs.read_file(directory, "cgroup.subtree_control") or "").split())


@contextlib.contextmanager
def _cgroup(place: Place) -> Iterator[str]:
    """A cgroup of its own, two levels deep as a container's."""
    make = MakeCgroup(
        path=place.directory(f"/gocker-doctor-{os.getpid()}/trial"),
        base=place.mountpoint,
        version=place.version.value,
    )
    try:
        make.execute(Context(None))
        yield make.path
    finally:
        make.undo(Context(None))


def try_cgroup(unified: Place) -> str:
    """Be born in a cgroup of v2, and be killed with it."""
    with _cgroup(unified) as path:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            inside = in_child(_own_cgroup, cgroup_fd=directory)
        finally:
            os.close(directory)
        if not inside.endswith("/trial"):
            raise KernelError("clone into", path, f"the kernel put it into {inside}")
        kill = os.path.exists(f"{path}/cgroup.kill")
    return "born in one" + (", cgroup.kill" if kill else "; without cgroup.kill each process is signalled")


def _own_cgroup() -> str:
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        return next((line.strip()[3:] for line in file if line.startswith("0::")), "")


def try_delegation(unified: Place, names: tuple[str, ...]) -> str:
    """Hand the controllers `names` down to a cgroup, as each start does."""
    with _cgroup(unified) as path:
        EnableControllers(path=path, base=unified.mountpoint, controllers=names).execute(Context(None))
    return f"{' '.join(names)} reach cgroups below {unified.mountpoint}"


def try_controller(plugin: CgroupController, place: Place, fields: Mapping[str, str]) -> str:
    """Set, join, count and remove, by the steps that a start would take. `fields` are as for `parse`.

    Raise OSError, GockerError, or what a stranger's plug-in raises.
    """
    phases: Phases = {phase: [] for phase in PHASES}
    ctx = Context(None)
    version = place.version

    def join() -> str:
        for step in phases[INIT]:
            step.execute(ctx)
        return ""

    def attach(pid: int) -> None:
        ctx.pid = pid
        for step in phases[PARENT]:
            step.execute(ctx)

    with _cgroup(place) as path:
        recorder = GroupRecorder(plugin.name, version, path, place.mountpoint, {}, phases)
        plugin.set(recorder, plugin.parse({**plugin.defaults, **fields}))
        plugin.apply(recorder)
        plugin.remove(recorder)
        name = plugin.kernel_names[version]
        if version is Hierarchy.V2 and name != "cgroup":
            EnableControllers(path=path, base=place.mountpoint, controllers=(name,)).execute(ctx)
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for step in phases[HOST]:
                step.execute(ctx)
            in_child(join, meanwhile=attach, cgroup_fd=directory if version is Hierarchy.V2 else -1)
        finally:
            for fd in (directory, *ctx.fds.values()):
                os.close(fd)
        counters = len(plugin.stats(cgroupfs.DirReader(path, version)))
        for step in phases[REMOVE]:
            step.execute(ctx)
    return f"{version.value} at {place.mountpoint}" + (f", {counters} counters" if counters else "")


def try_container(registry: Registry, hierarchies: Hierarchies, *kinds: str, terminal: bool = False) -> str:
    """Start a container by the very plan of `gocker run`, of a program that ends at once.

    `kinds` are namespaces beyond those of a plain run. Nothing is put on the record, since nobody's
    program ran. Raise OSError or GockerError.
    """
    container = new_id()
    with scratch() as directory:
        os.mkdir(f"{directory}/rootfs", 0o755)
        with open(f"{directory}/rootfs/program", "wb") as file:
            file.write(stub.stub_elf(os.uname().machine))
            os.fchmod(file.fileno(), 0o755)
        maps = (ID_MAP,) if "user" in kinds else ()
        spec = ContainerSpec(
            id=container,
            name="gocker-doctor",
            argv=("/program",),
            rootfs=Rootfs(lower=f"{directory}/rootfs"),
            hostname="gocker-doctor",
            namespaces=tuple(NamespaceRequest(kind=kind) for kind in (*_PRIVATE, *kinds)),
            mounts=default_mounts(dict.fromkeys((*_PRIVATE, *kinds), "private"), gid_map=maps),
            etc=True,
            uid_map=maps,
            gid_map=maps,
            capabilities=plain_capabilities(docker_capabilities((), (), privileged=False)),
            masked_paths=MASKED_PATHS,
            readonly_paths=READONLY_PATHS,
            terminal=terminal,
        )
        seccomp = seccomp_step(spec, "")
        plan = build_plan(spec, registry, hierarchies, f"{directory}/container", seccomp).plan
        begin = time.monotonic()
        _run(Launcher(plan, spec))
        spent = time.monotonic() - begin
    return f"{plan.total} steps in {spent * 1000:.0f} ms"


def _run(launcher: Launcher) -> None:
    """To the program's end, whatever comes in between."""
    failures: list[GockerError] = []
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        launcher.start((null, null, null))
        launcher.await_program()
        _await_end(launcher.ctx)
    finally:
        os.close(null)
        if launcher.console >= 0:
            os.close(launcher.console)
        failures = [*launcher.remove(), *launcher.undo()]
    if failures:
        raise failures[0]


def _await_end(ctx: Context) -> None:
    if not process.has_ended(ctx.pidfd, _PATIENCE):
        raise KernelError("run", "/program", f"it has not ended after {_PATIENCE:.0f} s")
    status = os.waitpid(ctx.pid, 0)[1]
    os.close(ctx.pidfd)
    ctx.pidfd = -1
    if os.waitstatus_to_exitcode(status) != _NO_ARGUMENTS:
        raise KernelError("run", "/program", f"it {_end(status)}")


def _end(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"was ended by {signal_name(-code)}" if code < 0 else f"ended with exit status {code}"


def try_stub() -> str:
    """Exec the stub from its sealed memfd and let it say that its program is not there."""
    import socket

    fd = stub.stub_fd()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def execute() -> str:
        os.dup2(theirs.fileno(), stub.STATUS_FD)
        os.set_inheritable(stub.STATUS_FD, True)  # where the two are one
        stub.exec_stub(fd, stub.EXEC, "/gocker-doctor/nothing", ("nothing",), ())

    try:
        with contextlib.suppress(KernelError):  # it says nothing itself any more
            in_child(execute)
        theirs.close()
        record = stub.parse_record(ours.recv(64) or b"nothing")
    finally:
        theirs.close()
        ours.close()
    if record.kind != stub.EXEC_FAILED:
        raise KernelError("exec stub", "", f"it says {record.kind}, {record.value}")
    return f"runs from a sealed memfd, says {errno_name(record.value)}"
