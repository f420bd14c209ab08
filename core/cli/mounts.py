"""Turns `-v`, `--mount`, `--tmpfs` and `--shm-size` into the mounts of a container spec."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Mapping
from typing import Any

from gocker.defaults import default_mounts
from gocker.errors import UsageError
from gocker.limits import parse_size
from gocker.model import IdMap, Mount
from gocker.steps.options import sort_options

_MOUNT_REMEDY = "-v /host/path:/inside:ro"
_BIND_OPTIONS = frozenset(
    [
        "dev",
        "nodev",
        "noexec",
        "nosuid",
        "private",
        "ro",
        "rprivate",
        "rshared",
        "rslave",
        "rw",
        "shared",
        "slave",
    ]
)
_ATTRIBUTES = frozenset({"ro", "nosuid", "dev", "nodev", "noexec"})
_TMPFS_KEYS = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "huge", "mpol"})  # tmpfs(5)
_HARDENED = ("nosuid", "nodev", "noexec")
_UNDO_HARDENED = {"nosuid": "suid", "nodev": "dev", "noexec": "exec"}

Options = dict[str, Any]


def mounts(options: Options, modes: Mapping[str, str], gid_map: tuple[IdMap, ...]) -> tuple[Mount, ...]:
    """The container's own, then the user's, parents before what lies in them.

    `modes` is namespace kind to private, host or path. Raise UsageError.
    """
    asked = [_checked(mount, options) for mount in _asked(options)]
    targets = [mount.target for mount in asked]
    for number, target in enumerate(targets):
        if target in targets[:number]:
            raise UsageError("mount on", target, "it is a mount point twice")
    own = default_mounts(
        modes,
        taken=frozenset(targets),
        gid_map=gid_map,
        shm_size=parse_size(options["shm_size"], "shm-size"),
        privileged=options["privileged"],
    )
    return (*own, *sorted(asked, key=lambda mount: mount.target.count("/")))


def _checked(mount: Mount, options: Options) -> Mount:
    """With a plain target, one that a user may have, and with what is safe unless something else was asked for.

    Device files work only where they are expected: below /dev, where `dev` is asked for, privileged.
    """
    target = posixpath.normpath("/" + mount.target.lstrip("/"))
    if target == "/":
        raise UsageError("mount on", target, "it is the root itself", remedy="use --rootfs for that")
    if target == "/proc" or target.startswith("/proc/"):
        raise UsageError("mount on", target, "/proc must stay the container's own")
    if target == "/dev/pts" or (target == "/dev" and options["tty"]):
        raise UsageError("mount on", target, "the container's terminals are there")
    unknown = [
        word
        for word in sort_options(mount.options).data
        if mount.kind == "bind" or word.partition("=")[0] not in _TMPFS_KEYS
    ]
    if unknown:
        raise UsageError("mount on", target, f"{mount.kind} has no option {unknown[0]}")
    words = mount.options
    if mount.kind == "tmpfs":
        hardened = _HARDENED if target != "/dev" else ("nosuid", "noexec")  # the nodes are in there
        words = (*(word for word in hardened if _UNDO_HARDENED[word] not in words), *words)
    elif not options["privileged"] and not f"{target}/".startswith("/dev/"):
        words = ("rnodev", *words)
    return mount.replace(target=target, options=words)


def _asked(options: Options) -> tuple[Mount, ...]:
    return (
        *(_volume(text) for text in options["volume"]),
        *(_mount(text) for text in options["mount"]),
        *(_tmpfs(text) for text in options["tmpfs"]),
    )


def _volume(text: str) -> Mount:
    source, _, rest = text.partition(":")
    target, _, options = rest.partition(":")
    if not target:
        raise UsageError("mount volume", text, "not SRC:DST[:OPTIONS]", remedy=_MOUNT_REMEDY)
    return _bind(text, source, target, tuple(option for option in options.split(",") if option))


def _bind(text: str, source: str, target: str, options: tuple[str, ...]) -> Mount:
    """A bind whose source is there; device files work only where the source itself is one."""
    if not source.startswith("/"):
        raise UsageError(
            "mount volume", text, f"{source!r} is not an absolute host path", remedy='-v "$PWD":/inside'
        )
    kept = [option for option in options if option != "rw"]
    unknown = [option for option in options if option not in _BIND_OPTIONS]
    if unknown:
        known = ", ".join(sorted(_BIND_OPTIONS))
        raise UsageError("mount volume", text, f"unknown option {unknown[0]!r}", remedy=f"known: {known}")
    if {"ro", "rw"} <= set(options):
        raise UsageError("mount volume", text, "it is both ro and rw", remedy="leave one of them out")
    try:
        mode = os.stat(source).st_mode
    except OSError as error:
        raise UsageError.from_os("mount volume", source, error, remedy="make it first") from error
    except ValueError as error:
        raise UsageError("mount volume", repr(source), str(error)) from error
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        kept.insert(0, "dev")
    return Mount(
        kind="bind",
        target=absolute("mount volume", target, text),
        source=source,
        options=tuple(
            f"r{word}" if word in _ATTRIBUTES else word for word in kept
        ),  # also of what is mounted below
    )


def _mount(text: str) -> Mount:
    fields = dict.fromkeys(("type", "source", "target"), "")
    options: list[str] = []
    aliases = {"src": "source", "dst": "target", "destination": "target"}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        key = aliases.get(key, key)
        if key in fields and equals:
            fields[key] = value
        elif key in ("ro", "readonly") and value in ("", "true", "1"):
            options.append("ro")
        elif key == "bind-propagation":
            options.append(value)
        elif key == "tmpfs-size":
            options.append(f"size={parse_size(value, 'tmpfs-size')}")
        elif key == "tmpfs-mode":
            options.append(f"mode={value}")
        else:
            raise UsageError(
                "mount", text, f"unknown field {part!r}", remedy="type=bind,src=/host,dst=/inside,ro"
            )
    if fields["type"] == "bind":
        return _bind(text, fields["source"], fields["target"], tuple(options))
    if fields["type"] == "tmpfs":
        return _tmpfs_mount(text, fields["target"], options)
    raise UsageError(
        "mount",
        text,
        f"type {fields['type']!r} is not bind or tmpfs",
        remedy="type=bind,src=/host,dst=/inside",
    )


def _tmpfs(text: str) -> Mount:
    target, _, options = text.partition(":")
    return _tmpfs_mount(text, target, [option for option in options.split(",") if option])


def _tmpfs_mount(text: str, target: str, options: list[str]) -> Mount:
    for option in options:
        name, equals, value = option.partition("=")
        octal = value.isascii() and value.isdigit() and value.strip("01234567") == "" and len(value) <= 4
        if equals and name == "mode" and not octal:
            raise UsageError("mount tmpfs", text, f"mode {value!r} is not octal", remedy="mode=1777")
        if equals and name == "size" and not value.removesuffix("%").isdigit():
            parse_size(value, "tmpfs-size")
    return Mount(
        kind="tmpfs",
        target=absolute("mount tmpfs", target, text),
        options=tuple(options),
    )


def absolute(operation: str, path: str, text: str = "") -> str:
    """`path`, which is from the option's `text`."""
    if not path.startswith("/") or "\0" in path:
        reason = f"{path!r} is not an absolute path inside the container"
        raise UsageError(operation, text or path, reason, remedy="begin it with a /")
    return path
