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
    "relatime": (0, MOUNT_ATTR_ATIME),
    "noatime": (MOUNT_ATTR_NOATIME, MOUNT_ATTR_ATIME),
    "strictatime": (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME),
}
_KINDS = {"private": MS_PRIVATE, "shared": MS_SHARED, "slave": MS_SLAVE, "unbindable": MS_UNBINDABLE}
PROPAGATION: dict[str, int] = {**_KINDS, **{f"r{word}": kind | MS_REC for word, kind in _KINDS.items()}}


class MountOptions(Record):
    """A list of options, sorted out."""

    attributes: int = 0  # MOUNT_ATTR_* to set
    clear: int = 0  # MOUNT_ATTR_* to clear
    propagation: int = 0  # MS_* kind, with MS_REC where all below are meant; 0 when none was named
    recursive: bool = True  # rbind, which is what docker's -v means, or bind
    data: tuple[str, ...] = ()  # what is left, for the file system itself


def sort_options(options: tuple[str, ...]) -> MountOptions:
    """Later words win over earlier ones, as in mount(8)."""
    set_bits = clear_bits = propagation = 0
    recursive = True
    data: list[str] = []
    for word in options:
        if word in ATTRIBUTES:
            on, off = ATTRIBUTES[word]
            set_bits = (set_bits & ~off) | on
            clear_bits = (clear_bits & ~on) | off
        elif word in PROPAGATION:
            propagation = PROPAGATION[word]
        elif word in {"bind", "rbind"}:
            recursive = word == "rbind"
        else:
            data.append(word)
    return MountOptions(set_bits, clear_bits, propagation, recursive, tuple(data))
