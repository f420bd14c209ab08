"""Where each cgroup controller is: the texts of mountinfo and cgroup files resolved to directories.

Everything but `read_host` is a pure function over surrogateescape text.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from gocker.errors import HierarchyError
from gocker.kernel import caller
from gocker.model import Hierarchy
from gocker.record import Record

_OCTAL = frozenset("01234567")
_V1_ALONE = frozenset({"net_cls", "net_prio"})
"""What no v2 controller stands in for. The others have another name there, or files in every cgroup."""


class MountEntry(Record):
    """One line of mountinfo, escapes resolved. Source: proc_pid_mountinfo(5)."""

    mount_id: int
    parent_id: int
    major_minor: str
    root: str  # the directory of the file system that is shown at the mount point
    mountpoint: str  # as the reading process sees it
    options: tuple[str, ...]  # of this mount
    fstype: str
    source: str
    super_options: tuple[str, ...]  # of the file system, all its mounts alike

    @property
    def readonly(self) -> bool:
        """Nothing can be written here: the mount or the file system as a whole is read-only."""
        return "ro" in self.options or "ro" in self.super_options


class Place(Record):
    """Where one controller's hierarchy can be reached."""

    controller: str  # "memory", "name=systemd", or "cgroup" for the cgroup2 mount itself
    version: Hierarchy
    mountpoint: str
    root: str  # the cgroup that the mount shows, seen from the cgroup namespace: "/", "/docker/ID", "/.."
    own: str  # gocker's own cgroup, seen from the cgroup namespace
    readonly: bool
    comounted: tuple[str, ...]  # v1: the other controllers of this hierarchy, in the kernel's order

    def directory(self, path: str) -> str:
        """The host directory of cgroup `path`, counted from the one that the mount shows.

        Empty parts and `.` are dropped, a missing first `/` is supplied. Raise HierarchyError on `..`
        and NUL: a cgroup path never leads out of the mount (SECURITY R15).
        """
        parts = [part for part in path.split("/") if part not in {"", "."}]
        if ".." in parts or "\0" in path:
            raise HierarchyError(
                "resolve cgroup",
                repr(path),
                f"`..` or NUL could lead out of {self.mountpoint}",
                remedy="a path such as /gocker/web",
            )
        return "/".join([self.mountpoint.rstrip("/"), *parts]) or "/"

    @property
    def position(self) -> str | None:
        """The cgroup that gocker runs in, as a path for `directory`; None when the mount does not show it.

        A mount from outside the cgroup namespace has a root of `/..`: what lies between that
        and the namespace's own root has no names here (cgroup_namespaces(7)).
        """
        root = self.root.rstrip("/")
        if f"{self.own}/".startswith(f"{root}/"):
            below = self.own[len(root) :] or "/"
            if ".." not in below.split("/"):
                return below
        return None


