"""The test kit for plug-in authors: a cgroup that needs no root, and the contract as tests to inherit.

    from gocker.testing import ControllerContract
    from gocker_hugetlb import Hugetlb

    class TestHugetlb(ControllerContract):
        controller = Hugetlb
        good = {"2MB": "64m"}
        bad = [{"2MB": "-1"}, {"3MB": "1g"}]

runs every test of the contract with pytest, once on a tree like cgroup v1 and once on one like v2.
`NamespaceContract` does the same for a namespace handler. It needs pytest, which gocker itself does not.
"""
# ruff: noqa: S101, D102 - tests assert, and their names are sentences

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest

from gocker.api import (
    API_VERSION,
    CgroupController,
    LimitHelp,
    NamespaceContext,
    NamespaceHandler,
    Plugin,
    Resources,
)
from gocker.errors import LimitError, UsageError, errno_name
from gocker.kernel.devicefilter import parse_rule, v1_rules
from gocker.limits import MAX_BYTES, format_list, parse_limit, parse_list
from gocker.model import ContainerSpec, Hierarchy, NamespaceRequest
from gocker.steps.cgroup import row_holds

Answer = Callable[[str], str]
"""What the kernel shows in a file after this text was written; raise OSError where it refuses."""

PARENT = {"cpuset.cpus": "0-3", "cpuset.mems": "0"}
"""What the fake's parent cgroup has: four CPUs, one memory node."""


def whole_pages(unlimited: str, page: int = 0) -> Answer:
    """The answer of a byte limit: rounded down to pages, `unlimited` for the kernel's largest number.

    `page` is in bytes, 0 for the machine's own.
    """
    page = page or os.sysconf("SC_PAGE_SIZE")
    largest = MAX_BYTES // page * page

    def answer(text: str) -> str:
        if text in {"-1", "max"}:
            return unlimited or str(largest)
        value = _number(text) // page * page
        return (unlimited or str(largest)) if value >= largest else str(value)

    return answer


def _within(least: int, greatest: int, *words: str) -> Answer:
    def answer(text: str) -> str:
        if text not in words and not least <= _number(text) <= greatest:
            raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
        return text

    return answer


def _number(text: str) -> int:
    if not text.isdecimal():
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return int(text)


def _part_of_parent(file: str) -> Answer:
    def answer(text: str) -> str:
        if not parse_list(text, file) <= parse_list(PARENT[file], file):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return text

    return answer


def _effective(file: str) -> Answer:
    def answer(text: str) -> str:
        mine, above = parse_list(text, file), parse_list(PARENT[file], file)
        return format_list(mine & above or above)

    return answer


ANSWERS: Mapping[Hierarchy, Mapping[str, Answer]] = {
    Hierarchy.V1: {
        "memory.limit_in_bytes": whole_pages(""),
        "memory.memsw.limit_in_bytes": whole_pages(""),
        "memory.soft_limit_in_bytes": whole_pages(""),
        "cpuset.cpus": _part_of_parent("cpuset.cpus"),
        "cpuset.mems": _part_of_parent("cpuset.mems"),
        "cpu.shares": _within(2, 262144),
        "pids.max": _within(0, 4194304, "max"),
    },
    Hierarchy.V2: {
        "memory.max": whole_pages("max"),
        "memory.swap.max": whole_pages("max"),
        "memory.low": whole_pages("max"),
        "cpuset.cpus.effective": _effective("cpuset.cpus"),
        "cpuset.mems.effective": _effective("cpuset.mems"),
        "cpu.weight": _within(1, 10000),
        "pids.max": _within(0, 4194304, "max"),
    },
}
"""How Linux 6.x answers in the files of its own controllers; others show what was written."""


