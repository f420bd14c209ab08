"""Steps that make a container's own directories and files on the host."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Any

from gocker.errors import StateError
from gocker.kernel.tree import remove_tree
from gocker.plan import Context, Step

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class MakeDirectory(Step):
    """Make a directory; what is missing above it is made 0700 and stays.

    A private one must not be there yet, and is undone with all in it: its path has to hold the
    container's id, so that nobody else's can be meant. Nobody else may write to the two directories
    above it, or root would work in what he puts there. Another one may be there, and stays.
    """

    op = "make-directory"
    undoable = True

    path: str  # absolute
    mode: int = 0o700
    uid: int = 0
    gid: int = 0
    private: bool = False

    def describe(self) -> str:
        """`install -d -m 0700 -o 0 -g 0 PATH`."""
        owner = f" -o {self.uid} -g {self.gid}" if self.uid or self.gid else ""
        return f"install -d -m {self.mode:04o}{owner} {self.path}"

    def execute(self, ctx: Context) -> None:
        """Make it with exactly this mode and owner, whatever the umask."""
        try:
            os.mkdir(self.path, 0o700)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
            os.mkdir(self.path, 0o700)
        except FileExistsError:
            if self.private:
                raise
            os.close(os.open(self.path, _DIRECTORY))  # fails unless it is a directory
            return
        if self.private:
            above = os.path.dirname(self.path)
            _require_own(above)
            _require_own(os.path.dirname(above))
        fd = os.open(self.path, _DIRECTORY)
        try:
            _set_owner_and_mode(fd, self.uid, self.gid, self.mode)
        finally:
            os.close(fd)

    def undo(self, ctx: Context) -> None:
        """Remove a private one with all in it; fine when it is not there."""
        if self.private:
            remove_tree(*os.path.split(self.path))


class WriteHostFile(Step):
    """Write a file that a container sees under another name, such as its /etc/hosts."""

    op = "write-host-file"
    undoable = True

    path: str  # absolute; it must not be there yet
    text: str
    mode: int = 0o644
    uid: int = 0
    gid: int = 0

    def describe(self) -> str:
        """`install -m 0644 /dev/stdin PATH  # 42 bytes`."""
        owner = f" -o {self.uid} -g {self.gid}" if self.uid or self.gid else ""
        size = len(os.fsencode(self.text))
        return f"install -m {self.mode:04o}{owner} /dev/stdin {self.path}  # {size} bytes"

    def execute(self, ctx: Context) -> None:
        """Write it with exactly this mode and owner, whatever the umask."""
        fd = os.open(self.path, _NEW_FILE, 0o600)
        try:
            rest = memoryview(os.fsencode(self.text))
            while rest:
                rest = rest[os.write(fd, rest) :]
            _set_owner_and_mode(fd, self.uid, self.gid, self.mode)
        finally:
            os.close(fd)

    def undo(self, ctx: Context) -> None:
        """Remove it; fine when it is not there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def audit(self, ctx: Context) -> dict[str, Any]:
        """Where it is."""
        return {"path": self.path}


def _require_own(path: str) -> None:
    status = os.stat(path, follow_symlinks=False)
    others_write = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
    if others_write or status.st_uid not in {os.geteuid(), 0} or not stat.S_ISDIR(status.st_mode):
        raise StateError(
            "use data directory",
            path,
            "others own it or may write to it",
            remedy="chown and chmod 0700 it, or set GOCKER_ROOT to a directory of your own",
        )


def _set_owner_and_mode(fd: int, uid: int, gid: int, mode: int) -> None:
    if uid or gid:  # first: a change of owner clears set-id bits
        os.fchown(fd, uid, gid)
    os.fchmod(fd, mode)
