"""Documents that went wrong: values of other types and out of range, deletions, depth, length, NUL, half characters."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

Path = tuple[str | int, ...]

ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, False, 0, -1, 1, 2, 1.0, 1.5, 1e308, -0.0),
        *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400),
        *(
            "",
            "/",
            ".",
            "..",
            "/..",
            "../..",
            "a",
            "a/b",
            "-",
            "--",
            "a=b",
            "=",
            ":",
            "a:b",
            "0-",
            "1-0",
            "0-4095",
            "0,,1",
        ),
        *(
            "\0",
            "a\0b",
            "\ud800",
            "\udcff",
            "\n",
            "a\nb",
            "\t",
            "\x1b[31m",
            "\u202e",
            "é" * 300,
            "%s",
            "{}",
            "{pid}",
        ),
        *(
            "99999999999",
            "-1",
            "1e9",
            "0x10",
            "max",
            "1.5g",
            "١",
            "/proc/self/fd/3",
            "/dev/null",
            "CAP_SYS_ADMIN",
        ),
        *("x" * 5000, "/" * 5000, "../" * 2000, "y" * 255, "z" * 256),
        *(
            [],
            {},
            [None],
            [[]],
            [{}],
            {"": None},
            {"a": []},
            ["x"] * 3,
            [0] * 200,
            {"type": "mount"},
            {"path": "/"},
        ),
    ]
)
ANY: st.SearchStrategy[Any] = st.recursive(
    ODD | st.text(max_size=8) | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
WAYS = ("put", "put", "put", "delete", "double", "nest", "rename", "number", "add", "long")


class Change:
    """One change of a document; `draw` of it is data of hypothesis."""

    def __init__(self, path: Path, way: str, value: Any) -> None:
        self.path = path
        self.way = way
        self.value = value

    def __repr__(self) -> str:
        return f"{self.way} {'.'.join(map(str, self.path))} {str(self.value)[:60]!r}"

    def apply(self, document: Any) -> Any:
        """The document with it; where an earlier one took the path away, as it is."""
        if not self.path:
            return self.value if self.way == "put" else document
        holder = document
        for key in self.path[:-1]:
            holder = _member(holder, key)
        key = self.path[-1]
        if not _has(holder, key):
            return document
        self._change(holder, key)
        return document

    def _change(self, holder: Any, key: Any) -> None:
        old, new = holder[key], copy.deepcopy(self.value)
        if self.way == "delete":
            del holder[key]
        elif self.way == "double" and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(old))
        elif self.way == "nest":
            for _ in range(100 if isinstance(new, str) else 3):
                old = [old]
            holder[key] = old
        elif self.way == "rename" and isinstance(holder, dict) and isinstance(new, str):
            holder[new] = holder.pop(key)
        elif self.way == "number":
            holder[key] = str(old) if isinstance(old, int) else 7
        elif self.way == "add" and isinstance(old, list):
            old.append(new)
        elif self.way == "add" and isinstance(old, dict):
            old["x" if not isinstance(new, str) else new] = new
        elif self.way == "long" and isinstance(old, list) and len(json.dumps(old)) < 2000:
            holder[key] = old * 200
        else:
            holder[key] = new


def _member(holder: Any, key: str | int) -> Any:
    return holder[key] if _has(holder, key) else None


def _has(holder: Any, key: str | int) -> bool:
    if isinstance(holder, dict):
        return key in holder
    return isinstance(holder, list) and isinstance(key, int) and key < len(holder)


def places(value: Any, path: Path = ()) -> list[Path]:
    """The path of every value in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in items for found in places(item, (*path, key)))]


def changes(document: Any, values: st.SearchStrategy[Any] = ANY) -> st.SearchStrategy[list[Change]]:
    """One to four of them."""
    one = st.builds(Change, st.sampled_from(places(document)), st.sampled_from(WAYS), values)
    return st.lists(one, min_size=1, max_size=4)


def changed(document: Any, found: list[Change]) -> Any:
    """A copy with the changes."""
    result = copy.deepcopy(document)
    for change in found:
        result = change.apply(result)
    return result
