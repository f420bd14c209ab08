"""The programs of `base` run on nothing but `base`; a full or read-only disk gives one error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gocker.images import resolve_image

SCRIPT = r"""
ls /bin/ls
cat /etc/hostname; echo cat
id -un; id -u user
head -c 4 /etc/passwd; echo
printf '1\n2\n3\n' | tail -n 1
sleep 0.01 && echo slept
env -i A=b /usr/bin/env
seq -s , 3
echo ab | od -An -tx1
echo 6 7 | awk '{ print $1 * $2 }'
echo abc | sed s/b/x/ | grep -c axc
"""
EXPECTED = """\
/bin/ls
cat
root
1000
root
3
slept
A=b
1,2,3
 61 62 0a
42
1
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GOCKER_ROOT", f"{tmp_path}/root")
    return tmp_path / "root"


def inside(rootfs: str, *command: str) -> str:
    """What the command prints with `rootfs` as its root and an empty environment."""
    program = ["unshare", "--mount", "chroot", rootfs, *command]
    env = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
    return subprocess.run(program, env=env, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.usefixtures("root")
def test_the_everyday_programs_run_inside() -> None:
    assert inside(resolve_image("base"), "/bin/sh", "-c", SCRIPT) == EXPECTED


@pytest.mark.usefixtures("root")
def test_every_program_starts_inside() -> None:
    """The loader answers for each: a library that is missing would be status 127."""
    rootfs = resolve_image("base")
    script = """
        for program in /usr/bin/* /bin/*; do
            case ${program##*/} in yes|sh|bash|dash|top|sync) continue ;; esac
            "$program" --version </dev/null >/dev/null 2>&1
            [ $? -lt 126 ] || echo "$program $?"
        done
    """
    assert inside(rootfs, "/bin/sh", "-c", script) == ""


def in_mount_namespace(mount: str, directory: Path, code: str) -> str:
    """Run Python with a tmpfs mounted over `directory` that nobody else sees."""
    directory.mkdir(parents=True, exist_ok=True)
    script = f'mount -t tmpfs -o {mount} tmpfs "$1" && exec "$2" -c "$3"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(directory), sys.executable, code]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


RESOLVE = """
import os
from gocker.errors import ImageError
from gocker.images import resolve_image
try:
    resolve_image("base")
except ImageError as error:
    print(error)
for top, directories, files in os.walk(os.environ["GOCKER_ROOT"] + "/images"):
    for name in files:
        print("left", name)
    for name in directories:
        if "sha256" in name:
            print("left", name)
"""


@pytest.mark.parametrize("limit", ["size=3m", "nr_inodes=100"])
def test_a_full_disk_is_one_error_and_nothing_is_left(root: Path, limit: str) -> None:
    error, *left = in_mount_namespace(limit, root, RESOLVE).splitlines()
    assert error.startswith(
        f"make image base in {root}/images: ENOSPC: No space left on device (free some space"
    )
    assert left == ["left lock"]


def test_a_read_only_disk_is_one_error(root: Path) -> None:
    error, *left = in_mount_namespace("ro", root, RESOLVE).splitlines()
    assert error.startswith(
        f"make image base in {root}/images: EROFS: Read-only file system (set GOCKER_ROOT"
    )
    assert left == []


def test_an_image_is_found_on_a_disk_that_has_become_read_only(root: Path) -> None:
    rootfs = resolve_image("base")
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" -c "$3"'
    code = "from gocker.images import resolve_image; print(resolve_image('base'))"
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(root), sys.executable, code]
    assert subprocess.check_output(command, text=True, env=os.environ, timeout=60).strip() == rootfs
