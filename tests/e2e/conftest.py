"""What the tests of `gocker-oci` get."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Gocker
from ocicommand import GockerOci, gocker_oci


@pytest.fixture
def oci(tmp_path: Path, gocker: Gocker) -> Iterator[GockerOci]:
    """The installed command, with a root of the test's own; what it has left running is deleted."""
    with gocker_oci(str(tmp_path), gocker) as command:
        yield command
