"""A tree of an image, copied without following anything in it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from inside import Sandbox, run

from gocker.kernel.copytree import copy_tree
from gocker.model import Mount
from gocker.rootplan import file_system_steps

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners are copied, file systems mounted"),
]


def copied(source: Path, target: Path) -> None:
    target.mkdir()
    fds = [os.open(path, os.O_PATH | os.O_DIRECTORY) for path in (source, target)]
    try:
        copy_tree(*fds)
    finally:
        for fd in fds:
            os.close(fd)


def test_files_directories_links_owners_and_modes_are_copied(tmp_path: Path) -> None:
    source = tmp_path / "a"
    (source / "dir/deep").mkdir(parents=True)
    (source / "dir/deep/file").write_bytes(b"x" * 3_000_000)
    os.chown(source / "dir/deep/file", 5, 6)
    os.chmod(source / "dir/deep/file", 0o4711)
    os.chmod(source / "dir", 0o1770)
    os.mkfifo(source / "pipe", 0o640)
    os.symlink("/etc/shadow", source / "link")
    copied(source, tmp_path / "b")
    listing = ["find", ".", "-printf", "%p %y %m %U %G %l\n"]
    lists = [subprocess.check_output(listing, cwd=tmp_path / name) for name in "ab"]
    assert sorted(lists[0].splitlines()) == sorted(lists[1].splitlines())
    assert (tmp_path / "b/dir/deep/file").read_bytes() == b"x" * 3_000_000


def test_devices_sockets_and_what_is_mounted_there_stay_behind(tmp_path: Path) -> None:
    source = tmp_path / "a"
    (source / "mount").mkdir(parents=True)
    os.mknod(source / "null", 0o20666, os.makedev(1, 3))
    subprocess.run(["mount", "-t", "tmpfs", "none", source / "mount"], check=True)
    try:
        (source / "mount/secret").touch()
        copied(source, tmp_path / "b")
    finally:
        subprocess.run(["umount", source / "mount"], check=True)
    assert os.listdir(tmp_path / "b") == []


@pytest.mark.parametrize("options", [("tmpcopyup",), ("tmpcopyup", "ro")])
def test_a_tmpfs_begins_with_what_the_image_has_there(tmp_path: Path, options: tuple[str, ...]) -> None:
    box = Sandbox(str(tmp_path))
    spec = box.spec(mounts=(Mount(kind="tmpfs", target="/opt", options=options),))
    script = "grep -c ' /opt tmpfs ' /proc/mounts; ls /opt; touch /opt/new 2>/dev/null && echo writable"
    os.makedirs(f"{spec.rootfs.lower}/opt", exist_ok=True)  # type: ignore[union-attr]
    Path(f"{spec.rootfs.lower}/opt/mine").touch()  # type: ignore[union-attr]
    out = run(file_system_steps(spec, box.container), script).split()
    assert out[0] == "1"
    assert "mine" in out
    assert ("writable" in out) is ("ro" not in options)
