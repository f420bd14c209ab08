"""The built-in namespaces keep the contract that third parties are held to, and the kit finds who does not."""
# ruff: noqa: RUF012 - the kit declares them ClassVar

from __future__ import annotations

import inspect
import os
from importlib import metadata
from typing import Any, ClassVar

import pytest

from gocker.api import NamespaceContext, NamespaceHandler
from gocker.errors import UsageError
from gocker.model import IdMap, NamespaceRequest, Rootfs
from gocker.plugins.cgroup import Cgroup
from gocker.plugins.ipc import Ipc
from gocker.plugins.mount import Mount
from gocker.plugins.network import Network
from gocker.plugins.pid import Pid
from gocker.plugins.time import Time
from gocker.plugins.user import User
from gocker.plugins.uts import Uts
from gocker.testing import NamespaceContract

LONGEST = "x" * 64
MAP = (IdMap(inside=0, outside=100000, count=65536),)


def by_path(kind: str) -> tuple[NamespaceRequest, ...]:
    return (NamespaceRequest(kind=kind, mode="path", path="/proc/1/ns/test"),)


class TestUts(NamespaceContract):
    handler = Uts
    good = ({}, {"hostname": "web"}, {"hostname": LONGEST, "domainname": LONGEST}, {"hostname": "\udcff"})
    bad = ({"hostname": LONGEST + "x"}, {"domainname": "é" * 33})


class TestIpc(NamespaceContract):
    handler = Ipc


class TestPid(NamespaceContract):
    handler = Pid


class TestMount(NamespaceContract):
    handler = Mount
    good = ({"rootfs": Rootfs(lower="/srv")}, {"rootfs": None, "namespaces": ()})
    bad = ({}, {"rootfs": Rootfs(lower="/srv"), "namespaces": ()})


class TestNetwork(NamespaceContract):
    handler = Network


class TestCgroup(NamespaceContract):
    handler = Cgroup


class TestUser(NamespaceContract):
    handler = User
    good = ({"uid_map": MAP, "gid_map": MAP}, {"namespaces": ()})
    bad = ({}, {"uid_map": MAP}, {"gid_map": MAP}, {"uid_map": MAP, "gid_map": MAP, "namespaces": ()})


class TestTime(NamespaceContract):
    handler = Time
    good = ({}, {"time_offsets": (("boottime", 86400, 0), ("monotonic", -5, 999999999))})
    bad = (
        {"time_offsets": (("realtime", 1, 0),)},
        {"time_offsets": (("boottime", 1, 10**9),)},
        {"time_offsets": (("boottime", 1, -1),)},
        {"time_offsets": (("boottime", 1, 0),), "namespaces": ()},
        {"time_offsets": (("boottime", 1, 0),), "namespaces": by_path("time")},
    )


def test_each_namespace_that_gocker_installs_is_tested_here() -> None:
    points = metadata.distribution("gocker").entry_points.select(group="gocker.namespaces")
    tested = [
        value for value in globals().values() if isinstance(value, type) and value is not NamespaceContract
    ]
    handlers = {cls.handler for cls in tested if issubclass(cls, NamespaceContract)}
    assert {point.load() for point in points} <= handlers
    assert len(points) == 8


# --- each fault is found by the test that names it


class Sound(NamespaceHandler):
    """A handler that keeps the contract; each fault below changes one thing."""

    api_version: ClassVar[Any] = (1, 0)
    name = "demo"
    flag: ClassVar[Any] = 0x1000
    sysctls: ClassVar[Any] = ("demo.",)

    def set(self, ctx: NamespaceContext) -> None:
        if ctx.spec.hostname == "bad":
            raise UsageError("make demo", ctx.spec.name, "it is bad")

    def set_child(self, ctx: NamespaceContext) -> None:
        ctx.kernel.write_file("/proc/{pid}/demo", "1")

    def apply(self, ctx: NamespaceContext) -> None:
        ctx.kernel.sysctl("demo.up", "1")

    def remove(self, ctx: NamespaceContext) -> None:
        ctx.kernel.write_file("/sys/demo", "0")


class TestSound(NamespaceContract):
    handler = Sound
    bad = ({"hostname": "bad"},)


class ForAnother(Sound):
    api_version = (2, 0)


class TwoFlags(Sound):
    flag = 0x3000


class NoFlag(Sound):
    flag = "CLONE_NEWDEMO"


class ListOfSysctls(Sound):
    sysctls = ["demo."]


class GreedySysctls(Sound):
    sysctls = ("kernel.",)


