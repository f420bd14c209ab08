"""The UTS namespace: hostname and NIS domain name of the container's own."""

from __future__ import annotations

from gocker.api import NamespaceContext, NamespaceHandler
from gocker.errors import UsageError

_MAX = 64  # __NEW_UTS_LEN, uname(2)


class Uts(NamespaceHandler):
    """uts_namespaces(7)."""

    api_version = (1, 0)
    name = "uts"
    flag = 0x04000000  # CLONE_NEWUTS
    sysctls = ("kernel.hostname", "kernel.domainname")

    def set(self, ctx: NamespaceContext) -> None:
        """Refuse names that the kernel would cut or that would rename the host."""
        for option, name in (("hostname", ctx.spec.hostname), ("domainname", ctx.spec.domainname)):
            if len(name.encode("utf-8", "surrogateescape")) > _MAX:
                raise UsageError(f"set {option}", name, f"longer than the kernel's {_MAX} bytes")

    def apply(self, ctx: NamespaceContext) -> None:
        """sethostname, and setdomainname where one was asked for."""
        if ctx.spec.hostname:
            ctx.kernel.sethostname(ctx.spec.hostname)
        if ctx.spec.domainname:
            ctx.kernel.setdomainname(ctx.spec.domainname)
