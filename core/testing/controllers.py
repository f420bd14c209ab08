"""The contract of a controller as tests."""
# ruff: noqa: S101, D102 - tests assert, and their names are sentences

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest

from gocker.api import (
    CgroupController,
    LimitHelp,
    Resources,
)
from gocker.errors import LimitError
from gocker.limits import parse_limit
from gocker.model import Hierarchy
from gocker.testing.answers import Answer
from gocker.testing.fakecgroup import FakeCgroup
from gocker.testing.purity import check_identity, watch

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
        check_identity(self.controller)

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
        with watch() as events:
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


def _label(plugin: CgroupController, key: str) -> str:
    return f"{plugin.name}.{key}" if key else plugin.name


def _taken(rows: Sequence[LimitHelp], label: str) -> bool:
    return any(row.takes(label) for row in rows)


def _claims(row: LimitHelp, path: str) -> bool:
    return path.startswith(row.oci[:-1]) if row.oci.endswith(".*") else path == row.oci
