"""Steps that set how processors and disks are shared out to the container's first process, and so to its children.

Policy and I/O class are the launcher's to set: CAP_SYS_NICE counts in the first user namespace alone. And
late: what throttles the program would throttle the rest of the start, and SCHED_DEADLINE forbids to fork.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection

from gocker.errors import GockerError, KernelError, UsageError
from gocker.kernel import caps
from gocker.kernel.scheduling import (
    IO_CLASSES,
    IO_LEVELS,
    NICE,
    POLICIES,
    SCHEDULER_FLAGS,
    set_io_priority,
    set_scheduler,
)
from gocker.limits import parse_list
from gocker.lowering import Code, NotLoweredError
from gocker.model import ContainerSpec, IoPriority, Scheduler
from gocker.plan import Context, Step

_SYS_NICE = "CAP_SYS_NICE"
_U32, _U64 = (1 << 32) - 1, (1 << 64) - 1


class SetScheduler(Step):
    """Choose the scheduling policy; fields as in sched_setattr(2), times in nanoseconds."""

    op = "scheduler"
    at_host = True

    policy: str
    nice: int = 0
    priority: int = 0
    flags: tuple[str, ...] = ()
    runtime: int = 0
    deadline: int = 0
    period: int = 0

    def describe(self) -> str:
        """`chrt --fifo --pid 10 CHILD`, or `renice -n 5 --pid CHILD` for what has a nice value."""
        name = self.policy.removeprefix("SCHED_").lower()
        words = [f"chrt --{name}", *(f"--{flag.removeprefix('SCHED_FLAG_').lower()}" for flag in self.flags)]
        if self.runtime or self.deadline or self.period:
            words.append(f"-T {self.runtime} -D {self.deadline} -P {self.period}")
        tail = f" && renice -n {self.nice} --pid CHILD" if self.nice else ""
        return f"{' '.join(words)} --pid {self.priority} CHILD{tail}"

    def execute(self, ctx: Context) -> None:
        """sched_setattr(2) of the child, or of this process where there is none."""
        flags = sum(SCHEDULER_FLAGS[name] for name in self.flags)
        times = (self.runtime, self.deadline, self.period)
        try:
            set_scheduler(ctx.pid, POLICIES[self.policy], flags, self.nice, self.priority, times)
        except OSError as error:
            raise _refused("set scheduler", self.policy, error) from error


class SetIoPriority(Step):
    """Choose the class and level of I/O."""

    op = "io-priority"
    at_host = True

    kind: str  # IOPRIO_CLASS_*
    priority: int = 0  # 0, the highest, to 7

    def describe(self) -> str:
        """`ionice -c 2 -n 4 -p CHILD`."""
        return f"ionice -c {IO_CLASSES[self.kind]} -n {self.priority} -p CHILD"

    def execute(self, ctx: Context) -> None:
        """ioprio_set(2) of the child, or of this process where there is none."""
        try:
            set_io_priority(ctx.pid, IO_CLASSES[self.kind], self.priority)
        except OSError as error:
            raise _refused("set I/O priority", f"{self.kind} {self.priority}", error) from error


class SetAffinity(Step):
    """Choose the CPUs: of the child from outside before the exec, or of this process just before it."""

    op = "cpu-affinity"

    cpus: str  # list format of cpuset(7)
    final: bool = False  # for the program; else until the exec

    def describe(self) -> str:
        """`taskset --cpu-list --pid 0-3 CHILD`."""
        return f"taskset --cpu-list --pid {self.cpus} {'$$' if self.final else 'CHILD'}"

    def execute(self, ctx: Context) -> None:
        """sched_setaffinity(2)."""
        try:
            os.sched_setaffinity(0 if self.final else ctx.pid, parse_list(self.cpus, "execCPUAffinity"))
        except OSError as error:
            if not self.final and error.errno == errno.EINVAL and self._are_there():
                return  # born in its cgroup (v2), whose cpuset has none of them: there is no time before that
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> GockerError:
        remedy = "name CPUs that are online and in the container's cpuset" * (error.errno == errno.EINVAL)
        return KernelError.from_os("set CPU affinity", self.cpus, error, remedy=remedy)

    def emit(self, code: Code) -> None:
        """The same, just before the exec."""
        if not self.final:
            raise NotLoweredError("not in the init phase")
        mask = _cpu_mask(parse_list(self.cpus, "execCPUAffinity"))
        with code.explained(lambda error, _: self._refused(error) if isinstance(error, OSError) else error):
            code.call("sched_setaffinity", 0, len(mask), code.data(mask))

    def _are_there(self) -> bool:
        with open("/sys/devices/system/cpu/online", encoding="ascii") as file:
            return not parse_list(self.cpus, "").isdisjoint(parse_list(file.read().strip(), ""))


class ResetAffinity(Step):
    """Give the program every CPU that its cpuset has, whatever gocker itself may use: its caller's are no wish."""

    op = "reset-cpu-affinity"

    def describe(self) -> str:
        """`taskset --cpu-list --pid 0- $$`."""
        return "taskset --cpu-list --pid 0- $$"

    def execute(self, ctx: Context) -> None:
        """sched_setaffinity(2), which takes the cpuset's CPUs of all that are named; refused, nothing is lost."""
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, range(os.sysconf("SC_NPROCESSORS_CONF")))

    def emit(self, code: Code) -> None:
        """The same."""
        mask = _cpu_mask(range(os.sysconf("SC_NPROCESSORS_CONF")))
        code.call("sched_setaffinity", 0, len(mask), code.data(mask))
        code.catch(0)


