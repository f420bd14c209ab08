"""A program comes with all that it needs, or not at all; on hosts of every make."""

import os
from pathlib import Path

import pytest
from elfs import AARCH64, elf, make_host

from gocker.filetree import DIRECTORY, FileTree
from gocker.hostprograms import HostPrograms

LD = "/lib64/ld-linux-x86-64.so.2"
DEBIAN: dict[str, bytes | str] = {
    "/bin": "usr/bin",
    "/lib": "usr/lib",
    "/lib64": "usr/lib64",
    "/usr/lib64/ld-linux-x86-64.so.2": "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2": elf(),
    "/usr/lib/x86_64-linux-gnu/libc.so.6": elf("ld-linux-x86-64.so.2"),
}


def copy(host: str, *names: str) -> dict[str, str]:
    """Copy the programs; path -> `file` or a link's target, directories left out."""
    tree = FileTree()
    programs = HostPrograms(tree, host)
    for name in names:
        programs.add(name)
    return contents(tree)


def contents(tree: FileTree) -> dict[str, str]:
    return {
        path: entry.target or entry.kind for path, entry in tree.entries.items() if entry.kind != DIRECTORY
    }


def test_a_program_brings_its_loader_and_libraries_and_the_links_to_them(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "/usr/bin/ls": elf("libx.so.1", "libc.so.6", interpreter=LD),
        "/usr/lib/x86_64-linux-gnu/libx.so.1": "libx.so.1.2",
        "/usr/lib/x86_64-linux-gnu/libx.so.1.2": elf("liby.so", "libc.so.6"),
        "/usr/lib/x86_64-linux-gnu/liby.so": elf("libx.so.1"),  # they need each other
        "/usr/lib/x86_64-linux-gnu/libz.so": elf(),
    }
    assert copy(make_host(tmp_path, DEBIAN | files), "ls") == {
        "/lib": "usr/lib",
        "/lib64": "usr/lib64",
        "/usr/bin/ls": "file",
        "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2": "file",
        "/usr/lib/x86_64-linux-gnu/libc.so.6": "file",
        "/usr/lib/x86_64-linux-gnu/libx.so.1": "libx.so.1.2",
        "/usr/lib/x86_64-linux-gnu/libx.so.1.2": "file",
        "/usr/lib/x86_64-linux-gnu/liby.so": "file",
        "/usr/lib64/ld-linux-x86-64.so.2": "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    }


def test_links_are_followed_within_the_host_s_root(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "/usr/bin/awk": "/etc/alternatives/awk",
        "/etc/alternatives/awk": "../../../../usr/bin/mawk",
        "/usr/bin/mawk": elf(),
    }
    assert copy(make_host(tmp_path, files), "awk") == {
        "/usr/bin/awk": "/etc/alternatives/awk",
        "/etc/alternatives/awk": "../../../../usr/bin/mawk",
        "/usr/bin/mawk": "file",
    }


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"/usr/bin/ls": "gone"},
        {"/usr/bin/ls": "ls"},
        {"/usr/bin/ls": "sub/ls", "/usr/bin/sub": b"no directory"},
        {"/usr/bin/ls/file": b"a directory"},
        {"/usr/bin/ls": b"neither"},
        {"/usr/bin/ls": elf()[:70]},
        {"/usr/bin/ls": b"#!"},
        {"/usr/bin/ls": b"#!/usr/bin/perl\n", "/usr/bin/perl": elf()},
        {"/usr/bin/ls": b"#!/bin/sh\n"},
        {"/usr/bin/ls": elf("libgone.so")},
        {"/usr/bin/ls": elf(interpreter="/lib/gone.so")},
        {"/usr/bin/ls": elf("liba.so"), "/usr/lib/liba.so": elf("libgone.so")},
        {"/usr/bin/ls": elf("liba.so"), "/usr/lib/liba.so": elf(machine=AARCH64)},
        {"/usr/bin/ls": elf("liba.so"), "/usr/lib/liba.so": b"/* GNU ld script */"},
    ],
)
def test_a_program_that_is_not_whole_is_left_out_without_a_trace(
    tmp_path: Path, files: dict[str, bytes | str]
) -> None:
    assert copy(make_host(tmp_path, files), "ls") == {}


def test_a_script_for_a_shell_brings_the_shell(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "/usr/bin/egrep": b"#! /bin/sh -e\nexec grep",
        "/bin/sh": "dash",
        "/bin/dash": elf(),
    }
    assert copy(make_host(tmp_path, files), "egrep") == {
        "/bin/dash": "file",
        "/bin/sh": "dash",
        "/usr/bin/egrep": "file",
    }


def test_a_library_of_another_machine_is_passed_over(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "/usr/bin/ls": elf("liba.so"),
        "/lib64/liba.so": elf(bits=32),
        "/usr/lib64/liba.so": elf(machine=AARCH64),
        "/lib/liba.so": elf(),
    }
    assert copy(make_host(tmp_path, files), "ls") == {"/usr/bin/ls": "file", "/lib/liba.so": "file"}


def test_what_only_the_loader_s_cache_would_find_is_linked_beside_the_c_library(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "/etc/ld.so.conf": b"# local\ninclude conf.d/*.conf\n/a, /b:/opt/lib=libc6\n",
        "/etc/conf.d/x.conf": b"/opt/first\ninclude /etc/ld.so.conf",
        "/usr/bin/ls": elf("liba.so", "libb.so", "libc.so.6", interpreter=LD),
        "/opt/first/liba.so": elf(),
        "/opt/lib/libb.so": elf(),
    }
    found = copy(make_host(tmp_path, DEBIAN | files), "ls")
    assert found["/usr/lib/x86_64-linux-gnu/liba.so"] == "/opt/first/liba.so"
    assert found["/usr/lib/x86_64-linux-gnu/libb.so"] == "/opt/lib/libb.so"
    assert found["/opt/first/liba.so"] == found["/opt/lib/libb.so"] == "file"


