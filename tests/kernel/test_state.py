"""State on a disk that is full or read-only: one error, nothing left."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import os, sys
from gocker.errors import StateError
from gocker.state import State
state = State(sys.argv[1])
try:
    list(state.abandoned())
    state.create("abc", "web", b"x" * 100_000)
except StateError as error:
    print(error)
print(sorted(os.listdir(sys.argv[1])))
for directory in ("containers", "names"):
    if os.path.isdir(f"{sys.argv[1]}/{directory}"):
        print(os.listdir(f"{sys.argv[1]}/{directory}"))
"""


def run(options: str, directory: Path) -> list[str]:
    """Run CODE on a tmpfs of its own; what it prints."""
    script = f'mount -t tmpfs -o mode=700,{options} tmpfs "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(directory), sys.executable, CODE]
    return subprocess.check_output(command, text=True, timeout=60).splitlines()


def test_a_read_only_state_directory_is_one_error_with_a_remedy(tmp_path: Path) -> None:
    error, *left = run("ro", tmp_path)
    assert error == (
        f"create state of abc in {tmp_path}: EROFS: Read-only file system"
        " (set GOCKER_STATE to a directory of your own that can be written)"
    )
    assert left == ["[]"]


@pytest.mark.parametrize("limit", ["size=8k", "nr_inodes=4", "nr_inodes=5", "nr_inodes=6"])
def test_a_full_disk_is_one_error_and_nothing_is_left(tmp_path: Path, limit: str) -> None:
    error, *left = run(limit, tmp_path)
    assert f" in {tmp_path}: ENOSPC: No space left on device (free some space, or set GOCKER_STATE" in error
    assert left == ["['containers', 'names']", "[]", "[]"]
