"""Seccomp profiles: OCI's linux.seccomp with docker's conditions, read and checked."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from gocker.errors import UsageError
from gocker.kernel.seccomp import (
    ALLOW,
    COMPARE,
    ERRNO,
    FILTER_FLAGS,
    KILL_PROCESS,
    KILL_THREAD,
    LOG,
    NOTIFY,
    TRACE,
    TRAP,
    Argument,
)
from gocker.record import Record

MAX_BYTES = 4 << 20
MAX_DEPTH = 64

_ACTIONS = {
    "SCMP_ACT_KILL": KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_TRAP": TRAP,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_TRACE": TRACE,
    "SCMP_ACT_LOG": LOG,
    "SCMP_ACT_NOTIFY": NOTIFY,
    "SCMP_ACT_ALLOW": ALLOW,
}
_WITH_NUMBER = {ERRNO, TRACE}  # an errno, or what the tracer is told
_EPERM = 1
_MAX_ERRNO = 4095
_ENOSYS = 38
_NO_FLAGS = {"SECCOMP_FILTER_FLAG_TSYNC"}  # for all threads: a container starts with one
_MAX_SOCKET_PATH = 107  # unix(7)
_PERMISSIVE = {ALLOW, LOG, NOTIFY}  # and TRACE: somebody is asked, or nobody needs to be
# SCMP_ARCH_*, OCI runtime spec, config-linux, Seccomp. A machine has its own and those that its kernel emulates.
_ARCHES = frozenset(
    [
        "x86",
        "x86_64",
        "x32",
        "arm",
        "aarch64",
        "loongarch64",
        "m68k",
        "mips",
        "mips64",
        "mips64n32",
        "mipsel",
        "mipsel64",
        "mipsel64n32",
        "parisc",
        "parisc64",
        "ppc",
        "ppc64",
        "ppc64le",
        "riscv64",
        "s390",
        "s390x",
        "sh",
        "sheb",
    ]
)
_EMULATED = {"x86_64": {"x86", "x32"}, "aarch64": {"arm"}}


class Condition(Record):
    """docker's `includes` or `excludes`: empty parts say nothing."""

    capabilities: tuple[str, ...] = ()
    arches: tuple[str, ...] = ()  # docker's names: amd64, arm64
    min_kernel: tuple[int, int] | None = None


class ProfileRule(Record):
    """Some system calls and what happens to them."""

    names: tuple[str, ...]
    action: int
    arguments: tuple[Argument, ...] = ()
    includes: Condition = Condition()
    excludes: Condition = Condition()


class Profile(Record):
    """A profile as read."""

    default_action: int
    rules: tuple[ProfileRule, ...]
    foreign: tuple[str, ...] = ()  # libseccomp's names of ABIs that are let in beside the machine's own
    flags: int = 0  # SECCOMP_FILTER_FLAG_*
    unknown_is_enosys: bool = True  # calls newer than the profile get ENOSYS instead of its default
    listener_path: str = ""  # of the socket whose owner answers for NOTIFY
    listener_metadata: str = ""


