"""The contract of a namespace handler as tests, and the kernel that they hand it."""
# ruff: noqa: S101, D102 - tests assert, and their names are sentences

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest

from gocker.api import (
    NamespaceContext,
    NamespaceHandler,
)
from gocker.errors import UsageError
from gocker.model import ContainerSpec, NamespaceRequest
from gocker.testing.purity import check_identity, watch

SET, SET_CHILD, APPLY, REMOVE = _VERBS = ("set", "set_child", "apply", "remove")


class FakeKernel:
    """`gocker.api.Kernel` that makes nothing and records every call; refuses what gocker would refuse."""

    def __init__(self, verb: str) -> None:
        """`verb` is the handler's method that is handed it: "set", "set_child", "apply" or "remove"."""
        self.verb = verb
        self.calls: list[tuple[str, ...]] = []
        """("write_file", path, data), ("sethostname", name), ("sysctl", name, value) and so on, in order."""

    def write_file(self, path: str, data: str) -> None:
        """See `gocker.api.Kernel.write_file`."""
        assert self.verb != APPLY, f"write_file {path}: inside the namespace only sysctl writes files"
        assert path.startswith(("/proc/", "/sys/")), f"write_file {path}: not a file of /proc or /sys"
        assert not path.startswith("/proc/self/"), f"write_file {path}: that is gocker itself, write {{pid}}"
        assert "{pid}" not in path or self.verb == SET_CHILD, f"write_file {path}: no child in `{self.verb}`"
        self._record("write_file", path, data)

    def sethostname(self, name: str) -> None:
        """See `gocker.api.Kernel.sethostname`."""
        self._inside("sethostname", name)

    def setdomainname(self, name: str) -> None:
        """See `gocker.api.Kernel.setdomainname`."""
        self._inside("setdomainname", name)

    def link_up(self, name: str) -> None:
        """See `gocker.api.Kernel.link_up`."""
        self._inside("link_up", name)

    def sysctl(self, name: str, value: str) -> None:
        """See `gocker.api.Kernel.sysctl`."""
        self._inside("sysctl", name, value)

    def _inside(self, *call: str) -> None:
        assert self.verb == APPLY, f"{call[0]} in `{self.verb}` would change the host"
        self._record(*call)

    def _record(self, *call: str) -> None:
        assert all(isinstance(text, str) for text in call), f"{call}: every argument is a str"
        self.calls.append(call)


HOST_SYSCTLS = (
    "kernel.panic",
    "kernel.core_pattern",
    "kernel.modprobe",
    "kernel.randomize_va_space",
    "kernel.keys.maxkeys",
    "vm.overcommit_memory",
    "fs.file-max",
    "fs.protected_symlinks",
    "dev.cdrom.lock",
    "user.max_user_namespaces",
    "debug.exception-trace",
)
"""A few that no namespace has of its own."""


