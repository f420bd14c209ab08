"""`gocker-oci update`."""

from __future__ import annotations

from typing import Any

from gocker.api import CgroupReader, counter
from gocker.controls import usage_places
from gocker.errors import LimitError
from gocker.kernel.cgroupfs import DirReader
from gocker.lasting import Lasting, read_lasting
from gocker.limits import parse_limit, parse_size
from gocker.model import Hierarchy
from gocker.oci.document import parse_document
from gocker.ocicli.common import audit_log, read_fd, read_text_file, spec_of_lasting
from gocker.ociresources import deal
from gocker.registry import Registry
from gocker.state import State
from gocker.updating import update

_NUMBERS = {
    "blkio_weight": ("blockIO", "weight"),
    "cpu_period": ("cpu", "period"),
    "cpu_quota": ("cpu", "quota"),
    "cpu_burst": ("cpu", "burst"),
    "cpu_share": ("cpu", "shares"),
    "cpu_idle": ("cpu", "idle"),
    "cpu_rt_period": ("cpu", "realtimePeriod"),
    "cpu_rt_runtime": ("cpu", "realtimeRuntime"),
    "pids_limit": ("pids", "limit"),
}
_SIZES = {
    "memory": ("memory", "limit"),
    "memory_reservation": ("memory", "reservation"),
    "memory_swap": ("memory", "swap"),
}
_TEXTS = {"cpuset_cpus": ("cpu", "cpus"), "cpuset_mems": ("cpu", "mems")}
_OPERATION = "read resources"


def command(
    root: str, *, arguments: tuple[str, ...], resources: str, limit: tuple[str, ...], **flags: Any
) -> int:
    """Set limits; what is not named stays as it is."""
    (container,) = arguments
    state, registry = State(root), Registry()
    lasting = read_lasting(state, container)
    asked = with_flags(_read(resources), flags)
    requests = (*deal(changes(asked), registry), *map(parse_limit, limit))
    spec = spec_of_lasting(lasting, registry)
    _check_use(asked, lasting)
    unbound = update(container, spec, requests, state, registry, audit_log())
    for label, reason in unbound.items():
        from gocker.cli.show import show_warning

        show_warning(f"{label} does not bind: {reason}")
    return 0


def _read(path: str) -> dict[str, object]:
    """The object of a file, or with - of stdin. Raise UsageError."""
    if not path:
        return {}
    data = read_fd(_OPERATION, "stdin", 0) if path == "-" else read_text_file(_OPERATION, path)
    return parse_document(data, _OPERATION)


def with_flags(resources: dict[str, object], flags: dict[str, Any]) -> dict[str, object]:
    """linux.resources with what the options ask for in it; pure. Raise LimitError."""
    result = dict(resources)
    for flag, (section, name) in {**_NUMBERS, **_SIZES, **_TEXTS}.items():
        text = flags.get(flag)
        if text in {None, ""}:
            continue
        label = f"--{flag.replace('_', '-')}"
        value: object = text
        if flag in _NUMBERS:
            value = _number(text, label)
            if flag == "pids_limit" and value == 0:
                value = 1  # what the kernel would make of it for the processes that are there, and runc
        elif flag in _SIZES:
            value = -1 if text == "-1" else parse_size(text, label)
        part = result.get(section)
        result[section] = {**(part if isinstance(part, dict) else {}), name: value}
    return result


def _number(text: str, label: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise LimitError("set limit", f"{label}={text}", "not a whole number")
    return int(text)


def changes(resources: dict[str, object]) -> dict[str, object]:
    """What of linux.resources an update is about; pure.

    Engines send the whole section: the device rules, which hold from the creation on, stay as they are, and
    a zero where none was meant is what callers in Go leave in a field that they do not set.
    """
    found = {name: part for name, part in resources.items() if name != "devices"}
    if found.get("pids") == {"limit": 0}:
        del found["pids"]
    memory = found.get("memory")
    if isinstance(memory, dict) and memory.get("limit") == -1 and not memory.get("swap"):
        found["memory"] = {**memory, "swap": -1}  # no memory limit is none of the sum, as runc has it
    return found


def _check_use(resources: dict[str, object], lasting: Lasting) -> None:
    """memory.checkBeforeUpdate: a limit below what is in use would end programs. Raise LimitError.

    On v1 the kernel refuses such a limit by itself.
    """
    memory = resources.get("memory")
    if not isinstance(memory, dict) or memory.get("checkBeforeUpdate") is not True:
        return
    limit = memory.get("limit")
    path, version = usage_places(lasting).get("memory", ("", Hierarchy.V1))
    if version is not Hierarchy.V2 or not isinstance(limit, int):
        return
    reader: CgroupReader = DirReader(path, version)
    used = counter(reader.read("memory.current")) or 0
    if 0 < limit < used:
        raise LimitError(
            "update limit", f"memory={limit}", f"{used} bytes are in use, and checkBeforeUpdate is set"
        )
