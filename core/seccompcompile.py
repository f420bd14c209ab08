"""Seccomp profiles compiled to BPF: conditions resolved, a preamble of gocker's own, libseccomp for the rest."""

from __future__ import annotations

import re

from gocker.errors import UsageError
from gocker.kernel.seccomp import (
    ALLOW,
    ARCHES,
    ERRNO,
    KILL_PROCESS,
    Argument,
    SyscallRule,
    answer,
    compile_rules,
    jump_if_at_least,
    jump_if_equal,
    load,
    syscall_number,
)
from gocker.seccompprofile import Profile, ProfileRule

_DOCKER_ARCHES = {"x86_64": "amd64", "aarch64": "arm64"}
_EPERM, _ENOSYS = 1, 38
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # asm-generic/ioctls.h
# Offsets in struct seccomp_data. Both machines are little-endian: the low word comes first.
_NR, _ARCH, _ARG1_LOW = 0, 4, 24
_X32 = 1 << 30  # __X32_SYSCALL_BIT
_LONGEST_JUMP = 255  # of a conditional jump
_RELEASE = re.compile(r"(\d{1,4})\.(\d{1,4})")

# scripts/syscall.tbl of Linux: one number on all machines. What a libseccomp of 2022 cannot name.
_NEWER = {
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
}
_NEWER_ON = {"x86_64": {"uretprobe": 335}}


def applying_rules(
    profile: Profile, capabilities: tuple[str, ...], machine: str, release: str
) -> list[ProfileRule]:
    """The rules whose conditions hold for a container with `capabilities` on this kernel `release`.

    As docker: excluded by any of the capabilities named, included by all of them.
    """
    match = _RELEASE.match(release)
    kernel = (int(match[1]), int(match[2])) if match else (0, 0)
    arch = _DOCKER_ARCHES[machine]

    def applies(rule: ProfileRule) -> bool:
        out, into = rule.excludes, rule.includes
        if arch in out.arches or not set(out.capabilities).isdisjoint(capabilities):
            return False
        if out.min_kernel and kernel >= out.min_kernel:
            return False
        if into.arches and arch not in into.arches:
            return False
        if into.min_kernel and kernel < into.min_kernel:
            return False
        return set(into.capabilities) <= set(capabilities)

    return [rule for rule in profile.rules if applies(rule)]


def compile_profile(
    profile: Profile, capabilities: tuple[str, ...], machine: str, release: str, *, strict: bool
) -> bytes:
    """The BPF program for a container with `capabilities`; raise UsageError, KernelError.

    `strict` adds what docker's profile leaves open (SECURITY R9): ABIs other than the machine's own
    are killed, and ioctl may not push input into a terminal, whatever the upper half of the command is.
    """
    if machine not in ARCHES:
        raise UsageError("compile seccomp profile", machine, "gocker knows x86_64 and aarch64 only")
    newer = {**_NEWER, **_NEWER_ON.get(machine, {})}
    rules: list[SyscallRule] = []
    for rule in applying_rules(profile, capabilities, machine, release):
        for arguments in _alternatives(rule.arguments):
            rules += ((name, rule.action, arguments) for name in rule.names)
    if strict:
        allowed = _always_allowed(rules, machine, newer)
        rules = [rule for rule in rules if rule[0] not in allowed]
        native = [*_highest(profile, machine, newer, x32=False), *_allow_ranges(set(allowed.values()))]
        native += _newer_answers(rules, machine, newer)
        code = [load(_ARCH), jump_if_equal(ARCHES[machine], 1, 0), answer(KILL_PROCESS), load(_NR), *native]
        code += _guard_terminals(machine)
    else:
        native = _newer_answers(rules, machine, newer)
        if profile.unknown_is_enosys:
            native = [*_highest(profile, machine, newer, x32="x32" in profile.foreign), *native]
        code = [load(_ARCH), jump_if_equal(ARCHES[machine], 0, 1 + len(native)), load(_NR), *native]
    foreign = () if strict else profile.foreign
    rest = compile_rules(profile.default_action, rules, machine=machine, foreign=foreign)
    return b"".join(code) + rest  # jumps are relative and forward: libseccomp's own stay right