class FakeCgroup:
    """`gocker.api.Cgroup` and `CgroupReader` over a directory of plain files; records every call.

    It does at once what gocker does when the plan runs: `write` fails with LimitError where the file
    is not there, the kernel would refuse the text, or what is read back is neither the text nor in `accept`.
    """

    def __init__(
        self,
        directory: str,
        hierarchy: Hierarchy,
        files: Mapping[str, str],
        answers: Mapping[str, Answer] | None = None,
    ) -> None:
        """`directory` is made; `files`, name to text, are those that the kernel has in it at birth.

        `answers` adds to ANSWERS, keyed by the file that is read back.
        """
        self.path = directory
        self.calls: list[tuple[str, ...]] = []
        """("write", file, value, limit), ("inherit", file), ("attach",) and ("rmdir",), in order."""
        self.effective: dict[str, str] = {}
        """Limit to what the kernel answered."""
        self.devices: tuple[str, ...] | None = None
        """The rules of `allow_devices`; None: it was not called, and every device may be opened."""
        self.enabled: list[str] = []
        """The kernel controllers that `enable` was called for."""
        self.removed = False
        self._hierarchy = hierarchy
        self._answers = {**ANSWERS[hierarchy], **(answers or {})}
        os.makedirs(directory)
        for name, text in files.items():
            self._store(name, text)

    @property
    def hierarchy(self) -> Hierarchy:
        """V1 or V2."""
        return self._hierarchy

    @property
    def writes(self) -> list[tuple[str, str]]:
        """(file, value) of each limit, in order."""
        return [(call[1], call[2]) for call in self.calls if call[0] == "write"]

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
        """See `gocker.api.Cgroup.write`."""
        for other, instead in fallback:
            if not os.path.exists(f"{self.path}/{file}"):
                file, value = other, instead
        target = f"{limit}={value}"
        shown = verify or file
        if not os.path.exists(f"{self.path}/{file}"):
            if optional or tentative:
                return
            raise LimitError(
                "set limit", target, f"this kernel has no {file}", remedy=remedy, errno=errno.ENOENT
            )
        try:
            answer = self._answers.get(shown, str)(value)
        except OSError as error:
            number = error.errno or 0
            if tentative and number == errno.EINVAL:
                return
            raise LimitError("set limit", target, errno_name(number), remedy=remedy, errno=number) from error
        self.calls.append(("write", file, value, limit))
        if row:
            answer = self._store_row(shown, value)
        else:
            self._store(file, value)
            self._store(shown, answer)
        if tentative:
            return
        if answer != value and answer not in accept and not (row and row_holds(value, answer)):
            raise LimitError(
                "set limit", target, f"asked {value}, the kernel answers {answer}", remedy=remedy
            )
        self.effective[limit] = answer

    def enable(self, controller: str) -> None:
        """See `gocker.api.Cgroup.enable`; its files are among those that the fake was made with."""
        self.enabled.append(controller)

    def inherit(self, file: str, *, above: bool = False) -> None:
        """See `gocker.api.Cgroup.inherit`; the parent has what PARENT says."""
        assert self._hierarchy is Hierarchy.V1, f"inherit {file}: only v1 files are born empty"
        self.calls.append(("inherit", file))
        if not above:
            self._store(file, PARENT.get(file, "0"))

    def allow_devices(self, rules: tuple[str, ...], *, limits: tuple[str, ...] = ()) -> None:
        """See `gocker.api.Cgroup.allow_devices`; v1 refuses what its lists cannot say."""
        parsed = tuple(parse_rule(rule) for rule in rules)
        if self._hierarchy is Hierarchy.V1:
            v1_rules(parsed)
        self.devices = rules
        self.effective.update(dict.fromkeys(limits, ", ".join(rules)))

    def attach(self) -> None:
        """See `gocker.api.Cgroup.attach`."""
        self.calls.append(("attach",))

    def rmdir(self) -> None:
        """See `gocker.api.Cgroup.rmdir`; the files stay, to be looked at."""
        self.calls.append(("rmdir",))
        self.removed = True

    def read(self, file: str) -> str | None:
        """See `gocker.api.CgroupReader.read`."""
        try:
            with open(f"{self.path}/{file}", encoding="utf-8") as stream:
                return stream.read().strip()
        except FileNotFoundError:
            return None

    def _store_row(self, name: str, row: str) -> str:
        """Put one line in a table as the kernel does: what the line does not name stays. Return it."""
        key, *words = row.split()
        table = [line.split() for line in (self.read(name) or "").splitlines()]
        held = next((line[1:] for line in table if line[0] == key), [])
        names = {word.partition("=")[0] for word in words if "=" in word}
        kept = [word for word in held if "=" in word and word.partition("=")[0] not in names]
        mine = [key, *kept, *words]
        lines = [line for line in table if line[0] != key] + [mine]
        self._store(name, "\n".join(" ".join(line) for line in lines))
        return " ".join(mine)

    def _store(self, name: str, text: str) -> None:
        with open(f"{self.path}/{name}", "w", encoding="utf-8") as stream:
            stream.write(f"{text}\n" if text else "")


GARBAGE = (
    "",
    " ",
    "0",
    "-1",
    "-0",
    "max",
    "x",
    "1e3",
    "1.5",
    "0x10",
    "9" * 400,
    "1\n",
    "\0",
    "１",
    "\udcff",
    "0-",
)
"""Texts that users and programs have typed as a limit."""


