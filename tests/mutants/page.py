"""The table of defences in docs/security.md, which is made from the list of mutants."""

from __future__ import annotations

from .listed import MUTANTS
from .mutant import Mutant, place, read

BEGIN = "<!-- mutants: made by `python -m tests.mutants --update docs/security.md` -->"
END = "<!-- end of mutants -->"


def short(test: str) -> str:
    """An id as people read it: the attack's name, or file and test."""
    name = test.rpartition("::")[2]
    if name.startswith("test_gocker_holds["):
        return f"attack {name[18:-1]}"
    return f"{test.partition('::')[0].removeprefix('tests/')} {name}"


def table() -> str:
    """As markdown."""
    lines = ["| rule | defence | for | in | without it fails |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *map(_row, MUTANTS)])


def _row(mutant: Mutant) -> str:
    tests = ", ".join(_cell(test) for test in mutant.tests)
    where = f"`{mutant.file}:{place(mutant, read(mutant))}`"
    return f"| {mutant.rule} | {mutant.defence} | {mutant.verbs.replace(' ', ', ')} | {where} | {tests} |"


def _cell(test: str) -> str:
    kind, _, name = short(test).partition(" ")
    return f"{kind} `{name.partition('[')[0]}`"


def update(path: str) -> None:
    """Write the table between the marks."""
    with open(path, encoding="utf-8") as file:
        before, _, rest = file.read().partition(BEGIN)
    made = table()
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{before}{BEGIN}\n\n{made}\n\n{END}{rest.partition(END)[2]}")
