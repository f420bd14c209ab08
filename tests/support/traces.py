"""What gocker could leave behind on this host, seen from /proc and /sys alone, so cheap enough for every test."""

from __future__ import annotations

import glob
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from gocker.kernel.cgroupfs import is_marked

CONTAINER = re.compile(r"/gocker/([0-9a-f]{16})$")
PATIENCE = 3.0  # seconds; an exiting namespace or cgroup may take a moment


class Traces(NamedTuple):
    """Each a set of names; what is in one after a test and was not before is a leak."""

    cgroups: frozenset[str]
    mounts: frozenset[str]
    links: frozenset[str]
    children: frozenset[str]  # by pid: what they run may change
    files: frozenset[str]

    def new_since(self, before: Traces) -> list[str]:
        """`kind: name` of each that `before` has not."""
        return [
            f"{kind}: {describe(int(name)) if kind == 'children' else name}"
            for kind, now, then in zip(self._fields, self, before, strict=True)
            for name in sorted(now - then)
        ]


class Host:
    """Looks for traces. `base` is the directory of the test session: all below it is the session's own."""

    def __init__(self, base: str, data: str, state: str) -> None:
        self.base = base
        self.own_mounts = os.readlink("/proc/self/ns/mnt")
        self.places = [f"{data}/containers", f"{state}/containers"]
        self.hierarchies = [mountpoint for _, mountpoint, kind in _mounts() if kind in {"cgroup", "cgroup2"}]
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            paths = {line.rstrip("\n").split(":", 2)[2] for line in file}
        self.parents = sorted({parent for path in paths for parent in _ancestors(path)})

    def look(self) -> Traces:
        """The traces of this moment."""
        return Traces(
            cgroups=frozenset(self._cgroups()),
            mounts=frozenset(
                f"{mountpoint} ({kind})"
                for root, mountpoint, kind in _mounts()
                if self._ours(root, mountpoint, kind)
            ),
            links=frozenset(
                name for name in os.listdir("/sys/class/net") if name.startswith(("gck", "gocker"))
            ),
            children=frozenset(_children()),
            files=frozenset(f"{place}/{name}" for place in self.places for name in _list(place)),
        )

    def containers(self) -> frozenset[str]:
        """Cgroups below a `gocker` anywhere, so below any --cgroup-parent too: a walk over all cgroups.

        And a `gocker` that no gocker made, which none will take away: nobody's at the end of a session.
        """
        found = (
            path
            for hierarchy in self.hierarchies
            for path in _below(hierarchy)
            if "/gocker/" in path or (path.endswith("/gocker") and not _has_mark(path))
        )
        return frozenset(path for path in found if not self._foreign_cgroup(path))

    def leaks(self, before: Traces) -> list[str]:
        """What is there that was not, once it had the time to go."""
        deadline = time.monotonic() + PATIENCE
        while True:
            new = self.look().new_since(before)
            if not new:
                return []
            if time.monotonic() > deadline:
                return self.without_others(new)
            time.sleep(0.05)

    def without_others(self, new: list[str]) -> list[str]:
        """Leave out the containers that no log of this pytest knows, while another pytest runs."""
        suspects = [line for line in new if CONTAINER.search(line)]
        if not suspects or not _other_sessions():
            return new
        # Some test's tree may be too deep for a recursive glob.
        logs = (path for depth in range(4) for path in glob.glob(f"{self.base}/{'*/' * depth}*.jsonl"))
        known = b"".join(_read(path) for path in logs if os.path.isfile(path))
        return [line for line in new if line not in suspects or _container(line).encode() in known]

    def holders(self, before: dict[int, frozenset[str]]) -> list[str]:
        """Processes that are in namespaces that none was in `before`: who, in which, of which container."""
        known = frozenset().union(*before.values())
        found = []
        for pid, spaces in self.namespaces().items():
            if pid not in before and spaces - known:
                with suppress(OSError):
                    cgroup = max(_read(f"/proc/{pid}/cgroup").decode().split("\n"), key=len)
                    found.append(f"{describe(pid)} in {' '.join(sorted(spaces - known))} of {cgroup}")
        return found

    def namespaces(self) -> dict[int, frozenset[str]]:
        """Of each process that is not foreign: the namespaces that it is in, as `net:[4026531840]`."""
        found = {}
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            with suppress(OSError):
                if not self.foreign(pid):
                    directory = f"/proc/{pid}/ns"
                    found[pid] = frozenset(
                        os.readlink(f"{directory}/{kind}") for kind in os.listdir(directory)
                    )
        return found

    def foreign(self, pid: int) -> bool:
        """Whether `pid` is the work of somebody else on this host.

        Ours descend from this process, or have the session's directory in their environment. What
        hangs below PID 1 and lives in namespaces of its own is a container whose gocker is gone: nobody
        else will miss it, so it counts as ours.
        """
        on_host = False
        while pid > 1:
            if pid == os.getpid() or self.base.encode() in _read(f"/proc/{pid}/environ"):
                return False
            on_host = on_host or os.readlink(f"/proc/{pid}/ns/mnt") == self.own_mounts
            pid = int(_read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[1])
        return on_host

    def _foreign_cgroup(self, path: str) -> bool:
        """Someone else's container, while it runs; an empty cgroup counts as ours."""
        try:
            pids = _read(f"{path}/cgroup.procs").split()
            return bool(pids) and all(self.foreign(int(pid)) for pid in pids)
        except OSError:
            return False

    def _cgroups(self) -> Iterator[str]:
        for hierarchy in self.hierarchies:
            for parent in self.parents:
                top = f"{hierarchy}{parent}/gocker"
                below = list(_below(top))
                yield from (path for path in below if not self._foreign_cgroup(path))
                # With the last container in it goes the parent, unless somebody else made it.
                if os.path.isdir(top) and not (below and _has_mark(top)):
                    yield top

    def _ours(self, root: str, mountpoint: str, kind: str) -> bool:
        if self.base in mountpoint or self.base in root:
            return True
        # Another session's mounts lie below its own directory.
        return kind == "nsfs" or ("gocker" in f"{root} {mountpoint}" and "/pytest-of-" not in mountpoint)


