"""The user namespace: ids inside are mapped to other ids outside."""

from __future__ import annotations

from itertools import pairwise

from gocker.api import NamespaceContext, NamespaceHandler
from gocker.errors import UsageError
from gocker.model import IdMap

_LARGEST = 2**32 - 2  # 2**32-1 is the kernel's "no id"


class User(NamespaceHandler):
    """user_namespaces(7)."""

    api_version = (1, 0)
    name = "user"
    flag = 0x10000000  # CLONE_NEWUSER
    order = 0

    def set(self, ctx: NamespaceContext) -> None:
        """A new namespace needs both maps, with root mapped and nothing twice; else maps are an error."""
        maps = {"uid": ctx.spec.uid_map, "gid": ctx.spec.gid_map}
        new = ctx.spec.namespace("user").mode == "private"
        for kind, entries in maps.items():
            if entries and not new:
                raise UsageError(
                    f"map {kind}s",
                    ctx.spec.name,
                    "only a new user namespace takes a map",
                    remedy="--userns private",
                )
            if new:
                _check(kind, entries)

    def set_child(self, ctx: NamespaceContext) -> None:
        """Write the maps while the child waits: one write each, user_namespaces(7)."""
        for kind, entries in (("gid", ctx.spec.gid_map), ("uid", ctx.spec.uid_map)):
            lines = "".join(f"{entry.inside} {entry.outside} {entry.count}\n" for entry in entries)
            ctx.kernel.write_file(f"/proc/{{pid}}/{kind}_map", lines)

    def apply(self, ctx: NamespaceContext) -> None:
        """Nothing: init becomes root of the new namespace before all else."""


def _check(kind: str, entries: tuple[IdMap, ...]) -> None:
    target = ",".join(f"{entry.inside}:{entry.outside}:{entry.count}" for entry in entries)
    remedy = f"for example --{kind}map 0:100000:65536"
    if not any(entry.inside <= 0 < entry.inside + entry.count for entry in entries):
        raise UsageError(f"map {kind}s", target, "id 0 of the container is not mapped", remedy=remedy)
    for entry in entries:
        if min(entry.inside, entry.outside) < 0 or entry.count < 1:
            raise UsageError(f"map {kind}s", target, "ids and counts are whole and positive", remedy=remedy)
        if max(entry.inside, entry.outside) + entry.count - 1 > _LARGEST:
            raise UsageError(f"map {kind}s", target, f"an id above {_LARGEST}", remedy=remedy)
    for side in ("inside", "outside"):
        ordered = sorted((getattr(entry, side), entry.count) for entry in entries)
        for (start, count), (following, _) in pairwise(ordered):
            if start + count > following:
                raise UsageError(
                    f"map {kind}s", target, f"id {following} {side} is mapped twice", remedy=remedy
                )
