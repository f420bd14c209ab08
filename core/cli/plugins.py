"""`gocker plugins`: what is installed, what each plug-in takes, and what of it this host has."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gocker.api import CgroupController
    from gocker.hierarchy import Hierarchies
    from gocker.registry import PluginInfo

_WIDTH = 100


@click.command("plugins", short_help="List the installed controllers and namespaces.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table for people, or one JSON array with everything.",
)
def command(form: str) -> None:
    """List the installed plug-ins: where each is from, whether it can be used, and what it takes.

    A refused plug-in is listed with the reason and harms no run that does not need it. For each limit
    the example is what --limit takes, and v1 and v2 are the kernel's files that it is written to.

    \b
    Examples:
      gocker plugins
      gocker plugins --format json
    """  # noqa: D301 - click's mark is the control character
    from gocker.errors import GockerError
    from gocker.hierarchy import Hierarchies, read_host
    from gocker.registry import Registry

    registry = Registry()
    infos = registry.infos()
    try:
        hierarchies = read_host()
    except GockerError as error:  # what is installed can be said all the same
        click.echo(f"gocker: warning: {error}", err=True)
        hierarchies = Hierarchies(())
    controllers = registry.controllers()
    rows = [_row(info, controllers.get(info.name), hierarchies) for info in infos]
    if form == "json":
        click.echo(json.dumps(rows, indent=2))
        return
    for line in _table(rows):
        click.echo(line)


def _row(info: PluginInfo, controller: CgroupController | None, hierarchies: Hierarchies) -> dict[str, Any]:
    """One plug-in as JSON; `controller` is the sound one of its name, if any."""
    from gocker.registry import CONTROLLERS

    row: dict[str, Any] = {**info.asdict(), "hierarchy": None, "mount": None, "limits": []}
    if info.group != CONTROLLERS or controller is None:
        return row
    place = hierarchies.place_of(controller.kernel_names)
    if place:
        row.update(hierarchy=place.version.value, mount=place.mountpoint)
    row["limits"] = [
        {
            "key": limit.key,
            "example": limit.example,
            "text": limit.text,
            "oci": limit.oci,
            "files": {version.value: file for version, file in limit.files.items()},
        }
        for limit in controller.limits
    ]
    return row


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Controllers with what they take, then namespaces; below a refused one the reason."""
    from gocker.registry import CONTROLLERS, NAMESPACES, REFUSED

    names = _width((row["name"] for row in rows), 10, 24)
    owners = _width((_owner(row) for row in rows), 12, 34)
    for group, title in ((CONTROLLERS, "CONTROLLER"), (NAMESPACES, "NAMESPACE")):
        members = [row for row in rows if row["group"] == group]
        where = "MOUNT HERE" if group == CONTROLLERS else ""
        head = f"{title:<{names}}  {'STATUS':<7}  {'DISTRIBUTION':<{owners}}  {where}"
        yield click.style(head.rstrip(), bold=True)
        limits = [limit for row in members for limit in row["limits"]]
        example = _width((limit["example"] for limit in limits), 7, 34)
        v1 = _width((limit["files"].get("v1", "-") for limit in limits), 12, 34)
        if limits:
            yield f"    {'--limit':<{example}}  {'FILE ON V1':<{v1}}  FILE ON V2"
        for row in members:
            refused = row["status"] == REFUSED
            status = click.style(f"{row['status']:<7}", fg="red" if refused else "green")
            mount = f"{row['mount']} ({row['hierarchy']})" if row["mount"] else ""
            if not mount and not refused and where:
                mount = "not on this host"
            line = f"{_cut(row['name'], names):<{names}}  {status}  {_cut(_owner(row), owners):<{owners}}"
            yield f"{line}  {_plain(mount)}".rstrip()
            yield from _wrapped(_plain(row["reason"]))
            for limit in row["limits"]:
                first, second = (_plain(limit["files"].get(version, "-")) for version in ("v1", "v2"))
                yield f"    {_plain(limit['example']):<{example}}  {first:<{v1}}  {second}"
        yield ""
    refusals = sum(row["status"] == REFUSED for row in rows)
    yield f"{len(rows)} plug-in{'' if len(rows) == 1 else 's'}, {refusals} refused"


def _owner(row: dict[str, Any]) -> str:
    return f"{row['distribution']} {row['version']}"


def _width(texts: Iterable[str], least: int, most: int) -> int:
    """Of a column; what is longer than `most` is cut, or pushes the rest of its line right."""
    return min(max([least, *(len(_plain(text)) for text in texts)]), most)


def _wrapped(reason: str) -> Iterator[str]:
    import textwrap

    yield from textwrap.wrap(reason, _WIDTH, initial_indent="    ", subsequent_indent="    ")


def _cut(text: str, width: int) -> str:
    text = _plain(text)
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _plain(text: str) -> str:
    """Safe for a terminal: names and reasons are a stranger's words."""
    return "".join(char if char.isprintable() else "?" for char in text)
