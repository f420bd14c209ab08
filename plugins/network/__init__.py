"""The network namespace: nothing but a loopback interface that is up."""

from __future__ import annotations

from gocker.api import NamespaceContext, NamespaceHandler


class Network(NamespaceHandler):
    """network_namespaces(7)."""

    api_version = (1, 0)
    name = "network"
    flag = 0x40000000  # CLONE_NEWNET
    sysctls = ("net.",)

    def apply(self, ctx: NamespaceContext) -> None:
        """`lo` is born down; programs expect 127.0.0.1 to answer."""
        ctx.kernel.link_up("lo")
