"""How far a child has got is seen by its parent, whatever becomes of the child."""

import os
import signal

from gocker.kernel.progress import Progress


def test_nothing_has_begun_at_first() -> None:
    progress = Progress()
    assert progress.step == -1
    assert progress.close() == -1


def test_what_a_killed_child_wrote_last_is_there() -> None:
    progress = Progress()
    pid = os.fork()
    if pid == 0:
        progress.step = 7
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert progress.step == 7
    assert progress.close() == 7


def test_the_memory_is_given_back_once() -> None:
    progress = Progress()
    progress.step = 3
    assert [progress.close(), progress.close()] == [3, 3]
    assert progress.step == 3


def test_a_thousand_take_no_room() -> None:
    def mappings() -> int:
        with open("/proc/self/maps") as file:
            return len(file.readlines())

    Progress().close()
    before = mappings()
    for _ in range(1000):
        Progress().close()
    assert mappings() <= before + 1
