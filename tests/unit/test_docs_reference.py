"""The reference names what there is."""

from importlib import metadata
from pathlib import Path

import click
import pytest

from gocker.api import LimitHelp
from gocker.cli.group import COMMANDS, cli
from gocker.model import Hierarchy
from gocker.receipt import KINDS, USAGE

TEXT = (Path(__file__).parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")


def run_flags() -> list[str]:
    command = cli.get_command(click.Context(cli), "run")
    assert command is not None
    return [flag for option in command.params if isinstance(option, click.Option) for flag in option.opts]


@pytest.mark.parametrize("flag", run_flags())
def test_every_option_of_run_is_in_the_reference(flag: str) -> None:
    assert f"`{flag}`" in TEXT


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_reference(command: str) -> None:
    assert f"`gocker {command}" in TEXT


@pytest.mark.parametrize("word", [*KINDS, *USAGE])
def test_every_verdict_and_counter_is_in_the_reference(word: str) -> None:
    assert f"`{word}`" in TEXT


def limits() -> list[LimitHelp]:
    points = metadata.distribution("gocker").entry_points.select(group="gocker.controllers")
    return [row for point in points for row in point.load().limits]


@pytest.mark.parametrize("row", limits(), ids=lambda row: row.key)
def test_every_limit_is_in_the_reference_with_its_files(row: LimitHelp) -> None:
    (line,) = [line for line in TEXT.splitlines() if line.startswith(f"| `{row.key}` |")]
    v1, v2 = (part.strip() for part in line.split("|")[3:5])
    for version, cell in ((Hierarchy.V1, v1), (Hierarchy.V2, v2)):
        assert cell == row.files.get(version, cell)
        assert version in row.files or cell in {"refused", "nothing to write"}
