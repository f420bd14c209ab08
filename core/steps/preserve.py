"""The fds that gocker's caller passes on to the program."""

from __future__ import annotations

import os

from gocker.kernel.ids import outlives_exec
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
        """Let go of gocker's own copies of those that are the caller's (SECURITY R4).

        All that gocker opens is close-on-exec, so that an exec closes it in the first process; what gocker
        was started with cannot have been. A number that the caller has not opened is passed over.
        """
        if ctx.pid:
            for fd in filter(outlives_exec, self._fds()):
                os.close(fd)

    def _fds(self) -> range:
        return range(STATUS_FD, STATUS_FD + self.count)