def parse_profile(data: bytes, source: str, machine: str, *, oci: bool = False) -> Profile:
    """Read the JSON of a profile; `source` names it in errors. Raise UsageError.

    At most 4 MiB and 64 levels deep. What gocker does not understand is an error and not left out:
    it might be a condition. `oci` is for the linux.seccomp of a config.json, which has no conditions; there
    a call that is newer than all that the profile names gets ENOSYS, as runc has it, unless the
    default lets it through: an explicit defaultErrnoRet is written by every engine.
    """
    reader = _Reader(source)
    root = reader.object(reader.document(data), "profile")
    reader.known(root, "profile", _PROFILE_KEYS)
    path, metadata = reader.listener(root)
    number = reader.number(root.get("defaultErrnoRet"), "defaultErrnoRet")
    default = reader.action(root.get("defaultAction"), "defaultAction", number)
    rules = tuple(
        reader.rule(rule, f"syscalls[{i}]")
        for i, rule in enumerate(reader.list(root.get("syscalls"), "syscalls"))
    )
    if not path and NOTIFY in {default, *(rule.action for rule in rules)}:
        raise reader.error("listenerPath", "SCMP_ACT_NOTIFY needs one: the socket of who is to be asked")
    refuses = default not in _PERMISSIVE and default & ~0xFFFF != TRACE
    return Profile(
        default_action=default,
        rules=rules,
        foreign=reader.foreign(root, machine),
        flags=reader.flags(root.get("flags")),
        unknown_is_enosys=(refuses and number != _ENOSYS)
        if oci
        else number is None and default & ~0xFFFF == ERRNO,
        listener_path=path,
        listener_metadata=metadata,
    )


_PROFILE_KEYS = {
    "defaultAction", "defaultErrnoRet", "architectures", "archMap", "flags", "syscalls",
    "listenerPath", "listenerMetadata",
}  # fmt: skip
_RULE_KEYS = {"names", "name", "action", "errnoRet", "args", "includes", "excludes", "priority"}
_CONDITION_KEYS = {"caps", "arches", "minKernel"}
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})")


