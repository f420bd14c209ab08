"""Reads a command line that is plainly right without click, whose import alone takes a quarter of a start.

Click stays the judge: what is not read here, because it is wrong, asks for help or is written in an
uncommon way, is read by click from the start. Both work from one table (gocker.cli.flags), and a property
test holds the two side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gocker.cli.flags import Flags


def parse(flags: Flags, arguments: Sequence[str]) -> dict[str, Any] | None:
    """The options by name and what follows them as `arguments`; None: ask click.

    Understood are `--name VALUE`, `--name=VALUE`, `-n VALUE`, `-nVALUE` and `-abc`. The first argument
    that is no option, or `--`, ends them.
    """
    known = {name: (_keyword(names), attributes) for names, attributes in flags for name in names}
    found = {_keyword(names): _unset(attributes) for names, attributes in flags}
    left = list(reversed(arguments))
    while left and left[-1].startswith("-") and left[-1] != "-":
        word = left.pop()
        if word == "--":
            break
        name, value = _split(word)
        keyword, attributes = known.get(name, ("", {}))
        if not keyword or "type" in attributes or "between" in attributes:
            return None
        if attributes.get("is_flag"):
            if value is not None and (name.startswith("--") or value.startswith("-")):
                return None
            found[keyword] = True
            if value is not None:
                left.append(f"-{value}")  # -it: there is another one in it
            continue
        if value is None:
            if not left:
                return None
            value = left.pop()
        found[keyword] = (*found[keyword], value) if attributes.get("multiple") else value
    return {**found, "arguments": tuple(reversed(left))}


def _split(word: str) -> tuple[str, str | None]:
    """(option, what is attached to it)."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        return name, value if equals else None
    return word[:2], word[2:] or None


def _keyword(names: tuple[str, ...]) -> str:
    """Click's rule: the first long name, in Python's spelling."""
    return next(name for name in names if name.startswith("--"))[2:].replace("-", "_")


def _unset(attributes: dict[str, Any]) -> Any:
    if attributes.get("is_flag"):
        return False
    return () if attributes.get("multiple") else attributes.get("default")
