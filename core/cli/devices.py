"""Turns `--device` and `--device-cgroup-rule` into device nodes and rules of the devices controller."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from typing import Any

from gocker.errors import UsageError
from gocker.model import Device

_ALL = "rwm"
_REMEDY = "for example /dev/fuse, or /dev/sda:/dev/xvda:r"
_KINDS = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}

Options = dict[str, Any]


def devices(options: Options) -> tuple[tuple[Device, ...], str]:
    """(the nodes inside, the rules by comma as `--limit devices.allow` takes them). Raise UsageError.

    A node has the owner and the permissions of the host's. A directory stands for every device in it. A
    privileged container has no rules: it may use all devices.
    """
    nodes: list[Device] = []
    rules: list[str] = []
    for text in options["device"]:
        source, target, access = _split(text)
        for node in _nodes(text, source, target):
            nodes.append(node)
            rules.append(f"{node.kind} {node.major}:{node.minor} {access}")
    rules += options["device_cgroup_rule"]
    return tuple(nodes), "" if options["privileged"] else ",".join(dict.fromkeys(rules))


def _split(text: str) -> tuple[str, str, str]:
    """(host path, path inside, access) of `/dev/x`, `/dev/x:r`, `/dev/x:/dev/y` and `/dev/x:/dev/y:r`."""
    source, *rest = text.split(":")
    access = rest.pop() if rest and _is_access(rest[-1]) else _ALL
    target = rest.pop() if rest else source
    if rest or not all(path.startswith("/") and "\0" not in path for path in (source, target)):
        raise UsageError("add device", text, "not HOST-PATH[:PATH-INSIDE][:ACCESS]", remedy=_REMEDY)
    return source, posixpath.normpath(target), access


def _is_access(text: str) -> bool:
    return 0 < len(set(text)) == len(text) and set(text) <= set(_ALL)


def _nodes(text: str, source: str, target: str) -> Iterator[Device]:
    try:
        status = os.stat(source)
        if stat.S_ISDIR(status.st_mode):
            found = list(_below(source, target))
            if not found:
                raise UsageError("add device", text, "no device in this directory", remedy=_REMEDY)
            yield from found
            return
    except OSError as error:
        raise UsageError.from_os("add device", text, error, remedy=_REMEDY) from error
    node = _node(target, status)
    if node is None:
        raise UsageError("add device", text, "neither a device nor a directory of devices", remedy=_REMEDY)
    yield node


def _below(source: str, target: str) -> Iterator[Device]:
    """In the order of their names; links are not followed."""
    for name in sorted(os.listdir(source)):
        status = os.lstat(f"{source}/{name}")
        if stat.S_ISDIR(status.st_mode):
            yield from _below(f"{source}/{name}", f"{target}/{name}")
        elif node := _node(f"{target}/{name}", status):
            yield node


def _node(path: str, status: os.stat_result) -> Device | None:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    return Device(
        path=path,
        kind=kind,
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mode=stat.S_IMODE(status.st_mode) & 0o777,
        uid=status.st_uid,
        gid=status.st_gid,
    )