class _Reader:
    """Turns JSON values into records, naming the source and the place in every error."""

    def __init__(self, source: str) -> None:
        self.source = source

    def error(self, where: str, reason: str) -> UsageError:
        return UsageError("read seccomp profile", f"{self.source}: {where}", reason)

    def document(self, data: bytes) -> Any:
        if len(data) > MAX_BYTES:
            raise self.error("file", f"larger than {MAX_BYTES >> 20} MiB")
        depth = 0
        for token in _TOKENS.finditer(data):
            if token[0] in b"[{":
                depth += 1
            elif token[0] in b"]}":
                depth -= 1
            if depth > MAX_DEPTH:
                raise self.error("file", f"more than {MAX_DEPTH} levels deep")
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self.error("file", f"not JSON: {error}") from error

    def object(self, value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.error(where, "not an object")
        return value

    def list(self, value: Any, where: str) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.error(where, "not a list")
        return value

    def text(self, value: Any, where: str) -> str:
        if not isinstance(value, str) or not value:
            raise self.error(where, "not a text")
        return value

    def texts(self, value: Any, where: str) -> tuple[str, ...]:
        return tuple(self.text(item, where) for item in self.list(value, where))

    def number(self, value: Any, where: str, maximum: int = _MAX_ERRNO) -> int | None:
        if value is None:
            return None
        if type(value) is not int or not 0 <= value <= maximum:
            raise self.error(where, f"not a whole number from 0 to {maximum}")
        return value

    def known(self, value: dict[str, Any], where: str, keys: set[str]) -> None:
        for key in value:
            if key not in keys and key != "comment" and not key.startswith("$"):
                raise self.error(f"{where}.{key}", "gocker does not know this key")

    def action(self, value: Any, where: str, number: int | None) -> int:
        name = self.text(value, where)
        action = _ACTIONS.get(name)
        if action is None:
            raise self.error(where, f"unknown action {name}")
        if action not in _WITH_NUMBER:
            if number is not None:
                raise self.error(where, f"{name} has no errno")
            return action
        return action | (_EPERM if number is None else number)

    def rule(self, value: Any, where: str) -> ProfileRule:
        rule = self.object(value, where)
        self.known(rule, where, _RULE_KEYS)
        names = self.texts(rule.get("names"), f"{where}.names")
        if rule.get("name"):
            if names:
                raise self.error(where, "has both name and names")
            names = (self.text(rule["name"], f"{where}.name"),)
        number = self.number(rule.get("errnoRet"), f"{where}.errnoRet")
        arguments = self.list(rule.get("args"), f"{where}.args")
        return ProfileRule(
            names=names,
            action=self.action(rule.get("action"), f"{where}.action", number),
            arguments=tuple(self.argument(item, f"{where}.args[{i}]") for i, item in enumerate(arguments)),
            includes=self.condition(rule.get("includes"), f"{where}.includes"),
            excludes=self.condition(rule.get("excludes"), f"{where}.excludes"),
        )

    def argument(self, value: Any, where: str) -> Argument:
        argument = self.object(value, where)
        self.known(argument, where, {"index", "value", "valueTwo", "op"})
        index = self.number(argument.get("index"), f"{where}.index", 5)
        low = self.number(argument.get("value"), f"{where}.value", (1 << 64) - 1)
        high = self.number(argument.get("valueTwo"), f"{where}.valueTwo", (1 << 64) - 1)
        name = self.text(argument.get("op"), f"{where}.op")
        compare = COMPARE.get(name.removeprefix("SCMP_CMP_"))
        if index is None or compare is None:
            raise self.error(where, f"unknown comparison {name}" if index is not None else "has no index")
        return index, compare, low or 0, high or 0

    def condition(self, value: Any, where: str) -> Condition:
        if value is None:
            return Condition()
        condition = self.object(value, where)
        self.known(condition, where, _CONDITION_KEYS)
        kernel = condition.get("minKernel")
        if kernel is not None:
            match = _VERSION.fullmatch(self.text(kernel, f"{where}.minKernel"))
            if not match:
                raise self.error(f"{where}.minKernel", "not a version such as 4.8")
            kernel = (int(match[1]), int(match[2]))
        return Condition(
            capabilities=self.texts(condition.get("caps"), f"{where}.caps"),
            arches=self.texts(condition.get("arches"), f"{where}.arches"),
            min_kernel=kernel,
        )

    def foreign(self, root: dict[str, Any], machine: str) -> tuple[str, ...]:
        names = self.texts(root.get("architectures"), "architectures")
        maps = self.list(root.get("archMap"), "archMap")
        if names and maps:
            raise self.error("archMap", "stands beside architectures: use one of them")
        for i, entry in enumerate(maps):
            pair = self.object(entry, f"archMap[{i}]")
            self.known(pair, f"archMap[{i}]", {"architecture", "subArchitectures"})
            if _arch_name(self.text(pair.get("architecture"), f"archMap[{i}].architecture")) == machine:
                names = self.texts(pair.get("subArchitectures"), f"archMap[{i}].subArchitectures")
        for name in map(_arch_name, names):
            if name not in _ARCHES:
                raise self.error("architectures", f"unknown architecture {name}")
        emulated = _EMULATED.get(machine, set())
        return tuple(dict.fromkeys(name for name in map(_arch_name, names) if name in emulated))

    def listener(self, root: dict[str, Any]) -> tuple[str, str]:
        path, metadata = root.get("listenerPath") or "", root.get("listenerMetadata") or ""
        if path:
            path = self.text(path, "listenerPath")
            if not path.startswith("/") or "\0" in path or len(os.fsencode(path)) > _MAX_SOCKET_PATH:
                raise self.error("listenerPath", f"not an absolute path of at most {_MAX_SOCKET_PATH} bytes")
        if metadata:
            metadata = self.text(metadata, "listenerMetadata")
            if not path:
                raise self.error("listenerMetadata", "stands without a listenerPath")
        return path, metadata

    def flags(self, value: Any) -> int:
        bits = 0
        for name in self.texts(value, "flags"):
            if name not in FILTER_FLAGS and name not in _NO_FLAGS:
                raise self.error("flags", f"{name} is not supported")
            bits |= FILTER_FLAGS.get(name, 0)
        return bits


def _arch_name(text: str) -> str:
    """`SCMP_ARCH_X86_64` as x86_64, which is libseccomp's name and, for ours, uname's."""
    return text.removeprefix("SCMP_ARCH_").lower()
