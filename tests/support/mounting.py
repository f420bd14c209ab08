"""The mounts of a container: as `gocker run` lists them with those that a test adds, and as mountinfo shows them."""

from __future__ import annotations

from collections.abc import Iterable

from gocker.defaults import SHM_SIZE, default_mounts
from gocker.model import IdMap, Mount, NamespaceRequest


def all_mounts(
    namespaces: Iterable[NamespaceRequest],
    added: Iterable[Mount] = (),
    *,
    gid_map: tuple[IdMap, ...] = (),
    shm_size: int = SHM_SIZE,
    privileged: bool = False,
) -> tuple[Mount, ...]:
    """The default ones but for the targets of `added`, and `added` as they are."""
    added = tuple(added)
    own = default_mounts(
        {request.kind: request.mode for request in namespaces},
        taken=frozenset(mount.target for mount in added),
        gid_map=gid_map,
        shm_size=shm_size,
        privileged=privileged,
    )
    return (*own, *added)


def mounts_of(text: str) -> dict[str, tuple[str, set[str]]]:
    """mountinfo as {mount point: (type, options)}."""
    rows = [line.split() for line in text.splitlines()]
    return {row[4]: (row[row.index("-") + 1], set(row[5].split(","))) for row in rows}