class Hierarchies(Record):
    """Every controller that can be reached: v1 in the order of the cgroup file, then v2."""

    entries: tuple[Place, ...]
    unmounted: tuple[str, ...] = ()  # v1 hierarchies without a mount in reach: "cpu,cpuacct"

    @property
    def mode(self) -> str:
        """`v1`, `v2`, `hybrid` (v1 controllers beside a cgroup2 mount) or `none`.

        A named v1 hierarchy carries no controller, so that one beside cgroup2 leaves the mode v2.
        """
        v1 = [place.controller for place in self.entries if place.version is Hierarchy.V1]
        if self.v2 is None:
            return "v1" if v1 else "none"
        return "v2" if all(name.startswith("name=") for name in v1) else "hybrid"

    @property
    def v2(self) -> Place | None:
        """The cgroup2 mount itself, whichever controllers it has."""
        return self.find("cgroup")

    def find(self, controller: str) -> Place | None:
        """The place of `controller` by its kernel name; None when it cannot be reached."""
        for place in self.entries:
            if place.controller == controller:
                return place
        return None

    def place_of(self, kernel_names: Mapping[Hierarchy, str]) -> Place | None:
        """The place of the controller that has these names, v1 before v2; None when neither is in reach."""
        for version in (Hierarchy.V1, Hierarchy.V2):
            place = self.find(kernel_names.get(version, ""))
            if place is not None and place.version is version:
                return place
        return None

    def require(self, controller: str) -> Place:
        """The place of `controller`, writable; raise HierarchyError with the remedy otherwise."""
        place = self.find(controller)
        if place is None:
            reason, remedy = self._missing(controller)
            raise HierarchyError("find cgroup controller", controller, reason, remedy=remedy)
        if place.readonly:
            raise HierarchyError(
                "use cgroup controller",
                controller,
                f"{place.mountpoint} is mounted read-only",
                remedy=f"mount -o remount,rw {place.mountpoint}; inside docker: run it with --privileged",
            )
        return place

    def _missing(self, controller: str) -> tuple[str, str]:
        """Why `controller` has no place, and what to do about it."""
        for group in self.unmounted:
            names = group.split(",")
            if controller in names:
                named_only = all(name.startswith("name=") for name in names)
                options = f"none,{group}" if named_only else group
                directory = f"/sys/fs/cgroup/{group.replace('name=', '')}"
                return (
                    "its v1 hierarchy is not mounted where gocker can reach it",
                    f"mkdir -p {directory} && mount -t cgroup -o {options} cgroup {directory}",
                )
        if self.mode == "none" or controller == "cgroup":
            kind = "cgroup2" if controller == "cgroup" else "cgroup"
            return (
                f"no {kind} file system is mounted where gocker can reach it",
                "mount -t cgroup2 none /sys/fs/cgroup; inside docker: run it with --privileged",
            )
        disabled = (
            f"take cgroup_disable={controller} off the kernel command line"
            f" or add cgroup_enable={controller}, and reboot"
        )
        reason = f"not in {self.v2.directory('/cgroup.controllers')}" if self.v2 else ""
        if self.mode == "v2" and controller in _V1_ALONE:
            remedy = "leave it out; nft(8) matches packets by their v2 cgroup: socket cgroupv2"
            return "cgroup v2 has no such controller", remedy
        if self.mode == "v2":
            remedy = (
                f"hand it down: echo +{controller} into cgroup.subtree_control of every cgroup above"
                f" (a systemd unit: Delegate=yes); where the topmost lacks it: {disabled}"
            )
            return reason, remedy
        remedy = (
            f"see its line in /proc/cgroups; enabled 1: mkdir -p /sys/fs/cgroup/{controller} &&"
            f" mount -t cgroup -o {controller} cgroup /sys/fs/cgroup/{controller};"
            f" enabled 0: {disabled}; no line: this kernel is built without it"
        )
        return (f"{reason} and " if reason else "") + "no v1 hierarchy carries it", remedy


def parse_mountinfo(text: str) -> tuple[MountEntry, ...]:
    """Every line of a mountinfo file; raise HierarchyError that names the first malformed one."""
    return tuple(_entry(number, line) for number, line in _lines(text))


def parse_cgroup(text: str) -> dict[str, str]:
    """/proc/PID/cgroup as controller to path; `name=systemd` for a named hierarchy, "" for v2.

    Raise HierarchyError that names the first malformed line. Source: cgroups(7).
    """
    return {name: path for names, path in _groups(text) for name in names}


def resolve(mountinfo: str, cgroup: str, controllers: Mapping[str, str]) -> Hierarchies:
    """The hierarchies of a process from the texts of its files.

    `controllers` maps the mount point of a cgroup2 file system to the text of the
    cgroup.controllers file there. Raise HierarchyError on a malformed line; of mounts other than
    cgroup ones only what is needed is looked at.
    """
    return _resolve(_reachable(mountinfo), cgroup, controllers)


