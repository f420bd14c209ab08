"""The installed plug-ins: found, imported and classified; the only importer of stevedore.

Three steps. *Find* reads entry points from the index, or else through stevedore. *Import* loads
one plug-in, when it is first asked for. *Classify* checks it against the contract. A plug-in that
does not pass is refused, with its name, distribution, version and the reason, and stops only the
run that needs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from gocker.api import CgroupController, NamespaceHandler, Plugin
from gocker.errors import PluginError
from gocker.plugin_index import Declared, Entry, Found, PluginIndex, default_directory
from gocker.plugincheck import CONTROLLERS, GROUPS, NAMESPACES, Refusal, check, check_name
from gocker.record import Record

__all__ = [
    "CONTROLLERS",
    "GROUPS",
    "NAMESPACES",
    "OK",
    "REFUSED",
    "PluginInfo",
    "Registry",
    "discover_installed",
]

OK, REFUSED = "ok", "refused"
_KIND = {CONTROLLERS: "controller", NAMESPACES: "namespace"}
_REASON_MAX = 400  # characters of an exception's text; some carry whole files


class PluginInfo(Record):
    """One entry point and what became of it."""

    group: str
    name: str
    value: str  # "module:attr"
    distribution: str
    version: str
    status: str  # "ok" or "refused"
    reason: str = ""  # why it is refused, or what about it deserves a look


class Registry:
    """What is installed. Nothing is imported before it is asked for, and nothing twice."""

    def __init__(
        self,
        cache_directory: str | None = None,
        discover: Callable[[], Found] | None = None,
        index: PluginIndex | None = None,
    ) -> None:
        """`cache_directory` holds the index, GOCKER_ROOT/cache/entry-points unless given.

        `discover` scans the installed distributions; `index` overrides the directory. Both are for tests.
        """
        self.index = index or PluginIndex(cache_directory or default_directory())
        self._discover = discover or discover_installed
        self._found: dict[tuple[str, str], list[Entry]] | None = None
        self._scanned = Found(())
        self._facts: Declared | None = None
        self._outcomes: dict[tuple[str, str], Plugin | Refusal] = {}

    def controller_names(self) -> tuple[str, ...]:
        """The entry-point names of `gocker.controllers`, sorted, refused ones included; imports nothing."""
        return self._names(CONTROLLERS)

    def namespace_names(self) -> tuple[str, ...]:
        """The entry-point names of `gocker.namespaces`, sorted, refused ones included; imports nothing."""
        return self._names(NAMESPACES)

    def controller(self, name: str) -> CgroupController:
        """Import one controller; raise PluginError when it is not installed or refused."""
        plugin = self._require(CONTROLLERS, name)
        assert isinstance(plugin, CgroupController)  # noqa: S101  # _check made sure; for the type checker
        return plugin

    def namespace(self, name: str) -> NamespaceHandler:
        """Import one namespace handler; raise PluginError when it is not installed or refused."""
        plugin = self._require(NAMESPACES, name)
        assert isinstance(plugin, NamespaceHandler)  # noqa: S101  # _check made sure; for the type checker
        return plugin

    def controllers(self) -> dict[str, CgroupController]:
        """Import every controller, and leave out the refused ones, which `refused` then names."""
        return {
            name: plugin
            for name in self.controller_names()
            if isinstance(plugin := self._outcome(CONTROLLERS, name), CgroupController)
        }

    def namespaces(self) -> dict[str, NamespaceHandler]:
        """Import every namespace handler, and leave out the refused ones, which `refused` then names."""
        return {
            name: plugin
            for name in self.namespace_names()
            if isinstance(plugin := self._outcome(NAMESPACES, name), NamespaceHandler)
        }

    def standing_controllers(self) -> tuple[str, ...]:
        """The controllers that a run has although it asks for no limit of theirs: `always`, `defaults`.

        A refused one is not among them. Imports all, unless the index knows what they declare.
        """
        return self._declared().standing

    def claims(self) -> dict[str, str]:
        """OCI path to the controller that claims it; a path claimed twice is left out. Imports as the above."""
        return {path: names[0] for path, names in self.claimants().items() if len(names) == 1}

    def claimants(self) -> dict[str, tuple[str, ...]]:
        """OCI path to the controllers that claim it. Imports as the above."""
        return self._declared().claims

    def claimant(self, path: str) -> CgroupController:
        """The controller that claims an OCI path, `memory.limit`; imports as the above, and that one.

        Raise PluginError when two do, one of them perhaps only a part of it, or none does.
        """
        names = list(self.claimants().get(path, ()))
        for other, rivals in self.claimants().items() if names else ():
            if other.startswith(f"{path}."):
                names += [name for name in rivals if name not in names]
        operation = "find controller for"
        if not names:
            raise PluginError(
                operation,
                path,
                f"no installed controller claims it; installed: {_listing(self.controller_names())}",
                remedy="install a plug-in that does, or take it out of linux.resources",
            )
        if len(names) > 1:
            owners = " and ".join(_owner(self._entries()[CONTROLLERS, name][0]) for name in names)
            raise PluginError(operation, path, f"claimed by {owners}", remedy="uninstall all but one of them")
        return self.controller(names[0])

    def infos(self) -> tuple[PluginInfo, ...]:
        """Every plug-in, imported and classified, sorted by group, name and distribution."""
        conflicts = self._conflicts()
        rows = []
        for (group, name), entries in sorted(self._entries().items()):
            outcome = self._outcome(group, name)
            for entry in entries:
                info = _info(entry, outcome)
                rows.append(info.replace(reason=conflicts[name]) if _claims_too(info, conflicts) else info)
        return tuple(rows)

    def refused(self) -> tuple[PluginInfo, ...]:
        """The refused ones as far as is known without another import: clashes, and what was tried."""
        rows = []
        for key, entries in sorted(self._entries().items()):
            if key in self._outcomes or len(entries) > 1 or entries[0].problem:
                outcome = self._outcome(*key)
                if isinstance(outcome, Refusal):
                    rows += [_info(entry, outcome) for entry in entries]
        return tuple(rows)

    def _names(self, group: str) -> tuple[str, ...]:
        return tuple(sorted(name for kind, name in self._entries() if kind == group))

    def _entries(self) -> dict[tuple[str, str], list[Entry]]:
        """Find: (group, name) to its entry points, more than one when names clash."""
        if self._found is None:
            entries = self.index.read()
            if entries is None:
                found = self._discover()
                self.index.write(found)
                entries = found.entries
                self._scanned = found
            else:
                self._scanned = Found(entries, self.index.watched)
            self._found = {}
            for entry in entries:
                if entry.group in GROUPS:
                    self._found.setdefault((entry.group, entry.name), []).append(entry)
            for rivals in self._found.values():
                rivals.sort(key=lambda entry: (entry.distribution, entry.version, entry.value))
        return self._found

    def _outcome(self, group: str, name: str) -> Plugin | Refusal:
        """Import and classify, once."""
        key = group, name
        if key not in self._outcomes:
            entries = self._entries()[key]
            if len(entries) > 1:
                self._outcomes[key] = _clash(entries)
            else:
                self._outcomes[key] = _load(entries[0])
        return self._outcomes[key]

    def _require(self, group: str, name: str) -> Plugin:
        kind = _KIND[group]
        if (group, name) not in self._entries():
            raise PluginError(
                f"find {kind} plug-in",
                name,
                f"not installed; installed: {_listing(self._names(group))}",
                remedy=f"pip install gocker-{name.replace('_', '-')}, if there is such a package",
            )
        outcome = self._outcome(group, name)
        if isinstance(outcome, Refusal):
            owners = " and ".join(_owner(entry) for entry in self._entries()[group, name])
            raise PluginError(f"load {kind} plug-in", owners, outcome.reason, remedy=outcome.remedy)
        return outcome

    def _declared(self) -> Declared:
        """From the index; else by importing all, and then into the index unless one of them is refused.

        A refused one is looked at by each start, so that each says so.
        """
        self._entries()
        if self._facts is None:
            self._facts = self.index.declared
        if self._facts is None:
            controllers = self.controllers()
            claims: dict[str, tuple[str, ...]] = {}
            for name, controller in controllers.items():
                declared = controller.oci_paths or [limit.oci for limit in controller.limits if limit.oci]
                for path in dict.fromkeys(declared):
                    claims[path] = (*claims.get(path, ()), name)
            standing = [name for name, plugin in controllers.items() if plugin.always or plugin.defaults]
            files = {file for plugin in controllers.values() for file in _sources(plugin)}
            self._facts = Declared(tuple(standing), claims, tuple(sorted(files)))
            if len(controllers) == len(self.controller_names()):
                self.index.write(self._scanned, self._facts)
        return self._facts

    def _conflicts(self) -> dict[str, str]:
        """Controller name to what it claims together with others."""
        conflicts: dict[str, list[str]] = {}
        for path, names in self.claimants().items():
            for name in names if len(names) > 1 else ():
                others = ", ".join(_owner(self._entries()[CONTROLLERS, n][0]) for n in names if n != name)
                conflicts.setdefault(name, []).append(f"OCI path {path} is also claimed by {others}")
        return {name: "; ".join(texts) for name, texts in conflicts.items()}


def discover_installed() -> Found:
    """Scan every distribution on `sys.path`; 100 ms or so, hence the index.

    Distributions are read one by one rather than by importlib.metadata.entry_points(), which raises,
    for all, when one of them has a malformed entry_points.txt. One that an earlier directory of
    `sys.path` also holds is shadowed, as it is for import.
    """
    import importlib
    from importlib import metadata

    from stevedore.named import NamedExtensionManager

    importlib.invalidate_caches()
    seen: set[str] = set()
    points: list[tuple[metadata.EntryPoint, tuple[str, str, str]]] = []
    problems: list[Entry] = []
    watched: list[str] = []
    for dist in metadata.distributions():
        label = _distribution(dist)
        folder = getattr(dist, "_path", None)  # the metadata's own directory; not part of the public API
        if label is None or label[2] in seen:
            continue
        seen.add(label[2])
        try:
            mine = [(point, label) for point in dist.entry_points if point.group in GROUPS]
            points += mine
        except Exception as error:  # noqa: BLE001  # whatever a stranger's metadata makes the parser raise
            text = dist.read_text("entry_points.txt") or ""
            problem = f"entry_points.txt cannot be read: {_explain(error)}"
            wanted = [group for group in GROUPS if f"[{group}]" in text]
            problems += [Entry(group, "?", "", label[0], label[1], problem) for group in wanted]
            mine = []
        # pip replaces a .dist-info directory, which shows in its parent. `setup.py develop` and the like
        # rewrite the files in an .egg-info that stays.
        if folder is not None and (mine or str(folder).endswith(".egg-info")):
            watched.append(f"{folder}/entry_points.txt")

    class Finder(NamedExtensionManager):  # type: ignore[type-arg]  # not generic at run time in older releases
        """stevedore's manager over the entry points read above.

        Its own list_entry_points goes through a disk cache under $HOME that is read even when caching
        is disabled, trusted whoever wrote it, and knows no distribution; a root process must not.
        With no names to load it lists and imports nothing: a failed assertion in one plug-in would
        escape its failure callback, and its conflict resolver sees adjacent duplicates only.
        """

        def list_entry_points(self) -> list[metadata.EntryPoint]:
            """Those of the group, each with its distribution."""
            return [point for point, _ in points if point.group == self.namespace]

    owners = {id(point): label for point, label in points}
    entries = [
        Entry(group, point.name, point.value, *owners[id(point)][:2])
        for group in GROUPS
        for point in Finder(group, names=[]).list_entry_points()
    ]
    ordered = sorted([*entries, *problems], key=lambda entry: tuple(entry.asdict().values()))
    return Found(tuple(ordered), tuple(sorted(watched)))


def _distribution(dist: Any) -> tuple[str, str, str] | None:
    """(name, version, normalised name); None for a directory that is no distribution.

    Metadata may be cut short, or missing after a half-done uninstall.
    """
    try:
        name = dist.metadata["Name"]
        version = dist.metadata["Version"]
    except Exception:  # noqa: BLE001  # as above; without a name there is nothing to report it by
        return None
    if not isinstance(name, str) or not name:
        return None
    normalised = name.lower().replace("_", "-").replace(".", "-")
    return name, version if isinstance(version, str) else "?", normalised


def _load(entry: Entry) -> Plugin | Refusal:
    """Import, check and make one plug-in. Whatever a stranger's code raises becomes a refusal."""
    try:
        return _make(entry)
    except KeyboardInterrupt:
        raise
    except Refusal as refusal:
        return refusal
    # SystemExit and other BaseExceptions too: a plug-in does not end the program that looks at it.
    except BaseException as error:  # noqa: BLE001
        return Refusal(_explain(error), _replace(entry))


