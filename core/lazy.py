"""Standard modules that libraries import at once and seldom use: loaded at their first use instead.

click imports `inspect` to tidy help texts: with what that loads, 5 ms of each start. `importlib.util.
LazyLoader` does not serve, because a second `import` of a lazy module loads it (CPython 3.11).
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


def defer(name: str) -> None:
    """Let `import NAME` cost nothing until one of its names is used; nothing if it is loaded already."""
    if name not in sys.modules:
        sys.modules[name] = _Deferred(name)
