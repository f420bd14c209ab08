"""Cgroup directories on the host: made, read, emptied of processes and removed, never recursively."""

from __future__ import annotations

import errno
import os
import signal
import stat
import time

from gocker.errors import HierarchyError, KernelError
from gocker.model import Hierarchy

PATIENCE = 5.0
"""Seconds to wait for killed processes to go: some hosts reap zombies only every two seconds."""

_MAKE_ATTEMPTS = 100
_MARKED = stat.S_ISVTX | 0o755
"""The mode of a parent that gocker makes: the sticky bit, which means nothing to a cgroup, says that it is gocker's
to remove. mkdir(2) gives it at birth, on cgroup v1 and v2, so that no moment is without it."""
_CLAIM = "trusted.gocker"
"""Of the namespace that no container can write, whoever owns its cgroup. Source: xattr(7)."""
_ALL_IDS = ["0", "0", "4294967295"]  # the map of the initial user namespace
_NAP_FIRST, _NAP_LAST = 0.001, 0.05  # seconds between two looks, doubling
_BATCH = 128  # processes signalled at a time: each holds a pidfd, and the soft limit may be 1024
_ABSENT = frozenset({errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP})
_OCCUPIED = frozenset({errno.EBUSY, errno.ENOTEMPTY})
_REFUSED = frozenset({errno.EACCES, errno.EPERM})


def read_file(directory: str, name: str) -> str | None:
    """The stripped text of a cgroup file; None when it, or its whole directory, is not there.

    ENODEV is the answer of a file whose cgroup was removed after the open; EOPNOTSUPP that of a
    file without meaning here, such as cgroup.procs of a threaded cgroup (cgroup-v2, Threads).
    Raise OSError for anything else.
    """
    try:
        fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise
    try:
        data = os.read(fd, 1 << 16)
        while data and (more := os.read(fd, 1 << 16)):
            data += more
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise
    finally:
        os.close(fd)
    return data.decode("utf-8", "surrogateescape").strip()


def write_file(directory: str, name: str, text: str) -> None:
    """Write `text` to a cgroup file in one write(2). Raise OSError."""
    fd = os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def await_controllers(directory: str) -> bool:
    """v2: return True once no change of the controllers below `directory` is under way; False on v1.

    Reading cgroup.subtree_control takes no lock of the kernel's, but a write, even of nothing, waits for
    the one before it. Source: kernel/cgroup/cgroup.c, cgroup_subtree_control_write().
    """
    return _try_write(directory, "cgroup.subtree_control", "\n")


class DirReader:
    """`gocker.api.CgroupReader` over one directory."""

    def __init__(self, path: str, hierarchy: Hierarchy) -> None:
        """`path` is the cgroup's directory on the host."""
        self.path = path
        self._hierarchy = hierarchy

    @property
    def hierarchy(self) -> Hierarchy:
        """V1 or V2."""
        return self._hierarchy

    def read(self, file: str) -> str | None:
        """The stripped text of `file`; None when this kernel does not have it."""
        return read_file(self.path, file)


def make(path: str, base: str) -> None:
    """Make the cgroup `path` and the parents between it and `base`, which exists and stays.

    The parents that are made are marked as gocker's. One may vanish at any moment, because the last
    container below it takes it away: then it is made again, a bounded number of times. Raise
    FileExistsError when `path` is there already.
    """
    require_below(path, base)
    for _ in range(_MAKE_ATTEMPTS):
        try:
            os.mkdir(path, 0o755)
        except FileNotFoundError:
            _make_parents(path, base)
        else:
            return
    os.mkdir(path, 0o755)


def _make_parents(path: str, base: str) -> None:
    for parent in ancestors(path, base)[1:]:
        try:
            os.mkdir(parent, _MARKED)
        except FileExistsError:
            continue
        except FileNotFoundError:
            return  # the one above was taken away again; the caller has another try


def is_marked(directory: str) -> bool:
    """Whether gocker made this parent of its cgroups; what somebody else made is not gocker's to remove.

    Raise OSError.
    """
    return bool(os.lstat(directory).st_mode & stat.S_ISVTX)


def claim(path: str, owner: str) -> bool:
    """Write the id `owner` to the cgroup `path` as its container; False when it has one, whoever that is.

    An extended attribute that is made, not changed: of two that try one succeeds. Raise OSError; ENOTSUP and
    EPERM where nobody can.
    """
    try:
        os.setxattr(path, _CLAIM, owner.encode(), os.XATTR_CREATE)
    except FileExistsError:
        return False
    return True


def claimant(path: str) -> str | None:
    """The id that `claim` has left; "" when there is none, None where there can be none. Raise OSError."""
    try:
        return os.getxattr(path, _CLAIM).decode("utf-8", "replace")
    except OSError as error:
        if error.errno == errno.ENODATA:  # also where nobody could write it: user_namespaces(7)
            with open("/proc/self/uid_map", encoding="ascii") as file:
                return "" if file.read().split() == _ALL_IDS else None
        if error.errno in {errno.ENOTSUP, errno.ENOENT}:
            return None
        raise


def ancestors(path: str, base: str) -> list[str]:
    """The directories above `path`, from `base` down to its parent."""
    names = path[len(base.rstrip("/")) + 1 :].split("/")[:-1]
    found = [base]
    for name in names:
        found.append(f"{found[-1].rstrip('/')}/{name}")
    return found


def require_below(path: str, base: str) -> None:
    """Raise HierarchyError unless `path` is a plain path strictly below `base`."""
    inside = path[len(base.rstrip("/")) + 1 :]
    if not path.startswith(f"{base.rstrip('/')}/") or not {"", ".", ".."}.isdisjoint(inside.split("/")):
        raise HierarchyError("use cgroup", path, f"not a path below {base}")


