"""Mount options as words: which are attributes of the mount, which its propagation, which the file system's."""

from __future__ import annotations

from gocker.kernel.mount import (
    MOUNT_ATTR_ATIME,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
    MS_UNBINDABLE,
)
from gocker.record import Record

# Word -> (bits to set, bits to clear); mount(8). The access time is a field: clear all of it first.
ATTRIBUTES: dict[str, tuple[int, int]] = {
    "ro": (MOUNT_ATTR_RDONLY, 0),
    "rw": (0, MOUNT_ATTR_RDONLY),
    "nosuid": (MOUNT_ATTR_NOSUID, 0),
    "suid": (0, MOUNT_ATTR_NOSUID),
    "nodev": (MOUNT_ATTR_NODEV, 0),
    "dev": (0, MOUNT_ATTR_NODEV),
    "noexec": (MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, MOUNT_ATTR_NOEXEC),
    "nosymfollow": (MOUNT_ATTR_NOSYMFOLLOW, 0),
    "nodiratime": (MOUNT_ATTR_NODIRATIME, 0),
    "symfollow": (0, MOUNT_ATTR_NOSYMFOLLOW),
    "diratime": (0, MOUNT_ATTR_NODIRATIME),
    "relatime": (0, MOUNT_ATTR_ATIME),
    "atime": (0, MOUNT_ATTR_ATIME),
    "nostrictatime": (0, MOUNT_ATTR_ATIME),
    "noatime": (MOUNT_ATTR_NOATIME, MOUNT_ATTR_ATIME),
    "strictatime": (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME),
    "norelatime": (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME),
}
RECURSIVE = {f"r{word}": bits for word, bits in ATTRIBUTES.items()}
"""`rro` and so on: the same for all mounts below, too. Source: OCI runtime spec, config, Linux mount options."""
_SAY_NOTHING = frozenset({"defaults", "async", "nomand", "noiversion", "nolazytime", "loud", "silent"})
_KINDS = {"private": MS_PRIVATE, "shared": MS_SHARED, "slave": MS_SLAVE, "unbindable": MS_UNBINDABLE}
PROPAGATION: dict[str, int] = {**_KINDS, **{f"r{word}": kind | MS_REC for word, kind in _KINDS.items()}}


class MountOptions(Record):
    """A list of options, sorted out."""

    attributes: int = 0  # MOUNT_ATTR_* to set
    clear: int = 0  # MOUNT_ATTR_* to clear
    deep_attributes: int = 0  # the same, for all mounts below too
    deep_clear: int = 0
    propagation: int = 0  # MS_* kind, with MS_REC where all below are meant; 0 when none was named
    recursive: bool = True  # rbind, which is what docker's -v means, or bind
    idmap: str = ""  # idmap, or ridmap: for all mounts below too
    copy_up: bool = False  # tmpcopyup: a new tmpfs begins with what is there
    data: tuple[str, ...] = ()  # what is left, for the file system itself


def sort_options(options: tuple[str, ...]) -> MountOptions:
    """Later words win over earlier ones, as in mount(8)."""
    flat, deep = [0, 0], [0, 0]  # bits to set, bits to clear
    propagation = 0
    flat_bind = deep_bind = False
    idmap = ""
    copy_up = False
    data: list[str] = []
    for word in options:
        if word in ATTRIBUTES:
            _merge(flat, *ATTRIBUTES[word])
        elif word in RECURSIVE:
            _merge(deep, *RECURSIVE[word])
        elif word in PROPAGATION:
            propagation = PROPAGATION[word]
        elif word in {"bind", "rbind"}:
            flat_bind, deep_bind = flat_bind or word == "bind", deep_bind or word == "rbind"
        elif word in {"idmap", "ridmap"}:
            idmap = word
        elif word == "tmpcopyup":
            copy_up = True
        elif word not in _SAY_NOTHING:
            data.append(word)
    return MountOptions(
        attributes=flat[0],
        clear=flat[1],
        deep_attributes=deep[0],
        deep_clear=deep[1],
        propagation=propagation,
        recursive=deep_bind or not flat_bind,
        idmap=idmap,
        copy_up=copy_up,
        data=tuple(data),
    )


def _merge(bits: list[int], on: int, off: int) -> None:
    bits[0] = (bits[0] & ~off) | on
    bits[1] = (bits[1] & ~on) | off
