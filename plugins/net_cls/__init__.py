"""The net_cls controller: the class that marks a container's packets for tc(8) and iptables(8)."""

from __future__ import annotations

from collections.abc import Mapping

from gocker.api import Cgroup, CgroupController, LimitHelp, Resources
from gocker.errors import LimitError
from gocker.limits import parse_count
from gocker.model import Hierarchy

_MOST = (1 << 32) - 1
_HEX = frozenset("0123456789abcdef")


class NetCls(CgroupController):
    """Source: kernel Documentation/admin-guide/cgroup-v1/net_cls.rst. There is no such controller on v2."""

    api_version = (1, 1)
    name = "net_cls"
    kernel_names = {Hierarchy.V1: "net_cls"}  # noqa: RUF012 - declared ClassVar
    limits = (
        LimitHelp(
            key="net_cls",
            example="net_cls=0x100001",
            text="The class of its packets, 0xAAAABBBB for the tc handle AAAA:BBBB, or a decimal number.",
            oci="network.classID",
            files={Hierarchy.V1: "net_cls.classid"},
        ),
    )

    def parse(self, fields: Mapping[str, str]) -> Resources:
        """A number of 32 bits."""
        if "" not in fields:
            return {}
        text = fields[""]
        digits = text.removeprefix("0x")
        if digits == text:
            return {"network.classID": parse_count(text, "net_cls", minimum=0, maximum=_MOST)}
        if not 0 < len(digits) <= 8 or not _HEX.issuperset(digits.lower()):
            raise LimitError("set limit", f"net_cls={text}", "not a number of 32 bits", remedy="as 0x100001")
        return {"network.classID": int(digits, 16)}

    def set(self, group: Cgroup, resources: Resources) -> None:
        """The kernel shows it in decimal."""
        if "network.classID" in resources:
            group.write("net_cls.classid", str(resources["network.classID"]), limit="net_cls")