def read_host(proc: str = "") -> Hierarchies:
    """The hierarchies of the process whose /proc directory is `proc`: the only function with I/O.

    That is the process which the user started unless one is named.

    Raise HierarchyError when a file cannot be read or understood.
    """
    global _last  # noqa: PLW0603 - what it is worth: 0.1 ms of each further start of a process
    proc = proc or caller.proc()
    mountinfo = _read(f"{proc}/mountinfo", "mount -t proc proc /proc")
    cgroup = _read(f"{proc}/cgroup", "gocker needs a kernel with CONFIG_CGROUPS")
    last = _last
    mounts = last.mounts if last and last.mountinfo == mountinfo else tuple(_reachable(mountinfo))
    unified = _best(entry for entry in mounts if entry.fstype == "cgroup2")
    controllers = {}
    if unified:
        file = f"{unified.mountpoint}/cgroup.controllers"
        controllers[unified.mountpoint] = _read(file, "cgroup2 needs Linux 4.5 or newer")
    if last and (last.mountinfo, last.cgroup, last.controllers) == (mountinfo, cgroup, controllers):
        return last.found
    found = _resolve(mounts, cgroup, controllers)
    _last = _Read(mountinfo, mounts, cgroup, controllers, found)
    return found


class _Read(Record):
    """The texts that were read last, and what they came to."""

    mountinfo: str
    mounts: tuple[MountEntry, ...]
    cgroup: str
    controllers: Mapping[str, str]
    found: Hierarchies


