"""The order in which a container's file systems are set up: pure, from the spec to init-phase steps."""

from __future__ import annotations

import posixpath

from gocker.errors import UsageError
from gocker.model import ContainerSpec, Mount
from gocker.plan import Step
from gocker.steps.cgroupfs import PATH as CGROUPS
from gocker.steps.cgroupfs import MountCgroups
from gocker.steps.console import OpenConsole
from gocker.steps.devices import AttachNull, MakeDevices
from gocker.steps.idmap import MapLayers
from gocker.steps.masks import MASKED_PATHS, READONLY_PATHS, MaskPaths, ReadonlyPaths
from gocker.steps.mounts import BindMount, MountEtc, MountFs, OpenSource, TmpfsMount
from gocker.steps.options import sort_options
from gocker.steps.rootfs import BindRoot, OverlayRoot, PivotRoot, Propagation, RemountRootReadonly

__all__ = ["ETC_FILES", "MASKED_PATHS", "READONLY_PATHS", "CgroupRows", "file_system_steps", "layer_steps"]

CgroupRows = tuple[tuple[str, str, tuple[str, ...]], ...]
"""(directory below /sys/fs/cgroup, file system type, options); pure v2 is one row, ("", "cgroup2", ())."""

ETC_FILES = ("hosts", "hostname", "resolv.conf")
_TTY_GROUP = 5
_HARDENED = ("nosuid", "nodev", "noexec")
_TMPFS_KEYS = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "huge", "mpol"})  # tmpfs(5)
_UNDO_HARDENED = {"nosuid": "suid", "nodev": "dev", "noexec": "exec"}


def file_system_steps(spec: ContainerSpec, container_dir: str, cgroups: CgroupRows = ()) -> tuple[Step, ...]:
    """All steps from the first change of a mount to PivotRoot; none when the mounts are not the container's own.

    `container_dir` holds upper and work (unless the root is writable) and etc with `ETC_FILES`;
    `cgroups` are the hierarchies in which the container has a directory of its own. Raise UsageError.
    """
    if spec.rootfs is None:
        return ()
    mounts = _user_mounts(spec)
    taken = frozenset(mount.target for mount in mounts)
    early, late = _user_steps(mounts, privileged=spec.privileged)
    sources = () if _mapped(spec) else _sources(mounts, only_travelling=True)
    steps: list[Step] = [
        *sources,
        Propagation(),
        _root(spec, container_dir),
        *_system_steps(spec, cgroups, taken),
    ]
    if not spec.terminal and not spec.interactive:
        steps.append(AttachNull())  # before a mount of the user's can hide it
    steps += early
    if names := _etc_files(mounts):
        steps.append(MountEtc(directory=f"{container_dir}/etc", names=names, readonly=spec.rootfs.readonly))
    steps += late
    if spec.terminal:
        steps.append(OpenConsole())
    if spec.masked_paths:
        steps.append(MaskPaths(paths=spec.masked_paths))
    if spec.readonly_paths:
        steps.append(ReadonlyPaths(paths=spec.readonly_paths))
    if spec.rootfs.readonly:
        steps.append(RemountRootReadonly())
    return (*steps, PivotRoot())


def layer_steps(spec: ContainerSpec, container_dir: str) -> tuple[Step, ...]:
    """Host-phase steps, after `container_dir` has been made; only a user namespace needs any.

    Raise UsageError.
    """
    if spec.rootfs is None or not _mapped(spec):
        return ()
    mounts = _user_mounts(spec)
    layers = MapLayers(
        lower=spec.rootfs.lower,
        container=container_dir,
        overlay=not spec.rootfs.writable,
        etc=_etc_files(mounts),
        uid_map=tuple((m.inside, m.outside, m.count) for m in spec.uid_map),
        gid_map=tuple((m.inside, m.outside, m.count) for m in spec.gid_map),
        userns=spec.namespace("user").path,
    )
    return (layers, *_sources(mounts, only_travelling=False))


def _etc_files(mounts: list[Mount]) -> tuple[str, ...]:
    taken = {mount.target for mount in mounts}
    return tuple(name for name in ETC_FILES if f"/etc/{name}" not in taken)


def _mapped(spec: ContainerSpec) -> bool:
    return spec.namespace("user").mode != "host"


def _root(spec: ContainerSpec, container_dir: str) -> Step:
    rootfs = spec.rootfs
    assert rootfs is not None  # noqa: S101 - file_system_steps looked
    if rootfs.writable:
        return BindRoot(path=rootfs.lower, nodev=not spec.privileged)
    return OverlayRoot(
        lower=(rootfs.lower,),
        upper=f"{container_dir}/upper",
        work=f"{container_dir}/work",
        userxattr=_mapped(spec),
        nodev=not spec.privileged,
    )


