"""The IPC namespace: System V IPC and POSIX message queues of the container's own."""

from __future__ import annotations

from gocker.api import NamespaceContext, NamespaceHandler


class Ipc(NamespaceHandler):
    """ipc_namespaces(7)."""

    api_version = (1, 0)
    name = "ipc"
    flag = 0x08000000  # CLONE_NEWIPC
    sysctls = ("kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue.")

    def apply(self, ctx: NamespaceContext) -> None:
        """Nothing: /dev/shm and /dev/mqueue come with the container's /dev."""