def processes(path: str) -> list[int]:
    """Ids of the processes in `path` and everything below it; 0 for one of an outer PID namespace.

    Zombies are not listed. A threaded cgroup is skipped: its processes are listed by the domain
    above it. Source: cgroups(7), kernel Documentation/admin-guide/cgroup-v2.rst, Threads.
    """
    found: list[int] = []
    for directory in [path, *below(path)]:
        found += map(int, (read_file(directory, "cgroup.procs") or "").split())
    return found


def below(path: str) -> list[str]:
    """Every directory below `path`, each after the one that it is in."""
    found: list[str] = []
    pending = [path]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                children = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            continue  # removed while we look
        found += children
        pending += children
    return found


def kill_all(path: str, version: str, patience: float = PATIENCE) -> None:
    """Kill every process in `path` and below it, and return when none is left.

    `version` is "v1" or "v2". v2 kernels since 5.14 do it in one write of cgroup.kill, and in one more for
    whoever was moved in behind it; elsewhere each process is signalled until the list stays empty. Where
    `path` belongs to the v1 pids controller, pids.max=0 first stops a fork bomb from outrunning the signals.
    Raise KernelError when a process is left after `patience` seconds, or when gocker itself runs in there.
    """
    pids = processes(path)
    if os.getpid() in pids:
        raise KernelError("kill cgroup", path, "gocker itself runs in it", remedy="move it to another cgroup")
    deadline = time.monotonic() + patience
    whole = _kill_whole(path, version)
    if not whole and pids:
        _try_write(path, "pids.max", "0")
    nap = _NAP_FIRST
    while pids := processes(path):
        if not whole:
            _signal(path, pids)
        if time.monotonic() > deadline:
            shown = ", ".join(map(str, pids[:8]))
            raise KernelError(
                "kill cgroup",
                path,
                f"{len(pids)} processes outlive SIGKILL: {shown}",
                remedy="see their state in /proc/PID/status; D waits for a device, T (frozen) for its thaw",
            )
        time.sleep(nap)
        nap = min(2 * nap, _NAP_LAST)
        whole = whole and _kill_whole(path, version)


def _kill_whole(path: str, version: str) -> bool:
    """Ends who is in there now, and none of those that come later. Source: cgroup-v2, Core Interface Files."""
    return version == Hierarchy.V2.value and _try_write(path, "cgroup.kill", "1")


def _try_write(path: str, name: str, text: str) -> bool:
    try:
        write_file(path, name, text)
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise
    return True


def _signal(path: str, pids: list[int]) -> None:
    """SIGKILL those of `pids` that are still in `path` once they are held by a pidfd.

    A pid that was reused since the listing may be someone else's process; such a one is not in the
    second listing, and a pidfd never means the next process of that number.
    """
    pids = [pid for pid in pids if pid > 0]
    for start in range(0, len(pids), _BATCH):
        held: dict[int, int] = {}
        try:
            for pid in pids[start : start + _BATCH]:
                try:
                    held[pid] = os.pidfd_open(pid)
                except ProcessLookupError:
                    continue
            for pid in held.keys() & set(processes(path)):
                try:
                    signal.pidfd_send_signal(held[pid], signal.SIGKILL)
                except ProcessLookupError:
                    continue
        finally:
            for fd in held.values():
                os.close(fd)


def remove(path: str, base: str, version: str = Hierarchy.V2.value) -> None:
    """Remove the cgroup `path`, with what runs in it and was made below it, then its empty parents.

    Parents strictly between `path` and `base` go while they are empty and marked as gocker's. Only
    rmdir(2) is used. One that is gone already is fine. `version` "v1" spares the look for cgroup.kill.
    Raise KernelError when the kernel still calls it busy after PATIENCE seconds, OSError for anything else.
    """
    require_below(path, base)
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass  # by an earlier attempt, which may have been cut off before the parents
    except OSError as error:
        if error.errno not in _OCCUPIED:
            raise
        _empty_and_remove(path, version)
    _remove_parents(path, base)


def remove_bare(path: str, base: str) -> None:
    """Remove the cgroup `path` if nothing is in it, then its parents as `remove` does. Raise OSError."""
    require_below(path, base)
    if _try_rmdir(path):
        _remove_parents(path, base)


def _remove_parents(path: str, base: str) -> None:
    for parent in reversed(ancestors(path, base)[1:]):
        try:
            if not is_marked(parent):
                return
            os.rmdir(parent)
        except FileNotFoundError:
            continue
        except OSError as error:
            # Whoever may not remove it has not made it: an attempt without the privileges is undone.
            if error.errno not in _OCCUPIED | _REFUSED:
                raise
            return


def _empty_and_remove(path: str, version: str) -> None:
    deadline = time.monotonic() + PATIENCE
    nap = _NAP_FIRST
    while True:
        kill_all(path, version, max(0.0, deadline - time.monotonic()))
        for child in reversed(below(path)):
            _try_rmdir(child)
        if _try_rmdir(path):
            return
        if time.monotonic() > deadline:
            raise KernelError(
                "remove cgroup",
                path,
                "EBUSY: empty of processes, but the kernel still holds it",
                remedy="zombies that nobody reaps hold it on old kernels; rmdir it when they are gone",
                errno=errno.EBUSY,
            )
        time.sleep(nap)
        nap = min(2 * nap, _NAP_LAST)


def _try_rmdir(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in _OCCUPIED:
            raise
        return False
    return True
