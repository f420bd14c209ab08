"""The order in which a container's file systems are set up: pure, from the spec to init-phase steps."""

from __future__ import annotations

import posixpath

from gocker.errors import UsageError
from gocker.model import ContainerSpec, IdMap, Mount
from gocker.plan import Step
from gocker.steps.cgroupfs import MountCgroups
from gocker.steps.devices import DEV, AttachNull, MakeDevices, RemountDevReadonly
from gocker.steps.masks import MaskPaths, ReadonlyPaths
from gocker.steps.mounts import BindInside, BindMount, MountEtc, MountFs, OpenIds, OpenSource
from gocker.steps.options import sort_options
from gocker.steps.procfs import ALWAYS
from gocker.steps.procfs import PATH as PROC
from gocker.steps.rootfs import BindRoot, OpenRoot, OverlayRoot, PivotRoot, Propagation, RemountRootReadonly

__all__ = ["ETC_FILES", "CgroupRows", "file_system_steps", "layer_steps"]

CgroupRows = tuple[tuple[str, str, tuple[str, ...], str], ...]
"""(directory below /sys/fs/cgroup, file system type, options, host path of the container's own cgroup);
pure v2 is one row, ("", "cgroup2", (), PATH)."""

ETC_FILES = ("hosts", "hostname", "resolv.conf")
_COVER = ("nosuid", "nodev", "noexec", "ro", "size=4k")
_SYSTEM = (PROC, "/sys", DEV)  # where a symbolic link of the image would lead the container's own astray


def file_system_steps(spec: ContainerSpec, container_dir: str, cgroups: CgroupRows = ()) -> tuple[Step, ...]:
    """All steps from the first change of a mount to PivotRoot; none when the mounts are not the container's own.

    `container_dir` holds upper and work (unless the root is writable) and etc with `ETC_FILES`;
    `cgroups` are the hierarchies in which the container has a directory of its own. Raise UsageError.
    """
    if spec.rootfs is None:
        return ()
    followed = [OpenRoot(path=spec.rootfs.lower, recursive=spec.rootfs.recursive, slave=True)]
    steps: list[Step] = [*_sources(spec, on_host=False), *(followed if _follows(spec) else ())]
    steps += [Propagation(), _root(spec, container_dir)]
    names = _etc_files(spec)
    etc = (
        [MountEtc(directory=f"{container_dir}/etc", names=names, readonly=spec.rootfs.readonly)]
        if names
        else []
    )
    mounts = [mount.replace(target=_plain(mount)) for mount in spec.mounts]
    late: list[Step] = []
    for mount in mounts:
        if mount.target == DEV and mount.kind != "bind" and "ro" in mount.options:
            mount = mount.replace(options=tuple(word for word in mount.options if word != "ro"))  # noqa: PLW2901
            late = [RemountDevReadonly()]
        if mount.target.startswith("/etc/"):  # over ours
            steps += etc
            etc = []
        steps += _mount_steps(spec, mount, cgroups)
        if mount.target == DEV:
            steps += _stdin_steps(spec) if mount.kind == "bind" else _device_steps(spec)
    steps += etc
    if not any(mount.target == DEV for mount in mounts):
        steps += _device_steps(spec)
    if spec.terminal:
        from gocker.steps.console import OpenConsole

        steps.append(OpenConsole())
    if spec.hooks:
        from gocker.steps import hooks

        steps += hooks.hook_steps(spec, hooks.PRESTART, hooks.CREATE_RUNTIME, hooks.CREATE_CONTAINER)
    if spec.masked_paths:
        steps.append(MaskPaths(paths=spec.masked_paths))
    if spec.readonly_paths:
        steps.append(ReadonlyPaths(paths=spec.readonly_paths))
    steps += late
    if spec.rootfs.readonly:
        steps.append(RemountRootReadonly(directory=spec.cwd))
    return (*steps, PivotRoot(propagation=spec.rootfs.propagation))


