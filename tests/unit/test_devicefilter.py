"""Rules about devices: as text, and as the BPF program that cgroup v2 wants."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gocker.errors import LimitError, UsageError
from gocker.kernel.devicefilter import ACCESS, TYPES, Rule, device_program, parse_rule, v1_rules
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
        ("deny c 1:3 w", ("c", 1, 3, -4)),
        ("a *:* rwm", ("a", None, None, 7)),
    ],
)
def test_a_rule_is_read_as_the_v1_controller_reads_it(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    "text",
    ["", "a", "deny", "deny deny c 1:3 r", "c", "c 1:3", "c 1:3 ", "c 1:3 x", "c 1:3 rr", "d 1:3 r", "c 1 r", "c -1:3 r", "c 1:4294967296 r",
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


DENY = st.tuples(st.sampled_from(["a", "b", "c"]), NUMBERS, NUMBERS, st.integers(-7, 7).filter(bool))


def about(rule: Rule, kind: str, major: int, minor: int) -> bool:
    return rule[0] in {"a", kind} and rule[1] in {None, major} and rule[2] in {None, minor}


def answer_of(rules: list[Rule], kind: str, major: int, minor: int, access: int) -> bool:
    """What the rules say: the last one about the device and all of, or when it denies any of, the access."""
    for rule in reversed(rules):
        if about(rule, kind, major, minor):
            if rule[3] > 0 and access & ~rule[3] == 0:
                return True
            if rule[3] < 0 and access & -rule[3]:
                return False
    return False


@given(
    rules=st.lists(DENY, max_size=6),
    kind=st.sampled_from(sorted(TYPES)),
    major=st.integers(0, 4),
    minor=st.integers(0, 4),
    access=st.integers(1, 7),
)
def test_of_rules_that_allow_and_deny_the_last_about_the_device_decides(
    rules: list[Rule], kind: str, major: int, minor: int, access: int
) -> None:
    expected = answer_of(rules, kind, major, minor, access)
    assert run(device_program(tuple(rules)), kind, major, minor, access) == int(expected)


@given(
    rules=st.lists(DENY, max_size=6),
    kind=st.sampled_from(sorted(TYPES)),
    major=st.integers(0, 4),
    minor=st.integers(0, 4),
    bit=st.sampled_from([1, 2, 4]),
)
def test_the_lists_of_v1_say_the_same_or_are_refused(
    rules: list[Rule], kind: str, major: int, minor: int, bit: int
) -> None:
    try:
        allowed, denied = v1_rules(tuple(rules))
    except LimitError:
        return
    lists = [*map(parse_rule, allowed), *(parse_rule(f"deny {rule}") for rule in denied)]
    assert answer_of(lists, kind, major, minor, bit) == answer_of(rules, kind, major, minor, bit)


@pytest.mark.parametrize(
    ("rules", "allowed", "denied"),
    [
        (("deny a *:* rwm", "c 1:3 r", "c 1:3 w"), ("c 1:3 rw",), ()),
        (("a *:* rwm", "deny c 1:3 w"), ("a *:* rwm",), ("c 1:3 w",)),
        (("a *:* rwm", "deny c 1:3 rwm", "c 1:* r"), ("a *:* rwm",), ("c 1:3 wm",)),
        (("c 1:3 rwm", "deny a *:* rwm"), (), ()),
        (("c 1:3 rwm", "deny c 1:* w"), ("c 1:3 rm",), ()),
        (("a 1:3 r",), ("b 1:3 r", "c 1:3 r"), ()),
        (("c 1:* rw", "deny c 1:3 m"), ("c 1:* rw",), ()),
    ],
)  # fmt: skip
def test_an_ordered_list_becomes_the_lists_of_v1(
    rules: tuple[str, ...], allowed: tuple[str, ...], denied: tuple[str, ...]
) -> None:
    assert v1_rules(tuple(map(parse_rule, rules))) == (allowed, denied)


def test_what_v1_cannot_say_is_refused_with_the_rule_that_is_in_the_way() -> None:
    with pytest.raises(LimitError, match=r"deny c 1:3 w: cgroup v1 cannot take it out of allow c 1:\* rw "):
        v1_rules(tuple(map(parse_rule, ("c 1:* rw", "deny c 1:3 w"))))
    with pytest.raises(LimitError, match=r"allow c 1:3 r: cgroup v1 cannot take it out of deny c \*:\* rwm"):
        v1_rules(tuple(map(parse_rule, ("a *:* rwm", "deny c *:* rwm", "c 1:3 r"))))


def test_no_instruction_is_beyond_a_rule_about_everything() -> None:
    """The kernel refuses a program with instructions that are never reached."""
    whole = device_program((parse_rule("a *:* rwm"),))
    assert device_program(tuple(map(parse_rule, ("c 1:3 r", "deny a *:* rwm", "a *:* rwm")))) == whole
    assert len(whole) == 8 * 8


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
        elif opcode == 0x16:
            assert offset >= 0, "a jump backwards"
            at += offset if registers[to] == number & 0xFFFFFFFF else 0
        else:
            assert opcode == 0x95
            return registers[0]
