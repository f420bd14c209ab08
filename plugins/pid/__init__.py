"""The PID namespace: the program is process 1 and sees no other."""

from __future__ import annotations

from gocker.api import NamespaceContext, NamespaceHandler


class Pid(NamespaceHandler):
    """pid_namespaces(7)."""

    api_version = (1, 0)
    name = "pid"
    flag = 0x20000000  # CLONE_NEWPID

    def apply(self, ctx: NamespaceContext) -> None:
        """Nothing: the container's /proc is mounted with its root."""
