"""The options of a start read without click: where they are read at all, click reads the same."""

from __future__ import annotations

from typing import Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gocker.cli.flags import START_FLAGS, Flags
from gocker.cli.quick import Unclear, parse
from gocker.cli.run import command

NAMES = sorted({name for names, _ in START_FLAGS for name in names} | {"--help", "--no-such", "-q", "-x"})
WORDS = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from(["-", "--", "", "=", "-it", "-im100m", "-mi", "-e", "base", "true", "--name=", "-1"]),
    st.builds("{}={}".format, st.sampled_from(NAMES), st.sampled_from(["", "x", "a=b", "-i", "--"])),
    st.builds("{}{}".format, st.sampled_from([n for n in NAMES if n[1] != "-"]), st.sampled_from("1=itm-")),
    st.text(alphabet="-=abeimtuvw \udcff", max_size=6),
)


def by_click(arguments: list[str]) -> dict[str, Any] | None:
    """None where click finds something wrong, or answers itself."""
    try:
        return command.make_context("run", list(arguments)).params
    except (click.ClickException, click.exceptions.Exit):
        return None


@settings(max_examples=500, deadline=None)
@given(st.lists(WORDS, max_size=6))
def test_what_is_read_is_what_click_reads(arguments: list[str]) -> None:
    try:
        quick = parse(START_FLAGS, arguments)
    except Unclear:
        return
    assert quick == by_click(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["base", "true"],
        ["--limit", "memory=100m", "--limit=pids=64", "base", "sh", "-c", "echo $1", "--limit"],
        ["-it", "--rm", "-m100m", "-e", "A=1", "-eB=2", "--rootfs", "/srv", "--", "-x"],
        ["--report", "-", "--read-only", "base", "-"],
        [],
    ],
)
def test_common_command_lines_are_read(arguments: list[str]) -> None:
    assert parse(START_FLAGS, arguments) == by_click(arguments) != None  # noqa: E711 - neither is


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--nosuch", "base"],
        ["--limit"],
        ["-i=1", "base"],
        ["--rm=1", "base"],
        ["--oom-score-adj", "1001"],
        ["--monotonic", " 1"],
    ],
)
def test_what_is_wrong_or_rare_is_left_to_click(arguments: list[str]) -> None:
    with pytest.raises(Unclear):
        parse(START_FLAGS, arguments)


FLAGS: Flags = ((("--bundle", "-b"), {}), (("--detach", "-d"), {"is_flag": True}))


@pytest.mark.parametrize(
    ("words", "arguments", "expected"),
    [
        (1, ["-b", "B", "id", "-d"], ("B", True, ("id",))),
        (1, ["id", "--bundle=B", "prog", "-d"], ("B", False, ("id", "prog", "-d"))),
        (1, ["-d", "id", "--", "-b", "x"], (None, True, ("id", "-b", "x"))),
        (9, ["id", "9", "-d"], (None, True, ("id", "9"))),
        (0, ["id", "-d"], (None, False, ("id", "-d"))),
    ],
)
def test_options_may_stand_behind_the_first_words(
    words: int, arguments: list[str], expected: tuple[str | None, bool, tuple[str, ...]]
) -> None:
    found = parse(FLAGS, arguments, words=words)
    assert (found["bundle"], found["detach"], found["arguments"]) == expected
