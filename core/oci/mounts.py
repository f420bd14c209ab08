"""The mounts of a config.json."""

from __future__ import annotations

from gocker.model import IdMap, Mount
from gocker.oci.document import show
from gocker.oci.fields import Section, below, plain
from gocker.oci.idmaps import read_maps
from gocker.steps.options import sort_options

Maps = tuple[tuple[IdMap, ...], tuple[IdMap, ...]]

OPTIONS = (  # OCI runtime spec, config, Linux mount options: the file-system-independent ones
    *("async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "idmap", "iversion"),
    *("lazytime", "loud", "mand", "noatime", "nodev", "nodiratime", "noexec", "noiversion", "nolazytime"),
    *("nomand", "norelatime", "nostrictatime", "nosuid", "nosymfollow", "private", "ratime", "rbind"),
    *("rdev", "rdiratime", "relatime", "remount", "rexec", "ridmap", "rnoatime", "rnodev", "rnodiratime"),
    *("rnoexec", "rnorelatime", "rnostrictatime", "rnosuid", "rnosymfollow", "ro", "rprivate", "rrelatime"),
    *("rro", "rrw", "rshared", "rslave", "rstrictatime", "rsuid", "rsymfollow", "runbindable", "rw"),
    *("shared", "silent", "slave", "strictatime", "suid", "symfollow", "sync", "tmpcopyup", "unbindable"),
)
_SUPERBLOCK = frozenset({"dirsync", "lazytime", "mand", "sync"})
"""What the kernel itself takes from a file system's options: vfs_parse_fs_param() of fs/fs_context.c."""
_BINDS = ("bind", "rbind")
_IDMAPS = ("idmap", "ridmap")
_COPY_UP = "tmpcopyup"
_REFUSED = {
    "remount": ("each mount is a new one", "give that mount its options itself"),
}


def known_options() -> tuple[str, ...]:
    """The file-system-independent options that are followed, for all file systems."""
    return tuple(
        word
        for word in OPTIONS
        if word not in _REFUSED and (word in _SUPERBLOCK or not sort_options((word,)).data)
    )


def read_mounts(
    root: Section, bundle: str, own: Maps, *, joined: bool = False, rootfs: str = "/"
) -> tuple[Mount, ...]:
    """All of them, in order. `own` are the id maps of linux, which idmap without any means.

    With a user namespace that is `joined` there may be none, and those of the namespace are meant. A destination
    that begins with `rootfs`, the host path of the root, is what is left without it. Raise UsageError.
    """
    return tuple(_mount(section, bundle, own, rootfs, joined=joined) for section in root.sections("mounts"))


def _mount(section: Section, bundle: str, own: Maps, rootfs: str, *, joined: bool) -> Mount:
    kind, options = _kind(section)
    source = section.text("source") or ""
    if kind == "bind":
        if not source:
            raise section.error("source", "is missing", "the host path that is bound")
        source = below(bundle, source)
    uid_map, gid_map = _maps(section, kind, options, own, joined=joined)
    mount = Mount(
        kind=kind,
        target=_target(section, rootfs),
        source=source,
        options=options,
        uid_map=uid_map,
        gid_map=gid_map,
    )
    section.finish()
    return mount


def _kind(section: Section) -> tuple[str, tuple[str, ...]]:
    """(kind of the model, options): a bind says so in its options, or by its type and is then not recursive."""
    fstype = section.text("type") or ""
    options = section.texts("options")
    binds = any(option in _BINDS for option in options)
    for index, option in enumerate(options):
        if option in _REFUSED:
            reason, remedy = _REFUSED[option]
            raise section.error("options", f"{option}: {reason}", remedy, index=index)
        if option == _COPY_UP and (binds or fstype != "tmpfs"):
            raise section.error("options", f"{option} is for a new tmpfs alone", index=index)
    if binds or fstype == "bind":
        known = tuple(option for option in options if not sort_options((option,)).data)
        for option in options:
            if option not in known:  # the kernel takes no notice of them: mount(2), MS_BIND
                section.warn("options", f"{show(option)} does nothing for a bind mount")
        return "bind", known if binds else ("bind", *known)
    if fstype in {"", "none"}:
        raise section.error("type", "no type, and neither bind nor rbind in the options")
    if "/" in fstype:
        raise section.error("type", f"{show(fstype)} is not a file system")
    return ("cgroup" if fstype == "cgroup2" else fstype), options


def _target(section: Section, rootfs: str) -> str:
    target = section.word("destination")
    if not target.startswith("/"):
        section.warn("destination", f"{show(target)} is relative, taken from /")
    path = plain(target)
    top = rootfs.rstrip("/")
    if top and f"{path}/".startswith(
        f"{top}/"
    ):  # a name as any other: what it leads to is looked up in the root
        section.warn("destination", f"{show(target)} begins with the root's path here, which is left out")
        path = path[len(top) :] or "/"
    return path


def _maps(section: Section, kind: str, options: tuple[str, ...], own: Maps, *, joined: bool) -> Maps:
    maps = read_maps(section)
    idmap = any(option in _IDMAPS for option in options)
    if not maps[0] and not idmap:
        return maps
    name = "uidMappings" if maps[0] else "options"
    if kind != "bind":
        raise section.error(name, f"gocker maps the ids of bind mounts, not of {kind}")
    if not (maps[0] or own[0] or joined):
        raise section.error(name, "idmap, and neither the mount nor linux has uidMappings")
    return maps if maps[0] else own
