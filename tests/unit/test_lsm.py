"""Which security modules a host says that it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from gocker.kernel.lsm import apparmor_enabled, selinux_enabled


@pytest.mark.parametrize(("content", "enabled"), [("Y\n", True), ("N\n", False), (None, False)])
def test_apparmor_says_whether_it_is_enabled(tmp_path: Path, content: str | None, enabled: bool) -> None:
    path = tmp_path / "enabled"
    if content is not None:
        path.write_text(content)
    assert apparmor_enabled(str(path)) is enabled


def test_a_directory_is_no_selinux(tmp_path: Path) -> None:
    assert selinux_enabled(str(tmp_path)) is False
    assert selinux_enabled(f"{tmp_path}/none") is False