def _alternatives(arguments: tuple[Argument, ...]) -> list[tuple[Argument, ...]]:
    """One rule for all comparisons, or, when an argument is compared twice, one for each: OCI's `args`."""
    if len({argument[0] for argument in arguments}) == len(arguments):
        return [arguments]
    return [(argument,) for argument in arguments]


def _highest(profile: Profile, machine: str, newer: dict[str, int], *, x32: bool) -> list[bytes]:
    """Calls newer than any that the profile has an opinion on answer ENOSYS: libc takes an older call then.

    The x32 ABI's numbers, which start at 2**30, are among them unless `x32` lets that in.
    """
    names = {name for rule in profile.rules for name in rule.names}
    numbers = [syscall_number(name, machine) for name in names]
    numbers += [newer.get(name) for name in names]
    highest = max((number for number in numbers if number is not None), default=0)
    code = [jump_if_at_least(highest + 1, 0, 1), answer(ERRNO | _ENOSYS)]
    return [jump_if_at_least(_X32, 2, 0), *code] if x32 else code


def _newer_answers(rules: list[SyscallRule], machine: str, newer: dict[str, int]) -> list[bytes]:
    """Rules on calls that this libseccomp cannot name; it takes no bare numbers when it has two ABIs."""
    code: list[bytes] = []
    for name, action, arguments in rules:
        if name in newer and syscall_number(name, machine) is None:
            if arguments:
                remedy = "install a newer libseccomp"
                raise UsageError(
                    "compile seccomp profile", name, "its arguments cannot be compared", remedy=remedy
                )
            code += [jump_if_equal(newer[name], 0, 1), answer(action)]
    return code


def _always_allowed(rules: list[SyscallRule], machine: str, newer: dict[str, int]) -> dict[str, int]:
    """Number by name of what is allowed whatever its arguments; ioctl has a guard of its own."""
    conditional = {name for name, action, arguments in rules if action != ALLOW or arguments} | {"ioctl"}
    allowed: dict[str, int] = {}
    for name in {rule[0] for rule in rules} - conditional:
        number = syscall_number(name, machine)
        number = newer.get(name, -1) if number is None else number
        if number >= 0:
            allowed[name] = number
    return allowed


def _allow_ranges(numbers: set[int]) -> list[bytes]:
    """A binary search for the loaded number among runs of allowed ones; falls through where it is not.

    300 allowed calls are some 33 runs. libseccomp compares each for itself, and the kernel walks the
    filter once for every call there is when it is installed (docs/adr/0006-seccomp.md).
    """
    # Below the first edge: not allowed. Then in turn: allowed, not allowed.
    edges = sorted(
        {n for n in numbers if n - 1 not in numbers} | {n + 1 for n in numbers if n + 1 not in numbers}
    )
    if not 0 < len(edges) < _LONGEST_JUMP:
        return [part for number in sorted(numbers) for part in (jump_if_equal(number, 0, 1), answer(ALLOW))]
    nodes: list[tuple[int, int | None, int | None]] = []  # (edge, node if not below it, node if below)

    def build(low: int, high: int) -> int | None:
        """The search tree over edges[low:high]; None where it has no edge left."""
        if low == high:
            return None
        middle, index = (low + high) // 2, len(nodes)
        nodes.append((edges[middle], None, None))
        below = build(low, middle)
        nodes[index] = (edges[middle], build(middle + 1, high), below)
        return index

    build(0, len(edges))
    allow, fall = len(nodes), len(nodes) + 1
    places = {edge: i for i, edge in enumerate(edges)}
    code: list[bytes] = []
    for index, (edge, above, below) in enumerate(nodes):
        # Past edge i, the number lies in run i: allowed when i is even. Below it, in run i - 1.
        even = places[edge] % 2 == 0
        then = above if above is not None else (allow if even else fall)
        otherwise = below if below is not None else (fall if even else allow)
        code.append(jump_if_at_least(edge, then - index - 1, otherwise - index - 1))
    return [*code, answer(ALLOW)]


def _guard_terminals(machine: str) -> list[bytes]:
    """Refuse the ioctls that type for the user; the kernel takes 32 bits of the command, so do we."""
    return [
        jump_if_equal(syscall_number("ioctl", machine) or 0, 0, 4),
        load(_ARG1_LOW),
        jump_if_equal(_TIOCSTI, 1, 0),
        jump_if_equal(_TIOCLINUX, 0, 1),
        answer(ERRNO | _EPERM),
    ]
