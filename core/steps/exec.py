"""The last hop: which fds go along, the seccomp filter, and the exec itself."""

from __future__ import annotations

import errno
import os
from typing import Any

from gocker.errors import ExecError, GockerError, KernelError
from gocker.kernel import ids, stub
from gocker.kernel.seccomp import install_filter
from gocker.plan import Context, Step
from gocker.steps import quote
from gocker.steps.program import find_program


class CloseFds(Step):
    """Let exec close all but 0, 1, 2 and what is preserved; the status socket goes as far as the stub (SECURITY R4)."""

    op = "close-fds"

    preserve: int = 0  # fds from 3 on that the program gets; the status socket is the next

    def describe(self) -> str:
        """`close on exec every fd from 4 on`."""
        return f"close on exec every fd from {stub.STATUS_FD + self.preserve + 1} on"

    def execute(self, ctx: Context) -> None:
        """close_range(2); the stub closes the status socket on exec itself, or does not run the program."""
        status = stub.STATUS_FD + self.preserve
        ids.close_on_exec_from(status + 1)
        # Below it, what the caller passed on outlives an exec already; what gocker opened there does not.
        os.set_inheritable(status, True)


class InstallSeccomp(Step):
    """Put the seccomp filter in force. The plan shows its digest; the program itself stays in memory."""

    op = "seccomp"
    quiet = True

    profile: str  # "default" or the path of a profile
    digest: str  # sha256:HEX of the program
    instructions: int
    flags: int  # SECCOMP_FILTER_FLAG_*
    program: bytes  # struct sock_filter[]; not in to_json

    def describe(self) -> str:
        """`seccomp --profile default` with the size of its program."""
        return (
            f"seccomp --profile {quote(self.profile)}  # {self.instructions} instructions, {self.digest[:19]}"
        )

    def execute(self, ctx: Context) -> None:
        """seccomp(SECCOMP_SET_MODE_FILTER)."""
        self.install()

    def install(self) -> int:
        """Return what `install_filter` does."""
        try:
            return install_filter(self.program, self.flags)
        except OSError as error:
            remedy = "--security-opt no-new-privileges" if error.errno == errno.EACCES else ""
            raise KernelError.from_os("install seccomp filter", self.profile, error, remedy=remedy) from error

    def to_json(self) -> dict[str, Any]:
        """Without the program."""
        data = super().to_json()
        del data["program"]
        return data


class Exec(Step):
    """Become the program, by way of the stub in a sealed memfd (SECURITY R1)."""

    op = "exec"
    quiet = True

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()  # HOME is added from passwd when it is not there or empty
    init: bool = False  # as the child of a PID 1 that forwards signals and reaps
    preserve: int = 0  # as in CloseFds
    listen: bool = False  # LISTEN_PID is to name the program: sd_listen_fds(3)

    def describe(self) -> str:
        """`exec PROGRAM ARGS`, with the names of the environment."""
        names = " ".join(f"{quote(name)}=..." for name, _ in self.env)
        words = ["exec env -i", names, "gocker-init" if self.init else "", *map(quote, self.argv)]
        return " ".join(word for word in words if word)

    def execute(self, ctx: Context) -> None:
        """execveat(2) of the stub; it execs the program and says on the status socket when that fails."""
        program = ctx.program or find_program(self.argv[0], dict(self.env).get("PATH"))
        env = self._listening() if self.listen else self.env
        if ctx.home and not dict(env).get("HOME"):  # an empty one is none, as in other runtimes
            env = (*(pair for pair in env if pair[0] != "HOME"), ("HOME", ctx.home))
        fd = ctx.fds.get("stub", -1)
        mode = stub.INIT if self.init else stub.EXEC
        try:
            stub.exec_stub(
                fd if fd >= 0 else stub.stub_fd(),
                mode,
                program,
                self.argv,
                env,
                stub.STATUS_FD + self.preserve,
            )
        except OSError as error:
            remedy = "shorten the arguments or the environment" if error.errno == errno.E2BIG else ""
            raise ExecError("exec", program, _reason(error), remedy=remedy, errno=error.errno or 0) from error

    def _listening(self) -> tuple[tuple[str, str], ...]:
        """The environment with the program's own pid, which is this process's: below --init nobody knows it yet."""
        env = tuple(pair for pair in self.env if pair[0] != "LISTEN_PID")
        return env if self.init else (*env, ("LISTEN_PID", str(os.getpid())))

    def to_json(self) -> dict[str, Any]:
        """With the names of the environment, not its values."""
        return {**super().to_json(), "env": [name for name, _ in self.env]}


def _reason(error: OSError) -> str:
    return GockerError.from_os("exec", "", error).reason
