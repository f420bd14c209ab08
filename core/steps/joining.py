"""Steps of a process that joins a container: the container is the right one, and the process outlives gocker."""

from __future__ import annotations

from gocker.errors import StateError
from gocker.kernel.process import PR_SET_PDEATHSIG, start_time
from gocker.kernel.syscalls import prctl
from gocker.lowering import Code
from gocker.plan import Context, Step


class RequireProcess(Step):
    """Prove that a pid is still the container's first process, before and after its namespaces are opened."""

    op = "require-process"

    pid: int
    started: int  # clock ticks after boot, proc_pid_stat(5)
    container: str

    def describe(self) -> str:
        """`test PID is FIRST`."""
        return f"kill -0 {self.pid}  # the first process of {self.container}"

    def execute(self, ctx: Context) -> None:
        """Compare the start times: a pid that was given anew is another's (SECURITY R11)."""
        try:
            same = start_time(self.pid) == self.started
        except (FileNotFoundError, ProcessLookupError):
            same = False
        if not same:
            raise StateError("exec in container", self.container, "it is not running")


class LetGo(Step):
    """Let the process outlive gocker."""

    op = "let-go"

    def describe(self) -> str:
        """`setpriv --pdeathsig clear`."""
        return "setpriv --pdeathsig clear"

    def execute(self, ctx: Context) -> None:
        """PR_SET_PDEATHSIG(2const)."""
        prctl(PR_SET_PDEATHSIG, 0)

    def emit(self, code: Code) -> None:
        """The same."""
        code.call("prctl", PR_SET_PDEATHSIG, 0, 0, 0, 0)
