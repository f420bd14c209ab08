"""The devices controller: which device files a container may open; it takes no limit."""

from __future__ import annotations

from collections.abc import Mapping

from gocker.api import Cgroup, CgroupController, Resources
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


class Devices(CgroupController):
    """Source: kernel Documentation/admin-guide/cgroup-v1/devices.rst and cgroup-v2.rst, Device controller.

    A container with CAP_MKNOD, which docker's default set has, reads the host's disks without it. The
    core plans no container that is not privileged without this plug-in.
    """

    api_version = (1, 0)
    name = "devices"
    # On v2 it has no files: a BPF program is attached, which any cgroup takes.
    kernel_names = {Hierarchy.V1: "devices", Hierarchy.V2: "cgroup"}  # noqa: RUF012 - declared ClassVar
    always = True

    def parse(self, fields: Mapping[str, str]) -> Resources:
        """It takes no limits."""
        return {}

    def set(self, group: Cgroup, resources: Resources) -> None:
        """Allow the devices that every container has in its /dev, and no other."""
        group.allow_devices(RULES)
