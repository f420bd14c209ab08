"""Steps that have systemd make a container's cgroup as a transient scope, and take it away; cgroup v2 alone.

A scope needs a process to be started, and ends with its last one. Until the first process of the container
is born in it, a child of the launcher, which does nothing, keeps it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from typing import Any, NoReturn

from gocker.errors import HierarchyError
from gocker.kernel import cgroupfs
from gocker.kernel.syscalls import prctl
from gocker.limits import parse_list
from gocker.plan import Context, Step
from gocker.steps.cgroup import MakeCgroup, RemoveCgroup

_PR_SET_PDEATHSIG = 1  # prctl(2)
INFINITY = (1 << 64) - 1
"""What systemd takes for no limit."""
_SECOND = 1_000_000  # microseconds
_NUMBERS = {
    "memory.max": "MemoryMax",
    "memory.swap.max": "MemorySwapMax",
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.min": "MemoryMin",
    "pids.max": "TasksMax",
    "cpu.weight": "CPUWeight",
}
_LISTS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}

Property = tuple[str, str, Any]
"""As in gocker.systemd, which only those import that talk to it."""


class StartScope(MakeCgroup):
    """Have systemd make the container's own cgroup, and the slices that are missing."""

    op = "start-scope"

    unit: str = ""  # libpod-ID.scope
    properties: tuple[Property, ...] = ()

    def describe(self) -> str:
        """`systemd-run --scope` with the same properties."""
        shown = " ".join(f"-p {name}={_shown(value)}" for name, _, value in self.properties)
        return f"systemd-run --scope --unit={self.unit} {shown} sleep infinity &"

    def execute(self, ctx: Context) -> None:
        """A dozen messages on the system bus. Raise HierarchyError, also when there is such a unit."""
        from gocker.systemd import Systemd, UnitExistsError

        if os.path.lexists(self.path):
            ctx.strangers.add(self.path)
            raise self.taken()
        ctx.strangers.add(
            self.path
        )  # until systemd is asked for it: where it cannot be, nothing is to be stopped
        with Systemd() as systemd:
            ctx.strangers.remove(self.path)
            ctx.holder = _hold()
            try:
                systemd.start(self.unit, [*self.properties, ("PIDs", "au", (ctx.holder,))])
            except UnitExistsError:
                ctx.strangers.add(self.path)
                raise
        if str(ctx.holder) not in (cgroupfs.read_file(self.path, "cgroup.procs") or "").split():
            raise HierarchyError(
                "start", self.unit, f"systemd made it elsewhere than in {self.path}: {_place(ctx.holder)}"
            )

    def undo(self, ctx: Context) -> None:
        """End what keeps it; stop it where the remove phase has not."""
        _let_go(ctx)
        if self.path not in ctx.strangers and os.path.lexists(self.path):
            _stop(self.unit, self.path, self.base)


class ReleaseScope(Step):
    """The first process is in the scope: from here on that keeps it."""

    op = "release-scope"

    unit: str

    def describe(self) -> str:
        """Of the child that kept it."""
        return f"kill %1 # which kept {self.unit}"

    def execute(self, ctx: Context) -> None:
        """A signal, and the wait for it."""
        _let_go(ctx)


class StopScope(RemoveCgroup):
    """Have systemd end the scope, which it may have done when the last process went."""

    op = "stop-scope"

    unit: str = ""

    def describe(self) -> str:
        """`systemctl stop UNIT`, and what makes systemd forget one that failed."""
        return f"systemctl stop {self.unit}; systemctl reset-failed {self.unit}"

    def execute(self, ctx: Context) -> None:
        """Kill what is in it first, which else would have its own time to end. Raise GockerError, OSError."""
        if self.path not in ctx.strangers:
            _let_go(ctx)
            _stop(self.unit, self.path, self.base)


def _stop(unit: str, path: str, base: str) -> None:
    from gocker.systemd import Systemd

    cgroupfs.kill_all(path, "v2")
    with Systemd() as systemd:
        systemd.stop(unit)
    cgroupfs.remove(path, base)


def _hold() -> int:
    """The pid of a child that has nothing open, does nothing, and ends with this process."""
    parent = os.getpid()
    ready, done = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _wait_for_the_end(parent, done)
    os.close(done)
    try:
        os.read(ready, 1)  # until it needs no more memory: a limit of the scope's must not end it
    finally:
        os.close(ready)
    return pid


def _wait_for_the_end(parent: int, done: int) -> NoReturn:
    """In a child with nothing of the launcher's: its locks are on what it has open."""
    try:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()  # what a terminal sends is not for it
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.closerange(0, done)
        os.write(done, b"+")
        os.closerange(done, 1 << 20)
        while os.getppid() == parent:
            signal.pause()
    finally:
        os._exit(0)


def _let_go(ctx: Context) -> None:
    pid, ctx.holder = ctx.holder, 0
    if pid:
        os.kill(pid, signal.SIGKILL)  # our child, which nobody has waited for: the pid is still its own
        os.waitpid(pid, 0)


def _place(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError as error:
        return str(error)


def properties_of(values: Iterable[tuple[str, str]]) -> tuple[Property, ...]:
    """What systemd is to know of limits: of (file of cgroup v2, text); pure.

    It holds some of them itself, and writes them again when it is told of another. Files that it has no
    property for are gocker's alone. Source: systemd.resource-control(5), org.freedesktop.systemd1(5).
    """
    found: dict[str, Property] = {}
    for file, text in values:
        for one in _property(file, text):
            found[one[0]] = one
    return tuple(found.values())


def _property(file: str, text: str) -> list[Property]:
    words = text.split()
    if file in _NUMBERS and words:
        return [(_NUMBERS[file], "t", INFINITY if words[0] == "max" else int(words[0]))]
    if file in _LISTS and words:
        return [(_LISTS[file], "ay", _mask(parse_list(words[0], file)))]
    if file == "cpu.max" and words:
        return _quota(*words)
    return []


def _quota(quota: str, period: str = "100000") -> list[Property]:
    """As so much of a second, rounded up, which systemd makes the same quota of."""
    share = INFINITY if quota == "max" else -(-int(quota) * _SECOND // int(period))
    return [("CPUQuotaPerSecUSec", "t", share), ("CPUQuotaPeriodUSec", "t", int(period))]


def _mask(numbers: Iterable[int]) -> tuple[int, ...]:
    """One bit for each, the lowest first."""
    mask = sum(1 << number for number in set(numbers))
    return tuple(mask.to_bytes((mask.bit_length() + 7) // 8, "little"))


def _shown(value: Any) -> str:
    if value == INFINITY:
        return "infinity"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return (
        str(value).lower() if isinstance(value, bool) else f"'{value}'" if " " in str(value) else str(value)
    )
