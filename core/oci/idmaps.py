"""uidMappings and gidMappings: ids inside and outside, none of them twice."""

from __future__ import annotations

from itertools import pairwise

from gocker.model import IdMap
from gocker.oci.fields import MAX_ID, Section

_MAX_LINES = 340  # user_namespaces(7), since Linux 4.15


def read_maps(section: Section) -> tuple[tuple[IdMap, ...], tuple[IdMap, ...]]:
    """(uidMappings, gidMappings) of linux or of a mount: both or neither. Raise UsageError."""
    uid_map, gid_map = _read(section, "uidMappings"), _read(section, "gidMappings")
    if bool(uid_map) != bool(gid_map):
        missing, there = ("gidMappings", "uidMappings") if uid_map else ("uidMappings", "gidMappings")
        raise section.error(missing, f"is missing beside {there}")
    return uid_map, gid_map


def _read(section: Section, name: str) -> tuple[IdMap, ...]:
    maps = []
    for line in section.sections(name):
        inside = line.needed("containerID", (0, MAX_ID), "an id")
        outside = line.needed("hostID", (0, MAX_ID), "an id")
        # So that no id is above MAX_ID; a full map is 0, 0, 2**32-1.
        count = line.needed("size", (1, MAX_ID + 1 - max(inside, outside)), "a number of ids")
        line.finish()
        maps.append(IdMap(inside=inside, outside=outside, count=count))
    if len(maps) > _MAX_LINES:
        raise section.error(name, f"has {len(maps)} entries, the kernel takes {_MAX_LINES}")
    for where, starts in (
        ("in the container", sorted((m.inside, m.count) for m in maps)),
        ("on the host", sorted((m.outside, m.count) for m in maps)),
    ):
        for (start, count), (following, _) in pairwise(starts):
            if start + count > following:
                raise section.error(name, f"id {following} {where} is mapped twice")
    return tuple(maps)
