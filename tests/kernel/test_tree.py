"""Removing a tree stops at what is mounted in it, also when it is mounted meanwhile."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import subprocess, sys
from gocker.kernel.tree import remove_tree
top, when, mount = sys.argv[1:]
def watch(frame, event, argument):
    if event == "call" and frame.f_code.co_name == "_move":
        sys.setprofile(None)
        subprocess.run(["sh", "-c", mount, "sh", top], check=True)
if when == "meanwhile":
    sys.setprofile(watch)
else:
    subprocess.run(["sh", "-c", mount, "sh", top], check=True)
try:
    remove_tree(top, "tree")
except OSError as error:
    print(error)
"""
BIND_BELOW = 'mount --bind "$1/victim" "$1/tree/a/b"'
BIND_TOP = 'mount --bind "$1/victim" "$1/tree"'
BIND_FILE = 'mount --bind "$1/victim/file" "$1/tree/file"'
BUSY = "[Errno 16] Device or resource busy"
CROSS = "[Errno 18] Invalid cross-device link"


@pytest.mark.parametrize(
    ("when", "mount", "error"),
    [
        ("before", BIND_BELOW, f"{BUSY}: 'tree/a/b'"),
        ("before", 'mount -t tmpfs tmpfs "$1/tree/a/b"', f"{BUSY}: 'tree/a/b'"),
        ("before", BIND_TOP, f"{BUSY}: 'tree'"),
        ("before", BIND_FILE, f"{BUSY}: 'tree'"),
        ("meanwhile", BIND_BELOW, f"{BUSY}: 'tree/a/b'"),
        ("meanwhile", BIND_TOP, f"{CROSS}: 'tree'"),
    ],
)
def test_a_mount_is_refused_and_kept_whole(tmp_path: Path, when: str, mount: str, error: str) -> None:
    (tmp_path / "victim" / "sub").mkdir(parents=True)
    (tmp_path / "victim" / "file").touch()
    (tmp_path / "tree" / "a" / "b").mkdir(parents=True)
    (tmp_path / "tree" / "file").touch()
    command = ["unshare", "--mount", sys.executable, "-c", CODE, str(tmp_path), when, mount]
    out = subprocess.check_output(command, text=True, timeout=60).strip()
    assert out == error
    assert sorted(path.name for path in (tmp_path / "victim").iterdir()) == ["file", "sub"]
