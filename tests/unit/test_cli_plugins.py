"""What `gocker plugins` prints, from made-up plug-ins and hosts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import click
import pytest

from gocker.api import Cgroup, CgroupController, LimitHelp, Resources
from gocker.cli.plugins import _row, _table
from gocker.hierarchy import Hierarchies, Place
from gocker.model import Hierarchy
from gocker.registry import CONTROLLERS, NAMESPACES, PluginInfo


class Demo(CgroupController):
    api_version = (1, 0)
    name = "demo"
    kernel_names = {Hierarchy.V1: "demo", Hierarchy.V2: "misc"}  # noqa: RUF012 - declared ClassVar
    limits = (
        LimitHelp(
            "demo", "demo=5", "A limit.", "x.demo.n", {Hierarchy.V1: "demo.n", Hierarchy.V2: "misc.max"}
        ),
        LimitHelp("demo.old", "demo.old=5", "One of old.", "x.demo.old", {Hierarchy.V1: "demo.old"}),
    )

    def parse(self, fields: Mapping[str, str]) -> Resources:
        return {}

    def set(self, group: Cgroup, resources: Resources) -> None:
        pass


OK = PluginInfo(CONTROLLERS, "demo", "demo:Demo", "gocker-demo", "1.2", "ok")


def place(controller: str, version: Hierarchy) -> Place:
    return Place(controller, version, f"/cg/{controller}", "/", "/", False, ())


def row(info: PluginInfo, *places: Place) -> dict[str, Any]:
    return _row(info, Demo() if info.status == "ok" else None, Hierarchies(places))


def lines(*rows: dict[str, Any]) -> list[str]:
    return [click.unstyle(line) for line in _table(list(rows))]


@pytest.mark.parametrize(
    ("found", "hierarchy", "mount"),
    [
        ((place("demo", Hierarchy.V1),), "v1", "/cg/demo"),
        ((place("misc", Hierarchy.V2),), "v2", "/cg/misc"),
        ((place("demo", Hierarchy.V2), place("misc", Hierarchy.V1)), None, None),
        ((), None, None),
    ],
)
def test_a_row_says_where_this_host_has_the_controller(
    found: tuple[Place, ...], hierarchy: str | None, mount: str | None
) -> None:
    data = row(OK, *found)
    assert (data["hierarchy"], data["mount"]) == (hierarchy, mount)


def test_a_row_has_each_limit_with_its_example_and_its_files() -> None:
    first, second = row(OK)["limits"]
    assert first == {
        "key": "demo",
        "example": "demo=5",
        "text": "A limit.",
        "oci": "x.demo.n",
        "files": {"v1": "demo.n", "v2": "misc.max"},
    }
    assert second["files"] == {"v1": "demo.old"}


def test_a_refused_plug_in_claims_no_limits_and_no_mount() -> None:
    data = row(OK.replace(status="refused", reason="broken"), place("demo", Hierarchy.V1))
    assert (data["status"], data["reason"], data["limits"], data["mount"]) == ("refused", "broken", [], None)


def test_a_namespace_of_a_controllers_name_gets_none_of_its_limits() -> None:
    data = row(OK.replace(group=NAMESPACES), place("demo", Hierarchy.V1))
    assert (data["limits"], data["mount"]) == ([], None)


def test_the_table_shows_limits_below_their_controller() -> None:
    assert lines(row(OK, place("demo", Hierarchy.V1))) == [
        "CONTROLLER  STATUS   DISTRIBUTION     MOUNT HERE",
        "    --limit     FILE ON V1    FILE ON V2",
        "demo        ok       gocker-demo 1.2  /cg/demo (v1)",
        "    demo=5      demo.n        misc.max",
        "    demo.old=5  demo.old      -",
        "",
        "NAMESPACE   STATUS   DISTRIBUTION",
        "",
        "1 plug-in, 0 refused",
    ]


def test_the_table_says_when_this_host_lacks_a_controller() -> None:
    assert "demo        ok       gocker-demo 1.2  not on this host" in lines(row(OK))


def test_a_long_reason_is_wrapped_and_long_names_are_cut() -> None:
    info = OK.replace(
        name="n" * 90, distribution="d" * 90, version="v" * 90, status="refused", reason="many words " * 40
    )
    shown = lines(row(info))
    assert max(map(len, shown)) <= 100
    assert sum("many words" in line for line in shown) > 3
    assert shown[-1] == "1 plug-in, 1 refused"


def test_a_strangers_words_cannot_steer_the_terminal() -> None:
    info = OK.replace(
        name="a\x1b[2J", distribution="b\r", version="\u202e", status="refused", reason="c\x07 d"
    )
    text = "\n".join(lines(row(info)))
    assert re.search(r"a\?\[2J +refused +b\? \?\n    c\? d", text)
    assert all(line.isprintable() for line in text.split("\n"))
