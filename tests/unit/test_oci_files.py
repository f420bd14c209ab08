"""The files that callers of gocker-oci name: of no more than 4 MiB is anything made, and nobody is waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gocker.errors import UsageError
from gocker.ocicli.common import read_text_file

_LIMIT = 4 << 20


def test_four_mebibytes_are_read_and_no_byte_more(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b" " * _LIMIT)
    assert len(read_text_file("read", str(path))) == _LIMIT
    os.truncate(path, _LIMIT + 1)
    with pytest.raises(UsageError, match="longer than 4 MiB"):
        read_text_file("read", str(path))


def test_a_fifo_that_nobody_writes_to_is_empty(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert read_text_file("read", f"{tmp_path}/fifo") == b""


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a file nor a pipe"):
        read_text_file("read", str(tmp_path))