_last: _Read | None = None


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line); only a newline ends one, since a path may hold any other byte."""
    for number, line in enumerate(text.split("\n"), 1):
        if line:
            yield number, line


def _malformed(file: str, number: int, line: str, reason: str) -> HierarchyError:
    return HierarchyError(f"parse {file}", f"line {number} {line!r}", reason)


def _entry(number: int, line: str) -> MountEntry:
    # No field before the separator can hold a space, so the first lone hyphen is the separator.
    # After it some file systems leave spaces in their options (WSL's 9p: `path=C:\Program Files`).
    head, _, tail = line.partition(" - ")
    fields, after = head.split(" "), tail.split(" ", 2)
    if len(fields) < 6 or len(after) < 3:
        raise _malformed("mountinfo", number, line, "too few fields")
    if not fields[4].startswith("/"):
        raise _malformed("mountinfo", number, line, f"the mount point {fields[4]!r} is not absolute")
    mount_id, parent_id, device, root, mountpoint, options, *_ = fields
    if not (_decimal(mount_id) and _decimal(parent_id)):
        raise _malformed("mountinfo", number, line, "the mount ids are not numbers")
    fstype, source, rest = after
    super_options = rest.split(",")
    if "\\" in line:
        root, mountpoint, fstype, source = map(_unescape, (root, mountpoint, fstype, source))
        super_options = [_unescape(option) for option in super_options]
    return MountEntry(
        int(mount_id),
        int(parent_id),
        device,
        root,
        mountpoint,
        tuple(options.split(",")),
        fstype,
        source,
        tuple(super_options),
    )


def _decimal(text: str) -> bool:
    # Ids are 32 bits wide; int() itself would take signs, underscores and Arabic digits.
    return text.isascii() and text.isdigit() and len(text) <= 10


def _unescape(field: str) -> str:
    r"""Resolve `\040`: the kernel writes space, tab, newline, backslash, `#` and in options `,` so."""
    first, *rest = field.split("\\")
    parts = [first]
    for part in rest:
        digits = part[:3]
        code = int(digits, 8) if len(digits) == 3 and _OCTAL.issuperset(digits) else 0
        if 0 < code < 0x100:
            # A byte above ASCII stands alone in surrogateescape text.
            parts += [chr(code if code < 0x80 else 0xDC00 + code), part[3:]]
        else:
            parts += ["\\", part]
    return "".join(parts)


def _groups(text: str) -> Iterator[tuple[list[str], str]]:
    """(names, path) of each line of a cgroup file: the names share one hierarchy."""
    for number, line in _lines(text):
        fields = line.split(":", 2)  # the path may hold colons
        if len(fields) < 3:
            raise _malformed("cgroup", number, line, "not ID:CONTROLLERS:PATH")
        if not fields[2].startswith("/"):
            raise _malformed("cgroup", number, line, f"the path {fields[2]!r} is not absolute")
        yield fields[1].split(","), fields[2]


def _reachable(mountinfo: str) -> list[MountEntry]:
    """The cgroup and cgroup2 mounts that a path lookup reaches, in order.

    Only these become records: a container host has hundreds of other mounts, and this runs at every start.
    """
    mounts: dict[str, tuple[str, str]] = {}  # mount id -> (parent id, mount point)
    tops: dict[tuple[str, str], str] = {}  # (parent id, mount point) -> the last mount there
    candidates = []
    for number, line in _lines(mountinfo):
        try:
            mount_id, parent_id, _, _, point, _ = line.split(" ", 5)
        except ValueError:
            raise _malformed("mountinfo", number, line, "too few fields") from None
        mounts[mount_id] = (parent_id, point)
        if point != "/":  # a mount on `/` hides nothing: a lookup starts below it, at the process's root
            tops[parent_id, point] = mount_id
        if " - cgroup" in line:
            candidates.append((mount_id, number, line))
    entries = []
    for mount_id, number, line in candidates:
        entry = _entry(number, line)
        # A removed cgroup stays mounted, but nothing can be made in it.
        dead = entry.root.endswith("//deleted")
        if not dead and not _hidden(mount_id, mounts, tops):
            entries.append(entry)
    return entries


def _hidden(mount_id: str, mounts: dict[str, tuple[str, str]], tops: dict[tuple[str, str], str]) -> bool:
    """Whether another mount covers this one's mount point, or the way to it.

    The way leads from the topmost ancestor down. Each mount on it is covered by a sibling (a mount
    with the same parent) on a directory above its own, or by a later one on the same directory: mount
    propagation can leave such twins. What is mounted on top of a mount later is its child.
    """
    node, point = mount_id, mounts[mount_id][1]
    if (node, point) in tops:
        return True
    seen = set()  # parents that go round in a circle are nonsense, but must not hang
    while node in mounts and node not in seen:
        seen.add(node)
        parent, point = mounts[node]
        if tops.get((parent, point), node) != node:
            return True
        while point := point.rpartition("/")[0]:
            if (parent, point) in tops:
                return True
        node = parent
    return False


def _best(entries: Iterable[MountEntry]) -> MountEntry | None:
    """Of several mounts of one hierarchy the writable before the read-only, whole before part, first."""
    return min(entries, key=lambda entry: (entry.readonly, entry.root != "/"), default=None)


def _resolve(mounts: Iterable[MountEntry], cgroup: str, controllers: Mapping[str, str]) -> Hierarchies:
    places: list[Place] = []
    unmounted: list[str] = []
    by_option: dict[str, list[MountEntry]] = {}
    for mount in mounts:
        if mount.fstype == "cgroup":
            for option in mount.super_options:
                by_option.setdefault(option, []).append(mount)
    v1, v2 = Hierarchy.V1, Hierarchy.V2
    unified_own = "/"
    for names, own in _groups(cgroup):
        if names == [""]:
            unified_own = own
            continue
        # Which of a mount's options are controllers is what the cgroup file says they are.
        entry = _best(by_option.get(names[0], ()))
        if entry is None:
            unmounted.append(",".join(names))
            continue
        where, root, readonly = entry.mountpoint, entry.root, entry.readonly
        for name in names:
            others = tuple([other for other in names if other != name])
            places.append(Place(name, v1, where, root, own, readonly, others))
    unified = _best(mount for mount in mounts if mount.fstype == "cgroup2")
    if unified:
        where, root, readonly = unified.mountpoint, unified.root, unified.readonly
        names = ["cgroup", *controllers.get(where, "").split()]
        places += [Place(name, v2, where, root, unified_own, readonly, ()) for name in names]
    return Hierarchies(tuple(places), tuple(unmounted))


def _read(path: str, remedy: str) -> str:
    """The whole file; one read returns a page of it at most (seq_file)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            chunks = []
            while chunk := os.read(fd, 4096):
                chunks.append(chunk)
        finally:
            os.close(fd)
    except OSError as error:
        raise HierarchyError.from_os("read", path, error, remedy=remedy) from error
    return os.fsdecode(b"".join(chunks))
