"""A container's own directories and files: made exactly, undone from the plan's JSON alone."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from gocker.plan import Context, Step, step_from_json
from gocker.steps.host import MakeDirectory, WriteHostFile


def later(step: Step) -> Step:
    """The step as another gocker reads it from disk."""
    return step_from_json(step.to_json())


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture(params=[0o022, 0o077, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a umask of 777 locks others out")
def test_a_directory_gets_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    MakeDirectory(f"{tmp_path}/upper", mode=0o755).execute(Context(None))
    MakeDirectory(f"{tmp_path}/work").execute(Context(None))
    WriteHostFile(f"{tmp_path}/hosts", "text", mode=0o644).execute(Context(None))
    assert mode_of(f"{tmp_path}/upper") == 0o755
    assert mode_of(f"{tmp_path}/work") == 0o700
    assert mode_of(f"{tmp_path}/hosts") == 0o644


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files are given to another user")
def test_owner_and_set_id_bits_are_set(tmp_path: Path) -> None:
    MakeDirectory(f"{tmp_path}/upper", mode=0o2755, uid=1000, gid=1001).execute(Context(None))
    WriteHostFile(f"{tmp_path}/hosts", "", uid=1000, gid=1001).execute(Context(None))
    for name, mode in (("upper", 0o2755), ("hosts", 0o644)):
        status = os.stat(f"{tmp_path}/{name}")
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1000, 1001, mode)


def test_what_is_missing_above_is_made_private_and_stays(tmp_path: Path) -> None:
    step = MakeDirectory(f"{tmp_path}/containers/abc", mode=0o755, private=True)
    step.execute(Context(None))
    assert mode_of(f"{tmp_path}/containers") == 0o700
    later(step).undo(Context(None))
    assert os.listdir(tmp_path) == ["containers"]
    assert os.listdir(tmp_path / "containers") == []


def test_a_private_directory_is_undone_with_all_in_it_as_often_as_asked(tmp_path: Path) -> None:
    step = MakeDirectory(f"{tmp_path}/abc", private=True)
    later(step).undo(Context(None))
    step.execute(Context(None))
    (tmp_path / "abc" / "upper" / "etc").mkdir(parents=True)
    (tmp_path / "abc" / "upper" / "etc" / "file").touch()
    later(step).undo(Context(None))
    later(step).undo(Context(None))
    assert os.listdir(tmp_path) == []


def test_a_private_directory_must_be_new(tmp_path: Path) -> None:
    (tmp_path / "abc").mkdir()
    with pytest.raises(FileExistsError):
        MakeDirectory(f"{tmp_path}/abc", private=True).execute(Context(None))


def test_a_shared_directory_may_be_there_and_stays(tmp_path: Path) -> None:
    step = MakeDirectory(f"{tmp_path}/containers")
    for _ in range(2):
        step.execute(Context(None))
    later(step).undo(Context(None))
    assert os.listdir(tmp_path) == ["containers"]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_something_else_in_place_of_a_shared_directory_is_an_error(tmp_path: Path, kind: str) -> None:
    if kind == "file":
        (tmp_path / "containers").touch()
    else:
        os.symlink("/tmp", tmp_path / "containers")
    with pytest.raises(OSError, match="containers"):
        MakeDirectory(f"{tmp_path}/containers").execute(Context(None))


def test_a_file_holds_the_text_byte_for_byte(tmp_path: Path) -> None:
    text = os.fsdecode(b"127.0.0.1 localhost\n\xff\n") * 5000
    WriteHostFile(f"{tmp_path}/hosts", text).execute(Context(None))
    assert (tmp_path / "hosts").read_bytes() == os.fsencode(text)


def test_a_file_is_never_written_through_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    os.symlink("victim", tmp_path / "hosts")
    with pytest.raises(FileExistsError):
        WriteHostFile(f"{tmp_path}/hosts", "text").execute(Context(None))
    assert (tmp_path / "victim").read_text() == "kept"


def test_a_file_is_undone_as_often_as_asked(tmp_path: Path) -> None:
    step = WriteHostFile(f"{tmp_path}/hosts", "text")
    later(step).undo(Context(None))
    step.execute(Context(None))
    later(step).undo(Context(None))
    later(step).undo(Context(None))
    assert os.listdir(tmp_path) == []


def test_the_steps_say_the_shell_command_that_does_the_same() -> None:
    assert MakeDirectory("/d", mode=0o755, uid=5).describe() == "install -d -m 0755 -o 5 -g 0 /d"
    assert MakeDirectory("/d").describe() == "install -d -m 0700 /d"
    assert WriteHostFile("/d/hosts", "text").describe() == "install -m 0644 /dev/stdin /d/hosts  # 4 bytes"
