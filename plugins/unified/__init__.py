"""Files of cgroup v2 by their names, for what no controller here has a key for."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from gocker.api import Cgroup, CgroupController, LimitHelp, Resources, Scalar
from gocker.errors import LimitError
from gocker.limits import format_list, parse_list, parse_size
from gocker.model import Hierarchy

_FILE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_CORE = frozenset(("cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"))
"""Of the core's own files those that are limits. The others move, kill and freeze processes: a pid in
cgroup.procs would draw any process of the host into the container."""
_PAGES = (4096, 16384, 65536)  # what the kernel may round a size down to
_LONGEST = 4096  # bytes: the kernel takes no more in one write


class Unified(CgroupController):
    """Source: OCI runtime spec, config-linux, unified; kernel Documentation/admin-guide/cgroup-v2.rst."""

    api_version = (1, 1)
    name = "unified"
    kernel_names = {Hierarchy.V2: "cgroup"}  # noqa: RUF012 - declared ClassVar
    limits = (
        LimitHelp(
            key="unified.*",
            example="unified.memory.high=100m",
            text="Any file of a cgroup v2 controller by its name, written as it is.",
            oci="unified.*",
            files={Hierarchy.V2: "*"},
        ),
    )
    oci_paths = ("unified",)

    def parse(self, fields: Mapping[str, str]) -> Resources:
        """By name; the values are the kernel's business."""
        resources: dict[str, Scalar] = {}
        for file, text in fields.items():
            _check_name(file, text)
            if not text.strip() or "\0" in text or not text.isascii() or len(text) > _LONGEST:
                raise _refused(file, text[:80], "not a text for a kernel file")
            resources[f"unified.{file}"] = text
        return resources

    def from_oci(self, part: Mapping[str, object]) -> Mapping[str, str]:
        """{"memory.high": "100m"} as it is."""
        files = part.get("unified", {})
        if not isinstance(files, dict):
            raise LimitError("read linux.resources", "unified", "not an object")
        for file, text in files.items():
            if not isinstance(text, str):
                raise LimitError("read linux.resources", f"unified.{file}", "not a text")
        return files

    def set(self, group: Cgroup, resources: Resources) -> None:
        """Line by line, since the kernel takes one at a time of a table."""
        for path, text in resources.items():
            file = path.removeprefix("unified.")
            controller = file.partition(".")[0]
            if controller != "cgroup":
                group.enable(controller)
            for line in str(text).splitlines():
                if words := line.strip():
                    group.write(file, words, limit=path, accept=_answers(words), row=True)


def _refused(file: str, text: str, reason: str, remedy: str = "") -> LimitError:
    return LimitError("set limit", f"unified.{file}={text}", reason, remedy=remedy)


def _check_name(file: str, text: str) -> None:
    controller, dot, name = file.partition(".")
    if not (controller and dot and name) or not _FILE.issuperset(file) or ".." in file:
        raise _refused(file, text, "not the name of a file CONTROLLER.NAME", "as unified.memory.high=100m")
    if controller == "cgroup" and file not in _CORE:
        raise _refused(file, text, "not a limit", f"of the core's files only {', '.join(sorted(_CORE))}")


def _answers(text: str) -> tuple[str, ...]:
    """The same size in whole pages, and the same list as the kernel spells it."""
    answers = []
    with suppress(LimitError):  # it is no size
        size = parse_size(text, "unified")
        answers += [str(size), *(str(size // page * page) for page in _PAGES)]
    with suppress(LimitError):  # it is no list
        answers.append(format_list(parse_list(text, "unified")))
    return tuple(dict.fromkeys(answers))
