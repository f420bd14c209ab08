"""Deals linux.resources of an OCI config, and the annotations that are limits, out to the controllers; no I/O.

Both become the requests that `--limit` makes, so that there is one way from a limit to the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from gocker.api import CgroupController
from gocker.errors import LimitError
from gocker.limits import LimitRequest, parse_limit

ANNOTATION = "dev.gocker.limit."
"""An annotation `dev.gocker.limit.memory.swap` with the value `1g` is `--limit memory.swap=1g`."""


class Controllers(Protocol):
    """What is installed: gocker.registry.Registry, or a test's own."""

    def claimants(self) -> Mapping[str, Sequence[str]]:
        """OCI path to the names of the controllers that claim it."""
        ...

    def claimant(self, path: str) -> CgroupController:
        """The one that claims a path; raise PluginError, which names what is installed, for none or two."""
        ...


def deal(resources: Mapping[str, object], controllers: Controllers) -> tuple[LimitRequest, ...]:
    """The limits that `resources`, the JSON of linux.resources, asks for, by the paths that controllers claim.

    A member that is null or empty asks for nothing. Raise PluginError for a path that no controller
    claims or that two claim, and LimitError for a value that its controller refuses.
    """
    claims = controllers.claimants()
    parts: dict[str, tuple[CgroupController, dict[str, object]]] = {}
    for path, value in _leaves(resources, "", claims):
        controller = controllers.claimant(path)
        parts.setdefault(controller.name, (controller, {}))[1][path] = value
    return tuple(
        LimitRequest(name=name, key=key, value=value)
        for name, (controller, part) in sorted(parts.items())
        for key, value in controller.from_oci(part).items()
    )


def deal_annotations(annotations: Mapping[str, str]) -> tuple[LimitRequest, ...]:
    """The limits among the annotations, in order; raise LimitError for one that is malformed."""
    return tuple(
        parse_limit(f"{name.removeprefix(ANNOTATION)}={value}")
        for name, value in annotations.items()
        if name.startswith(ANNOTATION)
    )


def deal_all(
    resources: Mapping[str, object], annotations: Mapping[str, str], controllers: Controllers
) -> tuple[LimitRequest, ...]:
    """Both; raise as they do. One limit that both ask for with two values is refused when it is planned."""
    return (*deal(resources, controllers), *deal_annotations(annotations))


def _leaves(value: object, path: str, claims: Mapping[str, Sequence[str]]) -> list[tuple[str, object]]:
    """(path, value) of what is claimed, and of what is no object."""
    if value is None or value in ([], {}):
        return []
    if path in claims or (path and not isinstance(value, Mapping)):
        return [(path, value)]
    if not isinstance(value, Mapping):
        raise LimitError("read config", "linux.resources", f"{type(value).__name__} is not an object")
    return [
        leaf
        for name, member in value.items()
        for leaf in _leaves(member, f"{path}.{name}" if path else str(name), claims)
    ]
