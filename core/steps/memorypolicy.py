"""The step that chooses the NUMA nodes of the container's memory."""

from __future__ import annotations

import errno
from collections.abc import Collection

from gocker.errors import KernelError, UsageError
from gocker.kernel.mempolicy import FLAGS, MAX_NODE, MODES, node_mask, set_memory_policy
from gocker.limits import parse_list
from gocker.lowering import Code
from gocker.model import MemoryPolicy
from gocker.plan import Context, Step


class SetMemoryPolicy(Step):
    """Choose mode and nodes; inherited by all that the program makes, and kept over exec."""

    op = "memory-policy"

    mode: str  # MPOL_*
    nodes: str = ""  # list format of cpuset(7)
    flags: tuple[str, ...] = ()  # MPOL_F_*

    def describe(self) -> str:
        """`set_mempolicy MPOL_BIND|MPOL_F_STATIC_NODES 0-1`."""
        words = "|".join((self.mode, *self.flags))
        return f"set_mempolicy {words} {self.nodes}".rstrip()

    def execute(self, ctx: Context) -> None:
        """set_mempolicy(2) of this process, in the container's cgroups."""
        try:
            set_memory_policy(self._mode(), self._nodes())
        except OSError as error:
            raise self._refused(error) from error

    def _mode(self) -> int:
        return MODES[self.mode] | sum(FLAGS[name] for name in self.flags)

    def _nodes(self) -> Collection[int]:
        return parse_list(self.nodes, "memoryPolicy") if self.nodes else ()

    def _refused(self, error: Exception, _: object = None) -> Exception:
        if not isinstance(error, OSError):
            return error
        remedy = {
            errno.EINVAL: "name nodes that are online and in the container's cpuset, and flags that fit the mode",
            errno.ENOSYS: "this kernel is built without NUMA: leave memoryPolicy out",
        }.get(error.errno or 0, "")
        target = f"{self.mode} {self.nodes}".rstrip()
        return KernelError.from_os("set memory policy", target, error, remedy=remedy)

    def emit(self, code: Code) -> None:
        """The same."""
        mask, bits = node_mask(self._nodes())
        with code.explained(self._refused):
            code.call("set_mempolicy", self._mode(), code.data(mask) if mask else 0, bits)


def memory_policy_step(asked: MemoryPolicy) -> SetMemoryPolicy:
    """The step for `asked`. Raise UsageError, LimitError for what no kernel can be told."""
    if asked.mode not in MODES:
        raise UsageError("set memory policy", asked.mode, "no such mode", remedy=f"one of {' '.join(MODES)}")
    for flag in asked.flags:
        if flag not in FLAGS:
            raise UsageError("set memory policy", flag, "no such flag", remedy=f"one of {' '.join(FLAGS)}")
    if asked.nodes and max(parse_list(asked.nodes, "memoryPolicy")) > MAX_NODE:
        raise UsageError("set memory policy", asked.nodes, f"the highest node that can be is {MAX_NODE}")
    return SetMemoryPolicy(mode=asked.mode, nodes=asked.nodes, flags=tuple(dict.fromkeys(asked.flags)))
