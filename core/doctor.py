"""What this host offers, each thing really tried, and the remedy for what is missing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from gocker import paths
from gocker.errors import GockerError, errno_name
from gocker.hierarchy import Hierarchies, Place, read_host
from gocker.kernel import mount, process, stub
from gocker.kernel.syscalls import unshare
from gocker.model import Hierarchy
from gocker.plan import Context
from gocker.record import Record
from gocker.steps.cgroup import EnableControllers

OK, LIMITED, MISSING = "ok", "limited", "missing"
_CAP_SYS_ADMIN = 21
_KINDS = (
    ("mount", process.CLONE_NEWNS),
    ("pid", process.CLONE_NEWPID),
    ("uts", process.CLONE_NEWUTS),
    ("ipc", process.CLONE_NEWIPC),
    ("network", process.CLONE_NEWNET),
    ("cgroup", process.CLONE_NEWCGROUP),
    ("user", process.CLONE_NEWUSER),
    ("time", process.CLONE_NEWTIME),
)
_NEEDED = {"mount", "pid", "uts", "ipc", "network"}  # what a plain `gocker run` asks for


class Check(Record):
    """One thing that was tried."""

    name: str
    status: str  # ok | limited: something less works, or an option does not | missing: no run works
    detail: str
    remedy: str = ""


def examine() -> Iterator[Check]:
    """Try everything, from the most basic on; nothing stays behind."""
    yield _privileges()
    yield Check("kernel", OK, f"Linux {os.uname().release} on {os.uname().machine}")
    for kind, flag in _KINDS:
        yield _namespace(kind, flag)
    yield from _cgroups()
    for name, directory in (("data", paths.data_root()), ("state", paths.state_root())):
        yield _writable(name, directory)
    yield _writable("audit log", os.path.dirname(paths.audit_log()))
    yield from _file_systems()
    yield _tried(
        "exec stub",
        MISSING,
        lambda: f"sealed, fd {stub.stub_fd()}",
        "needs memfd_create(2), Linux 6.3 with MFD_EXEC",
    )
    yield _seccomp()


def _tried(name: str, otherwise: str, attempt: Callable[[], str], remedy: str) -> Check:
    """`ok` with what `attempt` says, or `otherwise` with the error and the remedy."""
    try:
        return Check(name, OK, attempt())
    except OSError as error:
        return Check(name, otherwise, f"{errno_name(error.errno or 0)}: {error.strerror}", remedy)
    except GockerError as error:
        return Check(name, otherwise, str(error).removesuffix(f" ({error.remedy})"), error.remedy or remedy)


def _privileges() -> Check:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        fields = dict(line.split(":\t", 1) for line in file if ":\t" in line)
    effective = int(fields["CapEff"], 16)
    if os.geteuid() == 0 and effective >> _CAP_SYS_ADMIN & 1:
        return Check("privileges", OK, "root with CAP_SYS_ADMIN")
    reason = f"uid {os.geteuid()}, CapEff {effective:#x}"
    return Check("privileges", MISSING, reason, "run gocker as root: sudo gocker run ...")


def _in_child(flags: int, action: Callable[[], object]) -> None:
    """Do `action` in a process with new namespaces `flags`; raise its OSError here."""
    pid, pidfd = process.clone(flags)
    if pid == 0:
        try:
            action()
            os._exit(0)
        except OSError as error:
            os._exit(min(error.errno or 255, 255))
        except BaseException:  # noqa: BLE001 - a process boundary
            os._exit(255)
    os.close(pidfd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(abs(code), os.strerror(abs(code)))


def _namespace(kind: str, flag: int) -> Check:
    def attempt() -> str:
        if flag in (process.CLONE_NEWTIME, process.CLONE_NEWCGROUP):
            _in_child(0, lambda: unshare(flag))
        else:
            _in_child(flag, lambda: None)
        return "made one"

    severity = MISSING if kind in _NEEDED else LIMITED
    return _tried(
        f"{kind} namespace",
        severity,
        attempt,
        f"a kernel with it; see user.max_{kind}_namespaces in /proc/sys/user",
    )


def _cgroups() -> Iterator[Check]:
    try:
        hierarchies = read_host()
    except GockerError as error:
        yield Check("cgroups", MISSING, str(error), error.remedy)
        return
    status = MISSING if hierarchies.mode == "none" else OK
    yield Check(
        "cgroups", status, hierarchies.mode, "mount cgroup2 on /sys/fs/cgroup" if status != OK else ""
    )
    yield from _controllers(hierarchies)


def _controllers(hierarchies: Hierarchies) -> Iterator[Check]:
    from gocker.registry import Registry

    registry = Registry()
    for name, plugin in registry.controllers().items():
        place = hierarchies.place_of(plugin.kernel_names)
        if place is None:
            yield Check(
                f"controller {name}",
                LIMITED,
                "the kernel's controller is not mounted here",
                _absent(hierarchies, plugin.kernel_names),
            )
            continue
        # A run that nobody asks for limits goes on without a controller that cannot be written, but not
        # without one that can, and that processes in the wrong place keep from being handed down.
        severity = MISSING if plugin.always and not place.readonly else LIMITED
        yield _tried(
            f"controller {name}",
            severity,
            partial(_try_controller, place),
            f"{place.mountpoint} must be writable",
        )
    for info in registry.refused():
        yield Check(
            f"plug-in {info.name}", LIMITED, f"refused: {info.reason}", f"pip uninstall {info.distribution}"
        )


def _try_controller(place: Place) -> str:
    """Make a cgroup that has it. On v2 it stays enabled at the mount point, as after a run."""
    probe = place.directory(f"gocker-doctor-{os.getpid()}")
    os.mkdir(probe)
    try:
        if place.version is Hierarchy.V2 and place.controller != "cgroup":
            enable = EnableControllers(path=probe, base=place.mountpoint, controllers=(place.controller,))
            enable.execute(Context(None))
    finally:
        os.rmdir(probe)
    return f"{place.version.value} at {place.mountpoint}"


def _absent(hierarchies: Hierarchies, kernel_names: Mapping[Hierarchy, str]) -> str:
    try:
        hierarchies.require(next(iter(kernel_names.values())))
    except GockerError as error:
        return error.remedy
    return ""


def _writable(name: str, directory: str) -> Check:
    def attempt() -> str:
        there = directory
        while not os.path.isdir(there):
            there = os.path.dirname(there)
        with tempfile.TemporaryFile(dir=there):
            pass
        return directory

    variable = {"data": "GOCKER_ROOT", "state": "GOCKER_STATE"}.get(name, "GOCKER_AUDIT_LOG")
    return _tried(f"{name} directory", MISSING, attempt, f"set {variable} to a place that can be written")


def _file_systems() -> Iterator[Check]:
    root = paths.data_root()
    while not os.path.isdir(root):
        root = os.path.dirname(root)
    with tempfile.TemporaryDirectory(prefix="gocker-doctor-", dir=root) as directory:
        for name in ("lower", "upper", "work"):
            os.mkdir(f"{directory}/{name}")

        def overlay() -> str:
            options = tuple(f"{name}dir={directory}/{name}" for name in ("lower", "upper", "work"))
            _in_child(process.CLONE_NEWNS, lambda: mount.new_mount("overlay", options))
            return f"mounted on {root}"

        yield _tried(
            "overlay",
            LIMITED,
            overlay,
            "modprobe overlay, GOCKER_ROOT on ext4, xfs or tmpfs; else use --rootfs DIR:rw",
        )
    for fstype, severity in (("proc", MISSING), ("tmpfs", MISSING), ("devpts", LIMITED), ("mqueue", LIMITED)):

        def attempt(fstype: str = fstype) -> str:
            flags = process.CLONE_NEWNS | process.CLONE_NEWPID | process.CLONE_NEWIPC
            _in_child(flags, lambda: mount.new_mount(fstype))
            return "made one"

        yield _tried(
            f"file system {fstype}", severity, attempt, "a kernel with the mount API: Linux 5.12 or newer"
        )


def _seccomp() -> Check:
    from gocker.kernel.seccomp import library_version

    return _tried(
        "seccomp",
        LIMITED,
        lambda: f"libseccomp {library_version()}",
        "apt-get install libseccomp2, or run with --security-opt seccomp=unconfined",
    )
