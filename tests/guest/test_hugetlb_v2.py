"""contrib/gocker-hugetlb on cgroup v2: a third party's controller binds there as the built-in ones do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Gocker
from running import running

from gocker.hierarchy import read_host

pytestmark = pytest.mark.guest

SOURCE = Path(__file__).parents[2] / "contrib" / "gocker-hugetlb"
PAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What pip would put into site-packages; pip itself, tried in tests/e2e, takes a minute in a guest."""
    if read_host().find("hugetlb") is None or not PAGES.exists():
        pytest.skip("needs a kernel with the hugetlb controller and huge pages of 2 MiB")
    site = tmp_path_factory.mktemp("site")
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    shutil.copytree(SOURCE / "gocker_hugetlb", site / "gocker_hugetlb")
    info = site / f"gocker_hugetlb-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    sections = []
    for group, entries in project["entry-points"].items():
        sections += [f"[{group}]", *(f"{name} = {target}" for name, target in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(sections) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(site))
        yield


def test_it_is_listed_with_the_file_and_the_mount_of_v2(gocker: Gocker) -> None:
    ran = gocker("plugins", "--format", "json")
    (row,) = (row for row in json.loads(ran.out) if row["name"] == "hugetlb")
    assert (row["distribution"], row["status"]) == ("gocker-hugetlb", "ok")
    assert (row["hierarchy"], row["mount"]) == ("v2", "/sys/fs/cgroup")


def test_its_limit_is_in_the_kernels_file(gocker: Gocker) -> None:
    with running(gocker, "--limit", "hugetlb.2MB=64m") as container:
        assert container.file("hugetlb", "hugetlb.2MB.max") == "67108864"
        assert "hugetlb" in (container.file("hugetlb", "cgroup.controllers") or "").split()
        ran = container.end()
    assert ran.report["limits"]["hugetlb.2MB"] == {"asked": "64m", "effective": 67108864}


@pytest.fixture
def huge(tmp_path: Path) -> Iterator[Path]:
    """A hugetlbfs with eight free pages."""
    before = PAGES.read_text()
    PAGES.write_text("8")
    mountpoint = tmp_path / "huge"
    mountpoint.mkdir()
    try:
        if int(PAGES.read_text()) < 8:
            pytest.skip("needs 16 MiB of memory that is free in whole pages of 2 MiB")
        subprocess.run(["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "none", mountpoint], check=True)
        yield mountpoint
        subprocess.run(["umount", mountpoint], check=True)
    finally:
        PAGES.write_text(before)


def test_a_third_page_is_refused_where_two_are_allowed_and_that_is_counted(
    gocker: Gocker, huge: Path
) -> None:
    busybox = shutil.which("busybox")
    assert busybox
    script = "/busybox fallocate -l 4194304 /huge/two; /busybox fallocate -l 2097152 /huge/third; rm /huge/*"
    binds = ("-v", f"{huge}:/huge", "-v", f"{os.path.realpath(busybox)}:/busybox:ro")
    ran = gocker.run("--limit", "hugetlb.2MB=4m", *binds, "base", "sh", "-c", script)
    assert ran.err == "fallocate: fallocate '/huge/third': No space left on device\n", ran
    assert ran.report["usage"]["hugetlb_2MB_limit_hits"] >= 1
    unlimited = gocker.run(*binds, "base", "sh", "-c", script)
    assert (unlimited.code, unlimited.err) == (0, "")
