"""A controller for a plug-in API of the far future."""

from __future__ import annotations

from collections.abc import Mapping

from gocker.api import Cgroup, CgroupController, Resources
from gocker.model import Hierarchy


class Future(CgroupController):
    """All else about it is right."""

    api_version = (99, 0)
    name = "future"
    kernel_names = {Hierarchy.V2: "memory"}  # noqa: RUF012 - declared ClassVar

    def parse(self, fields: Mapping[str, str]) -> Resources:
        """No fields."""
        return {}

    def set(self, group: Cgroup, resources: Resources) -> None:
        """No limits."""
