"""What this host offers, each thing really tried, and the remedy for what is missing."""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator

from gocker import __version__, paths, trial
from gocker.api import CgroupController
from gocker.errors import GockerError, errno_name
from gocker.hierarchy import Hierarchies, Place, read_host
from gocker.kernel import keyring, mount, process
from gocker.kernel.ids import set_no_new_privileges
from gocker.kernel.syscalls import call, unshare
from gocker.kernel.userns import user_namespace
from gocker.model import Hierarchy
from gocker.plan import Context
from gocker.plugin_index import ReadOnlyIndex
from gocker.record import Record
from gocker.registry import Registry
from gocker.steps.launch import BecomeRoot
from gocker.steps.namespaces import LinkUp, SetHostname

OK, LIMITED, MISSING = "ok", "limited", "missing"
_OLDEST = (5, 12)  # Linux: mount_setattr(2)
_CAP_SYS_ADMIN = 21
_WHOLE_MAP = ["0", "0", "4294967295"]
_DAY = 86400  # seconds
_AS_HOSTS_ROOT = "run it as the host's root"
_CONTAINED = "inside docker: run it with --privileged"


class Check(Record):
    """One thing that was tried."""

    name: str
    status: str  # ok | limited: something less works, or an option does not | missing: no run works
    detail: str
    remedy: str = ""


def examine() -> Generator[Check, None, None]:
    """Try everything, from the most basic on; nothing stays behind, and nothing is put on the record."""
    yield _software()
    yield _kernel(os.uname())
    if not os.path.exists("/proc/self/status"):
        yield Check("proc", MISSING, "no proc file system on /proc", "mount -t proc proc /proc")
        return
    yield _privileges()
    yield from _namespaces()
    yield from _processes()
    yield from _directories()
    yield from _file_systems()
    try:
        hierarchies = read_host()
    except GockerError as error:
        yield Check("cgroups", MISSING, _words(error), error.remedy)
        return
    registry = Registry(index=ReadOnlyIndex(""))  # what is installed now, whatever an index says
    with trial.unchanged_delegation(_writable_v2(hierarchies)):
        yield from _cgroups(hierarchies, registry)
        yield from _containers(hierarchies, registry)


def _tried(name: str, otherwise: str, attempt: Callable[[], str], remedy: str) -> Check:
    """`ok` with what `attempt` says, or `otherwise` with the error and the remedy."""
    try:
        return Check(name, OK, attempt())
    except GockerError as error:
        return Check(name, otherwise, _words(error), error.remedy or _remedy(error.errno, remedy))
    except Exception as error:  # noqa: BLE001 - a stranger's plug-in, or a bug: the other checks have their turn
        if isinstance(error, OSError) and error.errno:
            detail = f"{errno_name(error.errno)}: {error.strerror}"
            return Check(name, otherwise, detail, _remedy(error.errno, remedy))
        return Check(name, otherwise, f"{type(error).__name__}: {error}", remedy)


def _words(error: GockerError) -> str:
    """The error without its remedy, which has a place of its own."""
    return str(GockerError(error.operation, error.target, error.reason))


def _remedy(number: int, usual: str) -> str:
    if number in {errno.EPERM, errno.EACCES}:
        if os.geteuid() != 0:
            return "run it as root"
        if not _is_hosts_root():
            return _AS_HOSTS_ROOT
        return f"something around gocker forbids it, such as a container or a security module; {_CONTAINED}"
    if number == errno.ENOSYS:
        return f"{usual}; something around gocker may hide the system call: {_CONTAINED}"
    return usual


def _software() -> Check:
    python = ".".join(map(str, sys.version_info[:3]))
    return Check("gocker", OK, f"{__version__} on Python {python}, {os.path.dirname(__file__)}")


def _privileges() -> Check:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        fields = dict(line.split(":\t", 1) for line in file if ":\t" in line)
    effective = int(fields["CapEff"], 16)
    if os.geteuid() != 0 or not effective >> _CAP_SYS_ADMIN & 1:
        reason = f"uid {os.geteuid()}, CapEff {effective:#x}"
        remedy = _CONTAINED if os.geteuid() == 0 else "run gocker as root: sudo gocker run ..."
        return Check("privileges", MISSING, reason, remedy)
    if not _is_hosts_root():
        reason = "root of a user namespace, which may not filter devices, for one"
        return Check("privileges", LIMITED, reason, _AS_HOSTS_ROOT)
    return Check("privileges", OK, "root with CAP_SYS_ADMIN")


