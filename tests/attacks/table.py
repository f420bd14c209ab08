"""How results are shown: a line each, JSON, or the table of docs/security.md."""

from __future__ import annotations

import json
from collections import Counter

from .attacks import ATTACKS
from .suite import Result

BEGIN = "<!-- attacks: made by `python -m tests.attacks --update` -->"
END = "<!-- end of attacks -->"


def line(result: Result) -> str:
    """One line for people."""
    return f"{result.runtime:12} {result.attack:36} {result.status:14} {result.seconds:5.1f} s  {result.reason[:110]}"


def summary(results: list[Result]) -> str:
    """One line a runtime."""
    lines = []
    for runtime in dict.fromkeys(result.runtime for result in results):
        counts = Counter(result.status for result in results if result.runtime == runtime)
        lines.append(f"{runtime}: {counts.total()} attacks: " + counts_text(counts))
    return "\n".join(lines)


def counts_text(counts: Counter[str]) -> str:
    """`3 broken, 70 held`."""
    order = ("broken", "held", "not-applicable", "unclear")
    return ", ".join(f"{counts[status]} {status}" for status in order if counts[status])


def as_json(results: list[Result]) -> str:
    """A list of objects."""
    return json.dumps([result._asdict() for result in results], indent=1)


def as_markdown(results: list[Result]) -> str:
    """A row an attack, a column a runtime."""
    runtimes = list(dict.fromkeys(result.runtime for result in results))
    cells = {(result.attack, result.runtime): result.status for result in results}
    names = list(dict.fromkeys(result.attack for result in results))
    rows = [
        f"| attack | rule | made from | what is tried | {' | '.join(runtimes)} |",
        "|---" * (4 + len(runtimes)) + "|",
    ]
    for name in names:
        attack = ATTACKS[name]
        states = " | ".join(cells.get((name, runtime), "") for runtime in runtimes)
        rows.append(f"| `{name}` | {attack.rule} | {attack.source} | {attack.text} | {states} |")
    totals = []
    for runtime in runtimes:
        counts = Counter(status for (_, of), status in cells.items() if of == runtime)
        totals.append(f"{counts['broken']} of {counts.total()} broken")
    rows.append(f"| **all** | | | | {' | '.join(totals)} |")
    return "\n".join(rows)


def update(path: str, results: list[Result]) -> None:
    """Put the table between the marks in a file."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path}: no marks for the table of attacks")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{head}{BEGIN}\n\n{as_markdown(results)}\n\n{END}{tail}")
