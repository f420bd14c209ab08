"""What plug-ins are handed while a start is planned: their calls become steps."""

from __future__ import annotations

from collections.abc import Mapping

from gocker.errors import PluginError
from gocker.limits import LimitRequest
from gocker.model import Hierarchy
from gocker.plan import HOST, INIT, PARENT, REMOVE, Step
from gocker.steps.cgroup import (
    AttachCgroup,
    EnableControllers,
    FillAbove,
    InheritFile,
    JoinCgroup,
    OpenCgroup,
    RemoveCgroup,
    TryControllers,
    limit_step,
)
from gocker.steps.devicefilter import FilterDevices
from gocker.steps.launch import WriteKernelFile
from gocker.steps.namespaces import LinkUp, SetDomainname, SetHostname, Sysctl

Phases = dict[str, list[Step]]


class GroupRecorder:
    """`gocker.api.Cgroup`: one container's directory for one controller."""

    def __init__(
        self,
        controller: str,
        version: Hierarchy,
        path: str,
        base: str,
        requests: Mapping[str, LimitRequest],
        phases: Phases,
    ) -> None:
        """`path` is the directory on the host, `base` its hierarchy's mount point; `requests` by label."""
        self.controller = controller
        self.path = path
        self._version = version
        self._base = base
        self._requests = requests
        self._phases = phases

    @property
    def hierarchy(self) -> Hierarchy:
        """The version of the hierarchy."""
        return self._version

    def write(
        self,
        file: str,
        value: str,
        *,
        limit: str,
        accept: tuple[str, ...] = (),
        verify: str = "",
        optional: bool = False,
        remedy: str = "",
        row: bool = False,
        tentative: bool = False,
        fallback: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Record a limit that is written and read back; see gocker.api.Cgroup.write."""
        for name in (file, *(other for other, _ in fallback)):
            if "/" in name or name.startswith(".") or "\0" in name:
                raise PluginError("plan limit", limit, f"{name} is not a file of the container's own cgroup")
        request = self._requests.get(limit)
        self._phases[HOST].append(
            limit_step(
                path=self.path,
                file=file,
                value=value,
                accept=accept,
                limit=limit,
                asked=request.value if request else value,
                required=not (request and request.best_effort),
                remedy=remedy,
                verify=verify,
                optional=optional,
                row=row,
                tentative=tentative,
                fallback=fallback,
            )
        )

    def enable(self, controller: str) -> None:
        """Record that a controller is handed down."""
        if self._version is Hierarchy.V2:
            best_effort = all(request.best_effort for request in self._requests.values())
            step = TryControllers if best_effort else EnableControllers
            self._phases[HOST].append(step(path=self.path, base=self._base, controllers=(controller,)))

    def inherit(self, file: str, *, above: bool = False) -> None:
        """Record a fill from the ancestors."""
        step = FillAbove if above else InheritFile
        self._phases[HOST].append(step(path=self.path, base=self._base, file=file))

    def allow_devices(self, rules: tuple[str, ...], *, limits: tuple[str, ...] = ()) -> None:
        """Record the filter. Raise UsageError for a rule that is none, where gocker makes the filter itself."""
        if self._version is Hierarchy.V2:
            # Before anything is made, and not as late as in the step; a start on v1 does without.
            from gocker.kernel.devicefilter import parse_rule

            for rule in rules:
                parse_rule(rule)
        requests = [self._requests[limit] for limit in limits if limit in self._requests]
        self._phases[HOST].append(
            FilterDevices(
                path=self.path,
                version=self._version.value,
                rules=rules,
                limits=tuple((one.label, one.value) for one in requests),
                required=not all(one.best_effort for one in requests),
            )
        )

    def attach(self) -> None:
        """Record the move of the first process; once for each directory.

        On v1 it moves itself, by a `tasks` file that was opened before the clone: a move from outside
        waits 5 to 10 ms for the kernel.
        """
        where = {"path": self.path, "controller": self.controller}
        if self._version is Hierarchy.V2:
            self._once(PARENT, AttachCgroup(**where))
        else:
            self._once(HOST, OpenCgroup(**where))
            self._once(INIT, JoinCgroup(**where))

    def _once(self, phase: str, step: Step) -> None:
        steps = self._phases[phase]
        if not any(type(other) is type(step) and vars(other)["path"] == self.path for other in steps):
            steps.append(step)

    def rmdir(self) -> None:
        """Record the removal; once for each directory."""
        step = RemoveCgroup(
            path=self.path, base=self._base, controller=self.controller, version=self._version.value
        )
        self._once(REMOVE, step)


class KernelRecorder:
    """`gocker.api.Kernel` for one phase."""

    def __init__(self, phase: str, phases: Phases) -> None:
        self._phase = phase
        self._steps = phases[phase]

    def _inside(self, verb: str) -> None:
        if self._phase != INIT:
            raise PluginError("plan namespace", verb, "only `apply` acts inside the namespace")

    def write_file(self, path: str, data: str) -> None:
        """Record a write on the host side."""
        if self._phase == INIT:
            raise PluginError(
                "plan namespace", f"write {path}", "inside the namespace only sysctl writes files"
            )
        self._steps.append(WriteKernelFile(path=path, data=data))

    def sethostname(self, name: str) -> None:
        """Record sethostname(2)."""
        self._inside("sethostname")
        self._steps.append(SetHostname(name=name))

    def setdomainname(self, name: str) -> None:
        """Record setdomainname(2)."""
        self._inside("setdomainname")
        self._steps.append(SetDomainname(name=name))

    def link_up(self, name: str) -> None:
        """Record an interface set up."""
        self._inside("link_up")
        self._steps.append(LinkUp(name=name))

    def sysctl(self, name: str, value: str) -> None:
        """Record a write below the container's own /proc/sys."""
        self._inside("sysctl")
        self._steps.append(Sysctl(name=name, value=value))
