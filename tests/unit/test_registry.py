"""The registry and its index, on made-up distributions."""

from __future__ import annotations

import importlib
import json
import os
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gocker.errors import PluginError
from gocker.plugin_index import Entry, Found, PluginIndex
from gocker.registry import CONTROLLERS, NAMESPACES, PluginInfo, Registry, discover_installed

NOW = 2_000_000_000_000_000_000  # long after the mtime of anything that a test makes

GOOD = """
from gocker.api import CgroupController, LimitHelp
from gocker.model import Hierarchy

class Good(CgroupController):
    api_version = (1, 0)
    name = "good"
    kernel_names = {Hierarchy.V2: "misc"}
    limits = (LimitHelp("good", "good=1", "A limit.", "x.good.limit", {Hierarchy.V2: "misc.max"}),)

    def parse(self, fields):
        return {}

    def set(self, group, resources):
        pass
"""

NAMESPACE = """
from gocker.api import NamespaceHandler

class Space(NamespaceHandler):
    api_version = (1, 0)
    name = "space"
    flag = 0x04000000

    def apply(self, ctx):
        pass
"""


class Bench:
    """Writes modules that can be imported, and registries that find them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.scans = 0
        self.entries: list[Entry] = []

    def add(self, name: str, source: str, *, attribute: str = "Good", **changes: str) -> Entry:
        """A module of its own and an entry point that names it."""
        module = f"gocker_bench_{self.path.parent.name}_{len(self.entries)}".replace("-", "_")
        (self.path / f"{module}.py").write_text(textwrap.dedent(source))
        entry = Entry(CONTROLLERS, name, f"{module}:{attribute}", f"gocker-{name}", "1.2").replace(**changes)
        self.entries.append(entry)
        return entry

    def discover(self) -> Found:
        self.scans += 1
        return Found(tuple(self.entries))

    def registry(self, cache: Path | None = None) -> Registry:
        directory = str(cache or self.path / "nowhere")
        index = PluginIndex(directory, path=[str(self.path)], now=lambda: NOW)
        return Registry(discover=self.discover, index=index)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    path = tmp_path / "site"
    path.mkdir()
    monkeypatch.syspath_prepend(str(path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield Bench(path)
    for name in [name for name in sys.modules if name.startswith("gocker_bench_")]:
        del sys.modules[name]


def only(infos: tuple[PluginInfo, ...]) -> PluginInfo:
    assert len(infos) == 1
    return infos[0]


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


# Find, import, classify


def test_a_sound_controller_is_ok_and_can_be_had(bench: Bench) -> None:
    entry = bench.add("good", GOOD)
    registry = bench.registry()
    assert registry.infos() == (PluginInfo(CONTROLLERS, "good", entry.value, "gocker-good", "1.2", "ok", ""),)
    assert registry.controller("good").name == "good"
    assert registry.refused() == ()


def test_a_sound_namespace_handler_is_ok_and_can_be_had(bench: Bench) -> None:
    bench.add("space", NAMESPACE, attribute="Space", group=NAMESPACES)
    registry = bench.registry()
    assert only(registry.infos()).status == "ok"
    assert registry.namespace("space").flag == 0x04000000
    assert list(registry.namespaces()) == ["space"]
    assert registry.controller_names() == ()


def test_names_are_sorted_and_import_nothing(bench: Bench) -> None:
    bench.add("zebra", "raise SystemExit(3)")
    bench.add("good", GOOD)
    registry = bench.registry()
    assert registry.controller_names() == ("good", "zebra")
    assert registry.namespace_names() == ()
    assert not [name for name in sys.modules if name.startswith("gocker_bench_")]


def test_one_controller_is_imported_alone(bench: Bench) -> None:
    bench.add("good", GOOD)
    other = bench.add("other", "raise AssertionError('was imported')")
    registry = bench.registry()
    registry.controller("good")
    assert other.value.partition(":")[0] not in sys.modules
    assert registry.refused() == ()  # it is not known to be broken, since nobody needed it


def test_a_plug_in_is_made_once(bench: Bench) -> None:
    bench.add("good", GOOD)
    registry = bench.registry()
    assert registry.controller("good") is registry.controller("good")


def test_infos_are_in_one_order_however_the_scan_found_them(bench: Bench) -> None:
    bench.add("space", NAMESPACE, attribute="Space", group=NAMESPACES)
    bench.add("good", GOOD, distribution="gocker-zzz")
    bench.add("good", GOOD, distribution="gocker-aaa")
    bench.add("bad", "raise ValueError")
    infos = bench.registry().infos()
    bench.entries.reverse()
    assert [info.replace(reason="") for info in bench.registry().infos()] == [
        info.replace(reason="") for info in infos
    ]
    assert [(info.name, info.distribution) for info in infos] == [
        ("bad", "gocker-bad"),
        ("good", "gocker-aaa"),
        ("good", "gocker-zzz"),
        ("space", "gocker-space"),
    ]


def test_entry_points_of_other_groups_are_not_looked_at(bench: Bench) -> None:
    bench.add("good", GOOD, group="console_scripts")
    assert bench.registry().infos() == ()


# Refusals


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("assert False, 'not here'", "AssertionError: not here"),
        ("assert False", "AssertionError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("class Odd(BaseException): ...\nraise Odd('x')", "Odd: x"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def f(:", "SyntaxError: "),
        ("", "has no attribute 'Good'"),
        ("Good = 3", "is a int, not a class"),
        ("class Good: pass", "api_version is not declared as (major, minor)"),
        (
            "class Good:\n    api_version = (1, 0)\n    name = 'good'",
            "is not a subclass of gocker.api.CgroupController",
        ),
        (changed("api_version = (1, 0)", ""), "api_version is not declared as (major, minor)"),
        (changed("(1, 0)", "'1.0'"), "api_version is not declared as (major, minor)"),
        (changed("(1, 0)", "(True, 0)"), "api_version is not declared as (major, minor)"),
        (changed("(1, 0)", "(99, 0)"), "written for plug-in API 99.0, this gocker has 1.1"),
        (changed("(1, 0)", "(1, 2)"), "written for plug-in API 1.2, this gocker has 1.1"),
        (changed("(1, 0)", "(0, 0)"), "written for plug-in API 0.0, this gocker has 1.1"),
        (changed('name = "good"', 'name = "bad"'), "its name is 'bad', its entry point's name is 'good'"),
        (changed('name = "good"', ""), "its name is None, its entry point's name is 'good'"),
        (changed('kernel_names = {Hierarchy.V2: "misc"}', ""), "kernel_names is not declared"),
        (
            changed('{Hierarchy.V2: "misc"}', '{"v2": "misc"}'),
            "kernel_names is not a mapping of Hierarchy to str",
        ),
        (changed("limits = (", "limits = list, ("), "limits is not a tuple of LimitHelp"),
        (changed('LimitHelp("good", ', 'LimitHelp("memory", '), "its limit 'memory' is not good or good.KEY"),
        (
            changed("    def parse", "    always = 'yes'\n\n    def parse"),
            "always is not True or False",
        ),
        (
            changed("    def parse", "    defaults = {'': 1}\n\n    def parse"),
            "defaults is not a mapping of str to str",
        ),
        (changed("def set", "def set_up"), "it does not define set"),
        (
            changed("    def parse", "    def __init__(self):\n        raise OSError('no')\n\n    def parse"),
            "OSError: no",
        ),
        (
            changed("    def parse", "    def __new__(cls):\n        return 3\n\n    def parse"),
            "makes a int",
        ),
    ],
)
def test_a_broken_controller_is_refused_with_the_reason(bench: Bench, source: str, reason: str) -> None:
    bench.add("good", source)
    registry = bench.registry()
    with pytest.raises(PluginError) as error:
        registry.controller("good")
    assert reason in error.value.reason
    assert error.value.target == "good of gocker-good 1.2"
    assert error.value.remedy
    info = only(registry.infos())
    assert (info.status, info.reason) == ("refused", error.value.reason)
    assert registry.refused() == (info,)
    assert registry.controllers() == {}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (GOOD.replace("Good", "Space").replace('"good"', '"space"'), "is not a subclass of gocker.api.Names"),
        (NAMESPACE.replace("flag = 0x04000000", ""), "flag is not declared"),
        (NAMESPACE.replace("flag = 0x04000000", "flag = True"), "flag is not a CLONE_NEW number"),
        (NAMESPACE + "    order = 'first'\n", "order is not a whole number"),
        (NAMESPACE + "    sysctls = 'net.'\n", "sysctls is not a tuple of str"),
        (NAMESPACE.replace("def apply", "def apply_it"), "it does not define apply"),
    ],
)
def test_a_broken_namespace_handler_is_refused_with_the_reason(
    bench: Bench, source: str, reason: str
) -> None:
    bench.add("space", source, attribute="Space", group=NAMESPACES)
    with pytest.raises(PluginError) as error:
        bench.registry().namespace("space")
    assert reason in error.value.reason


def test_a_broken_plug_in_leaves_the_others_alone(bench: Bench) -> None:
    bench.add("bad", "raise SystemExit(1)")
    bench.add("good", GOOD)
    bench.add("good", "raise AssertionError", group=NAMESPACES)
    registry = bench.registry()
    assert registry.controller("good").name == "good"
    assert [(info.group, info.name, info.status) for info in registry.infos()] == [
        (CONTROLLERS, "bad", "refused"),
        (CONTROLLERS, "good", "ok"),
        (NAMESPACES, "good", "refused"),
    ]


def test_an_interrupt_during_an_import_is_the_users_and_stops_gocker(bench: Bench) -> None:
    bench.add("good", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        bench.registry().controller("good")


@pytest.mark.parametrize("between", [(), ("middle",)])
def test_of_two_plug_ins_with_one_name_neither_loads_and_both_are_named(
    bench: Bench, between: tuple[str, ...]
) -> None:
    bench.add("good", GOOD)
    for name in between:  # stevedore's own check sees neighbours only
        bench.add(name, GOOD.replace('"good"', f'"{name}"'))
    bench.add("good", GOOD, distribution="other", version="7")
    registry = bench.registry()
    refused = registry.refused()  # known without an import
    assert [(info.distribution, info.version, info.status) for info in refused] == [
        ("gocker-good", "1.2", "refused"),
        ("other", "7", "refused"),
    ]
    assert {info.reason for info in refused} == {
        "2 distributions have a plug-in of the name good: gocker-good 1.2, other 7; none is used"
    }
    with pytest.raises(PluginError, match=r"good of gocker-good 1\.2 and good of other 7.*uninstall all but"):
        registry.controller("good")
    assert not [name for name in sys.modules if name.startswith("gocker_bench_")]


def test_one_distribution_with_one_name_twice_is_said_as_such(bench: Bench) -> None:
    bench.add("good", GOOD)
    bench.add("good", GOOD)
    reasons = {info.reason for info in bench.registry().infos()}
    assert reasons == {"gocker-good 1.2 declares 2 plug-ins of the name good"}


def test_one_name_in_both_groups_is_no_clash(bench: Bench) -> None:
    bench.add("good", GOOD)
    bench.add("good", NAMESPACE.replace('"space"', '"good"'), attribute="Space", group=NAMESPACES)
    assert [info.status for info in bench.registry().infos()] == ["ok", "ok"]


@pytest.mark.parametrize("name", ["Good", "go-od", "1good", "go.od", "gööd", "go od", "_good"])
def test_a_name_that_no_limit_can_spell_is_refused(bench: Bench, name: str) -> None:
    bench.add(name, GOOD)
    assert "is not of the form [a-z][a-z0-9_]*" in only(bench.registry().infos()).reason


def test_an_unknown_name_lists_what_is_installed_and_hints_at_pip(bench: Bench) -> None:
    bench.add("good", GOOD)
    bench.add("better", GOOD)
    with pytest.raises(PluginError) as error:
        bench.registry().controller("no_such")
    assert str(error.value) == (
        "find controller plug-in no_such: not installed; installed: better, good"
        " (pip install gocker-no-such, if there is such a package)"
    )


def test_an_unknown_name_where_nothing_is_installed_says_none(bench: Bench) -> None:
    with pytest.raises(PluginError, match="find namespace plug-in uts: not installed; installed: none"):
        bench.registry().namespace("uts")


def test_a_reason_is_one_printable_line_of_bounded_length(bench: Bench) -> None:
    bench.add("good", "raise RuntimeError('a\\nb \\x1b[31m\\u202e' + 'x' * 5000)")
    reason = only(bench.registry().infos()).reason
    assert reason.startswith("RuntimeError: a b \\x1b[31m\\u202exxx")
    assert reason.isprintable()
    assert len(reason) < 1000


def test_a_reason_names_the_line_that_raised(bench: Bench) -> None:
    entry = bench.add("good", "\nraise RuntimeError('x')")
    module = entry.value.partition(":")[0]
    assert only(bench.registry().infos()).reason == f"RuntimeError: x, at {bench.path}/{module}.py:2"


def test_an_exception_that_cannot_be_shown_is_named_by_its_type(bench: Bench) -> None:
    bench.add("good", "class Mute(Exception):\n    def __str__(self):\n        return 1\nraise Mute")
    assert only(bench.registry().infos()).reason.startswith("Mute, at ")


def test_an_entry_point_with_extras_and_a_dotted_attribute_loads(bench: Bench) -> None:
    entry = bench.add("good", GOOD + "\nclass Box:\n    inner = Good\n")
    bench.entries[0] = entry.replace(value=entry.value.replace(":Good", " : Box.inner [extra]"))
    assert bench.registry().controller("good").name == "good"


# Standing controllers and OCI paths


def test_standing_controllers_are_those_that_no_limit_has_to_name(bench: Bench) -> None:
    def named(name: str, declaration: str) -> str:
        return changed("    def parse", f"    {declaration}\n\n    def parse").replace('"good', f'"{name}')

    bench.add("good", GOOD)
    bench.add("counting", named("counting", "always = True"))
    bench.add("limiting", named("limiting", "defaults = {'': '4096'}"))
    bench.add("broken", "raise SystemExit")
    registry = bench.registry()
    assert registry.standing_controllers() == ("counting", "limiting")
    assert [info.name for info in registry.refused()] == ["broken"]


def test_what_is_declared_is_known_without_an_import_the_next_time(bench: Bench, tmp_path: Path) -> None:
    bench.add(
        "good", changed("    def parse", "    always = True\n    oci_paths = ('misc',)\n\n    def parse")
    )
    cache = tmp_path / "cache"
    first = bench.registry(cache)
    assert (first.standing_controllers(), first.claims()) == (("good",), {"misc": "good"})
    module = bench.entries[0].value.partition(":")[0]
    del sys.modules[module]
    second = bench.registry(cache)
    assert (second.standing_controllers(), second.claims()) == (("good",), {"misc": "good"})
    assert module not in sys.modules
    assert second.controller("good").name == "good"


def test_a_change_of_a_controllers_file_is_looked_at(bench: Bench, tmp_path: Path) -> None:
    bench.add("good", changed("    def parse", "    always = True\n\n    def parse"))
    cache = tmp_path / "cache"
    assert bench.registry(cache).standing_controllers() == ("good",)
    module = bench.entries[0].value.partition(":")[0]
    del sys.modules[module]
    source = bench.path / f"{module}.py"
    source.write_text(GOOD)
    os.utime(source, ns=(1, 1))
    importlib.invalidate_caches()
    assert bench.registry(cache).standing_controllers() == ()
    assert bench.registry(cache).index.problem == ""


def test_a_refused_controller_is_looked_at_by_every_start(bench: Bench, tmp_path: Path) -> None:
    bench.add("good", changed("    def parse", "    always = True\n\n    def parse"))
    bench.add("broken", "raise SystemExit")
    for _ in range(2):
        registry = bench.registry(tmp_path / "cache")
        assert registry.standing_controllers() == ("good",)
        assert [info.name for info in registry.refused()] == ["broken"]


@pytest.mark.parametrize(
    "declared",
    [
        [],
        {},
        {"watched": 1, "standing": [], "claims": {}},
        {"watched": [], "standing": ["stranger"], "claims": {}},
        {"watched": [], "standing": [], "claims": {"misc": ["stranger"]}},
        {"watched": [], "standing": [1], "claims": {}},
        {"watched": [], "standing": [], "claims": []},
    ],
)
def test_an_index_that_declares_nonsense_is_as_if_it_were_not_there(
    bench: Bench, tmp_path: Path, declared: object
) -> None:
    bench.add("good", changed("    def parse", "    always = True\n\n    def parse"))
    cache = tmp_path / "cache"
    assert bench.registry(cache).standing_controllers() == ("good",)
    (file,) = cache.iterdir()
    file.write_text(json.dumps({**json.loads(file.read_text()), "declared": declared}))
    assert bench.registry(cache).standing_controllers() == ("good",)


def test_a_part_of_a_path_that_another_claims_is_a_conflict(bench: Bench) -> None:
    bench.add("good", changed("    def parse", "    oci_paths = ('rdma',)\n\n    def parse"))
    other = GOOD.replace('"good', '"also')
    bench.add("also", other.replace("    def parse", "    oci_paths = ('rdma.mlx5',)\n\n    def parse"))
    with pytest.raises(PluginError, match=r"claimed by good of gocker-good 1\.2 and also of gocker-also"):
        bench.registry().claimant("rdma")


def test_an_oci_path_leads_to_the_controller_that_claims_it(bench: Bench) -> None:
    bench.add("good", GOOD)
    registry = bench.registry()
    assert registry.claims() == {"x.good.limit": "good"}
    assert registry.claimant("x.good.limit").name == "good"


def test_an_unclaimed_oci_path_names_what_is_installed(bench: Bench) -> None:
    bench.add("good", GOOD)
    with pytest.raises(
        PluginError, match=r"rdma\.mlx5: no installed controller claims it; installed: good \("
    ):
        bench.registry().claimant("rdma.mlx5")


def test_an_oci_path_claimed_twice_is_an_error_only_for_who_needs_it(bench: Bench) -> None:
    bench.add("good", GOOD)
    bench.add("also", GOOD.replace('"good', '"also'))
    own = 'LimitHelp("third", "third=1", "A limit.", "third.limit", {}),)'
    bench.add("third", GOOD.replace('"good', '"third').replace("}),)", "}), " + own))
    registry = bench.registry()
    assert registry.claims() == {"third.limit": "third"}
    with pytest.raises(PluginError) as error:
        registry.claimant("x.good.limit")
    assert error.value.reason == (
        "claimed by also of gocker-also 1.2 and good of gocker-good 1.2 and third of gocker-third 1.2"
    )
    assert registry.controller("good").name == "good"
    assert [(info.name, info.status, info.reason) for info in registry.infos()][1] == (
        "good",
        "ok",
        "OCI path x.good.limit is also claimed by also of gocker-also 1.2, third of gocker-third 1.2",
    )
    assert registry.refused() == ()


# The index


def test_the_second_registry_reads_the_index_and_scans_nothing(bench: Bench, tmp_path: Path) -> None:
    bench.add("good", GOOD)
    cache = tmp_path / "root" / "cache" / "entry-points"
    first = bench.registry(cache)
    second = bench.registry(cache)
    assert first.infos() == second.infos()
    assert bench.scans == 1
    assert second.index.problem == ""


def test_the_index_is_private_to_its_user(bench: Bench, tmp_path: Path) -> None:
    cache = tmp_path / "root" / "cache" / "entry-points"
    old = os.umask(0)
    try:
        bench.registry(cache).infos()
    finally:
        os.umask(old)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (cache, *cache.iterdir())}
    assert sorted(modes.values()) == [0o600, 0o700]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (cache.parent, cache.parent.parent)} == {0o700}


def test_an_index_survives_odd_bytes_in_names(bench: Bench, tmp_path: Path) -> None:
    bench.add("good", GOOD, distribution="gocker-\udcff\n")
    cache = tmp_path / "cache"
    bench.registry(cache).infos()
    assert only(bench.registry(cache).infos()).distribution == "gocker-\udcff\n"
    assert bench.scans == 1


def test_an_installation_makes_the_index_stale(bench: Bench, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert bench.registry(cache).infos() == ()
    bench.add("good", GOOD)  # writes into the directory, as pip does
    os.utime(bench.path, ns=(1, 1))  # a jump back in time is a change too
    assert only(bench.registry(cache).infos()).name == "good"
    assert bench.scans == 2


def test_another_search_path_has_an_index_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    cache = str(tmp_path / "cache")

    def index(*path: str) -> PluginIndex:
        return PluginIndex(cache, path=[str(tmp_path / name) for name in path], now=lambda: NOW)

    assert index("a", "b", "missing").write(Found(()))
    assert index("a", "b").read() == ()  # what does not exist holds no distributions
    assert index("b", "a").read() is None
    assert index("a").read() is None


def test_an_empty_search_path_entry_means_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, ns=(5, 5))
    monkeypatch.chdir(tmp_path / "a")
    assert PluginIndex(str(tmp_path / "cache"), path=[""], now=lambda: NOW).write(Found(()))
    assert PluginIndex(str(tmp_path / "cache"), path=[""], now=lambda: NOW).read() == ()
    monkeypatch.chdir(tmp_path / "b")
    assert PluginIndex(str(tmp_path / "cache"), path=[""], now=lambda: NOW).read() is None


@pytest.mark.parametrize(
    ("age", "kept"), [(1.9e9, False), (0, False), (-1.9e9, False), (2.1e9, True), (-9e9, True)]
)
def test_a_directory_changed_within_two_seconds_is_not_indexed(
    tmp_path: Path, age: float, kept: bool
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    mtime = site.stat().st_mtime_ns
    index = PluginIndex(str(tmp_path / "cache"), path=[str(site)], now=lambda: mtime + int(age))
    assert index.write(Found(())) is kept
    assert ("within the last two seconds" in index.problem) is not kept
    assert (tmp_path / "cache").exists() is kept


def test_a_change_during_the_scan_is_not_indexed(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    index = PluginIndex(str(tmp_path / "cache"), path=[str(site)], now=lambda: NOW)
    os.utime(site, ns=(7, 7))
    assert not index.write(Found(()))
    assert "changed during the scan" in index.problem


def test_a_change_in_a_watched_file_makes_the_index_stale(tmp_path: Path) -> None:
    # What `setup.py develop` does: no directory on sys.path changes.
    egg = tmp_path / "site" / "x.egg-info"
    egg.mkdir(parents=True)
    watched = egg / "entry_points.txt"

    def index() -> PluginIndex:
        return PluginIndex(str(tmp_path / "cache"), path=[str(egg.parent)], now=lambda: NOW)

    assert index().write(Found((), (str(watched),)))
    assert index().read() == ()
    watched.write_text("")
    assert index().read() is None
    assert index().write(Found((), (str(watched),)))
    assert index().read() == ()
    os.utime(watched, ns=(3, 3))
    assert index().read() is None


MALFORMED = {
    "empty": b"",
    "cut short": b'{"format": 1, "ent',
    "not UTF-8": b"\xff\xfe",
    "null": b"null",
    "a list": b"[]",
    "another format": b'{"format": 2, "watched": [], "entries": []}',
    "no entries": b'{"format": 1, "watched": []}',
    "a row cut short": b'{"format": 1, "watched": [], "entries": [["gocker.controllers", "x"]]}',
    "a row of numbers": b'{"format": 1, "watched": [], "entries": [[1, 2, 3, 4, 5, 6]]}',
    "a row that is text": b'{"format": 1, "watched": [], "entries": ["abcdef"]}',
    "a watched number": b'{"format": 1, "watched": [[0, 0]], "entries": []}',
    "watched is a number": b'{"format": 1, "watched": 5, "entries": []}',
    "too deep": b"[" * 100_000,
    "too long": b" " * 2_000_000,
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_index_is_ignored_and_rebuilt(bench: Bench, tmp_path: Path, content: bytes) -> None:
    bench.add("good", GOOD)
    cache = tmp_path / "cache"
    bench.registry(cache).infos()
    (file,) = cache.iterdir()
    sound = file.read_bytes()
    file.write_bytes(content)
    assert only(bench.registry(cache).infos()).name == "good"
    assert bench.scans == 2
    assert file.read_bytes() == sound


def _plant(cache: Path, file: Path, how: str) -> None:
    """Let the index say what somebody else wants."""
    evil = json.dumps(
        {"format": 1, "watched": [], "entries": [[CONTROLLERS, "evil", "evil:E", "evil", "6", ""]]}
    )
    if how == "mode":
        file.write_text(evil)
        file.chmod(0o620)
    elif how == "owner":
        file.write_text(evil)
        os.chown(file, 12345, 12345)
    elif how == "symlink":
        file.rename(cache / "elsewhere")
        (cache / "elsewhere").write_text(evil)
        file.symlink_to("elsewhere")
    elif how == "hard link":
        file.write_text(evil)
        os.link(file, cache / "link")
    elif how == "fifo":
        file.unlink()
        os.mkfifo(file, 0o600)
    elif how == "directory mode":
        file.write_text(evil)
        cache.chmod(0o755)


@pytest.mark.parametrize("how", ["mode", "owner", "symlink", "hard link", "fifo", "directory mode"])
def test_an_index_that_somebody_else_may_have_written_is_ignored_and_rebuilt(
    bench: Bench, tmp_path: Path, how: str
) -> None:
    if how == "owner" and os.geteuid() != 0:
        pytest.skip("needs root to give a file away")
    bench.add("good", GOOD)
    cache = tmp_path / "cache"
    bench.registry(cache).infos()
    (file,) = cache.iterdir()
    _plant(cache, file, how)
    assert only(bench.registry(cache).infos()).name == "good"
    assert bench.scans == 2
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert only(bench.registry(cache).infos()).name == "good"
    assert bench.scans == 2  # rebuilt, and believed again


def test_an_index_directory_of_another_user_is_neither_read_nor_written(bench: Bench, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give a directory away")
    bench.add("good", GOOD)
    cache = tmp_path / "cache"
    bench.registry(cache).infos()
    (file,) = cache.iterdir()
    os.chown(cache, 12345, 12345)
    before = file.stat()
    registry = bench.registry(cache)
    assert only(registry.infos()).name == "good"
    assert "owned by uid 12345" in registry.index.problem
    assert bench.scans == 2
    assert file.stat() == before


def test_an_index_directory_that_is_a_symlink_is_not_followed(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "cache").symlink_to("real")
    registry = bench.registry(tmp_path / "cache")
    assert registry.infos() == ()
    assert registry.index.problem
    assert not list((tmp_path / "real").iterdir())


@pytest.mark.parametrize("place", ["/proc/gocker/cache", "/dev/null/cache"])
def test_where_no_index_can_be_written_things_go_on_without(bench: Bench, place: str) -> None:
    bench.add("good", GOOD)
    registry = bench.registry(Path(place))
    assert only(registry.infos()).name == "good"
    assert registry.index.problem


def test_a_failed_write_leaves_no_draft_behind(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    site = tmp_path / "site"
    site.mkdir()
    index = PluginIndex(str(cache), path=[str(site)], now=lambda: NOW)
    assert index.write(Found(()))
    (file,) = cache.iterdir()
    file.unlink()
    file.mkdir()  # a directory stands where the file is renamed to
    assert not index.write(Found(()))
    assert list(cache.iterdir()) == [file]


def test_old_indexes_do_not_pile_up(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    site = tmp_path / "site"
    site.mkdir()
    for stamp in range(30):
        os.utime(site, ns=(stamp, stamp))
        assert PluginIndex(str(cache), path=[str(site)], now=lambda: NOW).write(Found(()))
        for file in cache.iterdir():  # so that one second of file-system time is not all they have
            os.utime(file, ns=(file.stat().st_mtime_ns - 10**9,) * 2)
    assert len(list(cache.iterdir())) == 16
    assert PluginIndex(str(cache), path=[str(site)], now=lambda: NOW).read() == ()


# The real scan, in a process of its own: nothing is imported yet, and sys.path is what the test says


def install(site: Path, name: str, entry_points: str, metadata: str | None = None) -> Path:
    """What pip leaves of a distribution."""
    info = site / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n" if metadata is None else metadata
    )
    info.joinpath("entry_points.txt").write_text(textwrap.dedent(entry_points))
    return info


Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def start(code: str, *paths: Path, home: Path = tmp_path) -> str:
        environment = {
            "PYTHONPATH": ":".join(map(str, paths)),
            "HOME": str(home),
            "GOCKER_ROOT": str(tmp_path / "root"),
        }
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return start


SHOW = """
    from gocker.registry import discover_installed
    for entry in discover_installed().entries:
        if entry.distribution != "gocker":
            print(entry.group, entry.name, entry.value, entry.distribution, entry.version, entry.problem)
