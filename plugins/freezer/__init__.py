"""The freezer: stops every process of a container where it is, and lets it go on."""

from __future__ import annotations

from collections.abc import Mapping

from gocker.api import Cgroup, CgroupController, LimitHelp, Resources
from gocker.errors import LimitError
from gocker.model import Hierarchy

_FILES = {Hierarchy.V1: "freezer.state", Hierarchy.V2: "cgroup.freeze"}
_TEXTS = {
    "thawed": {Hierarchy.V1: "THAWED", Hierarchy.V2: "0"},
    "frozen": {Hierarchy.V1: "FROZEN", Hierarchy.V2: "1"},
}


class Freezer(CgroupController):
    """Source: kernel Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst and cgroup-v2.rst, cgroup.freeze.

    A start knows only `thawed`, which has no effect but that the container is in the hierarchy, so that
    it can be frozen later; nothing would ever let a container go on that begins frozen.
    """

    api_version = (1, 1)
    name = "freezer"
    kernel_names = {Hierarchy.V1: "freezer", Hierarchy.V2: "cgroup"}  # noqa: RUF012 - declared ClassVar
    limits = (
        LimitHelp(
            key="freezer",
            example="freezer=thawed",
            text="thawed lets it run, and be paused later.",
            oci="x.freezer.state",
            files=_FILES,
        ),
    )

    def parse(self, fields: Mapping[str, str]) -> Resources:
        """`thawed` alone."""
        if "" not in fields:
            return {}
        if fields[""] != "thawed":
            raise LimitError(
                "set limit",
                f"freezer={fields['']}",
                "not a state to start in",
                remedy="freezer=thawed",
            )
        return {"x.freezer.state": "thawed"}

    def set(self, group: Cgroup, resources: Resources) -> None:
        """`frozen` is on its way when it is written: v1 says FREEZING, v2 `frozen 0` in cgroup.events."""
        if "x.freezer.state" not in resources:
            return
        text = _TEXTS[str(resources["x.freezer.state"])][group.hierarchy]
        accept = ("FREEZING",) if text == "FROZEN" else ()
        group.write(_FILES[group.hierarchy], text, limit="freezer", accept=accept)
