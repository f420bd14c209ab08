"""The image store: names are checked, images appear whole or not at all, and finding one is cheap."""

import errno
import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gocker.errors import ImageError
from gocker.filetree import FileTree
from gocker.images import (
    check_rootfs,
    find_image,
    is_digest,
    is_image_name,
    list_images,
    make_base,
    planned_image,
    resolve_image,
)
from gocker.imagestore import lock_store, put_image


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GOCKER_ROOT", f"{tmp_path}/root")
    return tmp_path / "root"


def put(root: Path, name: str = "small", text: str = "text") -> None:
    """Put an image of one file into the store."""
    tree = FileTree()
    tree.add_file("/file", text)
    lock = lock_store(f"{root}/images")
    put_image(f"{root}/images", name, "test", tree)
    os.close(lock)


def leftovers(root: Path) -> list[str]:
    """What in the store is not an image, nor part of one."""
    images = list_images()
    keys = {image.digest.replace(":", "-") for image in images}
    known = {f"refs/{image.name}" for image in images}
    known |= {f"{folder}/{key}" for key in keys for folder in ("manifests", "rootfs")}
    found = {str(path.relative_to(root / "images")) for path in (root / "images").glob("*/*")}
    found |= {str(path.relative_to(root / "images")) for path in (root / "images").glob("*/.*")}
    return sorted(found - known)


@given(st.one_of(st.text(max_size=140), st.from_regex("[A-Za-z0-9][A-Za-z0-9._-]*"), st.text("a:/.@\n")))
def test_a_name_is_what_the_pattern_matches_in_full(text: str) -> None:
    assert is_image_name(text) == bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", text))


@given(st.one_of(st.text(max_size=80), st.from_regex("(?i)sha256:[0-9a-f]{63,65}")))
@example("sha256:" + "A" * 64)
@example("sha256:" + "../" * 21 + "a")
def test_a_digest_is_what_the_pattern_matches_in_full(text: str) -> None:
    assert is_digest(text) == bool(re.fullmatch("sha256:[0-9a-f]{64}", text))


def test_an_image_is_found_by_its_name_and_lies_under_its_digest(root: Path) -> None:
    put(root)
    image = find_image("small")
    assert image is not None
    assert resolve_image("small") == image.rootfs == planned_image("small")
    assert image.rootfs == f"{root}/images/rootfs/{image.digest.replace(':', '-')}"
    assert Path(f"{image.rootfs}/file").read_text() == "text"
    manifest = Path(f"{root}/images/manifests/{image.digest.replace(':', '-')}").read_bytes()
    assert image.digest == f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def test_the_store_is_private(root: Path) -> None:
    put(root)
    for path in ("", "/images", "/images/refs", "/images/manifests", "/images/rootfs"):
        assert os.stat(f"{root}{path}").st_mode & 0o777 == 0o700
    assert os.stat(root / "images/refs/small").st_mode & 0o777 == 0o600


def test_a_name_can_be_given_to_another_image(root: Path) -> None:
    put(root, text="one")
    first = resolve_image("small")
    put(root, text="two")
    assert resolve_image("small") != first
    assert Path(f"{first}/file").read_text() == "one"  # which containers may be using


@pytest.mark.parametrize(
    "name", ["alpine", "docker.io/library/alpine:3.20", "", ".", "..", "../../etc", "/etc", "a\nb", "a\0b"]
)
@pytest.mark.parametrize("find", [resolve_image, planned_image])
def test_an_unknown_image_is_an_error_that_lists_what_is_there(
    root: Path, name: str, find: Callable[[str], str]
) -> None:
    put(root)
    with pytest.raises(
        ImageError, match=r"which has small \(use the image base, or --rootfs DIR\)"
    ) as caught:
        find(name)
    assert "\n" not in str(caught.value)


def test_looking_makes_nothing(root: Path) -> None:
    with pytest.raises(ImageError, match="which has none"):
        resolve_image("alpine")
    assert planned_image("base").startswith(f"{root}/images/rootfs/sha256-")
    assert list_images() == ()
    assert not root.exists()


