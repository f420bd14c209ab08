"""Whether a class keeps the plug-in contract, as far as its declarations tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gocker.api import API_VERSION, CgroupController, LimitHelp, NamespaceHandler
from gocker.model import Hierarchy
from gocker.plugin_index import Entry

CONTROLLERS, NAMESPACES = GROUPS = ("gocker.controllers", "gocker.namespaces")


class Refusal(Exception):  # noqa: N818  # it is the outcome of a check, and never leaves the registry
    """Why a plug-in is not used, and what to do about it."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


def check_name(entry: Entry) -> None:
    """`[a-z][a-z0-9_]*`: what `--limit NAME=` can spell."""
    name = entry.name
    plain = name.isascii() and name.replace("_", "a").isalnum() and name == name.lower()
    if not plain or not name[0].isalpha():
        raise Refusal(
            f"its entry-point name {name!r} is not of the form [a-z][a-z0-9_]*",
            f"rename it in {entry.distribution}",
        )


def check(cls: Any, entry: Entry) -> None:
    """Raise Refusal unless `cls` keeps the contract of its group, as far as its declarations tell."""
    base = CgroupController if entry.group == CONTROLLERS else NamespaceHandler
    fix = f"correct {entry.distribution}; docs/plugins.md has the contract"
    if not isinstance(cls, type):
        raise Refusal(f"{entry.value} is a {type(cls).__name__}, not a class", fix)
    # The version first: it explains whatever else is wrong with a plug-in for another one.
    _check_version(cls, entry, fix)
    if not issubclass(cls, base):
        raise Refusal(f"{entry.value} is not a subclass of gocker.api.{base.__name__}", fix)
    if getattr(cls, "name", None) != entry.name:
        raise Refusal(
            f"its name is {getattr(cls, 'name', None)!r}, its entry point's name is {entry.name!r}", fix
        )
    if cls.__abstractmethods__:
        raise Refusal(f"it does not define {', '.join(sorted(cls.__abstractmethods__))}", fix)
    for attribute, sound, shape in _DECLARATIONS[entry.group]:
        missing = not hasattr(cls, attribute)
        if missing or not sound(getattr(cls, attribute)):
            raise Refusal(f"{attribute} is {'not declared' if missing else f'not {shape}'}", fix)
    if issubclass(cls, CgroupController):
        for limit in cls.limits:
            if limit.key != entry.name and not limit.key.startswith(f"{entry.name}."):
                raise Refusal(f"its limit {limit.key!r} is not {entry.name} or {entry.name}.KEY", fix)


def _check_version(cls: type, entry: Entry, fix: str) -> None:
    version = getattr(cls, "api_version", None)
    if not (isinstance(version, tuple) and len(version) == 2 and all(type(part) is int for part in version)):
        raise Refusal("api_version is not declared as (major, minor)", fix)
    major, minor = API_VERSION
    if version[0] != major or version[1] > minor:
        newer = version > API_VERSION
        raise Refusal(
            f"written for plug-in API {version[0]}.{version[1]}, this gocker has {major}.{minor}",
            f"install a release of {entry.distribution} for API {major}.{minor}"
            + (", or a newer gocker" if newer else ""),
        )


def _mapping_of_versions(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(key, Hierarchy) and isinstance(name, str) for key, name in value.items()
    )


def _tuple_of_help(value: Any) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(item, LimitHelp)
        and all(isinstance(text, str) for text in (item.key, item.example, item.text, item.oci))
        and _mapping_of_versions(item.files)
        for item in value
    )


def _text_to_text(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(text, str) for key, text in value.items()
    )


def _tuple_of_text(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, str) for item in value)


_Declaration = tuple[str, Callable[[Any], bool], str]
_DECLARATIONS: dict[str, tuple[_Declaration, ...]] = {
    CONTROLLERS: (
        ("kernel_names", _mapping_of_versions, "a mapping of Hierarchy to str"),
        ("limits", _tuple_of_help, "a tuple of LimitHelp"),
        ("always", lambda value: type(value) is bool, "True or False"),
        ("defaults", _text_to_text, "a mapping of str to str"),
        ("oci_paths", _tuple_of_text, "a tuple of str"),
    ),
    NAMESPACES: (
        ("flag", lambda value: type(value) is int and value > 0, "a CLONE_NEW number"),
        ("order", lambda value: type(value) is int, "a whole number"),
        ("sysctls", _tuple_of_text, "a tuple of str"),
    ),
}
