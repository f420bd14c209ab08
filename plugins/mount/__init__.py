"""The mount namespace: without one there is no root file system of the container's own."""

from __future__ import annotations

from gocker.api import NamespaceContext, NamespaceHandler
from gocker.errors import UsageError


class Mount(NamespaceHandler):
    """mount_namespaces(7)."""

    api_version = (1, 0)
    name = "mount"
    flag = 0x00020000  # CLONE_NEWNS
    order = 90

    def set(self, ctx: NamespaceContext) -> None:
        """A root file system needs a mount namespace other than the host's, which keeps the root that it has."""
        mode = ctx.spec.namespace("mount").mode
        if mode == "private" and ctx.spec.rootfs is None:
            raise UsageError("plan mount namespace", ctx.spec.name, "a new one needs a root file system")
        if mode == "host" and ctx.spec.rootfs is not None:
            raise UsageError(
                "plan mount namespace",
                ctx.spec.name,
                "the host's mount namespace keeps its own root",
                remedy="leave out the root file system, or make the namespace private",
            )

    def apply(self, ctx: NamespaceContext) -> None:
        """Nothing: the core sets up the root file system last of all."""