@pytest.mark.parametrize("text", ["", "sha256:12", "sha256:" + "0" * 63 + "/", "../../../etc", "\xff"])
def test_a_name_that_leads_to_no_digest_is_an_error(root: Path, text: str) -> None:
    put(root)
    (root / "images/refs/small").write_text(text, encoding="latin-1")
    with pytest.raises(ImageError, match="holds no digest"):
        resolve_image("small")


def test_a_name_is_not_followed_when_it_is_a_link(root: Path) -> None:
    put(root)
    os.symlink("small", root / "images/refs/link")
    with pytest.raises(ImageError, match="ELOOP"):
        find_image("link")


def test_a_store_that_others_may_write_is_refused(root: Path) -> None:
    put(root)
    os.chmod(root / "images", 0o777)
    with pytest.raises(ImageError, match="others own it or may write to it"):
        resolve_image("small")


def test_an_image_whose_files_are_gone_is_not_there(root: Path) -> None:
    put(root)
    os.rename(resolve_image("small"), root / "elsewhere")
    with pytest.raises(ImageError, match="which has none"):
        resolve_image("small")


def test_base_is_made_at_first_use_where_it_was_planned(root: Path) -> None:
    planned = planned_image("base")
    rootfs = resolve_image("base")
    assert rootfs == planned
    assert os.access(f"{rootfs}/bin/sh", os.X_OK)
    before = os.stat(root / "images/refs/base").st_ino
    assert resolve_image("base") == rootfs
    assert os.stat(root / "images/refs/base").st_ino == before
    assert leftovers(root) == []


def test_base_is_a_copy_and_never_the_host_s_own_files(root: Path) -> None:
    rootfs = resolve_image("base")
    for directory, _, files in os.walk(rootfs):
        for name in files:
            status = os.lstat(f"{directory}/{name}")
            assert status.st_nlink == 1


def test_base_of_another_version_of_gocker_is_made_anew(root: Path) -> None:
    put(root, "base")
    old = next((root / "images/rootfs").iterdir())
    rootfs = resolve_image("base")
    assert rootfs != str(old)
    assert old.exists()
    assert [image.name for image in list_images()] == ["base"]


def test_base_is_made_anew_when_its_files_are_gone(root: Path) -> None:
    rootfs = resolve_image("base")
    os.rename(rootfs, root / "elsewhere")
    assert resolve_image("base") == rootfs
    assert os.path.isdir(rootfs)


def in_child(action: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return pid


def test_many_first_uses_at_once_make_it_once(root: Path) -> None:
    read, write = os.pipe()

    def use() -> None:
        resolve_image("base")
        os.write(write, b"%d\n" % os.stat(root / "images/refs/base").st_ino)

    children = [in_child(use) for _ in range(4)]
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0, 0]
    refs = os.read(read, 1000).split()
    assert len(refs) == 4
    assert len(set(refs)) == 1  # each making replaces the file
    assert leftovers(root) == []
    os.close(read)
    os.close(write)


def test_killed_at_any_stage_it_is_made_whole_by_the_next_use(root: Path) -> None:
    def killed(name: str, number: int) -> None:
        calls = 0

        def count(_frame: object, event: str, function: object) -> None:
            nonlocal calls
            if event == "c_call" and getattr(function, "__name__", "") == name:
                calls += 1
                if calls == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        make_base()

    stages = [("mkdir", 2), ("flock", 1), ("mkdir", 6), ("symlink", 1), ("fchmod", 90), ("utime", 5)]
    stages += [("rename", 1), ("rename", 2), ("rename", 2)]  # the third finds the files there
    for name, number in stages:
        status = os.waitpid(in_child(lambda name=name, number=number: killed(name, number)), 0)[1]  # type: ignore[misc]
        assert os.WIFSIGNALED(status), f"{name} was not called {number} times"
        assert find_image("base") is None
    rootfs = resolve_image("base")
    assert os.access(f"{rootfs}/bin/sh", os.X_OK)
    assert leftovers(root) == []


