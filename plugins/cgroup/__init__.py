"""The cgroup namespace: the container sees its own cgroup as the root."""

from __future__ import annotations

from gocker.api import NamespaceContext, NamespaceHandler


class Cgroup(NamespaceHandler):
    """cgroup_namespaces(7). Its root is the cgroup of whoever unshares, so init does that after the attach."""

    api_version = (1, 0)
    name = "cgroup"
    flag = 0x02000000  # CLONE_NEWCGROUP

    def apply(self, ctx: NamespaceContext) -> None:
        """Nothing to set up in a new one."""
