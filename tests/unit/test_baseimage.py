"""The image `base`: of this host it is whole and small, of other hosts it is what they have."""

import os
import time
from pathlib import Path

import pytest
from elfs import elf, make_host

from gocker.baseimage import RECIPE, make_tree
from gocker.elf import parse_elf
from gocker.errors import ImageError
from gocker.filetree import DIRECTORY, FILE, LINK, FileTree
from gocker.images import BASE_MAKER

ESSENTIAL = "sh cat echo env false id ls sleep test true".split()
APPLETS = b"\0" + b"\0".join(name.encode() for name in [*ESSENTIAL, "awk", "ps", "top"]) + b"\0"


@pytest.fixture(scope="module")
def tree() -> FileTree:
    """Of this host."""
    return make_tree()


def resolve(tree: FileTree, path: str) -> str:
    """`path` without links, inside the tree; "" when it leads nowhere."""
    done, left = "", path.split("/")[::-1]
    for _ in range(200):
        if not left:
            return done or "/"
        part = left.pop()
        if part in {"", "."}:
            continue
        here = os.path.dirname(done).rstrip("/") if part == ".." else f"{done}/{part}"
        entry = tree.entries.get(here or "/")
        if entry is None:
            return ""
        if entry.kind == LINK:
            done = "" if entry.target.startswith("/") else done
            left += entry.target.split("/")[::-1]
        else:
            done = here
    return ""


