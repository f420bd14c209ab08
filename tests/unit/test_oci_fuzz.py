"""Configs that went wrong in any way: an error of gocker's own, or a spec; never anything else."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import ocibundle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ocibundle import GRANTABLE, no_limits

from gocker.errors import GockerError
from gocker.oci.process import read_process
from gocker.oci.spec import read_config

FUZZ = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
Path = tuple[str | int, ...]

ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(
            None,
            True,
            False,
            0,
            -1,
            1,
            1.0,
            2**31,
            2**32 - 1,
            2**32,
            2**63,
            2**64,
            -(2**63) - 1,
            10**400,
            1.5,
        ),
        *(
            "",
            "/",
            "..",
            "/..",
            "a",
            "\0",
            "\ud800",
            "é" * 300,
            "a=b",
            "=",
            "0-",
            "1-0",
            "99999999999",
            "\n",
            "%s",
        ),
        *([], {}, [None], [[]], [{}], {"": None}, {"a": []}, ["x"] * 3, {"type": "mount"}, {"path": "/"}),
    ]
)
ANY = st.recursive(
    ODD | st.text(max_size=8) | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: Path = ()) -> list[Path]:
    """The path of every value in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in items for found in places(item, (*path, key)))]


def put(document: Any, path: Path, value: Any) -> Any:
    """The document with another value at `path`; where an earlier change took the path away, as it is."""
    if not path:
        return value
    holder = document
    for key in path[:-1]:
        holder = member(holder, key)
    if member(holder, path[-1]) is not None:
        holder[path[-1]] = value
    return document


def member(holder: Any, key: str | int) -> Any:
    """What is there, None for nothing."""
    if isinstance(holder, dict):
        return holder.get(key)
    if isinstance(holder, list) and isinstance(key, int) and key < len(holder):
        return holder[key]
    return None


FULL = ocibundle.full()
PROCESS = FULL["process"]


def survives(read: Callable[[bytes], object], data: bytes) -> None:
    try:
        read(data)
    except GockerError as error:
        text = str(error)
        assert len(text) < 400, text
        assert text.isprintable(), text


def config(data: bytes) -> object:
    return read_config(data, container="c", bundle="/b", limits=no_limits, grantable=GRANTABLE)


def process(data: bytes) -> object:
    return read_process(data, grantable=GRANTABLE)


def change(document: Any, changes: list[tuple[Path, Any]]) -> bytes:
    changed = copy.deepcopy(document)
    for path, value in changes:
        changed = put(changed, path, copy.deepcopy(value))
    return json.dumps(changed).encode()


@FUZZ
@given(st.lists(st.tuples(st.sampled_from(places(FULL)), ANY), min_size=1, max_size=4))
def test_a_config_with_wrong_values_is_read_or_refused(changes: list[tuple[Path, Any]]) -> None:
    survives(config, change(FULL, changes))


@FUZZ
@given(st.lists(st.tuples(st.sampled_from(places(PROCESS)), ANY), min_size=1, max_size=4))
def test_a_process_with_wrong_values_is_read_or_refused(changes: list[tuple[Path, Any]]) -> None:
    survives(process, change(PROCESS, changes))


@FUZZ
@given(ANY)
def test_any_json_is_read_or_refused(value: Any) -> None:
    survives(config, json.dumps(value).encode())
    survives(process, json.dumps(value).encode())


@FUZZ
@given(
    st.lists(
        st.tuples(
            st.integers(0, 1 << 12),
            st.integers(0, 8),
            st.binary(max_size=4)
            | st.sampled_from([b'"', b"\\", b"\\u0000", b"\\ud800", b"{", b"]", b"\xff"]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_config_with_wrong_bytes_is_read_or_refused(cuts: list[tuple[int, int, bytes]]) -> None:
    data = json.dumps(FULL).encode()
    for place, length, new in cuts:
        start = place % len(data)
        data = data[:start] + new + data[start + length :]
    survives(config, data)