def test_base_that_cannot_be_written_leaves_nothing(root: Path) -> None:
    """A file size limit stands for a full disk: open succeeds, write fails."""

    def make() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        with pytest.raises(ImageError, match=r"make image base in .*: EFBIG") as caught:
            resolve_image("base")
        assert caught.value.errno == errno.EFBIG
        assert leftovers(root) == []

    assert os.waitpid(in_child(make), 0)[1] == 0
    assert [str(path) for path in (root / "images").glob("*/*")] == []


def test_a_root_below_a_file_is_one_error_with_a_remedy(root: Path) -> None:
    root.touch()
    with pytest.raises(ImageError, match=r"read image base in .*: ENOTDIR: .*\(set GOCKER_ROOT"):
        resolve_image("base")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user is tried")
def test_without_privileges_the_error_says_who_can(root: Path) -> None:
    put(root)

    def as_nobody() -> None:
        os.setuid(65534)
        for use in (lambda: resolve_image("base"), make_base, list_images):
            with pytest.raises(ImageError, match=r"EACCES: .* \(run gocker as root, or set GOCKER_ROOT"):
                use()

    assert os.waitpid(in_child(as_nobody), 0)[1] == 0


def test_a_known_base_is_found_without_the_modules_that_make_it(root: Path) -> None:
    rootfs = resolve_image("base")
    code = (
        "import sys; before = set(sys.modules)\n"
        "from gocker.images import resolve_image\n"
        "print(resolve_image('base'))\n"
        "print(*(set(sys.modules) - before))"
    )
    found, modules = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()
    assert found == rootfs
    assert {"gocker.images", "gocker.paths"} <= set(modules.split())
    heavy = {"gocker.baseimage", "gocker.imagestore", "gocker.filetree", "hashlib", "json", "struct"}
    assert heavy.isdisjoint(modules.split())


def test_a_rootfs_is_given_back_absolute_and_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree").mkdir()
    os.symlink("tree", tmp_path / "link")
    monkeypatch.chdir(tmp_path)
    assert check_rootfs("link") == check_rootfs("./tree/") == f"{tmp_path}/tree"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "no directory is named"),
        ("gone", "ENOENT"),
        ("file", "ENOTDIR"),
        ("loop", "ELOOP"),
        ("a\0b", "null (byte|character)"),
        ("/", "the host's own root"),
        ("/proc/1/../..", "the host's own root"),
    ],
)
def test_a_rootfs_that_will_not_do_is_an_error_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, reason: str
) -> None:
    (tmp_path / "file").touch()
    os.symlink("loop", tmp_path / "loop")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match=rf"use rootfs .*{reason}.*\(give the directory"):
        check_rootfs(path)


def test_a_rootfs_around_gocker_s_own_data_is_refused(root: Path, tmp_path: Path) -> None:
    for path in (tmp_path, root):
        path.mkdir(exist_ok=True)
        with pytest.raises(ImageError, match=r"gocker's own data in .* would be inside"):
            check_rootfs(str(path))
    (tmp_path / "roo").mkdir()
    assert check_rootfs(f"{tmp_path}/roo") == f"{tmp_path}/roo"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user is tried")
@pytest.mark.parametrize(("mode", "fit"), [(0o755, True), (0o700, False), (0o744, False), (0o711, False)])
def test_a_rootfs_that_cannot_be_read_is_an_error(mode: int, fit: bool) -> None:
    def as_nobody(path: str) -> None:
        os.setuid(65534)
        if fit:
            assert check_rootfs(path) == path
            return
        with pytest.raises(ImageError, match=f"use rootfs {path}: EACCES"):
            check_rootfs(path)

    with tempfile.TemporaryDirectory() as path:  # tmp_path lies below what only its owner may enter
        os.chmod(path, mode)
        assert os.waitpid(in_child(lambda: as_nobody(path)), 0)[1] == 0