def describe(pid: int) -> str:
    """`pid 17 [sleep 100]`."""
    try:
        command = _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        command = "gone"
    return f"pid {pid} [{command[:100]}]"


def _container(line: str) -> str:
    match = CONTAINER.search(line)
    return match[1] if match else ""


def _other_sessions() -> bool:
    """Whether another pytest runs that is neither above nor below this one."""
    for name in os.listdir("/proc"):
        with suppress(OSError):
            words = _read(f"/proc/{name}/cmdline").split(b"\0") if name.isdigit() else []
            if any(os.path.basename(word) == b"pytest" for word in words[:5]) and os.getsid(
                int(name)
            ) != os.getsid(0):
                return True
    return False


def _has_mark(parent: str) -> bool:
    """Also of one that is gone by now."""
    try:
        return is_marked(parent)
    except FileNotFoundError:
        return True


def _below(directory: str) -> Iterator[str]:
    for name in _list(directory):
        path = f"{directory}/{name}"
        if os.path.isdir(path):
            yield path
            yield from _below(path)


def _list(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _ancestors(path: str) -> list[str]:
    """ "", "/a", "/a/b" of "/a/b"."""
    parts = [part for part in path.split("/") if part]
    return ["".join(f"/{part}" for part in parts[:n]) for n in range(len(parts) + 1)]


def _mounts() -> Iterator[tuple[str, str, str]]:
    """(root, mount point, type) of each line of mountinfo, escapes as they are."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            fields = left.split(" ")
            yield fields[3], fields[4], right.split(" ", 1)[0]


def _children() -> Iterator[str]:
    for task in os.listdir("/proc/self/task"):
        with suppress(OSError):
            pids = _read(f"/proc/self/task/{task}/children").decode().split()
            yield from (pid for pid in pids if "multiprocessing" not in describe(int(pid)))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
