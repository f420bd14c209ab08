"""The step that decides which devices a container may open, on cgroup v1 and v2."""

from __future__ import annotations

import errno
import os
from typing import Any

from gocker.errors import KernelError, LimitError
from gocker.kernel import cgroupfs
from gocker.model import Hierarchy
from gocker.plan import Context, Step

ALL = "a *:* rwm"


class FilterDevices(Step):
    """Allow the devices of `rules` and no other; it goes with the cgroup."""

    op = "filter-devices"
    event = "controller.set"

    path: str  # the container's directory
    version: str  # "v1" or "v2"
    rules: tuple[str, ...]  # "c 1:3 rwm", "deny b 8:* w"; the last about a device decides
    limits: tuple[tuple[str, str], ...] = ()  # (label, as asked) of what users asked for
    required: bool = False  # true: a rule that the cgroup above denies fails the run

    def describe(self) -> str:
        """`cd PATH && echo a > devices.deny && echo RULE > devices.allow`, for each rule; v2 as bpftool has it."""
        if self.version == Hierarchy.V2.value:
            return f"bpftool cgroup attach {self.path} cgroup_device PROGRAM multi  # {', '.join(self.rules)}"
        allowed, denied = self._v1()
        rules = ", ".join(allowed)
        denials = f" && echo '{', '.join(denied)}' > devices.deny" if denied else ""
        return f"cd {self.path} && echo a > devices.deny && echo '{rules}' > devices.allow{denials}"

    def execute(self, ctx: Context) -> None:
        """Raise LimitError when it does not hold, KernelError where the kernel has no such filter."""
        if self.version == Hierarchy.V2.value:
            self._attach()
        else:
            self._write(ctx)
        for label, asked in self.limits:
            ctx.effective.setdefault(label, (asked, asked))

    def _v1(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What goes to devices.allow, then to devices.deny."""
        plain = len({rule.rpartition(" ")[0] for rule in self.rules}) == len(self.rules)
        if plain and not any(rule.startswith(("deny ", "a")) for rule in self.rules):
            return self.rules, ()
        from gocker.kernel.devicefilter import parse_rule, v1_rules

        return v1_rules(tuple(parse_rule(rule) for rule in self.rules))

    def _write(self, ctx: Context) -> None:
        """Nothing first, so that no moment is wider than the end; the process comes in only afterwards."""
        allowed, denied = self._v1()
        if ALL not in allowed:
            cgroupfs.write_file(self.path, "devices.deny", "a")
        missing = self._write_each("devices.allow", allowed)
        if missing == [ALL] and not denied:
            missing = []  # it was born with all that the cgroup above has
        if missing and self.limits:
            reason = f"the cgroup above does not have {missing[0]}"
            if self.required:
                raise LimitError("filter devices", self.path, reason, remedy="leave it out")
            ctx.unbound.update((label, reason) for label, _ in self.limits)
        refused = self._write_each("devices.deny", denied)
        if refused:
            raise LimitError("filter devices", self.path, f"the kernel does not deny {refused[0]}")
        if ALL in allowed:
            return  # such a list shows nothing else
        held = (cgroupfs.read_file(self.path, "devices.list") or "").splitlines()
        extra = [rule for rule in held if rule not in allowed]
        if extra:
            raise LimitError("filter devices", self.path, f"the kernel allows {extra[0]} as well")

    def _write_each(self, name: str, rules: tuple[str, ...]) -> list[str]:
        """One write for each, as the kernel wants it; those that it does not permit."""
        refused = []
        fd = os.open(f"{self.path}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            for rule in rules:
                try:
                    os.write(fd, rule.encode())
                except PermissionError:  # the cgroup above does not have it: it stays denied here too
                    refused.append(rule)
        finally:
            os.close(fd)
        return refused

    def _attach(self) -> None:
        from gocker.kernel.devicefilter import attach_device_filter, device_program, parse_rule

        program = device_program(tuple(parse_rule(rule) for rule in self.rules))
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            attach_device_filter(directory, program)
        except OSError as error:
            remedy = "gocker needs CAP_SYS_ADMIN in the first user namespace"
            if error.errno in {errno.EINVAL, errno.ENOSYS}:
                remedy = "it needs a kernel with CONFIG_CGROUP_BPF"
            raise KernelError.from_os("filter devices", self.path, error, remedy=remedy) from error
        finally:
            os.close(directory)

    def audit(self, ctx: Context) -> dict[str, Any]:
        """What is allowed, and where."""
        return {"controller": "devices", "file": self.path, "allow": list(self.rules)}
