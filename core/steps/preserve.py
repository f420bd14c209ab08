"""The fds that gocker's caller passes on to the program."""

from __future__ import annotations

import errno
import fcntl
import os

from gocker.errors import KernelError
from gocker.kernel.stub import STATUS_FD
from gocker.plan import Context, Step


class PreserveFds(Step):
    """Leave the fds from 3 on to the first process, which already has them."""

    op = "preserve-fds"

    count: int

    def describe(self) -> str:
        """`exec 3>&3 4>&4`."""
        return " ".join(["exec", *(f"{fd}>&{fd}" for fd in self._fds())])

    def execute(self, ctx: Context) -> None:
        """Let go of gocker's own copies, once it is proved that they are the caller's (SECURITY R4).

        All that gocker opens is close-on-exec; what it was started with cannot have been.
        """
        for fd in self._fds():
            try:
                flags = fcntl.fcntl(fd, fcntl.F_GETFD)
            except OSError as error:
                raise KernelError.from_os("preserve fd", str(fd), error) from error
            if flags & fcntl.FD_CLOEXEC:
                reason = "gocker was not started with it"
                raise KernelError("preserve fd", str(fd), reason, errno=errno.EBADF)
        if ctx.pid:
            for fd in self._fds():
                os.close(fd)

    def _fds(self) -> range:
        return range(STATUS_FD, STATUS_FD + self.count)
