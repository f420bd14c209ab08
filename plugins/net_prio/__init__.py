"""The net_prio controller: the priority of a container's packets at each of the host's interfaces."""

from __future__ import annotations

from collections.abc import Mapping

from gocker.api import Cgroup, CgroupController, LimitHelp, Resources
from gocker.errors import LimitError
from gocker.limits import parse_count
from gocker.model import Hierarchy

_MOST = (1 << 32) - 1
_NAME_MAX = 15  # IFNAMSIZ without its NUL, include/uapi/linux/if.h
_SPACE = frozenset(" \t\n\r\v\f/\0=,")


class NetPrio(CgroupController):
    """Source: kernel Documentation/admin-guide/cgroup-v1/net_prio.rst. There is no such controller on v2."""

    api_version = (1, 1)
    name = "net_prio"
    kernel_names = {Hierarchy.V1: "net_prio"}  # noqa: RUF012 - declared ClassVar
    limits = (
        LimitHelp(
            key="net_prio",
            example="net_prio=eth0:5,lo:1",
            text="INTERFACE:PRIORITY for each, of the interfaces of the namespace that gocker runs in.",
            oci="network.priorities",
            files={Hierarchy.V1: "net_prio.ifpriomap"},
        ),
    )

    def parse(self, fields: Mapping[str, str]) -> Resources:
        """`eth0:5,lo:1` as it is, checked."""
        if "" not in fields:
            return {}
        return {"network.priorities": ",".join(f"{name}:{number}" for name, number in _pairs(fields[""]))}

    def from_oci(self, part: Mapping[str, object]) -> Mapping[str, str]:
        """[{"name": "eth0", "priority": 5}] as `eth0:5`; an empty list asks for nothing."""
        words = []
        rows = part.get("network.priorities", [])
        for row in rows if isinstance(rows, list) else [rows]:
            if not isinstance(row, dict) or row.keys() != {"name", "priority"}:
                raise _refused(str(row), "not an object of name and priority")
            words.append(f"{row['name']}:{row['priority']}")
        return {"": ",".join(words)} if words else {}

    def set(self, group: Cgroup, resources: Resources) -> None:
        """One write for each: the file is a table."""
        for name, number in _pairs(str(resources.get("network.priorities", ""))):
            group.write(
                "net_prio.ifpriomap",
                f"{name} {number}",
                limit="net_prio",
                row=True,
                remedy="ip link shows the interfaces",
            )


def _refused(text: str, reason: str) -> LimitError:
    return LimitError("set limit", f"net_prio={text}", reason, remedy="as eth0:5")


def _pairs(text: str) -> list[tuple[str, int]]:
    pairs: dict[str, int] = {}
    for word in text.split(",") if text else ():
        name, _, number = word.rpartition(":")
        if not 0 < len(name) <= _NAME_MAX or not _SPACE.isdisjoint(name):
            raise _refused(text, f"{word!r} is not INTERFACE:PRIORITY")
        priority = parse_count(number, "net_prio", minimum=0, maximum=_MOST)
        if pairs.setdefault(name, priority) != priority:
            raise _refused(text, f"{name} has two priorities")
    return list(pairs.items())
