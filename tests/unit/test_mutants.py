"""The list of mutants does not rot: each text is there once, each test is there; docs/security.md says the same."""

from __future__ import annotations

import ast
import functools
import re
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]
sys.path.insert(0, str(TREE))

from tests.attacks.attacks import ATTACKS  # noqa: E402
from tests.mutants import page  # noqa: E402
from tests.mutants.__main__ import chosen, failed, passed  # noqa: E402
from tests.mutants.listed import ALIVE, MUTANTS  # noqa: E402
from tests.mutants.mutant import VERBS, Mutant, mutated, place, read  # noqa: E402

PAGE = (TREE / "docs" / "security.md").read_text(encoding="utf-8")
NOT_YET = {"R6"}


@functools.cache
def names(file: str) -> frozenset[str]:
    """The tests of a file, those of a class behind its name."""
    found = set()
    for node in ast.parse((TREE / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)
            }
    return frozenset(found)


def is_there(test: str) -> bool:
    file, _, name = test.partition("::")
    plain, bracket, parameter = name.partition("[")
    if file.startswith("tests/attacks/"):
        return plain in names(file) and parameter.removesuffix("]") in ATTACKS
    return plain in names(file) and not bracket


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_its_text_is_there_once_and_python_is_left(mutant: Mutant) -> None:
    text = read(mutant)
    assert mutated(mutant, text) != text
    assert place(mutant, text)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_its_tests_are_there(mutant: Mutant) -> None:
    assert mutant.tests
    assert [test for test in mutant.tests if not is_there(test)] == []
    assert set(mutant.verbs.split()) <= set(VERBS)


def test_what_must_work_without_a_defence_is_there() -> None:
    assert all(map(is_there, ALIVE))


def test_text_that_is_not_there_is_an_error() -> None:
    mutant = MUTANTS[0]
    with pytest.raises(ValueError, match="0 times"):
        mutated(mutant, "pass\n")
    with pytest.raises(ValueError, match="2 times"):
        mutated(mutant, 2 * mutant.edits[0][0])


def test_every_rule_and_every_verb_has_some() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 30
    assert {mutant.rule for mutant in MUTANTS} == {f"R{number}" for number in range(1, 16)} - NOT_YET
    for verb in VERBS:
        assert len(chosen([verb])) >= 5


def test_they_are_chosen_by_rule_verb_and_name() -> None:
    assert {mutant.rule for mutant in chosen(["R1"])} == {"R1"}
    assert [mutant.name for mutant in chosen([MUTANTS[0].name])] == [MUTANTS[0].name]
    assert chosen([]) == list(MUTANTS)


def test_one_failure_among_parameters_is_one_and_a_skip_is_none() -> None:
    found = {"a.py::test[1]": "PASSED", "a.py::test[2]": "FAILED", "a.py::other": "PASSED"}
    assert failed(found, "a.py::test")
    assert not passed(found, "a.py::test")
    assert not failed(found, "a.py::test[1]")
    assert passed(found, "a.py::other")
    assert not failed(found, "a.py::skipped")
    assert not passed(found, "a.py::skipped")


def test_the_page_has_the_table() -> None:
    section = PAGE.partition(page.BEGIN)[2].partition(page.END)[0]
    assert section.strip() == page.table(), "python -m tests.mutants --update docs/security.md"


def test_the_page_says_what_has_nothing_to_apply_to() -> None:
    assert all(re.search(rf"^\| {rule} ", PAGE, re.MULTILINE) for rule in NOT_YET)
