"""Results as one SVG: a bar for each contender's median, a line across it from quartile to quartile."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

_NAMES, _WIDTH, _FIGURES, _ROW, _GAP = 190, 460, 170, 20, 40  # pixels
_OURS, _THEIRS, _LINE = "#2f6db5", "#a8adb5", "#30343b"


def plot(tables: dict[str, Any], caption: str) -> str:
    """One chart under the other, each with a scale of its own from 0."""
    y, body = 44.0, []
    for table in tables.values():
        if not table["rows"]:
            continue
        title = f"{table['title']} ({table['unit']})"
        body.append(f'<text x="10" y="{y:.0f}" font-weight="bold">{escape(title)}</text>')
        y += 8
        most = max(row["quartile3"] for row in table["rows"]) or 1
        for row in table["rows"]:
            body += _bar(row, y, _WIDTH / most, row["name"] == table["base"])
            y += _ROW
        y += _GAP
    width, height = _NAMES + _WIDTH + _FIGURES, y
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:.0f}"'
                f' viewBox="0 0 {width} {height:.0f}" font-family="sans-serif" font-size="12">'
            ),
            f'<rect width="{width}" height="{height:.0f}" fill="#fff"/>',
            f'<text x="10" y="18" fill="#555">{escape(caption)}</text>',
            *body,
            "</svg>\n",
        ]
    )


def _bar(row: dict[str, Any], y: float, scale: float, is_base: bool) -> list[str]:
    middle = y + _ROW / 2
    low, high = (_NAMES + row[name] * scale for name in ("quartile1", "quartile3"))
    fill = _OURS if row["name"].startswith(("gocker", "engine", "launcher", "audit")) else _THEIRS
    figure = f"{row['median']:.2f}" + ("" if row["ratio"] is None or is_base else f"  ×{row['ratio']:.2f}")
    name = escape(row["name"])
    return [
        f'<text x="{_NAMES - 8}" y="{middle + 4:.1f}" text-anchor="end">{name}</text>',
        (
            f'<rect x="{_NAMES}" y="{y + 3:.1f}" width="{row["median"] * scale:.1f}" height="{_ROW - 6}"'
            f' fill="{fill}"/>'
        ),
        f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}" stroke="{_LINE}" stroke-width="2"/>',
        f'<text x="{max(high, _NAMES + row["median"] * scale) + 8:.1f}" y="{middle + 4:.1f}">{figure}</text>',
    ]