def layer_steps(spec: ContainerSpec, container_dir: str) -> tuple[Step, ...]:
    """Host-phase steps, after `container_dir` has been made: what init itself could not open.

    Raise UsageError.
    """
    if spec.rootfs is None:
        return ()
    sources = _sources(spec, on_host=True)
    if not _apart(spec):
        return sources
    if not (_mapped(spec) and spec.rootfs.mapped):
        return (OpenRoot(path=spec.rootfs.lower, recursive=spec.rootfs.recursive), *sources)
    from gocker.steps.idmap import MapLayers  # 0.3 ms that few containers need

    layers = MapLayers(
        lower=spec.rootfs.lower,
        container=container_dir,
        overlay=not spec.rootfs.writable,
        etc=_etc_files(spec),
        uid_map=_lines(spec.uid_map),
        gid_map=_lines(spec.gid_map),
        userns=spec.namespace("user").path,
    )
    return (layers, *sources)


def _lines(maps: tuple[IdMap, ...]) -> tuple[tuple[int, int, int], ...]:
    return tuple((m.inside, m.outside, m.count) for m in maps)


def _etc_files(spec: ContainerSpec) -> tuple[str, ...]:
    if not spec.etc:
        return ()
    taken = {_plain(mount) for mount in spec.mounts}
    return tuple(name for name in ETC_FILES if f"/etc/{name}" not in taken)


def _mapped(spec: ContainerSpec) -> bool:
    return spec.namespace("user").mode != "host"


def _apart(spec: ContainerSpec) -> bool:
    """Whether init cannot open what the host has: as another's root, or in another's mount namespace."""
    return _mapped(spec) or spec.namespace("mount").mode == "path"


def _plain(mount: Mount) -> str:
    """The target without `..` and `//`. Raise UsageError."""
    if not mount.target.startswith("/") or "\0" in mount.target:
        raise UsageError("mount on", mount.target or "''", "not an absolute path")
    return posixpath.normpath("/" + mount.target.lstrip("/"))


def _follows(spec: ContainerSpec) -> bool:
    """Whether what the host mounts in the root later is to come in."""
    rootfs = spec.rootfs
    return (
        rootfs is not None
        and rootfs.writable
        and not rootfs.nodev
        and rootfs.propagation in {"slave", "rslave"}
        and not _apart(spec)
    )


def _root(spec: ContainerSpec, container_dir: str) -> Step:
    rootfs = spec.rootfs
    assert rootfs is not None  # noqa: S101 - file_system_steps looked
    if rootfs.writable:
        return BindRoot(
            path=rootfs.lower, nodev=rootfs.nodev, recursive=rootfs.recursive, slave=_follows(spec)
        )
    return OverlayRoot(
        lower=(rootfs.lower,),
        upper=f"{container_dir}/upper",
        work=f"{container_dir}/work",
        userxattr=_mapped(spec),
        nodev=rootfs.nodev,
    )


def _mount_steps(spec: ContainerSpec, mount: Mount, cgroups: CgroupRows) -> list[Step]:
    options = sort_options(mount.options)
    if mount.kind == "bind":
        if options.data:
            raise UsageError("mount on", mount.target, f"a bind mount has no option {options.data[0]}")
        inside = _inside(spec, mount)
        if inside:
            mapped = options.idmap or ("idmap" if mount.uid_map else "")
            return [BindInside(source=inside, target=mount.target, options=mount.options, mapped=mapped)]
        return [BindMount(source=mount.source, target=mount.target, options=mount.options)]
    if f"{mount.target}/".startswith(f"{PROC}/") and (mount.kind, mount.target) != ("proc", PROC):
        raise UsageError("mount on", mount.target, f"{PROC} must stay the container's own")
    if mount.kind == "proc" and mount.target == PROC and (options.clear | options.deep_clear) & ALWAYS:
        raise UsageError(
            "mount on", PROC, "it is nosuid, nodev and noexec", remedy="leave suid, dev and exec out"
        )
    if mount.kind == "cgroup":
        if options.data:
            raise UsageError(
                "mount on", mount.target, f"cgroups are mounted with no option {options.data[0]}"
            )
        if not cgroups:
            return [MountFs(fstype="tmpfs", target=mount.target, options=_COVER)] if _copied_sys(spec) else []
        own = spec.namespace("cgroup").mode == "private"
        return [MountCgroups(rows=cgroups, target=mount.target, options=mount.options, bind=not own)]
    fallback = "/sys" if mount.kind == "sysfs" and _copied_sys(spec) else ""
    cls = MountFs
    if options.copy_up:
        from gocker.steps.copyup import MountCopy

        cls = MountCopy
    return [
        cls(
            fstype=mount.kind,
            target=mount.target,
            options=_labelled(spec.mount_label, mount) if spec.mount_label else mount.options,
            source=mount.source,
            bind=fallback,
            follow=not any(f"{mount.target}/".startswith(f"{top}/") for top in _SYSTEM),
        )
    ]


