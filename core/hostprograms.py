"""The host's programs with all that they need to run elsewhere: links, libraries, interpreters.

Paths stay what they are on the host, and so do the symbolic links on the way to them. Nothing of
the host is run: what a program needs is read from its ELF headers, and searched for as ld.so(8) does.
"""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Callable

from gocker.elf import Abi, Elf, parse_elf
from gocker.filetree import DIRECTORY, FILE, LINK, Entry, FileTree

_PROGRAM_DIRS = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")
_LIBRARY_DIRS = ("/lib64", "/usr/lib64", "/lib", "/usr/lib")
_SHELLS = frozenset({"sh", "bash", "dash", "ash"})
_MAX_LINKS = 40  # path_resolution(7)
_MAX_INCLUDES = 10  # of one ld.so.conf by another


class _Missing(Exception):  # noqa: N818 - not an error: the program is left out
    """A program that cannot be copied: it, or something that it needs, is not on this host."""


class HostPrograms:
    """Copies programs into a tree, each whole or not at all."""

    def __init__(self, tree: FileTree, host: str = "") -> None:
        """`host` is the directory that stands for the host's `/`; "" is `/` itself."""
        self._tree = tree
        self._host = host
        self._new: dict[str, Entry] = {}  # what the program at hand has brought so far
        self._inodes: dict[tuple[int, int], str] = {}  # of copied files that have several names
        self._elves: dict[str, Elf | None] = {}
        self._found: dict[tuple[Abi, str], str] = {}
        self._musl_paths = self._glob("/etc/ld-musl-*.path")
        self._dirs = self._library_dirs()

    def add(self, name: str) -> str:
        """Copy the program `name`; return its path without links, "" when it is not here as a whole.

        Raise OSError when the host's files cannot be read.
        """
        for directory in _PROGRAM_DIRS:
            real = self._attempt(self._copy_program, f"{directory}/{name}")
            if real:
                return real
        return ""

    def add_data(self, path: str) -> bool:
        """Copy one file as it is; False when it is not there. Raise OSError when it cannot be read."""
        return bool(self._attempt(lambda path: self._copy(path)[0], path))

    def add_directory(self, path: str) -> None:
        """Make the host's directory `path`, if there is one, with the links on the way, but empty."""
        self._attempt(self._make, path)

    def _attempt(self, copy: Callable[[str], str], path: str) -> str:
        """Do `copy(path)` and keep what it has brought; else "" and nothing."""
        self._new = {}
        try:
            real = copy(path)
        except (_Missing, FileNotFoundError, PermissionError, IsADirectoryError):
            return ""
        self._commit()
        return real

    def _make(self, path: str) -> str:
        real = self._resolve(path)
        if real not in self._tree.entries:
            self._new[real] = Entry(kind=DIRECTORY)
        return real

    def _commit(self) -> None:
        for path in sorted(self._new):
            self._tree.add(path, self._new[path])

    def _copy_program(self, path: str) -> str:
        real, data = self._copy(path)
        if data is None:
            return real
        elf = self._elf(real, data)
        if elf is not None:
            musl = "ld-musl" in elf.interpreter
            self._copy_needs(elf, os.path.dirname(real), (), musl=musl)
            if elf.interpreter:
                self._copy(elf.interpreter)
            for conf in self._musl_paths if musl else ():
                self._copy(conf)
        elif data.startswith(b"#!"):
            words = data[2:].partition(b"\n")[0].split()
            interpreter = os.fsdecode(words[0]) if words else ""
            if os.path.basename(interpreter) not in _SHELLS:
                raise _Missing(f"{path} needs {interpreter}")
            self._copy_program(interpreter)
        else:
            raise _Missing(f"{path} is neither ELF nor script")
        return real

    def _copy_needs(self, elf: Elf, origin: str, inherited: tuple[str, ...], *, musl: bool) -> None:
        """Copy the libraries that `elf` needs, and what these need.

        `origin` is the directory that it is loaded from, `inherited` are the DT_RPATH directories of
        what loads it. Source: ld.so(8).
        """
        rpath = (*_expand(elf.rpath, origin), *inherited)
        first = _expand(elf.runpath, origin) if elf.runpath else rpath
        for name in elf.needed:
            if musl and name.startswith("libc."):
                continue  # musl's interpreter is its libc
            found = self._find(name, elf.abi, first)
            if not found:
                raise _Missing(f"there is no {name}")
            real, data = self._copy(found)
            needs = None if data is None else self._elf(real, data)
            if needs is not None:
                self._copy_needs(needs, os.path.dirname(found), rpath, musl=musl)

    def _find(self, name: str, abi: Abi, first: tuple[str, ...]) -> str:
        """The path of a library for `abi`; "" when there is none."""
        if "/" in name:
            return name if self._fits(name, abi) else ""
        for directory in first:
            if self._fits(f"{directory}/{name}", abi):
                return f"{directory}/{name}"
        if (abi, name) not in self._found:
            paths = (f"{directory}/{name}" for directory in self._dirs)
            self._found[abi, name] = next((path for path in paths if self._fits(path, abi)), "")
        found = self._found[abi, name]
        if found and name != "libc.so.6":
            self._put_beside_libc(found, abi)
        return found

    def _put_beside_libc(self, found: str, abi: Abi) -> None:
        """Link a library into the C library's directory unless it lies there.

        The host's loader finds it by ld.so.cache, which an image does not have; where the C library
        is, the loader looks by itself, and there with and without /usr.
        """
        libc = self._find("libc.so.6", abi, ())
        if not libc:
            return  # musl, which searches /lib and /usr/lib and has no cache
        home = os.path.dirname(self._resolve(libc))
        if os.path.dirname(self._resolve(found)).removeprefix("/usr") != home.removeprefix("/usr"):
            self._new[f"{home}/{os.path.basename(found)}"] = Entry(kind=LINK, mode=0o777, target=found)

    def _fits(self, path: str, abi: Abi) -> bool:
        try:
            real = self._resolve(path, keep=False)
            elf = self._elves[real] if real in self._elves else self._elf(real, self._read(real))
        except (_Missing, PermissionError, FileNotFoundError, IsADirectoryError):
            return False
        return elf is not None and elf.abi == abi

    def _elf(self, real: str, data: bytes) -> Elf | None:
        if real not in self._elves:
            try:
                self._elves[real] = parse_elf(data)
            except ValueError as error:
                raise _Missing(str(error)) from error
        return self._elves[real]

    def _copy(self, path: str) -> tuple[str, bytes | None]:
        """Copy one file with the links on the way to it: (its path without links, its content).

        The content is None when it was copied before.
        """
        real = self._resolve(path)
        if real in self._new or real in self._tree.entries:
            return real, None
        status = os.stat(self._host + real)
        data = self._read(real)
        inode = status.st_dev, status.st_ino
        first = self._inodes.get(inode, "")
        if first in self._new or first in self._tree.entries:
            self._new[real] = Entry(kind=LINK, mode=0o777, target=first)
        else:
            self._inodes[inode] = real
            mode = 0o755 if status.st_mode & 0o111 else 0o644  # no set-id bits
            self._new[real] = Entry(kind=FILE, mode=mode, data=data)
        return real, data

    def _read(self, real: str) -> bytes:
        with open(self._host + real, "rb", buffering=0) as file:
            return file.read()

    def _resolve(self, path: str, *, keep: bool = True) -> str:
        """`path` without symbolic links, seen from the host's root; keep the links that were met."""
        left = path.split("/")[::-1]
        done = ""
        links = 0
        while left:
            part = left.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                done = os.path.dirname(done).rstrip("/")
                continue
            here = f"{done}/{part}"
            try:
                target = os.readlink(self._host + here)
            except FileNotFoundError as error:
                raise _Missing(f"there is no {here}") from error
            except NotADirectoryError as error:
                raise _Missing(f"{done} is no directory") from error
            except OSError as error:
                if error.errno != errno.EINVAL:  # which means: not a link
                    raise
                done = here
                continue
            links += 1
            if links > _MAX_LINKS:
                raise _Missing(f"{path} leads through too many links")
            if keep:
                self._new[here] = Entry(kind=LINK, mode=0o777, target=target)
            if target.startswith("/"):
                done = ""
            left += target.split("/")[::-1]
        return done or "/"

    def _library_dirs(self) -> tuple[str, ...]:
        """Where the host's loaders look: what their configuration says, then what is built in."""
        dirs = self._read_conf("/etc/ld.so.conf")
        for path in self._musl_paths:
            dirs += [part for line in self._lines(path) for part in line.split(":")]
        dirs += self._glob("/lib/*-linux-*") + self._glob("/usr/lib/*-linux-*")
        return tuple(dict.fromkeys((*dirs, *_LIBRARY_DIRS)))

    def _read_conf(self, path: str, depth: int = 0) -> list[str]:
        """The directories of an ld.so.conf and of those that it includes; ldconfig(8)."""
        dirs: list[str] = []
        for line in self._lines(path):
            words = line.partition("#")[0].replace(",", " ").replace(":", " ").split()
            if words[:1] != ["include"]:
                dirs += [word.partition("=")[0] for word in words if word.startswith("/")]
            elif depth < _MAX_INCLUDES:
                for word in words[1:]:
                    for included in self._glob(os.path.join(os.path.dirname(path), word)):
                        dirs += self._read_conf(included, depth + 1)
        return dirs

    def _lines(self, path: str) -> list[str]:
        try:
            return os.fsdecode(self._read(self._resolve(path, keep=False))).splitlines()
        except (_Missing, FileNotFoundError, PermissionError):
            return []  # no configuration: the built-in directories are left

    def _glob(self, pattern: str) -> list[str]:
        return [path[len(self._host) :] for path in sorted(glob.glob(glob.escape(self._host) + pattern))]


def _expand(directories: tuple[str, ...], origin: str) -> tuple[str, ...]:
    """Put `origin` for $ORIGIN; directories that then are not absolute are nobody's business."""
    expanded = (part.replace("${ORIGIN}", origin).replace("$ORIGIN", origin) for part in directories)
    return tuple(part for part in expanded if part.startswith("/"))
