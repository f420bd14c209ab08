"""The process of a config.json, and the process.json of exec, as fields of the container spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gocker.kernel import caps, rlimit
from gocker.limits import parse_list
from gocker.model import Capabilities, IoPriority, Rlimit, Scheduler
from gocker.oci.document import check_texts, parse_document, show
from gocker.oci.fields import INT32, MAX_ID, UINT64, Section

_SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
_MAX_CELLS = (1 << 16) - 1  # struct winsize, ioctl_tty(2)


def read_process(
    data: bytes | Mapping[str, Any], *, grantable: frozenset[str] | None = None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(fields of ContainerSpec, warnings) of a process.json, for `spec.replace(**fields)`.

    What process.json does not have is as the container's own process has it: no field is made up, and none
    falls back to more rights. `args` and `cwd` must be there; an absent `terminal` is false, since encoders
    leave false out. `user` is one field: without additionalGids there are none.

    `grantable` are the capabilities that can be given here, None for all that this process has. Raise UsageError.
    """
    operation = "read process.json"
    if isinstance(data, bytes):
        data = parse_document(data, operation)
    else:
        check_texts(data, operation)
    section = Section(data, "", operation, [])
    fields = process_fields(section, own_capabilities() if grantable is None else grantable)
    return fields, tuple(section.warnings)


def own_capabilities(*, mapped: bool = False) -> frozenset[str]:
    """What can be given to a container: all that the kernel has in a user namespace, else what this process has."""
    known = frozenset(caps.NAMES[: caps.last_cap() + 1])
    return known if mapped else known & caps.permitted()


def process_fields(section: Section, grantable: frozenset[str]) -> dict[str, Any]:
    """The fields of ContainerSpec that a process object speaks of. Raise UsageError."""
    terminal = section.flag("terminal") or False
    fields: dict[str, Any] = {
        "argv": _args(section),
        "cwd": section.absolute("cwd"),
        "terminal": terminal,
    }
    if (size := section.section("consoleSize")) and terminal:
        fields["console_size"] = tuple(
            size.needed(name, (0, _MAX_CELLS), "a number of cells") for name in ("height", "width")
        )
        size.finish()
    if section.get("env") is not None:
        fields["env"] = environment(section)
    if user := section.section("user"):
        fields |= _user(user)
    if sets := section.section("capabilities"):
        fields["capabilities"] = _capabilities(sets, grantable)
    if section.get("rlimits") is not None:
        fields["rlimits"] = _rlimits(section)
    fields |= _simple(section)
    if scheduler := section.section("scheduler"):
        fields["scheduler"] = _scheduler(scheduler)
    if priority := section.section("ioPriority"):
        fields["io_priority"] = _io_priority(priority)
    if affinity := section.section("execCPUAffinity"):
        fields["cpu_affinity"] = _affinity(affinity)
    section.ignore("commandLine")  # Windows
    section.finish()
    return fields


def _args(section: Section) -> tuple[str, ...]:
    args = section.texts("args")
    if not args or not args[0]:
        raise section.error("args", "names no program", 'for example ["sh"]')
    return args


def environment(section: Section) -> tuple[tuple[str, str], ...]:
    """`env` of a process or a hook as pairs; of two with one name the last (SECURITY R12). Raise UsageError."""
    pairs = {}
    for index, entry in enumerate(section.texts("env")):
        name, equals, value = entry.partition("=")
        if not name or not equals:
            raise section.error("env", f"{show(entry)} is not NAME=VALUE", index=index)
        pairs[name] = value
    return tuple(pairs.items())


def _user(user: Section) -> dict[str, Any]:
    bounds = (0, MAX_ID)
    uid, gid = (user.number(name, bounds, "an id") or 0 for name in ("uid", "gid"))
    groups = user.numbers("additionalGids", bounds, "an id")
    fields = {"user": f"{uid}:{gid}", "groups": tuple(map(str, groups)), "only_groups": True}
    umask = user.number("umask", (0, 0o777), "a file mode creation mask")
    user.ignore("username")  # Windows
    user.finish()
    return fields if umask is None else {**fields, "umask": umask}


