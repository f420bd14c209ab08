"""What docs/security.md names is there: each defence, and each test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]
TEXT = (TREE / "docs" / "security.md").read_text(encoding="utf-8")
FILES = {
    "image": "test_security_image.py",
    "program": "test_security_program.py",
    "isolation": "test_isolation.py",
    "input": "test_bad_input.py",
    "options": "test_options.py",
    "process": "test_oci_process.py",
}
ROWS = [
    line.strip("|").split("|")
    for line in TEXT.splitlines()
    if re.match(r"\| R\d+ ", line) and line.count("|") == 4
]
APPLIES_NOT = {"R6", "R8"}


def names(path: Path) -> set[str]:
    """All functions and classes, methods included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_every_rule_is_there() -> None:
    rules = {row[0].split()[0] for row in ROWS}
    assert rules == {f"R{number}" for number in range(1, 16)} - APPLIES_NOT
    assert all(re.search(rf"^\| {rule} ", TEXT, re.MULTILINE) for rule in APPLIES_NOT)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip())
def test_a_defence_is_where_the_page_says(row: list[str]) -> None:
    places = re.findall(r"`(\S+?):(\w+)`", row[1])
    assert places
    assert [place for place in places if place[1] not in names(TREE / place[0])] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip())
def test_a_test_is_where_the_page_says(row: list[str]) -> None:
    where, name = re.fullmatch(r"\s*(\w+) `(test_\w+)`\s*", row[2]).groups()  # type: ignore[union-attr]
    assert name in names(TREE / "tests" / "e2e" / FILES[where])