def _system_steps(spec: ContainerSpec, cgroups: CgroupRows, taken: frozenset[str]) -> list[Step]:
    own = {kind: spec.namespace(kind).mode == "private" for kind in ("network", "ipc", "cgroup")}
    mapped = _mapped(spec)
    mode = ("rw",) if spec.privileged else ("ro",)
    steps: list[Step] = [MountFs(fstype="proc", target="/proc", options=_HARDENED)]
    if "/sys" not in taken:
        fallback = "/sys" if mapped and not own["network"] else ""
        steps.append(MountFs(fstype="sysfs", target="/sys", options=(*_HARDENED, *mode), bind=fallback))
        if CGROUPS in taken:
            pass
        elif cgroups and own["cgroup"]:
            steps.append(_cgroups(cgroups, mode))
        elif fallback:  # the host's cgroups would show
            steps.append(MountFs(fstype="tmpfs", target=CGROUPS, options=(*_HARDENED, "ro", "size=4k")))
    if "/dev" not in taken:
        steps += _dev_steps(spec, taken, own_ipc=own["ipc"], mapped=mapped)
    return steps


def _cgroups(rows: CgroupRows, mode: tuple[str, ...]) -> Step:
    if rows[0][0]:
        return MountCgroups(rows=rows, readonly=mode == ("ro",))
    return MountFs(fstype="cgroup2", target=CGROUPS, options=(*_HARDENED, *mode))


def _dev_steps(spec: ContainerSpec, taken: frozenset[str], *, own_ipc: bool, mapped: bool) -> list[Step]:
    tty_group = not mapped or any(m.inside <= _TTY_GROUP < m.inside + m.count for m in spec.gid_map)
    group = (f"gid={_TTY_GROUP}",) if tty_group else ()
    pts = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *group)
    steps: list[Step] = [
        MountFs(fstype="tmpfs", target="/dev", options=("nosuid", "strictatime", "mode=755", "size=65536k")),
        MakeDevices(),
        MountFs(fstype="devpts", target="/dev/pts", options=pts),
    ]
    if "/dev/shm" not in taken:  # noqa: S108 - inside
        options = (*_HARDENED, "mode=1777", f"size={spec.shm_size}")
        shm = MountFs(fstype="tmpfs", target="/dev/shm", options=options)  # noqa: S108
        shared = BindMount(source="/dev/shm", target="/dev/shm", options=_HARDENED)  # noqa: S108
        steps.append(shared if spec.namespace("ipc").mode == "host" else shm)
    if "/dev/mqueue" not in taken and (own_ipc or not mapped):
        steps.append(MountFs(fstype="mqueue", target="/dev/mqueue", options=_HARDENED))
    return steps


def _user_mounts(spec: ContainerSpec) -> list[Mount]:
    """The user's mounts with plain targets, parents before what lies in them."""
    mounts: list[Mount] = []
    for mount in spec.mounts:
        target = posixpath.normpath("/" + mount.target.lstrip("/"))
        _check_mount(mount, target, spec)
        if any(other.target == target for other in mounts):
            raise UsageError("mount on", target, "it is a mount point twice")
        mounts.append(mount.replace(target=target))
    return sorted(mounts, key=lambda mount: mount.target.count("/"))


def _check_mount(mount: Mount, target: str, spec: ContainerSpec) -> None:
    if not mount.target.startswith("/") or "\0" in mount.target:
        raise UsageError("mount on", mount.target, "not an absolute path")
    if target == "/":
        raise UsageError("mount on", target, "it is the root itself", remedy="use --rootfs for that")
    if target == "/proc" or target.startswith("/proc/"):
        raise UsageError("mount on", target, "/proc must stay the container's own")
    if target == "/dev/pts" or (target == "/dev" and spec.terminal):
        raise UsageError("mount on", target, "the container's terminals are there")
    if mount.kind not in {"bind", "tmpfs"}:
        raise UsageError(
            "mount on", target, f"{mount.kind} is not a kind of mount", remedy="use bind or tmpfs"
        )
    options = sort_options(mount.options)
    unknown = [
        word for word in options.data if mount.kind == "bind" or word.partition("=")[0] not in _TMPFS_KEYS
    ]
    if unknown:
        raise UsageError("mount on", target, f"{mount.kind} has no option {unknown[0]}")


def _user_steps(mounts: list[Mount], *, privileged: bool) -> tuple[list[Step], list[Step]]:
    """(mounts right below the root, deeper ones): those of /etc/hosts come between.

    Device files work only where they are expected: below /dev, where `dev` is asked for, privileged.
    """
    early: list[Step] = []
    late: list[Step] = []
    for mount in mounts:
        options = _options(mount)
        step: Step
        if mount.kind == "tmpfs":
            hardened = (word for word in _HARDENED if _UNDO_HARDENED[word] not in options)
            step = TmpfsMount(target=mount.target, options=(*hardened, *options))
        else:
            if not privileged and not f"{mount.target}/".startswith("/dev/"):
                options = ("nodev", *options)
            step = BindMount(source=mount.source, target=mount.target, options=options)
        (early if mount.target.count("/") == 1 else late).append(step)
    return early, late


def _options(mount: Mount) -> tuple[str, ...]:
    return (*mount.options, "ro") if mount.readonly else mount.options


def _sources(mounts: list[Mount], *, only_travelling: bool) -> tuple[Step, ...]:
    """The sources of binds that must be opened early, or of all."""
    return tuple(
        OpenSource(source=mount.source, target=mount.target, recursive=sort_options(mount.options).recursive)
        for mount in mounts
        if mount.kind == "bind" and not (only_travelling and _TRAVELLING.isdisjoint(mount.options))
    )


_TRAVELLING = frozenset({"shared", "rshared", "slave", "rslave"})
