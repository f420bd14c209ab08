"""Interprets a seccomp filter (classic BPF), so that any call on any machine can be asked about."""

from __future__ import annotations

import struct
from collections.abc import Sequence

ALLOW, KILL_PROCESS = 0x7FFF0000, 0x80000000
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "x86": 0x40000003, "arm": 0x40000028}


def errno(number: int) -> int:
    """The answer that makes a call fail with `number`."""
    return 0x00050000 | number


def ask(program: bytes, machine: str, number: int, args: Sequence[int] = ()) -> int:
    """What `program` answers to system call `number`; linux/filter.h, linux/seccomp.h."""
    words = [argument & (1 << 64) - 1 for argument in (*args, *[0] * (6 - len(args)))]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, ARCH[machine], 0x1000, *words)
    code: list[tuple[int, int, int, int]] = list(struct.iter_unpack("<HBBI", program))
    a = at = 0
    while True:
        op, then, otherwise, k = code[at]
        at += 1
        if op == 0x20:
            a = int.from_bytes(data[k : k + 4], "little")
        elif op == 0x06:
            return k
        elif op == 0x05:
            at += k
        elif op == 0x54:
            a &= k
        else:
            holds = {0x15: a == k, 0x25: a > k, 0x35: a >= k, 0x45: bool(a & k)}[op]
            at += then if holds else otherwise
