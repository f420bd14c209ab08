"""The devices controller: which device files a container may make, read and write."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from gocker.api import Cgroup, CgroupController, LimitHelp, Resources, Scalar
from gocker.errors import LimitError, errno_name
from gocker.model import Hierarchy

RULES = (
    # Making a node is harmless where it cannot be opened, and what unpacks a root file system does it.
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",  # null
    "c 1:5 rwm",  # zero
    "c 1:7 rwm",  # full
    "c 1:8 rwm",  # random
    "c 1:9 rwm",  # urandom
    "c 5:0 rwm",  # tty
    "c 5:2 rwm",  # ptmx
    "c 136:* rwm",  # the first million of pseudo-terminals
)
"""Docker's list; numbers from the kernel's Documentation/admin-guide/devices.txt."""


_ACCESS = "rwm"
_MAX_NUMBER = (1 << 32) - 1
_ALL = "a *:* rwm"
_FILES = {Hierarchy.V1: "devices.allow", Hierarchy.V2: "cgroup_device"}
_REMEDY = "for example c 10:229 rw, or /dev/fuse:rw"


class Devices(CgroupController):
    """Source: kernel Documentation/admin-guide/cgroup-v1/devices.rst and cgroup-v2.rst, Device controller.

    A container with CAP_MKNOD, which docker's default set has, reads the host's disks without it. The
    core plans no container that is not privileged without this plug-in.
    """

    api_version = (1, 1)
    name = "devices"
    # On v2 it has no files: a BPF program is attached, which any cgroup takes.
    kernel_names = {Hierarchy.V1: "devices", Hierarchy.V2: "cgroup"}  # noqa: RUF012 - declared ClassVar
    always = True
    limits = (
        LimitHelp(
            key="devices.allow",
            example="devices.allow=c 10:229 rw",
            text="Further devices, by comma: TYPE MAJOR:MINOR ACCESS or /dev/PATH:ACCESS.",
            oci="x.devices.allow",
            files=_FILES,
        ),
        LimitHelp(
            key="devices.rules",
            example="devices.rules=deny a,c 10:229 rw",
            text="All rules instead, by comma, in order; every container's own devices are allowed after them.",
            oci="x.devices.rules",
            files=_FILES,
        ),
    )
    oci_paths = ("devices",)

    def parse(self, fields: Mapping[str, str]) -> Resources:
        """Rules as the kernel spells them, by comma; a path stays one, with its access."""
        resources: dict[str, Scalar] = {}
        for key in ("allow", "rules"):
            if key in fields:
                words = fields[key].split(",")
                rules = [_rule(word.strip(), f"devices.{key}={fields[key]}", key) for word in words]
                resources[f"x.devices.{key}"] = ",".join(rules)
        return resources

    def from_oci(self, part: Mapping[str, object]) -> Mapping[str, str]:
        """The list in its order. A rule that does not say its type or number is about all."""
        rows = part.get("devices", [])
        if not isinstance(rows, list):
            raise LimitError("read linux.resources", "devices", "not a list")
        rules = [_oci_rule(row, f"devices[{at}]") for at, row in enumerate(rows)]
        return {"rules": ",".join(rules)} if rules else {}

    def set(self, group: Cgroup, resources: Resources) -> None:
        """Allow what is asked for and the devices that every container has in its /dev, and no other.

        These come last but for `devices.allow`, as runc has them, so that no list takes /dev/null away.
        """
        rules, allow = (
            [word for word in str(resources.get(f"x.devices.{key}", "")).split(",") if word]
            for key in ("rules", "allow")
        )
        labels = tuple(row.key for row in self.limits if row.oci in resources)
        group.allow_devices((*rules, *RULES, *map(_resolved, allow)), limits=labels)


def _refused(target: str, reason: str) -> LimitError:
    return LimitError("set limit", target, reason, remedy=_REMEDY)


def _rule(word: str, target: str, key: str) -> str:
    """One rule as it is written down; `a` alone is about everything."""
    if key == "allow" and word.startswith("/"):
        path, colon, access = word.rpartition(":")
        if not colon or not _is_access(access):
            path, access = word, _ACCESS
        if "\0" in path:
            raise _refused(target, "a NUL byte in a path")
        return f"{path}:{access}"
    deny = "deny " if key == "rules" and word.startswith("deny ") else ""
    kind, _, rest = word.removeprefix(deny).partition(" ")
    if kind == "a" and not rest:
        return deny + _ALL
    numbers, _, access = rest.partition(" ")
    major, _, minor = numbers.partition(":")
    if kind not in {"a", "b", "c"} or not (_is_number(major) and _is_number(minor) and _is_access(access)):
        raise _refused(target, f"{word!r} is not TYPE MAJOR:MINOR ACCESS")
    letters = "".join(letter for letter in _ACCESS if letter in access)
    return f"{deny}{kind} {major}:{minor} {letters}"


def _is_number(text: str) -> bool:
    return text == "*" or (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MAX_NUMBER)


def _is_access(text: str) -> bool:
    return 0 < len(set(text)) == len(text) and set(text) <= set(_ACCESS)


def _oci_rule(row: object, where: str) -> str:
    known = {"allow", "type", "major", "minor", "access"}
    if not isinstance(row, dict) or not row.keys() <= known or not isinstance(row.get("allow"), bool):
        raise LimitError(
            "read linux.resources", where, f"{row!r} is not an object of {', '.join(sorted(known))}"
        )
    numbers = []
    for name in ("major", "minor"):
        number = row.get(name, -1)
        if type(number) is not int or not -1 <= number <= _MAX_NUMBER:
            raise LimitError(
                "read linux.resources", f"{where}.{name}", f"{number!r} is not a device's number"
            )
        numbers.append("*" if number == -1 else str(number))
    access = row.get("access")
    if not isinstance(access, str) or not _is_access(access):
        raise LimitError("read linux.resources", f"{where}.access", f"{access!r} is not of r, w and m")
    kind = row.get("type") or "a"
    if kind not in ("a", "b", "c"):
        raise LimitError("read linux.resources", f"{where}.type", f"{kind!r} is not a, b or c")
    deny = "" if row["allow"] else "deny "
    return _rule(f"{deny}{kind} {':'.join(numbers)} {access}", where, "rules")


def _resolved(rule: str) -> str:
    """The rule about the device at a path; others as they are."""
    if not rule.startswith("/"):
        return rule
    path, _, access = rule.rpartition(":")
    try:
        status = os.stat(path)
    except OSError as error:
        raise _refused(f"devices.allow={rule}", errno_name(error.errno or 0)) from error
    kind = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        raise _refused(f"devices.allow={rule}", "not a device")
    return f"{kind} {os.major(status.st_rdev)}:{os.minor(status.st_rdev)} {access}"
