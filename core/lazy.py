"""Standard modules that libraries import at once and seldom use: loaded at their first use instead.

click imports `inspect` to tidy help texts: with what that loads, 5 ms of each start. It imports `uuid`,
which asks `platform` for the name of the system: 1 ms. `importlib.util.LazyLoader` does not serve,
because a second `import` of a lazy module loads it (CPython 3.11).
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _Deferred(ModuleType):
    """Stands in sys.modules until the first look at an attribute puts the real module there."""

    def __getattr__(self, attribute: str) -> Any:
        name = self.__name__
        if sys.modules.get(name) is self:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)


def defer(name: str, **known: Any) -> None:
    """Let `import NAME` cost nothing until one of its names is used; nothing if it is loaded already.

    `known` are those of its names that are had without it; they must be as good as its own.
    """
    if name not in sys.modules:
        module = sys.modules[name] = _Deferred(name)
        vars(module).update(known)
