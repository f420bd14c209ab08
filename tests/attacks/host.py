"""A throwaway host for one attack: namespaces of its own, and the real root below an overlay in memory.

Whatever an attack does to "the host" it does to this one: files are written to a tmpfs, devices are other nodes,
sysfs is read-only, processes are those of a pid namespace, host name, network and System V IPC are its own. Cgroups alone have no such veil on
version 1; what is made there carries a prefix and is removed by it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import time
from contextlib import suppress

CGROUP_PREFIX = "gattack-"
LAB = "/lab"

_libc = ctypes.CDLL(None, use_errno=True)
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}[platform.machine()]
_KEYCTL = {"x86_64": 250, "aarch64": 219}[platform.machine()]
_ADD_KEY = {"x86_64": 248, "aarch64": 217}[platform.machine()]

NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x20000,
    0x2000000,
    0x4000000,
    0x8000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED = (
    1,
    32,
    0x1000,
    0x4000,
    1 << 18,
    1 << 19,
    1 << 20,
)
MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1
_DEVICES = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("kmsg", 1, 11),
    ("tty", 5, 0),
    ("fuse", 10, 229),
]


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """setns(2); `kind` 0 is any."""
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    _check(
        _libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]), f"mount {target}"
    )


def unmount(target: str) -> None:
    """umount2(2), lazily."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    _check(_libc.syscall(_PIVOT_ROOT, os.fsencode(new), os.fsencode(old)), "pivot_root")


def prctl(option: int, *arguments: int) -> int:
    """prctl(2)."""
    return _check(
        _libc.prctl(option, *[ctypes.c_ulong(value) for value in [*arguments, 0, 0, 0, 0][:4]]), "prctl"
    )


def join_keyring_with(name: str, secret: bytes) -> None:
    """Join a new session keyring and put the key `name` in it: keyrings(7)."""
    _check(_libc.syscall(_KEYCTL, 1, None), "keyctl join")  # KEYCTL_JOIN_SESSION_KEYRING
    _check(_libc.syscall(_ADD_KEY, b"user", name.encode(), secret, len(secret), ctypes.c_long(-3)), "add_key")


def inherit_capability(number: int) -> None:
    """Make a capability of this process inheritable and ambient, for the programs that it starts."""
    version = struct.pack("=Ii", 0x20080522, 0)
    data = ctypes.create_string_buffer(24)
    _check(_libc.capget(version, data), "capget")
    effective, permitted, inheritable, *high = struct.unpack("=6I", data.raw)
    values = struct.pack("=6I", effective, permitted, inheritable | 1 << number, *high)
    _check(_libc.capset(version, values), "capset")
    prctl(47, 2, number)  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE


def die_with_parent() -> None:
    """Be killed when the parent is gone."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def enter(scratch: str) -> None:
    """Move this process, single-threaded, to a throwaway host; `scratch` is an empty directory of the real one.

    Afterwards /lab is an empty directory in memory, and everything else looks as before. The pid namespace is
    that of the caller, who forked in a new one.
    """
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    others = _other_mounts()
    mount("lab", scratch, "tmpfs", 0, "mode=0755,size=1g")
    for name in ("upper", "work", "merged", "lab"):
        os.mkdir(f"{scratch}/{name}")
    merged = f"{scratch}/merged"
    mount(
        "host",
        merged,
        "overlay",
        0,
        f"lowerdir=/,upperdir={scratch}/upper,workdir={scratch}/work",
    )
    for path in others:
        with suppress(OSError):
            os.makedirs(merged + path, exist_ok=True)
            mount(path, merged + path, None, MS_BIND | MS_REC)
            mount("none", merged + path, None, MS_REMOUNT | MS_BIND | MS_RDONLY)
    _own_sys(f"{merged}/sys")
    _own_dev(f"{merged}/dev")
    mount("proc", f"{merged}/proc", "proc", 0)
    os.mkdir(merged + LAB)
    mount(f"{scratch}/lab", merged + LAB, None, MS_BIND)
    os.chdir(merged)
    pivot_root(".", ".")
    unmount(".")
    os.chdir("/")
    mount("none", "/", None, MS_REC | MS_SHARED)  # as systemd has it: what is not cut off travels


def _own_sys(target: str) -> None:
    """The real sysfs read-only; where version 1 has a tmpfs for its hierarchies, another with the same in it."""
    mount("/sys", target, None, MS_BIND | MS_REC)
    mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY)
    top = "/sys/fs/cgroup"
    below = [point for point, _ in cgroup_mounts() if os.path.dirname(point) == top]
    if not below:
        return
    mount("cgroup", target + top.removeprefix("/sys"), "tmpfs", 0, "mode=0755")
    for point in below:
        own = target + point.removeprefix("/sys")
        os.mkdir(own)
        mount(point, own, None, MS_BIND)
    for name in os.listdir(top):
        if os.path.islink(f"{top}/{name}"):  # cpu -> cpu,cpuacct
            os.symlink(os.readlink(f"{top}/{name}"), f"{target}/fs/cgroup/{name}")


def _own_dev(target: str) -> None:
    """A devtmpfs is one for all mounts of it, so make another /dev."""
    mount("dev", target, "tmpfs", 0, "mode=0755")
    old = os.umask(0)
    for name, major, minor in _DEVICES:
        os.mknod(f"{target}/{name}", 0o20666, os.makedev(major, minor))
    os.umask(old)
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"{target}/{name}")
    mount("devpts", f"{target}/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=0620")
    mount("shm", f"{target}/shm", "tmpfs", 0, "mode=1777")
    os.symlink("pts/ptmx", f"{target}/ptmx")
    os.symlink("/proc/self/fd", f"{target}/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"{target}/{name}")


def _other_mounts() -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        points = sorted({line.split()[4] for line in file})
    taken = ["/proc", "/sys", "/dev"]
    found: list[str] = []
    for point in points:
        if point != "/" and not any(point == path or point.startswith(path + "/") for path in taken):
            found.append(point)
            taken.append(point)
    return found


def hide_v2_controllers() -> None:
    """For crun: it refuses a hybrid host whose cgroup2 has a controller, so bind an empty file over their list."""
    target = "/sys/fs/cgroup/unified/cgroup.controllers"
    if os.path.exists(target):
        with open(f"{LAB}/.none", "w", encoding="utf-8"):
            pass
        mount(f"{LAB}/.none", target, None, MS_BIND)


def cgroup_mounts() -> list[tuple[str, bool]]:
    """Where hierarchies are mounted, and whether each is of version 2."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        rows = [line.split() for line in file]
    kinds = [(row[4], row[row.index("-") + 1]) for row in rows]
    return [(point, kind == "cgroup2") for point, kind in kinds if kind in {"cgroup", "cgroup2"}]


def remove_cgroups(prefix: str) -> list[str]:
    """Remove the cgroups whose name starts with `prefix`, anywhere, with all below; return what could not be."""
    left = []
    for point, _ in cgroup_mounts():
        for path, names, _ in os.walk(point):
            for name in [name for name in names if name.startswith(prefix)]:
                names.remove(name)
                for below, _, _ in os.walk(f"{path}/{name}", topdown=False):
                    if not _remove_cgroup(below):
                        left.append(below)
    return left


def _remove_cgroup(path: str) -> bool:
    deadline = time.monotonic() + 3
    while True:
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return True
        except OSError:
            with suppress(OSError), open(f"{path}/freezer.state", "w", encoding="utf-8") as file:
                file.write("THAWED")
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        else:
            return True
