"""Reads a command line by a table of options, without click, whose import alone takes a quarter of a start.

For `gocker` click stays the judge: what is not read here, because it is wrong, asks for help or is written in
an uncommon way, is read by click from the start. Both work from one table (gocker.cli.flags), and a property
test holds the two side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gocker.cli.flags import Flags


class Unclear(Exception):  # noqa: N818 - it is no error yet
    """Why a command line is not read."""


def parse(flags: Flags, arguments: Sequence[str], *, words: int = 0) -> dict[str, Any]:
    """The options by name and what is no option as `arguments`. Raise Unclear.

    Understood are `--name VALUE`, `--name=VALUE`, `-n VALUE`, `-nVALUE` and `-abc`. Options may stand before
    and behind the first `words` arguments; the next one, or `--`, ends them.
    """
    known = {name: (_keyword(names), attributes) for names, attributes in flags for name in names}
    found = {_keyword(names): _unset(attributes) for names, attributes in flags}
    left = list(reversed(arguments))
    first: list[str] = []
    while left:
        word = left.pop()
        if not word.startswith("-") or word == "-":
            if len(first) >= words:
                left.append(word)
                break
            first.append(word)
            continue
        if word == "--":
            break
        name, value = _split(word)
        keyword, attributes = known.get(name, ("", {}))
        if not keyword:
            raise Unclear(f"no such option {name}")
        if attributes.get("is_flag"):
            if value is not None and (name.startswith("--") or value.startswith("-")):
                raise Unclear(f"option {name} takes no value")
            found[keyword] = True
            if value is not None:
                left.append(f"-{value}")  # -it: there is another one in it
            continue
        if value is None:
            if not left:
                raise Unclear(f"option {name} requires a value")
            value = left.pop()
        taken = _converted(name, value, attributes)
        found[keyword] = (*found[keyword], taken) if attributes.get("multiple") else taken
    return {**found, "arguments": (*first, *reversed(left))}


def _split(word: str) -> tuple[str, str | None]:
    """(option, what is attached to it)."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        return name, value if equals else None
    return word[:2], word[2:] or None


def _converted(name: str, value: str, attributes: dict[str, Any]) -> Any:
    """Whole numbers in their plain form; click knows others."""
    between = attributes.get("between")
    if between is None and attributes.get("type") is not int:
        return value
    digits = value.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise Unclear(f"option {name}: {value!r} is not a whole number")
    number = int(value)
    if between and not between[0] <= number <= between[1]:
        raise Unclear(f"option {name}: {value} is not from {between[0]} to {between[1]}")
    return number


def _keyword(names: tuple[str, ...]) -> str:
    """Click's rule: the first long name, in Python's spelling."""
    return next(name for name in names if name.startswith("--"))[2:].replace("-", "_")


def _unset(attributes: dict[str, Any]) -> Any:
    if attributes.get("is_flag"):
        return False
    return () if attributes.get("multiple") else attributes.get("default")
