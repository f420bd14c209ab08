"""What a fork leaves to be copied is copied ahead."""

from __future__ import annotations

import mmap
import os
from resource import RUSAGE_SELF, getpagesize, getrusage

import pytest

from gocker.kernel.pages import own_pages

PAGES = 1000


def faults_of_a_child(*, ahead: bool) -> int:
    """Page faults of a forked process that writes to memory of its parent's."""
    memory = mmap.mmap(-1, PAGES * getpagesize(), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    memory.write(b"x" * len(memory))
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            if ahead:
                own_pages()
            before = getrusage(RUSAGE_SELF).ru_minflt
            for at in range(0, len(memory), getpagesize()):
                memory[at] = 0
            os.write(write, b"%d" % (getrusage(RUSAGE_SELF).ru_minflt - before))
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as answer:
        found = int(answer.read())
    os.waitpid(pid, 0)
    return found


@pytest.mark.skipif(
    tuple(map(int, os.uname().release.split(".")[:2])) < (5, 14),
    reason="needs MADV_POPULATE_WRITE, Linux 5.14",
)
def test_a_child_that_owns_its_pages_has_none_copied_later() -> None:
    assert faults_of_a_child(ahead=False) >= PAGES
    assert faults_of_a_child(ahead=True) < PAGES // 10
