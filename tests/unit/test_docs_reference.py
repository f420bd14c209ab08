"""The reference names what there is."""

from pathlib import Path

import click
import pytest

from gocker.cli.group import COMMANDS, cli
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
