"""What is written to the own procfs meets no link and no other mount on its way."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gocker.plan import Context
from gocker.steps.procfs import PATH, write_proc


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    """With a directory that stands for the procfs."""
    made = Context(None)
    made.fds[PATH] = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield made
    os.close(made.fds[PATH])


def test_a_file_of_it_is_written(ctx: Context, tmp_path: Path) -> None:
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys" / "value").write_text("")
    write_proc(ctx, "sys/value", "1")
    assert (tmp_path / "sys" / "value").read_text() == "1"


@pytest.mark.parametrize("name", ["sys", "sys/value"])
def test_a_link_on_the_way_is_not_followed(
    ctx: Context, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "value").write_text("")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to(outside if name == "sys" else outside / "value")
    with pytest.raises(OSError) as caught:
        write_proc(ctx, "sys/value", "1")
    assert caught.value.errno == errno.ELOOP
    assert (outside / "value").read_text() == ""


def test_another_mount_is_not_entered() -> None:
    ctx = Context(None)
    ctx.fds[PATH] = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError) as caught:
            write_proc(ctx, "proc/self/comm", "pytest")
        assert caught.value.errno in {errno.EXDEV, errno.ELOOP}
    finally:
        os.close(ctx.fds[PATH])
