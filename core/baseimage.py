"""The image `base`: what it holds, made of the programs of this host."""

from __future__ import annotations

import os

from gocker.errors import ImageError
from gocker.filetree import FileTree
from gocker.hostprograms import HostPrograms

RECIPE = 1
"""Raised when this module makes another image of the same host: an older one is then not used."""

_USER = 1000

# What this host does not have comes from busybox, where that is there.
_ESSENTIAL = "sh cat echo env false id ls sleep test true"
_COREUTILS = (
    "[ base64 basename chgrp chmod chown cksum comm cp cut date dd df dirname du expand expr fmt fold"
    " groups head join ln md5sum mkdir mkfifo mknod mktemp mv nice nl nohup nproc od"
    " paste printenv printf pwd readlink realpath rm rmdir seq sha1sum sha256sum sha512sum shuf sort split"
    " stat stty sync tac tail tee timeout touch tr truncate tty uname unexpand uniq wc whoami yes"
)
_OTHERS = (
    "awk clear cmp diff egrep fgrep find free getent grep gunzip gzip hostname kill less pgrep pkill ps"
    " sed setsid taskset top uptime which xargs zcat"
)
_TERMINALS = "ansi dumb linux screen screen-256color tmux tmux-256color vt100 xterm xterm-256color"
_TERMINFO_DIRS = ("/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo")

_DIRECTORIES = {
    "/dev": 0o755,
    "/etc": 0o755,
    "/home": 0o755,
    "/mnt": 0o755,
    "/proc": 0o555,
    "/root": 0o700,
    "/run": 0o755,
    "/sys": 0o555,
    "/tmp": 0o1777,  # noqa: S108 - inside
    "/var/tmp": 0o1777,  # noqa: S108
}
_USERS = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/:/bin/false
user:x:1000:1000:user:/home/user:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
"""
_GROUPS = """\
root:x:0:
daemon:x:1:
tty:x:5:
user:x:1000:
nogroup:x:65534:
"""
_NSSWITCH = """\
passwd: files
group: files
hosts: files dns
"""


def make_tree(host: str = "") -> FileTree:
    """Read the image's content from the host; the same on each call while the host is the same.

    `host` is the directory that stands for the host's `/`; "" is `/` itself. Raise ImageError when
    the host has too little, OSError when its files cannot be read.
    """
    tree = FileTree()
    programs = HostPrograms(tree, host)
    for directory in ("/bin", "/sbin", "/lib", "/lib64"):
        programs.add_directory(directory)  # a link where they are merged into /usr
    wanted = f"{_ESSENTIAL} {_COREUTILS} {_OTHERS}".split()
    missing = [name for name in wanted if not programs.add(name)]
    bash = programs.add("bash")
    if "sh" in missing and (shell := programs.add("dash") or bash):
        tree.add_link(f"{os.path.dirname(shell)}/sh", shell)
        missing.remove("sh")
    if missing:
        missing = _link_to_busybox(tree, programs, missing)
    lacking = [name for name in _ESSENTIAL.split() if name in missing]
    if lacking:
        raise ImageError(
            "build image",
            "base",
            f"this host has no {lacking[0]} that can be copied",
            remedy="install coreutils or busybox-static, or use --rootfs DIR",
        )
    for name in _TERMINALS.split():
        for directory in _TERMINFO_DIRS:
            if programs.add_data(f"{directory}/{name[0]}/{name}"):
                break
    for path, mode in _DIRECTORIES.items():
        tree.add_directory(path, mode)
    tree.add_directory("/home/user", uid=_USER, gid=_USER)
    _add_etc(tree, host)
    return tree


def _link_to_busybox(tree: FileTree, programs: HostPrograms, names: list[str]) -> list[str]:
    """Link `names` to the host's busybox; return those that it does not have either."""
    busybox = programs.add("busybox")
    if not busybox:
        return names
    missing = []
    for name in names:
        # Its applets' names are one table, a NUL behind each: busybox, libbb/appletlib.c.
        if b"\0%s\0" % name.encode() in tree.entries[busybox].data:
            tree.add_link(f"{os.path.dirname(busybox)}/{name}", busybox)
        else:
            missing.append(name)
    return missing


def _add_etc(tree: FileTree, host: str) -> None:
    tree.add_file("/etc/passwd", _USERS)
    tree.add_file("/etc/group", _GROUPS)
    tree.add_file("/etc/nsswitch.conf", _NSSWITCH)
    for name in ("hosts", "hostname", "resolv.conf"):  # the launcher puts the container's own over them
        tree.add_file(f"/etc/{name}", "")
    pretty = f"gocker base, from {_host_name(host)}"
    release = f'NAME="gocker base"\nID=gocker-base\nVERSION_ID={RECIPE}\nPRETTY_NAME="{pretty}"\n'
    tree.add_file("/etc/os-release", release)


def _host_name(host: str) -> str:
    """The host's PRETTY_NAME, os-release(5), without what would need quoting."""
    try:
        with open(f"{host}/etc/os-release", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        lines = []
    names = [line.partition("=")[2] for line in lines if line.startswith("PRETTY_NAME=")]
    return "".join(c for c in "".join(names[-1:]) if c.isalnum() or c in " ()/._-") or "Linux"
