"""The step that decides which devices a container may open, on cgroup v1 and v2."""

from __future__ import annotations

import errno
import os
from typing import Any

from gocker.errors import KernelError, LimitError
from gocker.kernel import cgroupfs
from gocker.model import Hierarchy
from gocker.plan import Context, Step


class FilterDevices(Step):
    """Allow the devices of `rules` and no other; it goes with the cgroup."""

    op = "filter-devices"
    event = "controller.set"

    path: str  # the container's directory
    version: str  # "v1" or "v2"
    rules: tuple[str, ...]  # "c 1:3 rwm"

    def describe(self) -> str:
        """`cd PATH && echo a > devices.deny && echo RULE > devices.allow`, for each rule; v2 as bpftool has it."""
        rules = ", ".join(self.rules)
        if self.version == Hierarchy.V2.value:
            return f"bpftool cgroup attach {self.path} cgroup_device PROGRAM multi  # {rules}"
        return f"cd {self.path} && echo a > devices.deny && echo '{rules}' > devices.allow"

    def execute(self, ctx: Context) -> None:
        """Raise LimitError when it does not hold, KernelError where the kernel has no such filter."""
        if self.version == Hierarchy.V2.value:
            self._attach()
        else:
            self._write()

    def _write(self) -> None:
        cgroupfs.write_file(self.path, "devices.deny", "a")
        fd = os.open(f"{self.path}/devices.allow", os.O_WRONLY | os.O_CLOEXEC)
        try:
            for rule in self.rules:  # the kernel takes one a write
                try:
                    os.write(fd, rule.encode())
                except PermissionError:  # the cgroup above does not have it: it stays denied here too
                    continue
        finally:
            os.close(fd)
        held = (cgroupfs.read_file(self.path, "devices.list") or "").splitlines()
        extra = [rule for rule in held if rule not in self.rules]
        if extra:
            raise LimitError("filter devices", self.path, f"the kernel allows {extra[0]} as well")

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