def program(tree: FileTree, name: str) -> str:
    """Where a shell inside finds the program."""
    found = (resolve(tree, f"{directory}/{name}") for directory in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"))
    return next(filter(None, found), "")


def test_every_program_finds_its_interpreter_and_libraries_inside(tree: FileTree) -> None:
    """As a loader without ld.so.cache looks: in RUNPATH, then where the C library is."""
    libc = resolve(tree, "/lib64/libc.so.6") or next(
        (path for path in tree.entries if path.endswith(("/libc.so.6", "/ld-musl-x86_64.so.1"))), ""
    )
    home = os.path.dirname(libc)
    read = 0
    for path, entry in tree.entries.items():
        found = parse_elf(entry.data) if entry.kind == FILE else None
        if found is None:
            continue
        read += 1
        assert not found.interpreter or resolve(tree, found.interpreter), path
        for name in found.needed:
            origin = os.path.dirname(path)
            places = [part.replace("$ORIGIN", origin) for part in found.runpath or found.rpath]
            places += [home, home.removeprefix("/usr"), f"/usr{home}"]
            assert any(resolve(tree, f"{place}/{name}") for place in places), f"{path} needs {name}"
    assert read > 0


def test_every_link_leads_somewhere(tree: FileTree) -> None:
    for path, entry in tree.entries.items():
        if entry.kind == LINK:
            assert resolve(tree, path), f"{path} -> {entry.target}"


def test_it_has_what_a_user_expects(tree: FileTree) -> None:
    for name in [*ESSENTIAL, "head", "tail", "od", "seq", "grep", "sed", "awk", "sort", "dd", "kill"]:
        assert program(tree, name), name
    assert resolve(tree, "/bin/sh")
    assert resolve(tree, "/usr/bin/env")


def test_the_host_s_links_in_the_root_are_kept(tree: FileTree) -> None:
    for name in ("bin", "sbin", "lib", "lib64"):
        if os.path.islink(f"/{name}"):
            assert tree.entries[f"/{name}"].target == os.readlink(f"/{name}")


def test_the_directories_of_a_system_are_there(tree: FileTree) -> None:
    modes = {path: entry.mode for path, entry in tree.entries.items() if entry.kind == DIRECTORY}
    assert modes["/tmp"] == modes["/var/tmp"] == 0o1777
    assert modes["/root"] == 0o700
    assert {"/proc", "/sys", "/dev", "/run", "/etc", "/home/user"} <= modes.keys()
    assert tree.entries["/home/user"].uid == 1000


def test_etc_is_minimal_and_tells_nothing_of_the_host_s_users(tree: FileTree) -> None:
    users = dict(line.split(":", 1) for line in tree.entries["/etc/passwd"].data.decode().splitlines())
    assert users.keys() == {"root", "daemon", "user", "nobody"}
    assert users["user"].startswith("x:1000:1000:")
    assert tree.entries["/etc/hosts"].data == b""
    assert b'NAME="gocker base"' in tree.entries["/etc/os-release"].data


def test_nothing_has_set_id_bits_or_is_writable_for_all(tree: FileTree) -> None:
    for path, entry in tree.entries.items():
        if entry.kind == FILE:
            assert entry.mode in {0o644, 0o755}, path


def test_it_is_the_same_each_time_and_made_in_a_second(tree: FileTree) -> None:
    started = time.monotonic()
    manifest = make_tree().manifest()
    assert time.monotonic() - started < 2 * float(os.environ.get("GOCKER_TEST_SLOWNESS", "1"))
    assert manifest == tree.manifest()


def test_it_is_small(tree: FileTree) -> None:
    assert tree.size < 30 << 20


def test_the_store_knows_the_recipe() -> None:
    assert f"gocker-base-{RECIPE}" == BASE_MAKER


def test_alpine_is_its_busybox_with_its_links(tmp_path: Path) -> None:
    interpreter = "/lib/ld-musl-x86_64.so.1"
    files: dict[str, bytes | str] = {
        "/bin/busybox": elf("libc.musl-x86_64.so.1", interpreter=interpreter) + APPLETS,
        interpreter: elf(),
        "/lib/libc.musl-x86_64.so.1": "ld-musl-x86_64.so.1",
        "/usr/bin/env": "/bin/busybox",
        "/etc/os-release": b'NAME=x\nPRETTY_NAME="Alpine Linux v3.20 $(reboot)"\n',
        **{f"/bin/{name}": "/bin/busybox" for name in ESSENTIAL if name != "env"},
    }
    tree = make_tree(make_host(tmp_path, files))
    for name in ESSENTIAL:
        assert program(tree, name) == "/bin/busybox"
    assert tree.entries["/usr/bin/env"].target == "/bin/busybox"
    assert resolve(tree, interpreter) == interpreter
    assert tree.entries["/bin/awk"].target == "/bin/busybox"  # the host has no link, busybox the applet
    assert program(tree, "grep") == ""
    assert (
        b'PRETTY_NAME="gocker base, from Alpine Linux v3.20 (reboot)"' in tree.entries["/etc/os-release"].data
    )


def test_a_host_with_nothing_but_a_static_busybox_will_do(tmp_path: Path) -> None:
    host = make_host(tmp_path, {"/bin": "usr/bin", "/usr/bin/busybox": elf() + APPLETS})
    tree = make_tree(host)
    assert resolve(tree, "/bin/sh") == "/usr/bin/busybox"
    assert [path for path, entry in tree.entries.items() if entry.kind == FILE and entry.mode == 0o755] == [
        "/usr/bin/busybox"
    ]


@pytest.mark.parametrize("shells", [("dash",), ("bash",), ("bash", "dash")])
def test_dash_or_bash_serves_as_sh_where_there_is_none(tmp_path: Path, shells: tuple[str, ...]) -> None:
    files: dict[str, bytes | str] = {f"/bin/{name}": elf() for name in ESSENTIAL if name != "sh"}
    files |= {f"/bin/{name}": elf() + name.encode() for name in shells}
    tree = make_tree(make_host(tmp_path, files))
    assert resolve(tree, "/bin/sh") == f"/bin/{shells[-1]}"


@pytest.mark.parametrize("lacking", ESSENTIAL)
def test_a_host_that_lacks_an_essential_program_is_an_error_that_names_it(
    tmp_path: Path, lacking: str
) -> None:
    files: dict[str, bytes | str] = {f"/bin/{name}": elf() for name in ESSENTIAL if name != lacking}
    with pytest.raises(ImageError, match=f"has no {lacking} that can be copied .*busybox"):
        make_tree(make_host(tmp_path, files))


def test_terminals_are_described_where_the_host_does(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"/usr/bin/busybox": elf() + APPLETS, "/lib/terminfo/x/xterm": b"entry"}
    tree = make_tree(make_host(tmp_path, files))
    assert tree.entries["/lib/terminfo/x/xterm"].data == b"entry"