def _make(entry: Entry) -> Plugin:
    if entry.problem:
        raise Refusal(entry.problem, _replace(entry))
    check_name(entry)
    name, _, attributes = entry.value.partition("[")[0].partition(":")
    name = name.strip()
    __import__(name)
    found: Any = sys.modules[name]
    for attribute in attributes.strip().split("."):
        if attribute:
            found = getattr(found, attribute)
    check(found, entry)
    plugin = found()
    if not isinstance(plugin, Plugin):
        raise Refusal(f"{entry.value} makes a {type(plugin).__name__}", _replace(entry))
    return plugin


def _sources(plugin: Plugin) -> Iterator[str]:
    """The files that its class and those above it are in, but for the contract's own."""
    for cls in type(plugin).__mro__:
        file = getattr(sys.modules.get(cls.__module__), "__file__", None)
        if file and cls.__module__ not in {"abc", "gocker.api"}:
            yield os.path.abspath(file)


def _replace(entry: Entry) -> str:
    return f"pip uninstall {entry.distribution}, or install a release of it that works here"


def _clash(entries: list[Entry]) -> Refusal:
    first = entries[0]
    names = list(dict.fromkeys(f"{entry.distribution} {entry.version}" for entry in entries))
    if len(names) == 1:
        reason = f"{names[0]} declares {len(entries)} plug-ins of the name {first.name}"
        return Refusal(reason, f"pip uninstall {first.distribution}")
    return Refusal(
        f"{len(names)} distributions have a plug-in of the name {first.name}: {', '.join(names)}; none is used",
        "pip uninstall all but one of them",
    )


