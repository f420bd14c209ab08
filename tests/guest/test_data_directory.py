"""The file system that GOCKER_ROOT lies on: the image base is made on a disk, an overlay is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator

import pytest
from command import SLOWNESS, Gocker

from gocker.kernel import mount

pytestmark = pytest.mark.guest


def test_base_is_made_on_first_use_within_two_seconds(gocker: Gocker, tmp_path: os.PathLike[str]) -> None:
    env = {"GOCKER_ROOT": f"{tmp_path}/data"}
    times = []
    for _ in range(2):
        begin = time.monotonic()
        ran = gocker("run", "base", "sh", "-c", "echo hello from $$", env=env)
        times.append(time.monotonic() - begin)
        assert (ran.code, ran.out, ran.err) == (0, "hello from 1\n", "")
    assert len(os.listdir(f"{tmp_path}/data/images/rootfs")) == 1
    assert times[0] - times[1] < 2 * SLOWNESS
    assert os.listdir(f"{tmp_path}/data/containers") == []


def magic(path: str) -> int:
    fd = os.open(path, os.O_PATH)
    try:
        return mount.file_system_magic(fd)
    finally:
        os.close(fd)


@pytest.fixture(params=["of the test", "the host's root"])
def overlay(request: pytest.FixtureRequest, tmp_path: os.PathLike[str]) -> Iterator[str]:
    """A directory on an overlay; `/` is one inside a container, and in the guest."""
    if request.param == "the host's root":
        if magic("/") != mount.OVERLAY_MAGIC:
            pytest.skip("needs a host whose / is an overlay, as a container and the guest have it")
        path = tempfile.mkdtemp(dir="/", prefix="gocker-test-")
        yield path
        shutil.rmtree(path)
        return
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(f"{tmp_path}/{name}")
    options = ",".join(f"{name}dir={tmp_path}/{name}" for name in ("lower", "upper", "work"))
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", f"{tmp_path}/merged"], check=True)
    yield f"{tmp_path}/merged"
    subprocess.run(["umount", f"{tmp_path}/merged"], check=True)


def test_data_on_an_overlay_is_one_clear_error(gocker: Gocker, overlay: str) -> None:
    ran = gocker("run", "base", "true", env={"GOCKER_ROOT": f"{overlay}/data"})
    assert (ran.code, ran.out, ran.err.count("\n")) == (125, "", 1), ran
    assert ran.err.startswith("gocker: step ")
    assert "mount -t overlay " in ran.err
    remedy = "an overlay cannot be the upper layer of another: set GOCKER_ROOT to a directory on ext4, xfs or tmpfs"
    assert ": EINVAL: " in ran.err
    assert ran.err.endswith(f" ({remedy})\n")
    assert os.listdir(f"{overlay}/data/containers") == []
    told = gocker("doctor", env={"GOCKER_ROOT": f"{overlay}/data"})
    assert "EINVAL" in next(line for line in told.out.splitlines() if " overlay " in line)


def test_data_on_an_overlay_is_enough_for_a_root_that_is_written_through(
    gocker: Gocker, overlay: str, tmp_path: os.PathLike[str]
) -> None:
    made = gocker("run", "base", "true", env={"GOCKER_ROOT": f"{tmp_path}/elsewhere"})
    assert made.code == 0, made
    (image,) = os.listdir(f"{tmp_path}/elsewhere/images/rootfs")
    rootfs = f"{tmp_path}/elsewhere/images/rootfs/{image}:rw"
    ran = gocker("run", "--rootfs", rootfs, "echo", "works", env={"GOCKER_ROOT": f"{overlay}/data"})
    assert (ran.code, ran.out, ran.err) == (0, "works\n", "")
