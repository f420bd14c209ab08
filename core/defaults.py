"""What a container has unless asked otherwise, as docker's containers do: mounts, masked and read-only paths."""

from __future__ import annotations

from collections.abc import Mapping

from gocker.model import IdMap, Mount

# What docker hides and protects; source: moby, oci.DefaultSpec of its defaults for Linux.
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
SHM_SIZE = 64 << 20  # bytes
_CGROUPS, _DEV, _SHM = "/sys/fs/cgroup", "/dev", "/dev/shm"  # noqa: S108 - inside
_HARDENED = ("nosuid", "nodev", "noexec")
_TTY_GROUP = 5


def default_mounts(
    modes: Mapping[str, str],
    *,
    taken: frozenset[str] = frozenset(),
    gid_map: tuple[IdMap, ...] = (),
    shm_size: int = SHM_SIZE,
    privileged: bool = False,
) -> tuple[Mount, ...]:
    """/proc, /sys and /dev, but for the targets that are `taken`.

    `modes` is namespace kind to private, host or path; `gid_map` that of a user namespace of its own;
    `shm_size` is in bytes.
    """
    mounts = [Mount(kind="proc", target="/proc", options=_HARDENED)]
    mode = "rw" if privileged else "ro"
    if "/sys" not in taken:
        mounts.append(Mount(kind="sysfs", target="/sys", options=(*_HARDENED, mode)))
        if _CGROUPS in taken:
            pass
        elif modes.get("cgroup") == "private":
            mounts.append(Mount(kind="cgroup", target=_CGROUPS, options=(*_HARDENED, mode)))
        elif modes.get("user", "host") != "host" and modes.get("network") != "private":
            # /sys is a copy of the host's then, in which the host's cgroups would show.
            mounts.append(Mount(kind="tmpfs", target=_CGROUPS, options=(*_HARDENED, "ro", "size=4k")))
    if _DEV not in taken:
        mounts += _dev_mounts(modes, taken, gid_map, shm_size)
    return tuple(mounts)


def _dev_mounts(
    modes: Mapping[str, str], taken: frozenset[str], gid_map: tuple[IdMap, ...], shm_size: int
) -> list[Mount]:
    mapped = modes.get("user", "host") != "host"
    tty_group = not mapped or any(m.inside <= _TTY_GROUP < m.inside + m.count for m in gid_map)
    group = (f"gid={_TTY_GROUP}",) if tty_group else ()
    pts = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *group)
    mounts = [
        Mount(kind="tmpfs", target=_DEV, options=("nosuid", "strictatime", "mode=755", "size=65536k")),
        Mount(kind="devpts", target="/dev/pts", options=pts),
    ]
    if _SHM not in taken:
        options = (*_HARDENED, "mode=1777", f"size={shm_size}")
        own = Mount(kind="tmpfs", target=_SHM, options=options)
        shared = Mount(kind="bind", source=_SHM, target=_SHM, options=_HARDENED)
        mounts.append(shared if modes.get("ipc", "host") == "host" else own)
    if "/dev/mqueue" not in taken and (modes.get("ipc") == "private" or not mapped):
        mounts.append(Mount(kind="mqueue", target="/dev/mqueue", options=_HARDENED))
    return mounts