class NamespaceContract:
    """The contract of `gocker.api.NamespaceHandler` as tests; name the subclass `Test...`."""

    handler: ClassVar[type[NamespaceHandler]]
    """The class under test."""
    good: ClassVar[Sequence[Mapping[str, Any]]] = ({},)
    """Fields of ContainerSpec that it has to do with, as users may ask for them together."""
    bad: ClassVar[Sequence[Mapping[str, Any]]] = ()
    """Fields that `set` must refuse."""
    joined: ClassVar[Mapping[str, Any]] = {}
    """Fields that go with a namespace that is joined by path."""

    @pytest.fixture
    def plugin(self) -> NamespaceHandler:
        """A fresh instance: the registry makes it without arguments."""
        return self.handler()

    def context(self, verb: str, fields: Mapping[str, Any], join_path: str = "") -> NamespaceContext:
        """What the handler is given in `verb`, with a FakeKernel; `join_path` is of a namespace to join."""
        mode = "path" if join_path else "private"
        own = NamespaceRequest(kind=self.handler.name, mode=mode, path=join_path)
        values: dict[str, Any] = {"id": "test", "name": "test", "argv": ("true",), "namespaces": (own,)}
        spec = ContainerSpec(**{**values, **fields})
        return NamespaceContext(spec=spec, join_path=join_path or None, kernel=FakeKernel(verb))

    def calls(
        self, plugin: NamespaceHandler, verb: str, fields: Mapping[str, Any], join_path: str = ""
    ) -> list[tuple[str, ...]]:
        """What the handler asks the kernel for in `verb`."""
        context = self.context(verb, fields, join_path)
        assert getattr(plugin, verb)(context) is None, f"{verb} returns something"
        assert isinstance(context.kernel, FakeKernel)
        return context.kernel.calls

    # --- what it declares

    def test_declares_a_name_and_an_api_version_that_this_gocker_takes(self) -> None:
        check_identity(self.handler)

    def test_its_flag_is_one_kind_of_namespace(self) -> None:
        flag = self.handler.flag
        assert type(flag) is int, f"flag {flag!r}: a CLONE_NEW number of clone(2)"
        assert flag.bit_count() == 1, f"flag {flag:#x}: one CLONE_NEW number of clone(2)"
        assert type(self.handler.order) is int, f"order {self.handler.order!r}: a whole number"

    def test_its_sysctls_are_prefixes_that_take_in_none_of_the_hosts(self) -> None:
        prefixes = self.handler.sysctls
        assert isinstance(prefixes, tuple), f"sysctls {prefixes!r}: a tuple of prefixes"
        for prefix in prefixes:
            assert "." in prefix, f"sysctl {prefix!r}: not a prefix such as net."
            taken = [name for name in HOST_SYSCTLS if name.startswith(prefix)]
            assert not taken, f"sysctl {prefix!r} takes in {', '.join(taken)}"

    # --- what it does

    def test_good_specs_pass(self, plugin: NamespaceHandler) -> None:
        for fields in self.good:
            self.calls(plugin, SET, fields)

    def test_bad_specs_are_usage_errors_that_say_why(self, plugin: NamespaceHandler) -> None:
        for fields in self.bad:
            with pytest.raises(UsageError) as caught:
                self.calls(plugin, SET, fields)
            assert caught.value.operation, f"{fields}: the error does not say what is wrong"
            assert caught.value.reason, f"{fields}: the error has no reason"

    def test_every_verb_asks_only_for_what_its_phase_can_do(self, plugin: NamespaceHandler) -> None:
        for fields in self.good:
            for verb in _VERBS:
                self.calls(plugin, verb, fields)

    def test_sysctls_that_it_writes_are_of_its_own_namespace(self, plugin: NamespaceHandler) -> None:
        for fields in self.good:
            for call in self.calls(plugin, APPLY, fields):
                assert call[0] != "sysctl" or call[1].replace("/", ".").startswith(self.handler.sysctls), (
                    f"{call[1]} is not in `sysctls`"
                )

    def test_one_that_is_joined_passes_too_and_is_taken_down(self, plugin: NamespaceHandler) -> None:
        self.calls(plugin, SET, self.joined, "/proc/1/ns/test")
        self.calls(plugin, REMOVE, self.joined, "/proc/1/ns/test")

    def test_removal_can_be_repeated(self, plugin: NamespaceHandler) -> None:
        for fields in self.good:
            assert self.calls(plugin, REMOVE, fields) == self.calls(plugin, REMOVE, fields)

    def test_planning_is_pure(self, plugin: NamespaceHandler) -> None:
        for fields in self.good:
            for verb in _VERBS:
                first = self.calls(plugin, verb, fields)
                with watch() as events:
                    second = self.calls(plugin, verb, fields)
                assert first == second, f"{verb} does another thing the second time"
                assert not vars(plugin), f"{verb} keeps state in the plug-in"
                assert not events, f"{verb} does I/O: {events}"