def _is_hosts_root() -> bool:
    """Root, and not of a user namespace; user_namespaces(7)."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() == _WHOLE_MAP


def _kernel(system: os.uname_result) -> Check:
    detail = f"Linux {system.release} on {system.machine}"
    if kernel_version(system.release) < _OLDEST:
        return Check("kernel", MISSING, detail, f"Linux {_OLDEST[0]}.{_OLDEST[1]} or newer")
    return Check("kernel", OK, detail)


def kernel_version(release: str) -> tuple[int, int]:
    """(6, 18) of `6.18.44-fc`; what is no number counts as 0."""
    major, _, rest = release.partition(".")
    minor = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return int(major) if major.isdecimal() else 0, int(minor or 0)


def _namespaces() -> Iterator[Check]:
    """Each kind made, and what it is for done in it."""
    yield _namespace("mount", "mnt", process.CLONE_NEWNS, _slave_mounts)
    yield _namespace("pid", "pid", process.CLONE_NEWPID, lambda: f"process {os.getpid()}")
    yield _namespace("uts", "uts", process.CLONE_NEWUTS, _rename)
    yield _namespace("ipc", "ipc", process.CLONE_NEWIPC | process.CLONE_NEWNS, lambda: _made("mqueue"))
    yield _namespace("network", "net", process.CLONE_NEWNET, _loopback)
    yield _namespace("cgroup", "cgroup", 0, lambda: _unshared(process.CLONE_NEWCGROUP))
    yield _tried(
        "user namespace",
        LIMITED,
        _mapped_user,
        "a kernel with CONFIG_USER_NS; sysctl user.max_user_namespaces",
    )
    yield _tried(
        "time namespace", LIMITED, _shifted_clock, "a kernel with CONFIG_TIME_NS: Linux 5.6 or newer"
    )


def _namespace(kind: str, short: str, flag: int, action: Callable[[], str]) -> Check:
    remedy = f"a kernel with namespaces of this kind; raise sysctl user.max_{short}_namespaces"
    status = LIMITED if kind == "cgroup" else MISSING
    return _tried(f"{kind} namespace", status, lambda: trial.in_child(action, flag), remedy)


def _slave_mounts() -> str:
    mount.set_propagation(b"/", mount.MS_SLAVE | mount.MS_REC)
    return "does not show in the host's"


def _rename() -> str:
    SetHostname(name="gocker-doctor").execute(Context(None))
    return f"called {os.uname().nodename}"


def _loopback() -> str:
    LinkUp(name="lo").execute(Context(None))
    return "lo is up"


def _unshared(flag: int) -> str:
    unshare(flag)
    return "made one"


def _mapped_user() -> str:
    ids = trial.ID_MAP
    line = f"{ids.inside} {ids.outside} {ids.count}\n"

    def write(pid: int) -> None:
        for kind in ("gid", "uid"):
            with open(f"/proc/{pid}/{kind}_map", "w", encoding="ascii") as file:
                file.write(line)

    def be_root() -> str:
        BecomeRoot().execute(Context(None))
        os.close(mount.new_mount("tmpfs"))
        return f"root of it is {ids.outside} outside"

    return trial.in_child(be_root, process.CLONE_NEWUSER | process.CLONE_NEWNS, meanwhile=write)


def _shifted_clock() -> str:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)

    def look() -> str:
        return str(time.clock_gettime(time.CLOCK_BOOTTIME))

    offset = ("boottime", _DAY, 0)
    shown = float(trial.in_child(look, process.CLONE_NEWTIME, offsets=(offset,)))
    if not _DAY <= shown - before < _DAY + 3600:
        raise GockerError(
            "shift", "the boot-time clock", f"it shows {shown:.0f} instead of {before + _DAY:.0f} s"
        )
    return "up a day longer"


def _processes() -> Iterator[Check]:
    """What a container's first process does before it execs."""
    yield _tried("exec stub", MISSING, trial.try_stub, "needs memfd_create(2); sysctl vm.memfd_noexec=1 or 0")
    yield _tried(
        "seccomp",
        LIMITED,
        _seccomp,
        "a kernel with CONFIG_SECCOMP_FILTER, or --security-opt seccomp=unconfined",
    )
    yield _tried("session keyring", MISSING, lambda: trial.in_child(_keyring), "sysctl kernel.keys.maxkeys")


