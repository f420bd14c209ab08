"""Paths in a directory full of traps: opened and made without ever leaving it."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator

import pytest

from gocker.errors import GockerError
from gocker.kernel import inroot, mount


@pytest.fixture
def base() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="gocker-inroot-", dir="/dev/shm") as path:
        os.mkdir(f"{path}/root")
        os.mkdir(f"{path}/outside")
        with open(f"{path}/outside/secret", "w") as file:
            file.write("outside")
        yield path


@pytest.fixture
def root(base: str) -> Iterator[int]:
    fd = os.open(f"{base}/root", os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def read(root: int, path: str, resolve: int = inroot.IN_ROOT) -> str:
    fd = inroot.openat2(root, path, os.O_RDONLY, resolve)
    with os.fdopen(fd) as file:
        return file.read()


def put(path: str, text: str = "inside") -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def place(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


@pytest.mark.parametrize("path", ["a/b", "/a/b", "//a/./b", "../../a/b", "/../../../a/b", "a/../a/b"])
def test_a_path_is_read_below_the_root_whatever_it_begins_with(base: str, root: int, path: str) -> None:
    put(f"{base}/root/a/b")
    assert read(root, path) == "inside"


@pytest.mark.parametrize(
    "link", ["/outside/secret", "../outside/secret", "../../../../../outside/secret", "{base}/outside/secret"]
)
def test_a_link_never_leads_outside(base: str, root: int, link: str) -> None:
    os.symlink(link.format(base=base), f"{base}/root/link")
    with pytest.raises(FileNotFoundError):
        read(root, "link")
    where = link.format(base=base).replace("../", "").lstrip("/")
    put(f"{base}/root/{where}")
    assert read(root, "link") == "inside"


def test_a_magic_link_is_refused_in_the_root() -> None:
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError, match="symbolic links") as caught:
            read(proc, "self/fd/0")
    finally:
        os.close(proc)
    assert caught.value.errno == errno.ELOOP


def test_a_plain_path_has_no_links(base: str, root: int) -> None:
    put(f"{base}/root/a/b")
    os.symlink("a", f"{base}/root/link")
    assert read(root, "a/b", inroot.PLAIN) == "inside"
    with pytest.raises(OSError) as caught:
        read(root, "link/b", inroot.PLAIN)
    assert caught.value.errno == errno.ELOOP


def test_a_plain_path_does_not_go_up(base: str, root: int) -> None:
    with pytest.raises(OSError) as caught:
        read(root, "../outside/secret", inroot.PLAIN)
    assert caught.value.errno == errno.EXDEV


def test_a_path_in_one_mount_does_not_enter_another() -> None:
    top = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        assert read(top, "proc/self/comm", inroot.IN_ROOT)
        with pytest.raises(OSError) as caught:
            read(top, "proc/version", inroot.SAME_MOUNT)
    finally:
        os.close(top)
    assert caught.value.errno == errno.EXDEV


def test_every_fd_is_close_on_exec(base: str, root: int) -> None:
    fds = [
        inroot.openat2(root, ".", os.O_PATH, inroot.PLAIN),
        inroot.make_directory(root, "a/b"),
        inroot.make_file(root, "a/f"),
        inroot.make_directory_entry(root, "c"),
        inroot.make_file_entry(root, "g"),
    ]
    inheritable = [os.get_inheritable(fd) for fd in fds]
    for fd in fds:
        os.close(fd)
    assert inheritable == [False] * 5


def test_directories_are_made_with_their_parents(base: str, root: int) -> None:
    before = os.umask(0o077)
    try:
        os.umask(0)
        assert place(inroot.make_directory(root, "/a/b/c", 0o711)) == f"{base}/root/a/b/c"
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(f"{base}/root/a/b").st_mode) == 0o711


def test_directories_below_a_link_are_made_where_it_leads_in_the_root(base: str, root: int) -> None:
    os.mkdir(f"{base}/root/etc")
    os.symlink("/etc", f"{base}/root/link")
    assert place(inroot.make_directory(root, "link/new/deep")) == f"{base}/root/etc/new/deep"
    os.symlink("../../../../etc", f"{base}/root/up")
    assert place(inroot.make_file(root, "up/file")) == f"{base}/root/etc/file"


def test_a_thousand_levels_are_made_and_found_again(base: str, root: int) -> None:
    path = "/".join(["d"] * 1500)
    os.close(inroot.make_directory(root, path))
    os.close(inroot.openat2(root, path, inroot.DIRECTORY, inroot.PLAIN))
    subprocess.run(["rm", "-r", f"{base}/root/d"], check=True)  # deeper than Python's own removal goes


def test_a_file_that_is_there_is_taken_as_it_is(base: str, root: int) -> None:
    put(f"{base}/root/etc/hosts", "as it was")
    os.symlink("etc/hosts", f"{base}/root/link")
    assert place(inroot.make_file(root, "link")) == f"{base}/root/etc/hosts"
    assert read(root, "etc/hosts") == "as it was"


@pytest.mark.parametrize("link", ["/outside", "../outside", "/nowhere", "../../nowhere", "a/../nowhere"])
@pytest.mark.parametrize("below", ["", "/x", "/x/y"])
@pytest.mark.parametrize("make", [inroot.make_directory, inroot.make_file])
def test_what_a_dangling_link_names_is_made_in_the_root(
    base: str, root: int, link: str, below: str, make: Callable[[int, str], int]
) -> None:
    os.symlink(link, f"{base}/root/link")
    before = sorted(os.listdir(f"{base}/outside"))
    made = make(root, f"link{below}")
    assert place(made) == f"{base}/root/{link.rpartition('/')[2]}{below}"
    assert sorted(os.listdir(f"{base}/outside")) == before


@pytest.mark.parametrize("make", [inroot.make_directory, inroot.make_file])
def test_a_link_that_leads_to_itself_is_an_error(
    base: str, root: int, make: Callable[[int, str], int]
) -> None:
    os.symlink("link", f"{base}/root/link")
    with pytest.raises(OSError, match="symbolic links"):
        make(root, "link/x")
    assert os.listdir(f"{base}/root") == ["link"]


def test_an_entry_that_is_a_link_is_the_link_itself(base: str, root: int) -> None:
    os.symlink("/outside/secret", f"{base}/root/link")
    fd = inroot.make_file_entry(root, "link")
    is_link = stat.S_ISLNK(os.fstat(fd).st_mode)
    os.close(fd)
    assert is_link


@pytest.mark.parametrize(
    ("path", "made"),
    [("missing/..", ""), ("missing/.", "/missing"), ("missing/../x", "/x"), ("../../x", "/x")],
)
def test_dots_after_missing_parts_stay_in_the_root(base: str, root: int, path: str, made: str) -> None:
    assert place(inroot.make_directory(root, path)) == f"{base}/root{made}"


def test_a_file_in_the_way_of_a_directory_is_an_error(base: str, root: int) -> None:
    put(f"{base}/root/file")
    with pytest.raises(NotADirectoryError):
        inroot.make_directory(root, "file/below")


def test_a_lookup_that_races_with_a_rename_is_tried_again() -> None:
    """The kernel answers EAGAIN when `..` is walked while something is renamed; nobody may see it."""
    with tempfile.TemporaryDirectory(prefix="gocker-race-", dir="/dev/shm") as base:
        os.makedirs(f"{base}/root/a")
        os.mkdir(f"{base}/this")
        pid = os.fork()
        if pid == 0:
            while True:
                os.rename(f"{base}/this", f"{base}/that")
                os.rename(f"{base}/that", f"{base}/this")
        root = os.open(f"{base}/root", os.O_PATH | os.O_DIRECTORY)
        try:
            end = time.monotonic() + 0.2
            while time.monotonic() < end:
                os.close(inroot.openat2(root, "a/../" * 20, os.O_PATH, inroot.IN_ROOT))
        finally:
            os.close(root)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_the_kernel_says_what_it_does_not_like_about_a_file_system() -> None:
    with pytest.raises(GockerError, match=r"make file system tmpfs: EINVAL: .*nosuch") as caught:
        mount.new_mount("tmpfs", ("nosuch=1",))
    assert caught.value.errno == errno.EINVAL


def test_an_unknown_file_system_is_enodev() -> None:
    with pytest.raises(OSError) as caught:
        mount.new_mount("nosuchfs")
    assert caught.value.errno == errno.ENODEV


def test_magics_tell_file_systems_apart() -> None:
    for path, magic in (
        ("/proc", mount.PROC_MAGIC),
        ("/sys", mount.SYSFS_MAGIC),
        ("/dev/pts", mount.DEVPTS_MAGIC),
    ):
        fd = os.open(path, os.O_PATH)
        try:
            assert mount.file_system_magic(fd) == magic
        finally:
            os.close(fd)
