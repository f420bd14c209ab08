"""The NUMA memory policy of a process."""

from __future__ import annotations

from collections.abc import Collection

from gocker.kernel.syscalls import call

# include/uapi/linux/mempolicy.h
MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
FLAGS = {
    "MPOL_F_STATIC_NODES": 1 << 15,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_NUMA_BALANCING": 1 << 13,
}
MAX_NODE = 1023  # MAX_NUMNODES of the largest configuration is 1024
_WORD = 64  # bits of an unsigned long on both machines


def set_memory_policy(mode: int, nodes: Collection[int]) -> None:
    """Set mode (flags or'ed in) and nodes of this process, for its children too. Raise OSError.

    Source: set_mempolicy(2).
    """
    mask, bits = node_mask(nodes)
    call("set_mempolicy", mode, mask or None, bits)


def node_mask(nodes: Collection[int]) -> tuple[bytes, int]:
    """The mask of `nodes` and its length in bits as set_mempolicy(2) takes them; (b"", 0) for none."""
    if not nodes:
        return b"", 0
    words = max(nodes) // _WORD + 1
    mask = sum(1 << node for node in set(nodes)).to_bytes(words * _WORD // 8, "little")
    # The kernel takes one bit less than it is told: get_nodes() in mm/mempolicy.c.
    return mask, words * _WORD + 1
