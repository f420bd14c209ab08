"""Typed access to the members of a JSON object; each error names the JSON path, the reason and the remedy."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Mapping
from typing import Any

from gocker.errors import GockerError, UsageError
from gocker.oci.document import join, show

MAX_ID = (1 << 32) - 2  # 2**32-1 means "leave it" to setresuid(2)
INT32 = (-(1 << 31), (1 << 31) - 1)
INT64 = (-(1 << 63), (1 << 63) - 1)
UINT32 = (0, (1 << 32) - 1)
UINT64 = (0, (1 << 64) - 1)


class Section:
    """One object of a document. A member that is null is as if it were absent: Go's encoders write both.

    What nobody asked for is unknown; `warnings` gets it, and all else that is read and not followed.
    """

    __slots__ = ("_asked", "operation", "path", "values", "warnings")

    def __init__(self, values: Mapping[str, Any], path: str, operation: str, warnings: list[str]) -> None:
        """`path` is that of the object, "" for the top; `operation` begins each error."""
        self.values = values
        self.path = path
        self.operation = operation
        self.warnings = warnings
        self._asked: set[str] = set()

    def error(self, name: str, reason: str, remedy: str = "", *, index: int | None = None) -> UsageError:
        """An error about a member, or the item `index` of one; "" is the object itself."""
        return UsageError(self.operation, self._place(name, index), reason, remedy=remedy)

    def warn(self, name: str, reason: str) -> None:
        """Something that is read and not followed."""
        self.warnings.append(f"{self._place(name)}: {reason}")

    def ignore(self, *names: str) -> None:
        """Members that are known and say nothing here."""
        self._asked.update(names)

    def finish(self) -> None:
        """Warn of each member that nobody asked for; OCI runtime spec, config, Extensibility."""
        for name in self.values.keys() - self._asked:
            self.warn(name, "unknown property, ignored")

    def get(self, name: str) -> Any:
        """The value as it is, None when absent."""
        self._asked.add(name)
        return self.values.get(name)

    def text(self, name: str) -> str | None:
        """A text, which may be empty."""
        text: str | None = self._typed(name, str, "a text")
        return text

    def word(self, name: str) -> str:
        """A text that must be there and not be empty."""
        text = self.text(name)
        if not text:
            raise self.error(name, "is missing" if text is None else "is empty")
        return text

    def choice(self, name: str, allowed: Collection[str]) -> str:
        """One of `allowed`, which must be there."""
        text = self.word(name)
        if text not in allowed:
            raise self.error(name, f"{show(text)} is not known", f"one of {' '.join(allowed)}")
        return text

    def flag(self, name: str) -> bool | None:
        """True or false."""
        flag: bool | None = self._typed(name, bool, "true or false")
        return flag

    def number(self, name: str, bounds: tuple[int, int], what: str = "a whole number") -> int | None:
        """A whole number within `bounds`; true and 1.0 are none."""
        value = self.get(name)
        return None if value is None else self._bounded(name, value, bounds, what)

    def needed(self, name: str, bounds: tuple[int, int], what: str = "a whole number") -> int:
        """A whole number that must be there."""
        value = self.number(name, bounds, what)
        if value is None:
            raise self.error(name, "is missing")
        return value

    def numbers(self, name: str, bounds: tuple[int, int], what: str = "a whole number") -> tuple[int, ...]:
        """A list of whole numbers, empty when absent."""
        items = enumerate(self._list(name))
        return tuple(self._bounded(name, item, bounds, what, index) for index, item in items)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, empty when absent."""
        values = self._list(name)
        for index, value in enumerate(values):
            if not isinstance(value, str):
                raise self.error(name, f"{show(value)} is not a text", index=index)
        return tuple(values)

    def words(self, name: str, allowed: Collection[str]) -> tuple[str, ...]:
        """A list of texts, each one of `allowed`."""
        texts = self.texts(name)
        for index, text in enumerate(texts):
            if text not in allowed:
                known = f"one of {' '.join(allowed)}" if allowed else "leave it out"
                raise self.error(name, f"{show(text)} is not known", known, index=index)
        return texts

    def section(self, name: str) -> Section | None:
        """An object."""
        value: dict[str, Any] | None = self._typed(name, dict, "an object")
        return None if value is None else self._inner(value, self._place(name))

    def sections(self, name: str) -> list[Section]:
        """A list of objects, empty when absent."""
        inner = []
        for index, value in enumerate(self._list(name)):
            if not isinstance(value, dict):
                raise self.error(name, f"{show(value)} is not an object", index=index)
            inner.append(self._inner(value, self._place(name, index)))
        return inner

    def pairs(self, name: str) -> dict[str, str]:
        """An object whose members are all texts, empty when absent."""
        section = self.section(name)
        if section is None:
            return {}
        for key in section.values:
            if section.text(key) is None:
                raise section.error(key, "null is not a text")
        return dict(section.values)

    def absolute(self, name: str) -> str:
        """A path that must be there and begin with a slash; without `//` and `.`."""
        path = self.word(name)
        if not path.startswith("/"):
            raise self.error(name, f"{show(path)} is not an absolute path")
        return plain(path)

    def checked(self, name: str, check: Callable[..., object], *arguments: str) -> None:
        """Call `check`; an error of it becomes one about `name`."""
        try:
            check(*arguments)
        except GockerError as error:
            raise self.error(name, error.reason, error.remedy) from error

    def _inner(self, values: dict[str, Any], path: str) -> Section:
        return Section(values, path, self.operation, self.warnings)

    def _list(self, name: str) -> list[Any]:
        return self._typed(name, list, "a list") or []

    def _typed(self, name: str, kind: type, what: str) -> Any:
        value = self.get(name)
        if value is not None and type(value) is not kind:
            raise self.error(name, f"{show(value)} is not {what}")
        return value

    def _bounded(
        self, name: str, value: Any, bounds: tuple[int, int], what: str, index: int | None = None
    ) -> int:
        low, high = bounds
        if type(value) is not int or not low <= value <= high:
            raise self.error(name, f"{show(value)} is not {what} ({low} to {high})", index=index)
        return value

    def _place(self, name: str, index: int | None = None) -> str:
        path = join(self.path, name) if name else self.path
        return path if index is None else f"{path}[{index}]"


def plain(path: str) -> str:
    """An absolute path without `//` and `.`; `..` stays, since a link may come before it."""
    parts = path.split("/")
    return "/" + "/".join(part for part in parts if part not in {"", "."})


def below(bundle: str, path: str) -> str:
    """A host path of a config: absolute, or relative to the bundle."""
    return plain(posixpath.join(bundle, path))
