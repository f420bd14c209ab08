"""A tree on disk is what its manifest says, whoever wrote it."""

import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from gocker.filetree import LINK, Entry, FileTree


def sample() -> FileTree:
    tree = FileTree()
    tree.add_file("/usr/bin/program", "content", 0o755)
    tree.add_link("/bin", "usr/bin")
    tree.add_directory("/tmp", 0o1777)
    tree.add_directory("/home/user", 0o700, uid=1000, gid=1000)
    tree.add("/home/user/link", Entry(kind=LINK, mode=0o777, uid=1000, gid=1000, target="nowhere"))
    tree.add_file("/etc/\udcff", "")
    return tree


def manifest_of(top: str) -> bytes:
    """The manifest of what lies on disk, read without the code under test."""
    lines = {}
    for directory, directories, files in os.walk(top):
        for path in [directory, *(f"{directory}/{name}" for name in directories + files)]:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                kind, last = "link", os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                kind, last = "file", hashlib.sha256(Path(path).read_bytes()).hexdigest()
            else:
                kind, last = "directory", ""
            inside = path[len(top) :] or "/"
            mode = stat.S_IMODE(status.st_mode)
            lines[inside] = json.dumps(
                [inside, kind, mode, status.st_uid, status.st_gid, last], separators=(",", ":")
            )
    return "".join(f"{lines[path]}\n" for path in sorted(lines)).encode()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files are given to another user")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o777])
def test_what_is_written_is_what_the_manifest_says(tmp_path: Path, umask: int) -> None:
    tree = sample()
    os.chown(tmp_path, 0, 1234)
    os.chmod(tmp_path, 0o2700)  # what is made inside inherits the group and the bit
    before = os.umask(umask)
    try:
        tree.write(str(tmp_path))
    finally:
        os.umask(before)
    assert manifest_of(str(tmp_path)) == tree.manifest()


def test_the_manifest_does_not_depend_on_the_order_of_adding() -> None:
    tree, other = FileTree(), FileTree()
    tree.add_file("/a/b", "text")
    tree.add_link("/c", "a")
    other.add_link("/c", "a")
    other.add_file("/a/b", "text")
    assert tree.manifest() == other.manifest()
    other.add_file("/a/b", "text", 0o600)
    assert tree.manifest() != other.manifest()


def test_all_times_are_the_same(tmp_path: Path) -> None:
    sample().write(str(tmp_path))
    times = {path.lstat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]}
    assert len(times) == 1


def test_the_size_is_that_of_the_files() -> None:
    assert sample().size == len("content")


@pytest.mark.parametrize("path", ["", "relative", "/a/../b", "/a/", "//a", "/a//b", "/."])
def test_only_canonical_paths_are_taken(path: str) -> None:
    with pytest.raises(ValueError, match="not a canonical absolute path"):
        FileTree().add_file(path, "")


def test_nothing_lies_below_a_link_or_a_file() -> None:
    tree = sample()
    for path in ("/bin/sh", "/usr/bin/program/x"):
        with pytest.raises(ValueError, match="is no directory"):
            tree.add_file(path, "")
