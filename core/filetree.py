"""A tree of files as data: named by the digest of its manifest, written to disk as a whole."""

from __future__ import annotations

import hashlib
import json
import os

from gocker.record import Record

DIRECTORY, FILE, LINK = KINDS = ("directory", "file", "link")
_MTIME_NS = 1_735_689_600 * 10**9  # 2025-01-01T00:00:00Z: the same tree is the same bytes in an archive
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Entry(Record):
    """One directory, regular file or symbolic link."""

    kind: str  # one of KINDS
    mode: int = 0o755  # permission bits; of no meaning for a link
    uid: int = 0
    gid: int = 0
    data: bytes = b""  # of a file
    target: str = ""  # of a link


class FileTree:
    """Entries by absolute path inside. What is above an entry is added when it is missing."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {"/": Entry(kind=DIRECTORY)}

    def add(self, path: str, entry: Entry) -> None:
        """Put an entry at `path`, in place of one that is there.

        Raise ValueError when `path` is not canonical or leads through something that is no directory.
        """
        parts = path.split("/")
        if path != "/" and (parts[0] or len(parts) < 2 or not {"", ".", ".."}.isdisjoint(parts[1:])):
            raise ValueError(f"not a canonical absolute path: {path!r}")
        above = os.path.dirname(path)
        if above not in self.entries:
            self.add(above, Entry(kind=DIRECTORY))
        if self.entries[above].kind != DIRECTORY:
            raise ValueError(f"{above} is no directory, so there is no {path}")
        self.entries[path] = entry

    def add_directory(self, path: str, mode: int = 0o755, *, uid: int = 0, gid: int = 0) -> None:
        """Add a directory; see `add`."""
        self.add(path, Entry(kind=DIRECTORY, mode=mode, uid=uid, gid=gid))

    def add_file(self, path: str, text: str, mode: int = 0o644) -> None:
        """Add a file with a text; see `add`."""
        self.add(path, Entry(kind=FILE, mode=mode, data=os.fsencode(text)))

    def add_link(self, path: str, target: str) -> None:
        """Add a symbolic link with the text `target`; see `add`."""
        self.add(path, Entry(kind=LINK, mode=0o777, target=target))

    @property
    def size(self) -> int:
        """Bytes in all files."""
        return sum(len(entry.data) for entry in self.entries.values())

    def manifest(self) -> bytes:
        """A line for each entry, sorted by path: `["/bin","link",511,0,0,"usr/bin"]`.

        The last item is the sha256 of a file's content in hexadecimal, a link's target, or "".
        """
        lines = []
        for path in sorted(self.entries):
            entry = self.entries[path]
            last = hashlib.sha256(entry.data).hexdigest() if entry.kind == FILE else entry.target
            item = [path, entry.kind, entry.mode, entry.uid, entry.gid, last]
            lines.append(json.dumps(item, separators=(",", ":")) + "\n")
        return "".join(lines).encode("ascii")

    def write(self, directory: str) -> None:
        """Write the tree into `directory`, which is there, empty, and nobody else's. Raise OSError.

        Owners are only set by root; all else is as the manifest has it, whatever the umask.
        """
        top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        own = os.geteuid() == 0
        try:
            paths = sorted(self.entries)
            for path in paths:
                _write(top, path[1:], self.entries[path], own=own)
            for path in paths:  # only now: what is made in a directory changes its time
                os.utime(path[1:] or ".", ns=(_MTIME_NS, _MTIME_NS), dir_fd=top, follow_symlinks=False)
        finally:
            os.close(top)


def _write(top: int, path: str, entry: Entry, *, own: bool) -> None:
    """`path` is relative to `top`; all above it was written before, as directories."""
    if entry.kind == LINK:
        os.symlink(entry.target, path, dir_fd=top)
        if own:
            os.chown(path, entry.uid, entry.gid, dir_fd=top, follow_symlinks=False)
        return
    if entry.kind == FILE:
        fd = os.open(path, _NEW_FILE, 0o600, dir_fd=top)
    else:
        if path:
            os.mkdir(path, 0o700, dir_fd=top)
        fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        rest = memoryview(entry.data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        if own:
            os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode)
    finally:
        os.close(fd)
