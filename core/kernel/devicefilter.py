"""The device filter of cgroup v2: a BPF program, made from rules, loaded and attached to a cgroup.

Sources: bpf(2), include/uapi/linux/bpf.h (BPF_PROG_TYPE_CGROUP_DEVICE, struct bpf_cgroup_dev_ctx),
kernel Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import ctypes
import os
import struct

from gocker.errors import LimitError, UsageError
from gocker.kernel.syscalls import call

Rule = tuple[str, int | None, int | None, int]
"""(type "b", "c" or "a" for both, major, minor, ACCESS bits); None is any number, bits below 0 are denied."""

_Key = tuple[str, int | None, int | None]  # a rule without its access

TYPES = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*
ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_*
_ALL_ACCESS = 7
_MAX_NUMBER = (1 << 32) - 1

_PROG_LOAD, _PROG_ATTACH = 5, 8
_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE = 15, 6
_ALLOW_MULTI = 2  # those of the cgroups above hold as well
_LICENSE = ctypes.create_string_buffer(b"Apache-2.0")
_LOAD_ATTR = struct.Struct("=IIQQIIQII")  # type, instructions, their address, licence, log, version, flags
_ATTACH_ATTR = struct.Struct("=4I")  # cgroup fd, program fd, attach type, flags

_INSTRUCTION = struct.Struct("=BBhi")  # opcode, source and destination register, offset, immediate
_LOAD_WORD, _MOVE, _MOVE_NUMBER, _AND, _SHIFT_RIGHT, _JUMP_UNLESS, _EXIT = (
    0x61,
    0xBC,
    0xB4,
    0x54,
    0x74,
    0x56,
    0x95,
)
_JUMP_IF = 0x16
_RESULT, _CONTEXT, _TYPE, _WANTED, _MAJOR, _MINOR = 0, 1, 2, 3, 4, 5  # registers


def parse_rule(text: str) -> Rule:
    """`c 1:3 rwm`, as cgroup v1's devices.allow takes it; `*` is any number. Raise UsageError.

    `a 1:3 r` is of both types, and `deny ` before a rule takes away what it names.
    """
    rule = text.removeprefix("deny ")
    kind, _, rest = rule.partition(" ")
    numbers, _, access = rest.partition(" ")
    major, _, minor = numbers.partition(":")
    sound = kind in {*TYPES, "a"} and access and ACCESS.keys() >= set(access)
    if not sound or len(set(access)) != len(access) or not all(_is_number(part) for part in (major, minor)):
        raise UsageError("allow device", text, "not TYPE MAJOR:MINOR ACCESS", remedy="for example c 1:3 rwm")
    bits = sum(ACCESS[letter] for letter in access)
    return kind, _number(major), _number(minor), bits if rule == text else -bits


def format_rule(rule: Rule) -> str:
    """As the kernel's devices.list has it, whether it allows or denies."""
    kind, major, minor, bits = rule
    numbers = ":".join("*" if number is None else str(number) for number in (major, minor))
    return f"{kind} {numbers} {''.join(letter for letter in 'rwm' if ACCESS[letter] & abs(bits))}"


