"""The page about the command line names every verb and every option that callers need to know."""

from __future__ import annotations

from pathlib import Path

import pytest

from gocker.ocicli.flags import GLOBAL, VERBS

PAGE = (Path(__file__).parents[2] / "docs" / "gocker-oci.md").read_text(encoding="utf-8")
SAID_BY_HELP = {"run", "exec"}  # whose options are many, or another verb's


def names(flags: object) -> set[str]:
    return {next(name for name in row[0] if name.startswith("--")) for row in flags} - {"--help"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_is_named(verb: str) -> None:
    assert f"`{verb}" in PAGE


def test_each_option_of_all_verbs_is_named() -> None:
    assert {name for name in names(GLOBAL) if f"`{name}" not in PAGE} == set()


@pytest.mark.parametrize("verb", sorted(VERBS.keys() - SAID_BY_HELP))
def test_each_option_of_a_verb_is_named(verb: str) -> None:
    assert {name for name in names(VERBS[verb].flags) if f"{name}" not in PAGE} == set()