def _capabilities(section: Section, grantable: frozenset[str]) -> Capabilities:
    """The five sets, without what cannot be given, which is warned of: OCI runtime spec, config, Linux Process."""
    sets = {name: _known(section, name, grantable) for name in _SETS}
    within = {  # capset(2) and PR_CAP_AMBIENT_RAISE(2const) would refuse the rest
        "effective": ("permitted",),
        "inheritable": ("bounding",),
        "ambient": ("permitted", "inheritable"),
    }
    for name, outers in within.items():
        for outer in outers:
            gone = [capability for capability in sets[name] if capability not in sets[outer]]
            _left_out(section, name, gone, f"not in {outer}")
            sets[name] = tuple(capability for capability in sets[name] if capability in sets[outer])
    section.finish()
    return Capabilities(**sets)


def _known(section: Section, name: str, grantable: frozenset[str]) -> tuple[str, ...]:
    asked = tuple(dict.fromkeys(section.texts(name)))
    unknown = [show(capability) for capability in asked if capability not in caps.NUMBERS]
    _left_out(section, name, unknown, "no such capability")
    lacking = [
        capability for capability in asked if capability in caps.NUMBERS and capability not in grantable
    ]
    _left_out(section, name, lacking, "cannot be given here")
    return tuple(capability for capability in asked if capability in grantable)


def _left_out(section: Section, name: str, capabilities: list[str], reason: str) -> None:
    if capabilities and name == "ambient":  # runc's words
        for capability in capabilities:
            section.warn(name, f"can't raise ambient capability {capability}: {reason}")
    elif capabilities:
        section.warn(name, f"left out {' '.join(capabilities)}: {reason}")


def _rlimits(section: Section) -> tuple[Rlimit, ...]:
    limits: dict[str, Rlimit] = {}
    known = {f"RLIMIT_{name.upper()}": name for name in rlimit.NAMES}
    for limit in section.sections("rlimits"):
        name = known[limit.choice("type", known)]
        soft, hard = limit.needed("soft", UINT64), limit.needed("hard", UINT64)
        if soft > hard:
            raise limit.error("soft", f"{soft} is above the hard limit {hard}")
        if name in limits:
            raise limit.error("type", f"{show(limit.get('type'))} is there twice")
        limit.finish()
        limits[name] = Rlimit(name=name, soft=soft, hard=hard)
    return tuple(limits.values())


def _simple(section: Section) -> dict[str, Any]:
    """The members that are one value each, those that are there."""
    values = {
        "no_new_privileges": section.flag("noNewPrivileges"),
        "oom_score_adj": section.number("oomScoreAdj", (-1000, 1000), "a score"),
        "apparmor_profile": section.text("apparmorProfile"),
        "selinux_label": section.text("selinuxLabel"),
    }
    return {name: value for name, value in values.items() if value is not None}


def _scheduler(section: Section) -> Scheduler:
    from gocker.kernel.scheduling import POLICIES, SCHEDULER_FLAGS

    if section.get("policy") == "SCHED_ISO":
        raise section.error("policy", "Linux has no SCHED_ISO", "SCHED_BATCH or SCHED_OTHER")
    policy = section.choice("policy", POLICIES)
    priority = section.number("priority", INT32) or 0
    realtime = policy in {"SCHED_FIFO", "SCHED_RR"}
    if realtime != bool(1 <= priority <= 99) or (priority and not realtime):
        bounds = "1 to 99" if realtime else "0"
        raise section.error("priority", f"{priority} is not {bounds}, as {policy} needs it")
    times = {name: section.number(name, UINT64) or 0 for name in ("runtime", "deadline", "period")}
    if policy != "SCHED_DEADLINE":
        for name, value in times.items():
            if value:
                raise section.error(name, f"{policy} takes none", "SCHED_DEADLINE does")
    scheduler = Scheduler(
        policy=policy,
        nice=section.number("nice", (-20, 19), "a nice value") or 0,
        priority=priority,
        flags=section.words("flags", SCHEDULER_FLAGS),
        **times,
    )
    section.finish()
    return scheduler


def _io_priority(section: Section) -> IoPriority:
    from gocker.kernel.scheduling import IO_CLASSES, IO_LEVELS

    kind = section.choice("class", IO_CLASSES)
    priority = section.number("priority", (0, IO_LEVELS - 1), "a priority") or 0
    section.finish()
    return IoPriority(kind=kind, priority=priority)


def _affinity(section: Section) -> tuple[str, str]:
    initial, final = (cpu_list(section, name) for name in ("initial", "final"))
    section.finish()
    return initial, final


def cpu_list(section: Section, name: str) -> str:
    """A list such as 0-3,7 of CPUs or memory nodes, without spaces; "" when absent or empty. Raise UsageError."""
    text = (section.text(name) or "").replace(" ", "")
    if text:
        section.checked(name, parse_list, text, name)
    return text
