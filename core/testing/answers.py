"""What the kernel shows in a cgroup's files after something was written to them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping

from gocker.limits import MAX_BYTES, format_list, parse_list
from gocker.model import Hierarchy

Answer = Callable[[str], str]
"""What the kernel shows in a file after this text was written; raise OSError where it refuses."""

PARENT = {"cpuset.cpus": "0-3", "cpuset.mems": "0"}
"""What the fake's parent cgroup has: four CPUs, one memory node."""


def whole_pages(unlimited: str, page: int = 0) -> Answer:
    """The answer of a byte limit: rounded down to pages, `unlimited` for the kernel's largest number.

    `page` is in bytes, 0 for the machine's own.
    """
    page = page or os.sysconf("SC_PAGE_SIZE")
    largest = MAX_BYTES // page * page

    def answer(text: str) -> str:
        if text in {"-1", "max"}:
            return unlimited or str(largest)
        value = _number(text) // page * page
        return (unlimited or str(largest)) if value >= largest else str(value)

    return answer


def _within(least: int, greatest: int, *words: str) -> Answer:
    def answer(text: str) -> str:
        if text not in words and not least <= _number(text) <= greatest:
            raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
        return text

    return answer


def _number(text: str) -> int:
    if not text.isdecimal():
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return int(text)


def _part_of_parent(file: str) -> Answer:
    def answer(text: str) -> str:
        if not parse_list(text, file) <= parse_list(PARENT[file], file):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return text

    return answer


def _effective(file: str) -> Answer:
    def answer(text: str) -> str:
        mine, above = parse_list(text, file), parse_list(PARENT[file], file)
        return format_list(mine & above or above)

    return answer


ANSWERS: Mapping[Hierarchy, Mapping[str, Answer]] = {
    Hierarchy.V1: {
        "memory.limit_in_bytes": whole_pages(""),
        "memory.memsw.limit_in_bytes": whole_pages(""),
        "memory.soft_limit_in_bytes": whole_pages(""),
        "cpuset.cpus": _part_of_parent("cpuset.cpus"),
        "cpuset.mems": _part_of_parent("cpuset.mems"),
        "cpu.shares": _within(2, 262144),
        "pids.max": _within(0, 4194304, "max"),
    },
    Hierarchy.V2: {
        "memory.max": whole_pages("max"),
        "memory.swap.max": whole_pages("max"),
        "memory.low": whole_pages("max"),
        "cpuset.cpus.effective": _effective("cpuset.cpus"),
        "cpuset.mems.effective": _effective("cpuset.mems"),
        "cpu.weight": _within(1, 10000),
        "pids.max": _within(0, 4194304, "max"),
    },
}
"""How Linux 6.x answers in the files of its own controllers; others show what was written."""