def _cpu_mask(cpus: Collection[int]) -> bytes:
    """As sched_setaffinity(2) takes it: whole longs."""
    return sum(1 << cpu for cpu in set(cpus)).to_bytes((max(cpus) // 64 + 1) * 8, "little")


def _refused(operation: str, target: str, error: OSError) -> KernelError:
    refused = error.errno in {errno.EPERM, errno.EACCES}
    lacks = refused and _SYS_NICE not in caps.permitted()
    remedy = f"gocker needs {_SYS_NICE} for it" if lacks else ""
    if refused and not lacks and "SCHED_" in target:
        remedy = "cpu.rt_runtime_us of the container's cgroup may be 0: cgroups(7)"
        if target == "SCHED_DEADLINE":  # sched(7); runc's words
            remedy = (
                "its cpuset has to have all CPUs: process scheduler can't be used together with AllowedCPUs"
            )
    made = KernelError.from_os(operation, target, error, remedy=remedy)
    assert isinstance(made, KernelError)  # noqa: S101 - from_os makes what it is called on
    return made


def early_steps(spec: ContainerSpec) -> tuple[Step, ...]:
    """For the parent phase. Raise LimitError for what is no list of CPUs."""
    return (_affinity(spec.cpu_affinity[0], final=False),) if spec.cpu_affinity[0] else ()


def late_steps(spec: ContainerSpec) -> tuple[Step, ...]:
    """For the end of the init phase. Raise UsageError, LimitError for what no kernel can be told."""
    steps: list[Step] = []
    if spec.cpu_affinity[1]:
        steps.append(_affinity(spec.cpu_affinity[1], final=True))
    if spec.io_priority:
        steps.append(_io_priority(spec.io_priority))
    if spec.scheduler:
        steps.append(_scheduler(spec.scheduler))
    return tuple(steps)


def _affinity(cpus: str, *, final: bool) -> SetAffinity:
    parse_list(cpus, "execCPUAffinity")
    return SetAffinity(cpus=cpus, final=final)


def _scheduler(asked: Scheduler) -> SetScheduler:
    if asked.policy not in POLICIES:
        raise UsageError(
            "set scheduler", asked.policy, "no such policy", remedy=f"one of {' '.join(POLICIES)}"
        )
    for flag in asked.flags:
        if flag not in SCHEDULER_FLAGS:
            remedy = f"one of {' '.join(SCHEDULER_FLAGS)}"
            raise UsageError("set scheduler", flag, "no such flag", remedy=remedy)
    ranges = {"nice": NICE, "priority": range(_U32 + 1)}
    ranges |= dict.fromkeys(("runtime", "deadline", "period"), range(_U64 + 1))
    for name, allowed in ranges.items():
        value = getattr(asked, name)
        if value not in allowed:
            raise UsageError("set scheduler", f"{name}={value}", f"not from {allowed[0]} to {allowed[-1]}")
    fields = asked.asdict()
    return SetScheduler(**{**fields, "flags": tuple(dict.fromkeys(asked.flags))})


def _io_priority(asked: IoPriority) -> SetIoPriority:
    if asked.kind not in IO_CLASSES:
        remedy = f"one of {' '.join(IO_CLASSES)}"
        raise UsageError("set I/O priority", asked.kind, "no such class", remedy=remedy)
    if asked.priority not in range(IO_LEVELS):
        raise UsageError("set I/O priority", str(asked.priority), f"not from 0 to {IO_LEVELS - 1}")
    return SetIoPriority(kind=asked.kind, priority=asked.priority)