class ControllerContract:
    """The contract of `gocker.api.CgroupController` as tests; name the subclass `Test...`."""

    controller: ClassVar[type[CgroupController]]
    """The class under test."""
    good: ClassVar[Mapping[str, str]] = {}
    """`--limit` fields that hold together, one for each key ("" is the bare key)."""
    bad: ClassVar[Sequence[Mapping[str, str]]] = ()
    """Fields that must be refused, each a whole request."""
    files: ClassVar[Mapping[Hierarchy, Mapping[str, str]]] = {}
    """Name to text of the counters, and of the files to verify by, that the kernel has beside the limits'."""
    counters: ClassVar[Mapping[Hierarchy, Mapping[str, int]]] = {}
    """What `stats` makes of `files`."""
    answers: ClassVar[Mapping[str, Answer]] = {}
    """What the kernel shows in a file when that is not what was written: `whole_pages` and the like."""

    oci: ClassVar[Sequence[tuple[Mapping[str, object], Mapping[str, str]]]] = ()
    """JSON of an OCI config by claimed path, and the fields that `from_oci` makes of it."""
    bad_oci: ClassVar[Sequence[Mapping[str, object]]] = ()
    """The same, when it must be refused."""

    @pytest.fixture
    def plugin(self) -> CgroupController:
        """A fresh instance: the registry makes it without arguments."""
        return self.controller()

    @pytest.fixture(params=list(Hierarchy), ids=lambda version: version.value)
    def group(self, request: pytest.FixtureRequest, tmp_path: Any) -> FakeCgroup:
        """A fake cgroup of each version that the controller is on."""
        version: Hierarchy = request.param
        if version not in self.controller.kernel_names:
            pytest.skip(f"{self.controller.name} names no kernel controller on {version.value}")
        return self.make_group(f"{tmp_path}/gocker/id", version)

    def make_group(self, directory: str, version: Hierarchy) -> FakeCgroup:
        """The fake with the limits' files, empty, and those in `files`."""
        born = {row.files[version]: "" for row in self.controller.limits if version in row.files}
        born.update(self.files.get(version, {}))
        return FakeCgroup(directory, version, born, self.answers)

    def resources(self, plugin: CgroupController, version: Hierarchy) -> Resources:
        """`good` as far as this version has files for it."""
        there = [row for row in plugin.limits if version in row.files]
        return plugin.parse(
            {key: text for key, text in self.good.items() if _taken(there, _label(plugin, key))}
        )

    # --- what it declares

    def test_declares_a_name_and_an_api_version_that_this_gocker_takes(self) -> None:
        _check_identity(self.controller)

    def test_names_a_kernel_controller_on_v1_or_v2(self) -> None:
        names = self.controller.kernel_names
        assert names, "kernel_names is empty: it is nowhere"
        assert all(isinstance(version, Hierarchy) and name for version, name in names.items()), names

    def test_each_limit_has_complete_help(self) -> None:
        cls = self.controller
        rows = cls.limits
        for row in rows:
            assert row.key == cls.name or row.key.startswith(f"{cls.name}."), (
                f"key {row.key!r}: {cls.name}[.KEY]"
            )
            assert row.takes(parse_limit(row.example).label), f"example {row.example!r} is not of {row.key}"
            assert row.text.endswith("."), f"text of {row.key}: one sentence"
            assert row.oci.count(".") >= 1, f"oci of {row.key}: a path below linux.resources, or x.NAME.KEY"
            assert row.files, f"files of {row.key}: on one version at least"
            assert row.files.keys() <= cls.kernel_names.keys(), f"files of {row.key}: not in kernel_names"
            assert "*" not in row.key.removesuffix(".*"), f"key {row.key!r}: a * can only be the whole end"
            for file in row.files.values():
                assert file, f"files of {row.key}: empty"
                assert "/" not in file, f"files of {row.key}: {file!r} is not in the cgroup's directory"
        assert len({row.key for row in rows}) == len(rows), "two limits of one key"
        assert len({row.oci for row in rows}) == len(rows), "two limits claim one OCI path"

    def test_each_key_of_the_help_is_tried_here(self) -> None:
        rows = self.controller.limits
        labels = [_label(self.controller(), key) for key in self.good]
        assert all(_taken(rows, label) for label in labels), "`good` has a key that is not in `limits`"
        tried = [row.key for row in rows if any(row.takes(label) for label in labels)]
        assert tried == [row.key for row in rows], "`good` needs a value for each key in `limits`"

    # --- parse

    def test_the_examples_of_the_help_parse(self, plugin: CgroupController) -> None:
        for row in plugin.limits:
            request = parse_limit(row.example)
            paths = plugin.parse({**self.good, request.key: request.value})
            assert any(_claims(row, path) for path in paths), f"{row.example} gives no {row.oci}"

    def test_the_defaults_parse(self, plugin: CgroupController) -> None:
        if plugin.defaults:
            assert plugin.parse(plugin.defaults), "defaults, but no resources"

    def test_no_fields_are_no_resources(self, plugin: CgroupController) -> None:
        assert plugin.parse({}) == {}

    def test_parse_names_only_paths_that_the_help_claims(self, plugin: CgroupController) -> None:
        resources = plugin.parse(self.good)
        assert len(resources) == len(self.good), "a limit that was asked for is dropped"
        for path, value in resources.items():
            claimed = any(_claims(row, path) for row in plugin.limits)
            assert claimed or path.startswith(f"x.{plugin.name}."), f"{path} is claimed by no limit"
            assert type(value) in {int, str}, f"{path}: {value!r} is neither int nor str"

    def test_bad_values_are_limit_errors_that_name_the_limit(self, plugin: CgroupController) -> None:
        for fields in self.bad:
            with pytest.raises(LimitError) as caught:
                plugin.parse(fields)
            assert plugin.name in str(caught.value), f"{fields}: the error does not name the limit"
            assert caught.value.reason, f"{fields}: the error has no reason"

    def test_parse_raises_nothing_but_limit_error(self, plugin: CgroupController) -> None:
        for key in self.good:
            for text in GARBAGE:
                try:
                    plugin.parse({**self.good, key: text})
                except LimitError:
                    continue

    def test_parse_is_pure(self, plugin: CgroupController) -> None:
        fields = dict(self.good)
        first = dict(plugin.parse(fields))
        with _watch() as events:
            second = dict(plugin.parse(fields))
        assert first == second, "the same fields give different resources"
        assert fields == self.good, "parse changes its argument"
        assert not vars(plugin), "parse keeps state in the plug-in"
        assert not events, f"parse does I/O: {events}"

    def test_an_oci_config_asks_as_a_user_would(self, plugin: CgroupController) -> None:
        for part, fields in self.oci:
            found = dict(plugin.from_oci(part))
            assert found == dict(fields), f"{part} asks for {found}"
            plugin.parse(found)
        claimed = plugin.oci_paths or tuple(row.oci for row in plugin.limits)
        named = {path for part, _ in self.oci for path in part}
        assert named <= set(claimed), "`oci` has paths that the plug-in does not claim"

    def test_an_oci_config_that_cannot_be_honoured_is_a_limit_error(self, plugin: CgroupController) -> None:
        claimed = plugin.oci_paths or tuple(row.oci for row in plugin.limits)
        strange: tuple[object, ...] = (1.5, [1], {"": {}}, [[]], [{}], {"x": 1}, [{"": None}])
        parts = [dict.fromkeys((path,), value) for path in claimed for value in strange]
        for part in (*self.bad_oci, *parts):
            with pytest.raises(LimitError) as caught:
                plugin.parse(plugin.from_oci(part))
            assert caught.value.reason, f"{part}: the error has no reason"

    # --- set, apply, remove

    def test_each_limit_asked_for_is_written_and_binds(
        self, plugin: CgroupController, group: FakeCgroup
    ) -> None:
        plugin.set(group, self.resources(plugin, group.hierarchy))
        there = [row for row in plugin.limits if group.hierarchy in row.files]
        asked = {label for key in self.good if _taken(there, label := _label(plugin, key))}
        assert asked <= group.effective.keys(), "a limit that was asked for is not written"

    def test_set_writes_only_files_that_the_help_names(
        self, plugin: CgroupController, group: FakeCgroup
    ) -> None:
        plugin.set(group, self.resources(plugin, group.hierarchy))
        named = {row.files.get(group.hierarchy) for row in plugin.limits}
        for verb, file, *rest in (call for call in group.calls if len(call) > 1):
            assert file in named or "*" in named, f"{verb} {file}: no limit's help names it"
            assert not rest or _taken(plugin.limits, rest[1]), (
                f"{verb} {file}: limit={rest[1]} is no limit of {plugin.name}"
            )

    def test_set_twice_does_the_same_twice(self, plugin: CgroupController, group: FakeCgroup) -> None:
        resources = self.resources(plugin, group.hierarchy)
        plugin.set(group, resources)
        once = list(group.calls)
        plugin.set(group, resources)
        assert group.calls == once * 2

    def test_set_without_resources_writes_no_limit(self, plugin: CgroupController, group: FakeCgroup) -> None:
        plugin.set(group, {})
        assert not group.writes

    def test_apply_attaches_once_on_v1_and_leaves_v2_to_the_core(
        self, plugin: CgroupController, group: FakeCgroup
    ) -> None:
        plugin.set(group, self.resources(plugin, group.hierarchy))
        plugin.apply(group)
        v1 = group.hierarchy is Hierarchy.V1
        assert group.calls.count(("attach",)) == v1
        assert not v1 or group.calls[-1] == ("attach",), "limits come before the container does"

    def test_remove_removes_and_can_be_repeated(self, plugin: CgroupController, group: FakeCgroup) -> None:
        plugin.remove(group)
        plugin.remove(group)
        assert group.removed

    # --- stats

    def test_stats_are_whole_numbers(self, plugin: CgroupController, group: FakeCgroup) -> None:
        stats = plugin.stats(group)
        for name, value in stats.items():
            assert name.isidentifier(), f"counter {name!r}: a name such as memory_peak_bytes"
            assert type(value) is int, f"counter {name}: {value!r} is not an int"
            assert value >= 0, f"counter {name}: {value}"
        assert dict(stats) == dict(self.counters.get(group.hierarchy, stats))

    def test_stats_leave_out_what_the_kernel_does_not_have(
        self, plugin: CgroupController, group: FakeCgroup
    ) -> None:
        for name in sorted(os.listdir(group.path)):
            text = group.read(name) or ""
            os.unlink(f"{group.path}/{name}")
            assert all(type(value) is int for value in plugin.stats(group).values()), f"without {name}"
            with open(f"{group.path}/{name}", "w", encoding="utf-8") as stream:
                stream.write(text)
        for name in os.listdir(group.path):
            os.unlink(f"{group.path}/{name}")
        assert not plugin.stats(group), "a counter without a file to count from"

    def test_stats_survive_files_that_are_empty_or_strange(
        self, plugin: CgroupController, group: FakeCgroup
    ) -> None:
        for text in ("", "?", "a b c d\n", "8:0 x=\n"):
            for name in os.listdir(group.path):
                with open(f"{group.path}/{name}", "w", encoding="utf-8") as stream:
                    stream.write(text)
            assert all(type(value) is int for value in plugin.stats(group).values()), f"text {text!r}"


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
        _check_identity(self.handler)

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
                with _watch() as events:
                    second = self.calls(plugin, verb, fields)
                assert first == second, f"{verb} does another thing the second time"
                assert not vars(plugin), f"{verb} keeps state in the plug-in"
                assert not events, f"{verb} does I/O: {events}"