def _info(entry: Entry, outcome: Plugin | Refusal) -> PluginInfo:
    refused = isinstance(outcome, Refusal)
    return PluginInfo(
        group=entry.group,
        name=entry.name,
        value=entry.value,
        distribution=entry.distribution,
        version=entry.version,
        status=REFUSED if refused else OK,
        reason=outcome.reason if isinstance(outcome, Refusal) else "",
    )


def _claims_too(info: PluginInfo, conflicts: dict[str, str]) -> bool:
    return info.group == CONTROLLERS and info.status == OK and info.name in conflicts


def _owner(entry: Entry) -> str:
    return f"{entry.name} of {entry.distribution} {entry.version}"


def _listing(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"


def _explain(error: BaseException) -> str:
    """`ImportError: no module named foo, at FILE:LINE`: one printable line.

    The text is a stranger's: it may span lines, carry terminal escapes, or raise when asked for.
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # an exception whose text cannot be had still has a type
        text = ""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    words = f"{type(error).__name__}: {' '.join(text.split())}".removesuffix(": ")
    if len(words) > _REASON_MAX:
        words = words[:_REASON_MAX] + " ..."
    code = trace.tb_frame.f_code.co_filename if trace else ""
    if trace and code != __file__ and not code.startswith("<"):
        words += f", at {code}:{trace.tb_lineno}"
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in words)
