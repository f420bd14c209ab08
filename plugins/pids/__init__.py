"""The pids controller: how many processes and threads a container may have at once."""

from __future__ import annotations

from collections.abc import Mapping

from gocker.api import Cgroup, CgroupController, CgroupReader, LimitHelp, Resources, counter, oci_text
from gocker.limits import parse_count
from gocker.model import Hierarchy

_MAXIMUM = 4194304  # PID_MAX_LIMIT, include/linux/threads.h
_UNLIMITED = -1  # as the OCI runtime spec writes it


class Pids(CgroupController):
    """Source: kernel Documentation/admin-guide/cgroup-v1/pids.rst and cgroup-v2.rst, PID."""

    api_version = (1, 1)
    name = "pids"
    kernel_names = {Hierarchy.V1: "pids", Hierarchy.V2: "pids"}  # noqa: RUF012 - declared ClassVar
    always = True
    defaults = {"": "4096"}  # noqa: RUF012 - declared ClassVar
    limits = (
        LimitHelp(
            key="pids",
            example="pids=64",
            text="The most processes and threads at once, 4096 unless asked otherwise; max (or -1) is no limit.",
            oci="pids.limit",
            files={Hierarchy.V1: "pids.max", Hierarchy.V2: "pids.max"},
        ),
    )

    def parse(self, fields: Mapping[str, str]) -> Resources:
        """A number of tasks; `max`, or docker's -1, is OCI's -1."""
        if "" not in fields:
            return {}
        text = fields[""]
        if text in {"max", "-1"}:
            return {"pids.limit": _UNLIMITED}
        return {"pids.limit": parse_count(text, "pids", minimum=1, maximum=_MAXIMUM)}

    def from_oci(self, part: Mapping[str, object]) -> Mapping[str, str]:
        """A number below zero is no limit; zero is one: the container's first process, which is not forked in it."""
        text = oci_text("pids.limit", part["pids.limit"]) if "pids.limit" in part else ""
        if text.startswith("-"):
            text = "max"
        return {"": "1" if text == "0" else text} if text else {}

    def set(self, group: Cgroup, resources: Resources) -> None:
        """The number, or `max`; reads back as written."""
        if "pids.limit" in resources:
            limit = int(resources["pids.limit"])
            group.write("pids.max", "max" if limit == _UNLIMITED else str(limit), limit="pids")

    def stats(self, group: CgroupReader) -> Mapping[str, int]:
        """The peak, where the kernel keeps one (not before Linux 6.1), and how often fork was refused.

        Since Linux 6.11 the v2 file pids.events counts refusals by this limit, before and on v1 those
        by any limit that held here.
        """
        found = {
            "pids_peak": counter(group.read("pids.peak")),
            "pids_refused": counter(group.read("pids.events"), "max"),
        }
        return {name: value for name, value in found.items() if value is not None}
