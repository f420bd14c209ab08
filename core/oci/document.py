"""Turns the bytes of a JSON file into checked values: bounded before they are parsed, and free of what the kernel cannot take."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from gocker.errors import UsageError

MAX_BYTES = 4 << 20
MAX_DEPTH = 64

# Possessive, and an open end matches: a hostile text is read once from end to end, never twice.
_STRINGS = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_AS_ROUND = bytes.maketrans(b"[{]}", b"(())")
_SHOWN = 60  # characters of a value or a name in an error
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def parse_document(data: bytes, operation: str) -> dict[str, Any]:
    """The object that `data` holds; `operation` begins each error: "read config.json".

    UTF-8, at most 4 MiB and 64 levels deep, which is looked at before anything is parsed (SECURITY R13).
    Raise UsageError also for a name that an object has twice, for NaN and infinite numbers, and for text
    with a NUL or half a surrogate pair, which no path or argument can hold.
    """
    if len(data) > MAX_BYTES:
        raise UsageError(operation, "", f"{len(data)} bytes, more than {MAX_BYTES}")
    _check_depth(data, operation)
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        raise UsageError(operation, "", f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(operation, "", f"{show(value)} is not an object")
    if b"\\u" in data:  # the only way to what check_texts looks for
        check_texts(value, operation)
    return value


def check_texts(value: object, operation: str) -> None:
    """Raise UsageError for the first text in `value`, names included, that the kernel could not be given."""
    for path, text in _texts(value, ""):
        if "\0" in text:
            raise UsageError(operation, path, "has a NUL character")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UsageError(operation, path, "has half a surrogate pair, which is no character")


def show(value: object) -> str:
    """A JSON value as an error shows it: on one line, printable, not too long."""
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def join(path: str, name: str) -> str:
    """The path of a member: `linux.namespaces`, `annotations["com.example.key"]`."""
    if not _PLAIN.issuperset(name):
        return f"{path}[{show(name)}]"
    return f"{path}.{name}" if path else name


def _check_depth(data: bytes, operation: str) -> None:
    """Each round takes the innermost pairs away, so that the rounds count the levels."""
    brackets = re.sub(_STRINGS, b"", data, flags=re.DOTALL).translate(_AS_ROUND, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"()", b"")
    if len(brackets) > MAX_DEPTH or b"()" in brackets:
        raise UsageError(
            operation, "", f"nested more than {MAX_DEPTH} levels deep, or brackets that do not close"
        )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"an object has the name {show(name)} twice")
            seen.add(name)
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number in {float("inf"), float("-inf")}:
        raise ValueError(f"{text[:_SHOWN]} is out of range")
    return number


def _texts(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for name, member in value.items():
            yield join(path, name), name
            yield from _texts(member, join(path, name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _texts(item, f"{path}[{index}]")
