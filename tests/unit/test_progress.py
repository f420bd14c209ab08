"""How far a child has got is seen by its parent, and in a file by whoever comes later."""

import os
import signal
from pathlib import Path

from gocker.kernel.progress import HEADER, Progress, read_progress


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


def test_what_a_child_of_a_killed_parent_wrote_last_is_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "record"
    file.write_bytes(HEADER + b"more")
    assert read_progress(file.read_bytes()) == -1
    parent = os.fork()
    if parent == 0:
        progress = Progress(os.open(file, os.O_RDWR))
        if os.fork() == 0:
            progress.step = 300
        else:
            os.wait()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(parent, 0)
    assert read_progress(file.read_bytes()) == 300
    assert file.read_bytes()[len(HEADER) :] == b"more"


def test_a_file_that_cannot_be_mapped_says_that_nothing_is_known(tmp_path: Path) -> None:
    file = tmp_path / "record"
    file.write_bytes(HEADER)
    progress = Progress(fd := os.open(file, os.O_WRONLY))
    progress.step = 5
    assert progress.close() == 5
    os.close(fd)
    assert read_progress(file.read_bytes()) is None
    assert read_progress(b"") is None


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