class WholeSysctls(Sound):
    sysctls = ("demo",)


class Lenient(Sound):
    def set(self, ctx: NamespaceContext) -> None:
        return


class Curt(Sound):
    def set(self, ctx: NamespaceContext) -> None:
        if ctx.spec.hostname == "bad":
            raise UsageError("make demo")


class RenamesHost(Sound):
    def set(self, ctx: NamespaceContext) -> None:
        ctx.kernel.sethostname("demo")


class WritesInside(Sound):
    def apply(self, ctx: NamespaceContext) -> None:
        ctx.kernel.write_file("/proc/demo", "1")


class WritesOwn(Sound):
    def set_child(self, ctx: NamespaceContext) -> None:
        ctx.kernel.write_file("/proc/self/uid_map", "0 0 1")


class WritesElsewhere(Sound):
    def remove(self, ctx: NamespaceContext) -> None:
        ctx.kernel.write_file("/etc/passwd", "0")


class WritesToNobody(Sound):
    def remove(self, ctx: NamespaceContext) -> None:
        ctx.kernel.write_file("/proc/{pid}/demo", "0")


class WritesNumbers(Sound):
    def set_child(self, ctx: NamespaceContext) -> None:
        ctx.kernel.write_file("/proc/{pid}/demo", 1)  # type: ignore[arg-type]


class SetsOthers(Sound):
    def apply(self, ctx: NamespaceContext) -> None:
        ctx.kernel.sysctl("net.ipv4.ip_forward", "1")


class Counts(Sound):
    def apply(self, ctx: NamespaceContext) -> None:
        self.count = getattr(self, "count", 0) + 1
        ctx.kernel.sysctl("demo.up", str(self.count))


class Remembers(Sound):
    def apply(self, ctx: NamespaceContext) -> None:
        self.seen = True


class Looks(Sound):
    def set(self, ctx: NamespaceContext) -> None:
        os.listdir("/")


class Forgets(Sound):
    gone: list[int] = []

    def remove(self, ctx: NamespaceContext) -> None:
        self.gone.append(1)
        ctx.kernel.write_file("/sys/demo", str(len(self.gone)))


class RefusesJoins(Sound):
    def set(self, ctx: NamespaceContext) -> None:
        if ctx.join_path:
            raise UsageError("join demo", ctx.join_path, "it cannot be joined")


class Returns(Sound):
    def set(self, ctx: NamespaceContext) -> bool:  # type: ignore[override]
        return True


@pytest.mark.parametrize(
    ("handler", "test"),
    [
        (ForAnother, "declares_a_name_and_an_api_version_that_this_gocker_takes"),
        (TwoFlags, "its_flag_is_one_kind_of_namespace"),
        (NoFlag, "its_flag_is_one_kind_of_namespace"),
        (ListOfSysctls, "its_sysctls_are_prefixes_that_take_in_none_of_the_hosts"),
        (GreedySysctls, "its_sysctls_are_prefixes_that_take_in_none_of_the_hosts"),
        (WholeSysctls, "its_sysctls_are_prefixes_that_take_in_none_of_the_hosts"),
        (RenamesHost, "good_specs_pass"),
        (Returns, "good_specs_pass"),
        (Lenient, "bad_specs_are_usage_errors_that_say_why"),
        (Curt, "bad_specs_are_usage_errors_that_say_why"),
        (WritesInside, "every_verb_asks_only_for_what_its_phase_can_do"),
        (WritesOwn, "every_verb_asks_only_for_what_its_phase_can_do"),
        (WritesElsewhere, "every_verb_asks_only_for_what_its_phase_can_do"),
        (WritesToNobody, "every_verb_asks_only_for_what_its_phase_can_do"),
        (WritesNumbers, "every_verb_asks_only_for_what_its_phase_can_do"),
        (SetsOthers, "sysctls_that_it_writes_are_of_its_own_namespace"),
        (Forgets, "removal_can_be_repeated"),
        (Counts, "planning_is_pure"),
        (Remembers, "planning_is_pure"),
        (Looks, "planning_is_pure"),
        (RefusesJoins, "one_that_is_joined_passes_too_and_is_taken_down"),
    ],
)
def test_a_fault_fails_the_test_that_names_it(handler: type[NamespaceHandler], test: str) -> None:
    contract = type("Contract", (TestSound,), {"handler": handler})()
    method = getattr(contract, f"test_{test}")
    arguments = (handler(),) if "plugin" in inspect.signature(method).parameters else ()
    with pytest.raises((AssertionError, UsageError, pytest.fail.Exception)):
        method(*arguments)