def test_with_and_without_usr_the_loader_looks_by_itself(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "/bin/ls": elf("liba.so", "libc.so.6"),
        "/lib/x86_64-linux-gnu/libc.so.6": elf(),
        "/usr/lib/x86_64-linux-gnu/liba.so": elf(),
    }
    assert copy(make_host(tmp_path, files), "ls") == {
        "/bin/ls": "file",
        "/lib/x86_64-linux-gnu/libc.so.6": "file",
        "/usr/lib/x86_64-linux-gnu/liba.so": "file",
    }


def test_runpath_is_searched_for_what_its_file_needs_and_no_further(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "/usr/bin/ls": "../lib/tools/bin/ls",
        "/usr/lib/tools/bin/ls": elf("liba.so", "libb.so", runpath="relative:${ORIGIN}/../lib"),
        "/usr/lib/tools/lib/liba.so": elf("libb.so"),
        "/usr/lib/tools/lib/libb.so": elf(),
        "/usr/lib/libb.so": elf(),
    }
    assert set(copy(make_host(tmp_path, files), "ls")) == {
        "/usr/bin/ls",
        "/usr/lib/tools/bin/ls",
        "/usr/lib/tools/lib/liba.so",
        "/usr/lib/tools/lib/libb.so",
        "/usr/lib/libb.so",  # liba.so finds this one
    }


def test_rpath_is_searched_for_all_that_its_file_loads_but_not_beside_runpath(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "/usr/bin/ls": elf("liba.so", rpath="/opt/a"),
        "/opt/a/liba.so": elf("libb.so"),
        "/opt/a/libb.so": elf("libc.so", runpath="/opt/c"),
        "/opt/a/libc.so": elf(),
        "/opt/c/libc.so": elf(),
    }
    assert set(copy(make_host(tmp_path, files), "ls")) == {
        "/usr/bin/ls",
        "/opt/a/liba.so",
        "/opt/a/libb.so",
        "/opt/c/libc.so",
    }


def test_origin_is_where_a_library_was_found_and_not_where_it_really_lies(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "/usr/bin/ls": elf("liba.so"),
        "/usr/lib/liba.so": "/opt/liba.so",
        "/opt/liba.so": elf("libb.so", runpath="$ORIGIN/sub"),
        "/usr/lib/sub/libb.so": elf(),
    }
    assert "/usr/lib/sub/libb.so" in copy(make_host(tmp_path, files), "ls")


def test_a_library_can_be_named_by_its_path(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"/usr/bin/ls": elf("/opt/liba.so"), "/opt/liba.so": elf()}
    assert copy(make_host(tmp_path, files), "ls") == {"/usr/bin/ls": "file", "/opt/liba.so": "file"}


def test_musl_s_loader_is_its_c_library_and_keeps_its_path_file(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "/etc/ld-musl-x86_64.path": b"/lib:/opt/lib\n/usr/lib",
        "/bin/ls": "/bin/busybox",
        "/bin/busybox": elf("libc.musl-x86_64.so.1", "liba.so", interpreter="/lib/ld-musl-x86_64.so.1"),
        "/lib/ld-musl-x86_64.so.1": elf(),
        "/opt/lib/liba.so": elf("libc.musl-x86_64.so.1"),
    }
    assert copy(make_host(tmp_path, files), "ls") == {
        "/bin/busybox": "file",
        "/bin/ls": "/bin/busybox",
        "/etc/ld-musl-x86_64.path": "file",
        "/lib/ld-musl-x86_64.so.1": "file",
        "/opt/lib/liba.so": "file",
    }


def test_further_names_of_one_file_become_links(tmp_path: Path) -> None:
    host = make_host(tmp_path, {"/usr/bin/busybox": elf()})
    os.link(f"{host}/usr/bin/busybox", f"{host}/usr/bin/ls")
    assert copy(host, "ls", "busybox") == {"/usr/bin/ls": "file", "/usr/bin/busybox": "/usr/bin/ls"}


def test_a_name_of_a_file_that_was_left_out_is_no_link_to_it(tmp_path: Path) -> None:
    host = make_host(tmp_path, {"/usr/bin/a": elf("libgone.so"), "/usr/bin/c": elf()})
    os.link(f"{host}/usr/bin/a", f"{host}/usr/bin/b")
    assert copy(host, "a", "b", "c") == {"/usr/bin/c": "file"}


def test_a_name_stands_for_itself_where_only_it_is_whole(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "/usr/bin/a": elf("liba.so", runpath="$ORIGIN/lib"),
        "/usr/sbin/lib/liba.so": elf(),
    }
    host = make_host(tmp_path, files)
    os.link(f"{host}/usr/bin/a", f"{host}/usr/sbin/b")
    assert copy(host, "a", "b") == {"/usr/sbin/b": "file", "/usr/sbin/lib/liba.so": "file"}


def test_set_id_bits_stay_behind(tmp_path: Path) -> None:
    host = make_host(tmp_path, {"/usr/bin/su": elf(), "/etc/data": b"text"})
    os.chmod(f"{host}/usr/bin/su", 0o6711)
    os.chmod(f"{host}/etc/data", 0o600)
    tree = FileTree()
    programs = HostPrograms(tree, host)
    assert programs.add("su") == "/usr/bin/su"
    assert programs.add_data("/etc/data")
    assert not programs.add_data("/etc/gone")
    assert tree.entries["/usr/bin/su"].mode == 0o755
    assert tree.entries["/etc/data"].mode == 0o644
