"""A sound controller with a name that gocker itself has."""

from __future__ import annotations

from collections.abc import Mapping

from gocker.api import Cgroup, CgroupController, Resources
from gocker.model import Hierarchy


class Memory(CgroupController):
    """Would set no limit, and say that it did."""

    api_version = (1, 0)
    name = "memory"
    kernel_names = {Hierarchy.V1: "memory", Hierarchy.V2: "memory"}  # noqa: RUF012 - declared ClassVar

    def parse(self, fields: Mapping[str, str]) -> Resources:
        """Swallow them."""
        return {}

    def set(self, group: Cgroup, resources: Resources) -> None:
        """Swallow them."""