def v1_rules(rules: tuple[Rule, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What to write to devices.allow, and then to devices.deny, so that of `rules` the last about a device decides.

    A v1 cgroup either denies all but a list, or allows all but a list, and an entry goes only as
    a whole: raise LimitError where a later rule takes a part out of an earlier one's wildcard.
    Source: kernel Documentation/admin-guide/cgroup-v1/devices.rst, security/device_cgroup.c.
    """
    default, rest = _after_default(rules)
    listed: dict[_Key, int] = {}
    for kind, major, minor, bits in rest:
        for key in ((one, major, minor) for one in (TYPES if kind == "a" else (kind,))):
            if (bits > 0) is not default:
                listed[key] = listed.get(key, 0) | abs(bits)
                continue
            for other in [other for other in listed if _overlap(key, other)]:
                if _covers(key, other):
                    listed[other] &= ~abs(bits)
                elif listed[other] & abs(bits):
                    verb, wider = ("allow", "deny") if default else ("deny", "allow")
                    raise LimitError(
                        "filter devices",
                        f"{verb} {format_rule((*key, bits))}",
                        f"cgroup v1 cannot take it out of {wider} {format_rule((*other, listed[other]))}",
                        remedy=f"{wider} the others one by one",
                    )
    texts = tuple(format_rule((*key, bits)) for key, bits in listed.items() if bits)
    return (("a *:* rwm",), texts) if default else (texts, ())


def _after_default(rules: tuple[Rule, ...]) -> tuple[bool, tuple[Rule, ...]]:
    """What the last rule about everything says of all devices, False without one; and the rules after it."""
    for at in range(len(rules) - 1, -1, -1):
        if rules[at][:3] == ("a", None, None) and abs(rules[at][3]) == _ALL_ACCESS:
            return rules[at][3] > 0, rules[at + 1 :]
    return False, rules


def _covers(wide: _Key, narrow: _Key) -> bool:
    return all(mine in (None, other) for mine, other in zip(wide, narrow, strict=True))


def _overlap(one: _Key, other: _Key) -> bool:
    return all(a == b or a is None or b is None for a, b in zip(one, other, strict=True))


def _is_number(text: str) -> bool:
    return text == "*" or (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MAX_NUMBER)


def _number(text: str) -> int | None:
    return None if text == "*" else int(text)


def device_program(rules: tuple[Rule, ...]) -> bytes:
    """The instructions that answer 1 where the last rule about the device has all the access that is wanted.

    A rule that allows is about a device when it has all of that, one that denies when it has some.
    Without any the answer is 0. What a rule about everything makes moot is left out: the kernel
    refuses a program with instructions that are never reached.
    """
    default, rest = _after_default(rules)
    start = (
        (_LOAD_WORD, _TYPE, _CONTEXT, 0, 0),  # access_type: access << 16 | type
        (_MOVE, _WANTED, _TYPE, 0, 0),
        (_SHIFT_RIGHT, _WANTED, 0, 0, 16),
        (_AND, _TYPE, 0, 0, 0xFFFF),
        (_LOAD_WORD, _MAJOR, _CONTEXT, 4, 0),
        (_LOAD_WORD, _MINOR, _CONTEXT, 8, 0),
    )
    return b"".join((_assemble(start), *map(_rule, reversed(rest)), _assemble(_answer(int(default)))))


_Instructions = tuple[tuple[int, int, int, int, int], ...]
_JUMPS = (_JUMP_UNLESS, _JUMP_IF)


def _rule(rule: Rule) -> bytes:
    """Answer, or go on with what follows."""
    kind, major, minor, access = rule
    tests: list[_Instructions] = [_access(access)]
    for register, number in ((_TYPE, TYPES.get(kind)), (_MAJOR, major), (_MINOR, minor)):
        if number is not None:
            tests.append(_unless(register, number))
    body = [instruction for test in tests for instruction in test]
    answer = _answer(int(access > 0))
    end = len(body) + len(answer)
    aimed = tuple(
        (opcode, to, source, end - at - 1 if opcode in _JUMPS else offset, number)
        for at, (opcode, to, source, offset, number) in enumerate(body)
    )
    return _assemble((*aimed, *answer))


def _access(bits: int) -> _Instructions:
    """Go on only when what is wanted is all allowed, or some of it denied; all access needs no test."""
    if abs(bits) == _ALL_ACCESS:
        return ()
    masked = ~bits & _ALL_ACCESS if bits > 0 else -bits
    jump = (_JUMP_UNLESS if bits > 0 else _JUMP_IF, _RESULT, 0, 0, 0)
    return (_MOVE, _RESULT, _WANTED, 0, 0), (_AND, _RESULT, 0, 0, masked), jump


def _unless(register: int, number: int) -> _Instructions:
    """Jump, to where `_rule` says, unless `register` holds `number`."""
    return ((_JUMP_UNLESS, register, 0, 0, number),)


def _answer(number: int) -> _Instructions:
    return (_MOVE_NUMBER, _RESULT, 0, 0, number), (_EXIT, 0, 0, 0, 0)


def _assemble(instructions: _Instructions) -> bytes:
    return b"".join(
        _INSTRUCTION.pack(opcode, source << 4 | to, offset, number - (number >> 31 << 32))
        for opcode, to, source, offset, number in instructions
    )


def attach_device_filter(directory: int, program: bytes) -> None:
    """Put `program` in force for the cgroup v2 directory fd and all below it, until it is removed.

    Raise OSError: EINVAL from a kernel without CONFIG_CGROUP_BPF, EPERM without CAP_SYS_ADMIN.
    """
    code = ctypes.create_string_buffer(program, len(program))
    count = len(program) // _INSTRUCTION.size
    where = ctypes.addressof(code), ctypes.addressof(_LICENSE)
    load = _LOAD_ATTR.pack(_TYPE_CGROUP_DEVICE, count, *where, 0, 0, 0, 0, 0)
    loaded = call("bpf", _PROG_LOAD, load, len(load))
    try:
        attach = _ATTACH_ATTR.pack(directory, loaded, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI)
        call("bpf", _PROG_ATTACH, attach, len(attach))
    finally:
        os.close(loaded)
