"""The runtime under test and a place for an engine; engines that are not installed are skipped, with the reason.

GOCKER_TEST_RUNTIME names the runtime, by path or on PATH; without it, the gocker-oci beside this Python.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from enginehost import BUSYBOX, EngineHost, Place, write_image


@pytest.fixture(scope="session")
def runtime() -> str:
    """Its absolute path."""
    named = os.environ.get("GOCKER_TEST_RUNTIME")
    beside = os.path.join(os.path.dirname(sys.executable), "gocker-oci")
    found = shutil.which(named or beside)
    if not found:
        pytest.skip(
            f"needs an OCI runtime: {named or beside} is no program (GOCKER_TEST_RUNTIME names another)"
        )
    return os.path.abspath(found)


@pytest.fixture(scope="session")
def is_gocker(runtime: str) -> bool:
    """Whether it is the runtime of this project."""
    said = subprocess.run([runtime, "--version"], capture_output=True, text=True, check=False).stdout
    return "gocker" in said


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of an image with busybox, as `docker save` writes it."""
    if not os.access(BUSYBOX, os.X_OK):
        pytest.skip(f"needs {BUSYBOX} of busybox-static, to make an image")
    path = str(tmp_path_factory.mktemp("image") / "image.tar")
    write_image(path)
    return path


@pytest.fixture(scope="session")
def hugepage_limits(runtime: str, is_gocker: bool) -> None:
    """Skips where an annotation cannot reach the hugetlb controller of contrib/gocker-hugetlb."""
    if not is_gocker:
        pytest.skip("only gocker-oci reads annotations dev.gocker.limit.*")
    gocker = os.path.join(os.path.dirname(runtime), "gocker")
    listed = subprocess.run([gocker, "plugins"], capture_output=True, text=True, check=False).stdout
    if "hugetlb" not in listed:
        pytest.skip("needs contrib/gocker-hugetlb installed beside the runtime")


@pytest.fixture(scope="session")
def place(runtime: str) -> Place:
    """`with place(PROGRAM..., package=PACKAGE) as host`: a host for an engine, or a skip that says what is missing.

    `parents` are the cgroups at the top of each hierarchy that the engine makes and does not remove.
    """

    @contextmanager
    def make(*programs: str, package: str, parents: tuple[str, ...]) -> Iterator[EngineHost]:
        if os.environ.get("COVERAGE_RUN"):
            pytest.skip("needs a run without coverage, whose start-up engines do not wait for")
        if os.geteuid() != 0:
            pytest.skip("needs root: engines make namespaces and cgroups")
        for program in programs:
            if not shutil.which(program):
                pytest.skip(f"needs {program}: it is in Debian's package {package}")
        scratch = tempfile.mkdtemp(prefix="ge", dir="/tmp")
        os.chmod(scratch, 0o755)  # containers' users look below it
        try:
            host = EngineHost(scratch, runtime)
        except RuntimeError as error:
            os.rmdir(scratch)
            pytest.skip(str(error))
        try:
            yield host
        finally:
            left = host.close(parents)
        assert not left, f"cgroups left behind: {left}"

    return make
