"""The last hop: which fds go along, the seccomp filter, and the exec itself."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Any

from gocker.errors import ExecError, GockerError, KernelError, UsageError
from gocker.kernel import ids, stub
from gocker.kernel.seccomp import INSTRUCTION_SIZE, SET_MODE_FILTER, install_filter
from gocker.lowering import ADDS_HOME, ADDS_PID, BY_STUB, SHORT, Code, Failure, is_random
from gocker.plan import Context, Step
from gocker.steps import quote
from gocker.steps.program import FindProgram, find_program


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

    def emit(self, code: Code) -> None:
        """The same, but that there is no stub to hand the socket to, other than for --init."""
        status = stub.STATUS_FD + self.preserve
        code.call("close_range", status + 1, ids.MAX_FD, ids.CLOSE_RANGE_CLOEXEC)
        if "stub" in code.fds:
            code.call("fcntl", status, fcntl.F_SETFD, 0)


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
            raise self._refused(error) from error

    def _refused(self, error: Exception, _: object = None) -> Exception:
        if not isinstance(error, OSError):
            return error
        remedy = "--security-opt no-new-privileges" if error.errno == errno.EACCES else ""
        return KernelError.from_os("install seccomp filter", self.profile, error, remedy=remedy)

    def emit(self, code: Code) -> None:
        """The same."""
        length = len(self.program) // INSTRUCTION_SIZE
        header = code.data(length.to_bytes(2, "little") + bytes(14))  # struct sock_fprog
        address = code.scratch()
        code.set(address, code.data(self.program))
        code.store(address, header + 8, 8)
        with code.explained(self._refused):
            code.call("seccomp", SET_MODE_FILTER, self.flags, header)

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
            raise _refused(program, error) from error

    def template(self, container: str) -> Any:
        """HOSTNAME is the short form of the id, if nothing else is."""
        if not is_random(container):
            return self
        short = container[:SHORT]
        if any(short in word for word in self.argv) or any(short in name for name, _ in self.env):
            return self
        env = tuple((name, value.replace(container, "\0\0").replace(short, "\0")) for name, value in self.env)
        return Exec, self.argv, env, self.init, self.preserve, self.listen

    def emit(self, code: Code) -> None:
        """execve(2) of the program itself, which the executor is as good a last hop to as the stub; --init needs that."""
        env = self.env
        flags = 0
        if code.has_home and not dict(env).get("HOME"):
            env = tuple(pair for pair in env if pair[0] != "HOME")
            flags |= ADDS_HOME
        if self.listen:
            env = tuple(pair for pair in env if pair[0] != "LISTEN_PID")
            flags |= 0 if self.init else ADDS_PID
        if not code.has_program:
            FindProgram(name=self.argv[0], path=dict(self.env).get("PATH")).emit(code)
        words = [*map(os.fsencode, self.argv), *(os.fsencode(f"{name}={value}") for name, value in env)]
        if any(b"\0" in word for word in words):
            raise UsageError("exec", self.argv[0], "an argument or variable holds a NUL byte")
        strings = code.data(b"".join(word + b"\0" for word in words))
        by_stub = code.fds.get("stub", 0) if self.init else 0
        flags |= BY_STUB if self.init else 0

        def explain(error: Exception, _: Failure) -> Exception:
            return _refused(self.argv[0], error) if isinstance(error, OSError) else error

        with code.explained(explain):
            code.builtin("exec", strings, len(self.argv), len(env), flags, by_stub)

    def _listening(self) -> tuple[tuple[str, str], ...]:
        """The environment with the program's own pid, which is this process's: below --init nobody knows it yet."""
        env = tuple(pair for pair in self.env if pair[0] != "LISTEN_PID")
        return env if self.init else (*env, ("LISTEN_PID", str(os.getpid())))

    def to_json(self) -> dict[str, Any]:
        """With the names of the environment, not its values."""
        return {**super().to_json(), "env": [name for name, _ in self.env]}


def _refused(program: str, error: OSError) -> ExecError:
    remedy = "shorten the arguments or the environment" if error.errno == errno.E2BIG else ""
    return ExecError("exec", program, _reason(error), remedy=remedy, errno=error.errno or 0)


def _reason(error: OSError) -> str:
    return GockerError.from_os("exec", "", error).reason
