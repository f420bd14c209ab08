"""The drivers, and a root file system that costs nothing to make."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from faults import Drivers


@pytest.fixture(scope="session")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drivers]:
    drivers = Drivers(str(tmp_path_factory.mktemp("drivers")))
    yield drivers
    drivers.close()


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> str:
    base = str(tmp_path_factory.mktemp("rootfs"))
    os.mkdir(f"{base}/bin", 0o755)
    os.chmod(base, 0o755)
    shutil.copy("/bin/busybox", f"{base}/bin/busybox")
    for name in ("sh", "true", "sleep"):
        os.symlink("busybox", f"{base}/bin/{name}")
    return base
