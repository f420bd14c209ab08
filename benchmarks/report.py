"""Results as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_OPTIONAL = (("cpu_ms", 8), ("ratio", 8), ("cpu_ratio", 7))


def table_text(key: str, table: dict[str, Any]) -> str:
    """A row each; ratios are to the row `base`."""
    name = max([16, *(len(row["name"]) + 1 for row in table["rows"])])
    head = f"{'':{name}}{'median':>9}{'quartiles':>17}{'min':>9}{'CPU ms':>8}{'ratio':>8}{'CPU':>7}"
    lines = [f"{key}: {table['title']}; {table['unit']}; ratios to {table['base']}", head]
    for row in table["rows"]:
        spread = f"{row['quartile1']:.2f}-{row['quartile3']:.2f}"
        cells = [f"{row['name']:{name}}{row['median']:9.2f}{spread:>17}{row['min']:9.2f}"]
        cells += [
            f"{row[field]:{width}.2f}" if row[field] is not None else " " * width
            for field, width in _OPTIONAL
        ]
        lines.append(("".join(cells) + (f"  {row['note']}" if row["note"] else "")).rstrip())
    lines += [f"left out: {reason}" for reason in table["left_out"]]
    return "\n".join(lines)


def bars_text(bars: Sequence[dict[str, Any]]) -> str:
    """Work, what was measured, the bar, the verdict."""
    width = max(len(bar["work"]) for bar in bars)
    lines = [f"{'work':{width}}{'measured':>10}{'bar':>8}"]
    for bar in bars:
        bound = f"{'≥' if bar['least'] else '≤'} {bar['bound']}"
        measured = "-" if bar["measured"] is None else f"{bar['measured']:.2f}"
        verdict = {True: "met", False: "MISSED", None: f"not measured: {bar['reason']}"}[bar["met"]]
        lines.append(f"{bar['work']:{width}}{measured:>10}{bound:>8}  {verdict}")
    return "\n".join(lines)