def _check_identity(plugin: type[Plugin]) -> None:
    name, version = plugin.name, plugin.api_version
    assert name[:1].isalpha(), f"name {name!r}: [a-z][a-z0-9_]*"
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_"), f"name {name!r}: [a-z][a-z0-9_]*"
    assert isinstance(version, tuple), f"api_version {version!r}: (major, minor)"
    assert [type(part) for part in version] == [int, int], f"api_version {version!r}: (major, minor)"
    major, minor = API_VERSION
    assert version[0] == major, f"api_version {version}, this gocker has {API_VERSION}"
    assert version[1] <= minor, f"api_version {version}, this gocker has {API_VERSION}"


def _label(plugin: CgroupController, key: str) -> str:
    return f"{plugin.name}.{key}" if key else plugin.name


def _taken(rows: Sequence[LimitHelp], label: str) -> bool:
    return any(row.takes(label) for row in rows)


def _claims(row: LimitHelp, path: str) -> bool:
    return path.startswith(row.oci[:-1]) if row.oci.endswith(".*") else path == row.oci


_events: list[str] | None = None
_IO = frozenset({"open", "os", "socket", "subprocess", "shutil", "glob", "ctypes"})


def _note(event: str, _: tuple[Any, ...]) -> None:
    if _events is not None and event.partition(".")[0] in _IO:
        _events.append(event)


@contextmanager
def _watch() -> Iterator[list[str]]:
    """The I/O that happens inside, by the names of Python's audit events."""
    global _events  # noqa: PLW0603 - an audit hook cannot be taken away, only told to be quiet
    if not _hooked:
        sys.addaudithook(_note)
        _hooked.append(True)
    found: list[str] = []
    _events = found
    try:
        yield found
    finally:
        _events = None


_hooked: list[bool] = []
