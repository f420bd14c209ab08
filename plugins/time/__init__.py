"""The time namespace: monotonic and boot-time clocks with offsets of the container's own."""

from __future__ import annotations

from gocker.api import NamespaceContext, NamespaceHandler
from gocker.errors import UsageError


class Time(NamespaceHandler):
    """time_namespaces(7). Offsets are fixed once a process is inside, so the core writes them at the clone."""

    api_version = (1, 0)
    name = "time"
    flag = 0x00000080  # CLONE_NEWTIME

    def set(self, ctx: NamespaceContext) -> None:
        """Offsets name a clock that has them and need a new namespace."""
        for clock, _seconds, nanoseconds in ctx.spec.time_offsets:
            if clock not in ("monotonic", "boottime"):
                raise UsageError("offset clock", clock, "only monotonic and boottime have offsets")
            if not 0 <= nanoseconds < 10**9:
                raise UsageError("offset clock", clock, f"{nanoseconds} is not in 0 to 999999999 nanoseconds")
        if ctx.spec.time_offsets and ctx.spec.namespace("time").mode != "private":
            raise UsageError(
                "offset clock", ctx.spec.name, "needs a new time namespace", remedy="--time private"
            )

    def apply(self, ctx: NamespaceContext) -> None:
        """Nothing: the offsets are written before the container's first process is born."""
