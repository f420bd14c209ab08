"""A tree is removed without following, without running out of fds, and without minding who else removes it."""

import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from gocker.kernel.tree import remove_tree


def test_a_tree_with_all_kinds_of_entries_goes(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "empty").mkdir()
    (tree / "a" / "b" / "file").write_text("text")
    os.mkfifo(tree / "fifo")
    os.symlink("nowhere", tree / "a" / "dangling")
    remove_tree(str(tmp_path), "tree")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("by_fd", [True, False])
def test_the_parent_is_given_by_fd_or_path_and_stays_open(tmp_path: Path, by_fd: bool) -> None:
    (tmp_path / "tree" / "a").mkdir(parents=True)
    (tmp_path / "tree" / "a" / "f").touch()
    fd = os.open(tmp_path, os.O_RDONLY)
    remove_tree(fd if by_fd else str(tmp_path), "tree")
    assert os.listdir(fd) == []
    os.close(fd)


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").touch()
    (tmp_path / "tree").mkdir()
    os.symlink(victim, tmp_path / "tree" / "link")
    os.symlink(victim, tmp_path / "top")
    remove_tree(str(tmp_path), "tree")
    remove_tree(str(tmp_path), "top")
    assert os.listdir(tmp_path) == ["victim"]
    assert os.listdir(victim) == ["file"]


def test_a_file_in_place_of_the_tree_goes_too(tmp_path: Path) -> None:
    (tmp_path / "tree").touch()
    remove_tree(str(tmp_path), "tree")
    assert os.listdir(tmp_path) == []


def test_what_is_not_there_is_fine(tmp_path: Path) -> None:
    remove_tree(str(tmp_path), "tree")
    remove_tree(f"{tmp_path}/no/such/parent", "tree")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../victim"])
def test_only_the_name_of_an_entry_is_taken(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not the name"):
        remove_tree(str(tmp_path), name)


def test_a_tree_deeper_than_any_path_and_than_the_fds_goes(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deeper", dir_fd=here)
        below = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    remove_tree(str(tmp_path), "deeper")
    assert os.listdir(tmp_path) == []


def test_no_fd_is_left_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    (tmp_path / "tree" / "a" / "b").mkdir(parents=True)
    remove_tree(str(tmp_path), "tree")
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: overlayfs makes a work directory of mode 000")
def test_a_directory_without_permissions_goes(tmp_path: Path) -> None:
    (tmp_path / "work" / "work").mkdir(parents=True)
    (tmp_path / "work" / "work" / "#1").touch()
    os.chmod(tmp_path / "work" / "work", 0)
    remove_tree(str(tmp_path), "work")
    assert os.listdir(tmp_path) == []


def meddle(at: str, action: object) -> None:
    """Do `action` once, before the first call into the kernel of the name `at`."""

    def watch(_frame: object, event: str, function: object) -> None:
        if event == "c_call" and getattr(function, "__name__", "") == at:
            sys.setprofile(None)
            action()  # type: ignore[operator]

    sys.setprofile(watch)


def test_what_vanishes_meanwhile_is_fine(tmp_path: Path) -> None:
    for at in ("rmdir", "fstat", "scandir", "unlink"):
        (tmp_path / "tree" / "a").mkdir(parents=True)
        (tmp_path / "tree" / "a" / "file").touch()

        def vanish() -> None:
            (tmp_path / "tree" / "a" / "file").unlink()
            (tmp_path / "tree" / "a").rmdir()
            (tmp_path / "tree").rmdir()

        meddle(at, vanish)
        remove_tree(str(tmp_path), "tree")
        assert sys.getprofile() is None, f"{at} was never called"
        assert os.listdir(tmp_path) == []


def test_what_is_put_there_meanwhile_goes_too(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").touch()
    count = 0

    def refill(_frame: object, event: str, function: object) -> None:
        nonlocal count
        if event == "c_call" and getattr(function, "__name__", "") == "rmdir" and count < 5:
            count += 1
            (tmp_path / "tree" / f"new{count}").mkdir()

    sys.setprofile(refill)
    try:
        remove_tree(str(tmp_path), "tree")
    finally:
        sys.setprofile(None)
    assert count == 5
    assert os.listdir(tmp_path) == []


def test_a_directory_that_is_filled_for_ever_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "top" / "tree").mkdir(parents=True)
    count = 0

    def refill(_frame: object, event: str, function: object) -> None:
        nonlocal count
        if event == "c_call" and getattr(function, "__name__", "") == "rmdir":
            count += 1
            (tmp_path / "top" / "tree" / f"new{count}").touch()

    sys.setprofile(refill)
    try:
        with pytest.raises(OSError, match="as fast as it is emptied") as caught:
            remove_tree(str(tmp_path), "top")
    finally:
        sys.setprofile(None)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOTEMPTY, "top/tree")


def test_a_directory_that_is_moved_away_meanwhile_leads_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "tree" / "a" / "b").mkdir(parents=True)
    (tmp_path / "tree" / "a" / "b" / "file").touch()
    (tmp_path / "victim" / "a").mkdir(parents=True)
    (tmp_path / "victim" / "keep").touch()
    meddle("unlink", lambda: os.rename(tmp_path / "tree" / "a", tmp_path / "victim" / "moved"))
    with pytest.raises(OSError, match="moved"):
        remove_tree(str(tmp_path), "tree")
    assert sorted(os.listdir(tmp_path / "victim")) == ["a", "keep", "moved"]


def before_descent(action: Callable[[], object]) -> Callable[..., None]:
    """A profile function that does `action` between the look at a directory and its opening."""

    def watch(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_name == "_move":
            sys.setprofile(None)
            action()

    return watch


def test_a_directory_that_vanishes_before_it_is_opened_is_fine(tmp_path: Path) -> None:
    (tmp_path / "tree" / "a").mkdir(parents=True)
    sys.setprofile(before_descent(lambda: shutil.rmtree(tmp_path / "tree")))
    remove_tree(str(tmp_path), "tree")
    assert os.listdir(tmp_path) == []


def test_a_link_that_takes_the_place_of_a_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").touch()
    (tmp_path / "tree" / "a").mkdir(parents=True)

    def swap() -> None:
        (tmp_path / "tree").rename(tmp_path / "old")
        os.symlink("victim", tmp_path / "tree")

    sys.setprofile(before_descent(swap))
    with pytest.raises(OSError, match="tree"):
        remove_tree(str(tmp_path), "tree")
    assert os.listdir(tmp_path / "victim") == ["file"]