def _inside(spec: ContainerSpec, mount: Mount) -> str:
    """The path in the root of a bundle's bind whose source lies in there, else "".

    Such a source sees the mounts made before it, as with runc. In a user namespace ids can only be mapped from outside.
    """
    rootfs = spec.rootfs
    if not spec.bundle or rootfs is None or not rootfs.writable:
        return ""
    if _apart(spec) and (mount.uid_map or sort_options(mount.options).idmap):
        return ""
    top, source = rootfs.lower.rstrip("/"), posixpath.normpath(mount.source)
    if not top or not f"{source}/".startswith(f"{top}/"):
        return ""
    return source[len(top) :] or "/"


def _copied_sys(spec: ContainerSpec) -> bool:
    """Whether /sys is a copy of the host's, in which the host's cgroups show."""
    return _mapped(spec) and spec.namespace("network").mode != "private"


def _labelled(label: str, mount: Mount) -> tuple[str, ...]:
    from gocker.steps.labels import labelled_options

    return labelled_options(label, mount.kind, mount.options)


def _device_steps(spec: ContainerSpec) -> list[Step]:
    others = tuple((d.path, d.kind, d.major, d.minor, d.mode, d.uid, d.gid) for d in spec.devices)
    return [MakeDevices(others=others), *_stdin_steps(spec)]


def _stdin_steps(spec: ContainerSpec) -> list[Step]:
    """Right after /dev, before a mount of the user's can hide its null device."""
    return [] if spec.terminal or spec.interactive else [AttachNull()]


def _sources(spec: ContainerSpec, *, on_host: bool) -> tuple[Step, ...]:
    """The sources of binds that must be opened early: before the clone, or before the host's mounts are let go."""
    steps: list[Step] = []
    for mount in spec.mounts:
        options = sort_options(mount.options)
        if mount.kind != "bind":
            continue
        maps = (mount.uid_map, mount.gid_map)
        if options.idmap and not mount.uid_map:
            maps = (spec.uid_map, spec.gid_map)
        joined = spec.namespace("user").path if options.idmap and not maps[0] else ""
        inside = _inside(spec, mount)
        if inside:
            if on_host and maps[0]:
                ids: Step = OpenIds(
                    source=inside, target=_plain(mount), uid_map=_lines(maps[0]), gid_map=_lines(maps[1])
                )
                steps.append(ids)
            continue
        if on_host != (_apart(spec) or bool(maps[0] or joined)):
            continue
        if on_host or not _TRAVELLING.isdisjoint(mount.options):
            steps.append(
                OpenSource(
                    source=mount.source,
                    target=_plain(mount),
                    recursive=options.recursive,
                    uid_map=_lines(maps[0]),
                    gid_map=_lines(maps[1]),
                    map_all=options.idmap == "ridmap",
                    userns=joined,
                )
            )
    return tuple(steps)


_TRAVELLING = frozenset({"shared", "rshared", "slave", "rslave"})