def _seccomp() -> str:
    from gocker.kernel.seccomp import install_filter, library_version
    from gocker.seccomp import DEFAULT, seccomp_filter

    found = seccomp_filter(DEFAULT, (), "")
    assert found is not None  # noqa: S101 - DEFAULT is not unconfined

    def confine() -> str:
        set_no_new_privileges()
        install_filter(found.program, found.flags)
        try:
            call("keyctl", 0, 0, 0)
        except OSError as error:
            with open("/proc/self/status", encoding="ascii", errors="replace") as file:
                confined = "Seccomp:\t2\n" in file
            if error.errno == errno.EPERM and confined:
                version = ".".join(map(str, library_version()))
                return f"libseccomp {version}, {found.instructions} instructions refuse keyctl"
        raise GockerError("install seccomp filter", DEFAULT, "the kernel took it, and keyctl goes through")

    return trial.in_child(confine)


def _keyring() -> str:
    mine = keyring.join_session_keyring("gocker-doctor")
    return "a new one" if mine else "none here to leave"


def _directories() -> Iterator[Check]:
    """Where gocker writes: owned by it alone where others must not write, and writable."""
    yield _directory("data", "GOCKER_ROOT", paths.data_root, "images")
    yield _directory("state", "GOCKER_STATE", paths.state_root, "containers")
    yield _directory("audit log", "GOCKER_AUDIT_LOG", lambda: os.path.dirname(paths.audit_log()), "")


def _directory(name: str, variable: str, place: Callable[[], str], private: str) -> Check:
    def attempt() -> str:
        directory = place()
        inside = f"{directory}/{private}"
        if private and os.path.isdir(inside):
            _require_private(inside)
        with tempfile.TemporaryFile(dir=trial.nearest_directory(directory)):
            pass
        return directory

    return _tried(f"{name} directory", MISSING, attempt, f"set {variable} to a directory that can be written")


def _require_private(directory: str) -> None:
    info = os.stat(directory)
    if info.st_uid != os.geteuid() or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        remedy = f"chown {os.geteuid()} {directory} && chmod 0700 {directory}"
        raise GockerError("use", directory, "others own it or may write to it", remedy=remedy)


def _file_systems() -> Iterator[Check]:
    newer = "a kernel with the mount API: Linux 5.12 or newer"
    for fstype, flag in (
        ("proc", process.CLONE_NEWPID),
        ("sysfs", process.CLONE_NEWNET),
        ("tmpfs", 0),
        ("devpts", 0),
        ("mqueue", process.CLONE_NEWIPC),
    ):

        def attempt(fstype: str = fstype, flags: int = process.CLONE_NEWNS | flag) -> str:
            return trial.in_child(lambda: _made(fstype), flags)

        yield _tried(f"file system {fstype}", MISSING, attempt, newer)
    remedy = "modprobe overlay, GOCKER_ROOT on ext4, xfs, btrfs or tmpfs; else use --rootfs DIR:rw"
    yield _tried("overlay", LIMITED, _overlay, remedy)
    remedy = "for --userns private: GOCKER_ROOT on ext4, xfs or btrfs"
    yield _tried("idmapped mount", LIMITED, _idmapped, remedy)
    yield _tried("image base", LIMITED, _base, "use --rootfs DIR")


def _made(fstype: str) -> str:
    os.close(mount.new_mount(fstype))
    return "made one"


def _overlay() -> str:
    with trial.scratch() as directory:
        for name in ("lower", "upper", "work"):
            os.mkdir(f"{directory}/{name}")
        options = tuple(f"{name}dir={directory}/{name}" for name in ("lower", "upper", "work"))

        def write() -> str:
            top = mount.new_mount("overlay", options)
            os.close(os.open("file", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=top))
            return ""

        trial.in_child(write, process.CLONE_NEWNS)
        if os.listdir(f"{directory}/upper") != ["file"]:
            raise GockerError("write through", directory, "the file is not in the upper layer")
        return f"written through on {os.path.dirname(directory)}"


