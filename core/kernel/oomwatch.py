"""Tells when the OOM killer has struck in a cgroup, on v1 by an eventfd, on v2 by the change of a file."""

from __future__ import annotations

import contextlib
import os
import select

from gocker.kernel.cgroupfs import read_file, write_file
from gocker.model import Hierarchy


class OomWatch:
    """Poll `fd` for `events`, then ask `take`.

    Source: kernel Documentation/admin-guide/cgroup-v1/memory.rst, OOM Control, and cgroup-v2.rst, memory.events.
    """

    def __init__(self, path: str, version: Hierarchy) -> None:
        """`path` is the directory of the memory controller. Raise OSError."""
        self._path = path
        self._v1 = version is Hierarchy.V1
        self._kills = self._count()
        if self._v1:
            self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self.events = select.POLLIN
            control = os.open(f"{path}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                write_file(path, "cgroup.event_control", f"{self.fd} {control}")
            except BaseException:
                os.close(self.fd)
                raise
            finally:
                os.close(control)
        else:
            self.fd = os.open(f"{path}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
            self.events = select.POLLPRI
            os.read(self.fd, 1 << 12)  # from here on a change wakes

    def take(self) -> bool:
        """Whether it has struck since the last look; the end of the cgroup wakes, too, and is no such thing."""
        before, self._kills = self._kills, self._count()
        if self._v1:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.fd)
                return os.path.exists(f"{self._path}/memory.oom_control")
            return False
        os.lseek(self.fd, 0, os.SEEK_SET)
        with contextlib.suppress(OSError):  # ENODEV: it was removed
            os.read(self.fd, 1 << 12)
        return self._kills > before

    def _count(self) -> int:
        lines = (read_file(self._path, "memory.events") or "").splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

    def close(self) -> None:
        """Look no more."""
        os.close(self.fd)