"""
CONTROLLER = "[gocker.controllers]\n{} = {}\n"


def test_the_scan_finds_the_built_in_plug_ins() -> None:
    found = {(entry.group, entry.name): entry for entry in discover_installed().entries}
    assert found[CONTROLLERS, "memory"].value == "gocker.plugins.memory:Memory"
    assert found[CONTROLLERS, "memory"].distribution == "gocker"
    assert found[NAMESPACES, "uts"].value == "gocker.plugins.uts:Uts"


def test_the_scan_knows_distribution_and_version_of_a_third_party_plug_in(tmp_path: Path, run: Run) -> None:
    install(tmp_path, "gocker-good", CONTROLLER.format("good", "good_mod:Good"))
    assert run(SHOW, tmp_path).split() == [CONTROLLERS, "good", "good_mod:Good", "gocker-good", "1.2"]


def test_a_distribution_seen_twice_on_the_path_counts_once(tmp_path: Path, run: Run) -> None:
    for place in ("a", "b"):
        install(tmp_path / place, "gocker-good", CONTROLLER.format("good", f"{place}:Good"))
    assert "a:Good" in run(SHOW, tmp_path / "a", tmp_path / "b")
    assert "b:Good" not in run(SHOW, tmp_path / "a", tmp_path / "b")


def test_two_distributions_with_one_name_are_both_seen(tmp_path: Path, run: Run) -> None:
    # With the very same value too: stevedore's cache would drop one of these.
    install(tmp_path, "gocker-one", CONTROLLER.format("good", "mod:Good"))
    install(tmp_path, "gocker-two", CONTROLLER.format("good", "mod:Good"))
    assert [line.split()[3] for line in run(SHOW, tmp_path).splitlines()] == ["gocker-one", "gocker-two"]


@pytest.mark.parametrize("text", ["[gocker.controllers]\nno equals sign\n", "[gocker.controllers]\n\0 \n"])
def test_a_distribution_with_unreadable_entry_points_is_reported_and_the_rest_found(
    tmp_path: Path, run: Run, text: str
) -> None:
    install(tmp_path, "gocker-bad", text)
    install(tmp_path, "gocker-good", CONTROLLER.format("good", "mod:Good"))
    install(tmp_path, "unrelated", "[console_scripts]\nno equals sign\n")
    bad, good = run(SHOW, tmp_path).splitlines()
    assert bad.startswith("gocker.controllers ?  gocker-bad 1.2 entry_points.txt cannot be read: ")
    assert " good mod:Good gocker-good 1.2" in good


def test_remains_of_a_distribution_are_passed_over(tmp_path: Path, run: Run) -> None:
    install(tmp_path, "gocker-half", CONTROLLER.format("half", "half:Half"), metadata="")
    (install(tmp_path, "gocker-cut", CONTROLLER.format("cut", "cut:Cut")) / "METADATA").unlink()
    install(tmp_path, "gocker-good", CONTROLLER.format("good", "mod:Good"))
    assert [line.split()[3] for line in run(SHOW, tmp_path).splitlines()] == ["gocker-good"]


def test_stevedores_cache_in_the_home_directory_is_neither_read_nor_written(tmp_path: Path, run: Run) -> None:
    home = tmp_path / "home"
    code = """
        import os, sys
        opened = []
        sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
        from gocker.registry import Registry
        assert "memory" in Registry().controller_names()
        assert "stevedore" in sys.modules
        assert not os.path.exists(os.environ["HOME"]), os.listdir(os.environ["HOME"])
        assert not [path for path in opened if path.startswith(os.environ["HOME"])], opened
    """
    run(code, home=home)


def test_a_start_with_an_index_imports_neither_stevedore_nor_importlib_metadata(
    tmp_path: Path, run: Run
) -> None:
    code = """
        import sys
        from gocker.registry import Registry
        from gocker.plugin_index import PluginIndex, default_directory
        index = PluginIndex(default_directory(), now=lambda: 2 * 10**18)
        assert "memory" in Registry(index=index).controller_names()
        print(index.problem, "stevedore" in sys.modules, "importlib.metadata" in sys.modules)
    """
    assert run(code).split() == ["True", "True"]
    assert run(code).split() == ["False", "False"]


def test_reading_the_index_is_far_cheaper_than_a_scan(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    index = PluginIndex(cache, now=lambda: NOW)
    assert index.write(discover_installed()), index.problem

    def best(action: Callable[[], object], times: int) -> float:
        spent = []
        for _ in range(times):
            start = time.perf_counter()
            action()
            spent.append(time.perf_counter() - start)
        return min(spent)

    hit = best(lambda: PluginIndex(cache, now=lambda: NOW).read(), 50)
    scan = best(discover_installed, 3)  # stevedore's own import is not even counted
    assert hit < scan / 5, f"index {hit * 1e6:.0f} us, scan {scan * 1e6:.0f} us"
