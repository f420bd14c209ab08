"""Rules about devices: as text, and as the BPF program that cgroup v2 wants."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gocker.errors import UsageError
from gocker.kernel.devicefilter import ACCESS, TYPES, Rule, device_program, parse_rule
from gocker.plugins.devices import RULES

NUMBERS = st.one_of(st.none(), st.integers(0, 4), st.sampled_from([2**31 - 1, 2**31, 2**32 - 1]))
RULE = st.tuples(st.sampled_from(sorted(TYPES)), NUMBERS, NUMBERS, st.integers(1, 7))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("c 1:3 rwm", ("c", 1, 3, 7)),
        ("b *:* m", ("b", None, None, 1)),
        ("c 136:* rw", ("c", 136, None, 6)),
        ("c 4294967295:0 r", ("c", 4294967295, 0, 2)),
    ],
)
def test_a_rule_is_read_as_the_v1_controller_reads_it(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    "text",
    ["", "a", "c", "c 1:3", "c 1:3 ", "c 1:3 x", "c 1:3 rr", "d 1:3 r", "c 1 r", "c -1:3 r", "c 1:4294967296 r",
     "c ¹:3 r", "c 1:3  r", "c 1:3 rwm\n", "c 1:3:4 r", "c " + "9" * 5000 + ":3 r"],
)  # fmt: skip
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_rule(text)


@given(
    rules=st.lists(RULE, max_size=5),
    kind=st.sampled_from(sorted(TYPES)),
    major=NUMBERS.map(lambda number: number or 0),
    minor=NUMBERS.map(lambda number: number or 0),
    access=st.integers(1, 7),
)
def test_the_program_allows_what_one_rule_allows_in_full(
    rules: list[Rule], kind: str, major: int, minor: int, access: int
) -> None:
    allowed = any(
        kind == rule[0] and rule[1] in {None, major} and rule[2] in {None, minor} and access & ~rule[3] == 0
        for rule in rules
    )
    assert run(device_program(tuple(rules)), kind, major, minor, access) == int(allowed)


@pytest.mark.parametrize(
    ("device", "access", "answer"),
    [("c 1:3", "rw", 1), ("c 136:7", "rw", 1), ("b 254:0", "m", 1), ("b 254:0", "r", 0), ("b 254:0", "rm", 0),
     ("c 1:1", "r", 0), ("c 1:11", "r", 0), ("c 5:1", "w", 0), ("b 1:3", "r", 0), ("c 10:200", "rw", 0)],
)  # fmt: skip
def test_the_built_in_rules_let_a_container_have_its_own_devices_only(
    device: str, access: str, answer: int
) -> None:
    kind, _, numbers = device.partition(" ")
    major, _, minor = numbers.partition(":")
    program = device_program(tuple(parse_rule(rule) for rule in RULES))
    assert run(program, kind, int(major), int(minor), sum(ACCESS[letter] for letter in access)) == answer


def run(program: bytes, kind: str, major: int, minor: int, access: int) -> int:
    """What the kernel would: the few BPF instructions that the program is made of."""
    context = struct.pack("=3I", access << 16 | TYPES[kind], major, minor)
    code = list(struct.iter_unpack("=BBhi", program))
    registers = [0xDEAD] * 11
    at = 0
    while True:
        opcode, pair, offset, number = code[at]
        to, source = pair & 15, pair >> 4
        at += 1
        if opcode == 0x61:
            assert source == 1
            registers[to] = struct.unpack_from("=I", context, offset)[0]
        elif opcode == 0xBC:
            registers[to] = registers[source]
        elif opcode == 0xB4:
            registers[to] = number & 0xFFFFFFFF
        elif opcode == 0x54:
            registers[to] &= number & 0xFFFFFFFF
        elif opcode == 0x74:
            registers[to] >>= number
        elif opcode == 0x56:
            assert offset >= 0, "a jump backwards"
            at += offset if registers[to] != number & 0xFFFFFFFF else 0
        else:
            assert opcode == 0x95
            return registers[0]
