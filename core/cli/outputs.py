"""Files that the user names for gocker's own output: the container's id and the report."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from gocker.errors import GockerError, UsageError

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOCTTY | os.O_CLOEXEC
_ANY = os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC


class OutputFile:
    """Opened before the start, so that nobody learns after the run that it cannot be written."""

    def __init__(self, operation: str, path: str, *, new: bool) -> None:
        """`new`: it must not be there yet. Raise UsageError."""
        self._operation = operation
        self._path = path
        self._made = True
        try:
            try:
                self._fd = os.open(path, _NEW, 0o644)
            except FileExistsError:
                if new:
                    raise
                self._made = False
                self._fd = os.open(path, _ANY)
        except OSError as error:
            raise self._error(error) from error
        except ValueError as error:
            raise UsageError(operation, repr(path), str(error)) from error

    def write(self, text: str) -> None:
        """Replace all that is in it by `text` and close it. Raise UsageError."""
        try:
            if stat.S_ISREG(os.fstat(self._fd).st_mode):
                os.ftruncate(self._fd, 0)
            with open(self._fd, "w", encoding="ascii") as file:
                file.write(text)
        except OSError as error:
            raise self._error(error) from error

    def discard(self) -> None:
        """There is nothing to write: leave things as they were."""
        with contextlib.suppress(OSError):  # closed by `write`
            os.close(self._fd)
        if self._made:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)

    def _error(self, error: OSError) -> GockerError:
        remedy = {
            errno.EEXIST: "name a file that does not exist",
            errno.ENOENT: "make its directory first",
            errno.EISDIR: "name a file",
            errno.ENOSPC: "free some space",
        }.get(error.errno or 0, "name a file that you may write")
        return UsageError.from_os(self._operation, self._path or "''", error, remedy=remedy)
