"""The device filter of cgroup v2: a BPF program, made from rules, loaded and attached to a cgroup.

Sources: bpf(2), include/uapi/linux/bpf.h (BPF_PROG_TYPE_CGROUP_DEVICE, struct bpf_cgroup_dev_ctx),
kernel Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import ctypes
import os
import struct

from gocker.errors import UsageError
from gocker.kernel.syscalls import call

Rule = tuple[str, int | None, int | None, int]
"""(type "b" or "c", major, minor, ACCESS bits); None stands for any number."""

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
_RESULT, _CONTEXT, _TYPE, _WANTED, _MAJOR, _MINOR = 0, 1, 2, 3, 4, 5  # registers


def parse_rule(text: str) -> Rule:
    """`c 1:3 rwm`, as cgroup v1's devices.allow takes it; `*` is any number. Raise UsageError."""
    kind, _, rest = text.partition(" ")
    numbers, _, access = rest.partition(" ")
    major, _, minor = numbers.partition(":")
    sound = kind in TYPES and access and ACCESS.keys() >= set(access) and len(set(access)) == len(access)
    if not sound or not all(_is_number(part) for part in (major, minor)):
        raise UsageError("allow device", text, "not TYPE MAJOR:MINOR ACCESS", remedy="for example c 1:3 rwm")
    return kind, _number(major), _number(minor), sum(ACCESS[letter] for letter in access)


def _is_number(text: str) -> bool:
    return text == "*" or (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MAX_NUMBER)


def _number(text: str) -> int | None:
    return None if text == "*" else int(text)


def device_program(rules: tuple[Rule, ...]) -> bytes:
    """The instructions that answer 1 where a rule has all the access that is wanted, else 0."""
    start = (
        (_LOAD_WORD, _TYPE, _CONTEXT, 0, 0),  # access_type: access << 16 | type
        (_MOVE, _WANTED, _TYPE, 0, 0),
        (_SHIFT_RIGHT, _WANTED, 0, 0, 16),
        (_AND, _TYPE, 0, 0, 0xFFFF),
        (_LOAD_WORD, _MAJOR, _CONTEXT, 4, 0),
        (_LOAD_WORD, _MINOR, _CONTEXT, 8, 0),
    )
    return b"".join((_assemble(start), *map(_rule, rules), _assemble(_answer(0))))


_Instructions = tuple[tuple[int, int, int, int, int], ...]


def _rule(rule: Rule) -> bytes:
    """Answer 1, or go on with what follows."""
    kind, major, minor, access = rule
    tests = [_unless(_TYPE, TYPES[kind])]
    if access != _ALL_ACCESS:
        tests.append(
            (
                (_MOVE, _RESULT, _WANTED, 0, 0),
                (_AND, _RESULT, 0, 0, ~access & _ALL_ACCESS),
                *_unless(_RESULT, 0),
            )
        )
    tests += [
        _unless(register, number)
        for register, number in ((_MAJOR, major), (_MINOR, minor))
        if number is not None
    ]
    body = [instruction for test in tests for instruction in test]
    end = len(body) + len(_answer(1))
    aimed = tuple(
        (opcode, to, source, end - at - 1 if opcode == _JUMP_UNLESS else offset, number)
        for at, (opcode, to, source, offset, number) in enumerate(body)
    )
    return _assemble((*aimed, *_answer(1)))


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