def _idmapped() -> str:
    ids = trial.ID_MAP
    lines = [(ids.inside, ids.outside, ids.count)]
    with trial.scratch() as directory:
        userns = user_namespace(lines, lines)
        try:
            tree = mount.clone_tree(mount.AT_FDCWD, os.fsencode(directory))
            try:
                mount.set_attributes(tree, mount.MOUNT_ATTR_IDMAP, userns=userns)
                owner = os.fstat(tree).st_uid
            finally:
                os.close(tree)
        finally:
            os.close(userns)
        if owner != ids.outside:
            raise GockerError("map the ids of", directory, f"root's files belong to {owner}")
        return f"root's files on {os.path.dirname(directory)} shown as {owner}'s"


def _base() -> str:
    from gocker.images import BASE, find_image, planned_image

    here = find_image(BASE) is not None
    digest = planned_image(BASE).rpartition("sha256-")[2]
    return f"{'here' if here else 'can be made from this host'}, sha256:{digest[:12]}"


def _writable_v2(hierarchies: Hierarchies) -> Place | None:
    return None if hierarchies.v2 is None or hierarchies.v2.readonly else hierarchies.v2


def _cgroups(hierarchies: Hierarchies, registry: Registry) -> Iterator[Check]:
    if hierarchies.mode == "none":
        yield Check("cgroups", MISSING, "none mounted", f"mount -t cgroup2 none /sys/fs/cgroup; {_CONTAINED}")
    else:
        yield Check("cgroups", OK, hierarchies.mode)
    unified = _writable_v2(hierarchies)
    controllers = registry.controllers()
    if unified is not None:
        yield _tried("clone into cgroup", MISSING, lambda: trial.try_cgroup(unified), "Linux 5.7 or newer")
        names = _delegated(hierarchies, controllers)
        if names:
            remedy = "name a cgroup without processes with --cgroup-parent"
            yield _tried("cgroup delegation", LIMITED, lambda: trial.try_delegation(unified, names), remedy)
    for name, plugin in controllers.items():
        yield _controller(f"controller {name}", plugin, hierarchies, {})
    if "memory" in controllers:
        yield _controller("swap accounting", controllers["memory"], hierarchies, {"": "64m", "swap": "128m"})
    for info in registry.refused():
        remedy = f"pip uninstall {info.distribution}"
        yield Check(f"plug-in {info.name}", LIMITED, f"refused: {info.reason}", remedy)


def _delegated(hierarchies: Hierarchies, controllers: dict[str, CgroupController]) -> tuple[str, ...]:
    """The kernel's controllers on v2 that plug-ins here are for."""
    places = ((plugin, hierarchies.place_of(plugin.kernel_names)) for plugin in controllers.values())
    names = {
        plugin.kernel_names[Hierarchy.V2]
        for plugin, place in places
        if place is not None and place.version is Hierarchy.V2
    }
    return tuple(sorted(names - {"cgroup"}))


def _controller(
    name: str, plugin: CgroupController, hierarchies: Hierarchies, fields: dict[str, str]
) -> Check:
    place = hierarchies.place_of(plugin.kernel_names)
    if place is None or place.readonly:
        for kernel_name in dict.fromkeys(plugin.kernel_names.values()):
            try:
                hierarchies.require(kernel_name)
            except GockerError as error:
                return Check(name, LIMITED, _words(error), error.remedy)
        return Check(name, LIMITED, "not for the version of cgroups that has it here")
    return _tried(
        name,
        LIMITED,
        lambda: trial.try_controller(plugin, place, fields),
        f"{place.mountpoint} must be writable",
    )


def _containers(hierarchies: Hierarchies, registry: Registry) -> Iterator[Check]:
    """The whole of it: what a plain run does, and with the options that need more of the host."""

    def plain() -> str:
        return trial.try_container(registry, hierarchies)

    def terminal() -> str:
        return trial.try_container(registry, hierarchies, terminal=True)

    def mapped() -> str:
        return trial.try_container(registry, hierarchies, "user")

    def shifted() -> str:
        return trial.try_container(registry, hierarchies, "time")

    remedy = "see what is missing above"
    check = _tried("container", MISSING, plain, remedy)
    yield check
    if check.status == OK:  # else the others fail for the same reason
        yield _tried("container -t", LIMITED, terminal, remedy)
        yield _tried("container --userns", LIMITED, mapped, remedy)
        yield _tried("container --timens", LIMITED, shifted, remedy)
