"""What a mutant is: one defence, the text of it that goes, and the tests that must fail without it."""

from __future__ import annotations

import ast
import os
from typing import NamedTuple

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VERBS = ("run", "create", "exec", "delete")


class Mutant(NamedTuple):
    """One defence taken out."""

    name: str
    rule: str  # R1 to R15
    verbs: str  # those of VERBS that the defence is for; "run" is that of both commands
    defence: str  # as docs/security.md says it
    file: str
    edits: tuple[tuple[str, str], ...]  # (text, what takes its place); the text is in the file once
    tests: tuple[str, ...]  # pytest's ids: each of them must fail


def read(mutant: Mutant, tree: str = TREE) -> str:
    """The file with the defence in it."""
    with open(f"{tree}/{mutant.file}", encoding="utf-8") as file:
        return file.read()


def mutated(mutant: Mutant, text: str) -> str:
    """`text` without the defence; raise ValueError when that is not there once, or no Python is left."""
    for old, new in mutant.edits:
        if text.count(old) != 1:
            raise ValueError(f"{mutant.name}: {mutant.file} has {text.count(old)} times: {old!r}")
        text = text.replace(old, new)
    ast.parse(text)
    return text


def place(mutant: Mutant, text: str) -> str:
    """The innermost function or class in `text` that the first edit is in, or the constant that it changes."""
    old = mutant.edits[0][0]
    at = text.index(old)
    line = text.count("\n", 0, at + len(old) - len(old.lstrip())) + 1
    name = ""
    for node in ast.walk(ast.parse(text)):  # breadth first: the innermost comes last
        if not isinstance(node, ast.stmt) or not node.lineno <= line <= (node.end_lineno or 0):
            continue
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = node.name
        elif isinstance(node, ast.Assign) and not name and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
    return name


def attack(name: str) -> str:
    """The test that an attack of tests/attacks is held."""
    return f"tests/attacks/test_attacks.py::test_gocker_holds[{name}]"
