"""Resource limits of the container's processes, and how likely the OOM killer takes them."""

from __future__ import annotations

import errno
import os

from gocker.errors import GockerError, KernelError
from gocker.kernel import caps, rlimit
from gocker.kernel.inroot import RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV, openat2
from gocker.kernel.mount import PROC_MAGIC, file_system_magic
from gocker.lowering import Code, Failure
from gocker.model import ContainerSpec
from gocker.plan import Context, Step

_SYS_RESOURCE = "CAP_SYS_RESOURCE"

Limits = tuple[tuple[str, int, int], ...]
"""(name as in "nofile", soft, hard) of each resource limit."""


class RaiseRlimits(Step):
    """Lift hard limits that are too low for SetRlimits, which later has no privilege and lowers only.

    In the parent phase, where gocker has CAP_SYS_RESOURCE in the first user namespace.
    """

    op = "raise-rlimits"

    limits: Limits

    def describe(self) -> str:
        """`prlimit --pid CHILD --nofile=:4096`."""
        words = [f"--{name}=:{rlimit.format_value(hard)}" for name, _, hard in self.limits]
        return " ".join(["prlimit --pid CHILD", *words])

    def execute(self, ctx: Context) -> None:
        """prlimit(2) of the child, or of this process where there is none."""
        for name, _, hard in self.limits:
            now_soft, now_hard = rlimit.get_rlimit(ctx.pid, name)
            if hard > now_hard:
                _set_rlimit(ctx.pid, name, now_soft, hard)


class SetRlimits(Step):
    """Set the resource limits: late, since few files or little memory must not stop gocker itself."""

    op = "rlimits"

    limits: Limits

    def describe(self) -> str:
        """`prlimit --pid $$ --nofile=1024:4096`."""
        value = rlimit.format_value
        words = [f"--{name}={value(soft)}:{value(hard)}" for name, soft, hard in self.limits]
        return " ".join(["prlimit --pid $$", *words])

    def execute(self, ctx: Context) -> None:
        """prlimit(2) of this process."""
        for name, soft, hard in self.limits:
            _set_rlimit(0, name, soft, hard)

    def emit(self, code: Code) -> None:
        """The same."""
        for limit in self.limits:
            name, soft, hard = limit

            def explain(error: Exception, failure: Failure, limit: tuple[str, int, int] = limit) -> Exception:
                held = failure.permitted >> caps.NUMBERS[_SYS_RESOURCE] & 1
                return (
                    _refused(error, limit, has_resource=bool(held)) if isinstance(error, OSError) else error
                )

            with code.explained(explain):
                pair = code.data(soft.to_bytes(8, "little") + hard.to_bytes(8, "little"))
                code.call("prlimit64", 0, rlimit.NUMBERS[name], pair, 0)


def _set_rlimit(pid: int, name: str, soft: int, hard: int) -> None:
    try:
        rlimit.set_rlimit(pid, name, soft, hard)
    except OSError as error:
        held = _SYS_RESOURCE in caps.permitted()
        raise _refused(error, (name, soft, hard), has_resource=held) from error


def _refused(error: OSError, limit: tuple[str, int, int], *, has_resource: bool) -> GockerError:
    name, soft, hard = limit
    remedy = _needs_resource(error, has_resource) or "no more than sysctl fs.nr_open" * (name == "nofile")
    target = f"{name}={rlimit.format_value(soft)}:{rlimit.format_value(hard)}"
    return KernelError.from_os("set ulimit", target, error, remedy=remedy)


def _needs_resource(error: OSError, has_resource: bool) -> str:
    """The remedy where this process lacks the capability for what is above or below the usual."""
    refused = error.errno in {errno.EPERM, errno.EACCES}
    return f"gocker needs {_SYS_RESOURCE} for it" if refused and not has_resource else ""


class OomScoreAdj(Step):
    """Make the container a likelier or less likely victim of the OOM killer; proc_pid_oom_score_adj(5).

    In the parent phase, since init is not dumpable and thus does not own its files in /proc.
    """

    op = "oom-score-adj"

    value: int  # -1000 to 1000

    def describe(self) -> str:
        """`choom --pid CHILD --adjust 500`."""
        return f"choom --pid CHILD --adjust {self.value}"

    def execute(self, ctx: Context) -> None:
        """Write the file, after a proof that it is the kernel's own (SECURITY R5)."""
        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if file_system_magic(proc) != PROC_MAGIC:
                raise KernelError("write", "/proc", "not a proc file system", errno=errno.EXDEV)
            path = f"{ctx.pid or 'self'}/oom_score_adj"
            fd = openat2(proc, path, os.O_WRONLY | os.O_NOFOLLOW, RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS)
        finally:
            os.close(proc)
        try:
            os.write(fd, b"%d" % self.value)
        except OSError as error:
            target = f"oom_score_adj={self.value}"
            remedy = _needs_resource(error, _SYS_RESOURCE in caps.permitted())
            raise KernelError.from_os("set", target, error, remedy=remedy) from error
        finally:
            os.close(fd)


def limit_steps(spec: ContainerSpec) -> tuple[Step, ...]:
    """For the parent phase."""
    steps: list[Step] = []
    if spec.rlimits:
        steps.append(RaiseRlimits(limits=_limits(spec)))
    if spec.oom_score_adj is not None:
        steps.append(OomScoreAdj(value=spec.oom_score_adj))
    return tuple(steps)


def rlimits_step(spec: ContainerSpec) -> SetRlimits:
    """For just before the exec."""
    return SetRlimits(limits=_limits(spec))


def _limits(spec: ContainerSpec) -> Limits:
    return tuple((limit.name, limit.soft, limit.hard) for limit in spec.rlimits)
