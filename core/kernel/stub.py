"""The exec stub: the program in a sealed memfd that is the last hop into a container.

core/stub/stub.c is its source and draws the protocol; docs/adr/0005-exec-stub.md says why it exists.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Sequence
from typing import NoReturn

from gocker.errors import KernelError, UsageError
from gocker.kernel.syscalls import call
from gocker.record import Record

STATUS_FD = 3
"""Where the stub expects the SEQPACKET socket to the launcher; it closes it on exec."""
EXEC, INIT = "gocker-exec", "gocker-init"
"""argv[0] of the stub: its mode."""
EXEC_FAILED, ENDED, STARTED = KINDS = (1, 2, 3)
"""Kinds of record: the exec failed (errno), --init's program ended (wait status), it runs (0)."""
RECORD_SIZE = 8

_ELF = {
    "x86_64": (
        # x86_64: 1186 bytes
        "7f454c4602010100000000000000000002003e0001000000b00040000000000040000000000000000000000000000000"
        "000000004000380002000000000000000100000005000000000000000000000000004000000000000000400000000000"
        "a204000000000000a204000000000000000001000000000051e574640600000000000000000000000000000000000000"
        "00000000000000000000000000000000000000000000000008000000000000004889e74883e4f0e8950000004863ff41"
        "b9e700000031d24531d24531c04c89c84889d60f05ebee4883ec104189f94531d24531c0897c240c488d742408b80100"
        "0000bf03000000c744240801000000ba080000000f0531ff4183f902400f94c783c77ee8a4ffffffb8890440008a108a"
        "0f84d2740c48ffc748ffc038ca74eeeb1d31c08a0c068a140784c9740948ffc038ca74efeb0831c084d20f94c0c331c0"
        "c3415741564155415455534883ec30488b2f4885ed7f07bf7e000000eb564c8b47084889fbbe9d0440004c89c7e896ff"
        "ffff4189c185c07511be910440004c89c7e882ffffff85c074cd4531d24531c0b848000000bf0300000041bc02000000"
        "ba010000004c89e60f054885c0790abf7d000000e8f3feffff48833b02bf160000000f8eac0200004c8d7ceb104585c9"
        "0f848202000031c0bd0e00000041ba080000004531c0894424084c89e74889e8488d74241848c7442418ffffffff488d"
        "5424100f054531c94531d2be96044000bf0f00000041bd9d0000004c89ca4c89e80f05bf040000004c89e84c89ce0f05"
        "bf240000004c89e8be010000000f05b825010000488d7c2420be000008000f054885c00f88170200004531d24531c0b8"
        "38000000bf110000004c89ce0f054885c00f88f90100004c636c24244189c64531d24531c085c07570b8270000004c89"
        "cf0f0589442428b86d0000000f05b810000000488d542428be105400000f0541ba080000004889e84c89e74c89ca488d"
        "7424100f054531d2488b7b10488d7318b83b0000004c89fa0f05f7d8488d74240c4c89efba040000008944240cb80100"
        "00000f05e9b6feffffb8030000004c89ef0f05ba04000000488d7424084531c948637c24204531d24531c04c89c80f05"
        "4883f8fc74e74885c07e098b7c2408e940010000bb0300000048637c24204531d24531c04889d84c89ce4c89ca0f0548"
        "89d84c89cf0f05bd010000004889d84889ef0f05bf020000004889d80f054c8d4c2428ba080000004889e84889df48c7"
        "442428030000004c89ce0f0541bd80000000488d5c240cbd3d0000004d63fe4983ccff31d241ba080000004531c04c89"
        "e8488d7c24184889d60f054889c64885c00f9fc04883fe11741384c0740f4963fe4531d2b83e0000000f05ebc64883fe"
        "fc0f94c209c20fb6d24531d24531c04889e84c89e74889de0f054885c07e4a4939c775e58b5c240c4531d24531c0b801"
        "000000c744242802000000bf03000000ba080000004c89ce89dd895c242c83e57f0f050fb6ff85ed0f8476fdffff8dbd"
        "80000000e96bfdffff4883f8f60f8550ffffffe957fdffff488d7318488b7b104531d24531c0b83b0000004c89fa0f05"
        "89c7f7dfe84efcffff676f636b65722d006578656300676f636b65722d696e697400"
    ),
    "aarch64": (
        # aarch64: 1293 bytes
        "7f454c460201010000000000000000000200b70001000000b00040000000000040000000000000000000000000000000"
        "000000004000380002000000000000000100000005000000000000000000000000004000000000000000400000000000"
        "0d050000000000000d05000000000000000001000000000051e574640600000000000000000000000000000000000000"
        "0000000000000000000000000000000000000000000000000800000000000000e00300913e000094e80300aae00301aa"
        "e10302aae20303aae30304aa040080d2010000d4c0035fd6057c4093fd7bbfa9fd030091e10305aa040080d2030080d2"
        "020080d2c00b80d2f0ffff97faffff17fd7bbea9040080d2030180d2fd030091e2630091e0070329610080d2000880d2"
        "e6ffff97fd7bc2a8c0035fd6fd7bbfa9e503002ae103002afd03009120008052f0ffff97bf080071e0179f1a00f80111"
        "e2ffff970200009042d01391430040390400403903010035020080d22468623803686238440100357f000071e0179f1a"
        "c0035fd600040091420400917f00046b60feff5400008052faffff17420400917f00046b40feff54fbffff17fd7bbca9"
        "fd030091060040f9df0000f16c000054c00f8052c5ffff97080440f9e50300aa0100009021201491e00308aadeffff97"
        "e703002ac000003501000090e00308aa21f01391d8ffff9740feff34040080d2230080d2420080d2610080d2200380d2"
        "aaffff976000f8b6a00f8052eaffff17a00040f91f0800f16c000054c0028052bfffff97c6080091a60c068be7140034"
        "00008092e3a30091e2c30091040180d2410080d2ff1f00b9e01b00f9e01080d296ffff97040080d2030080d2e10180d2"
        "02000090e01480d2420414918fffff97040080d2030080d2020080d2810080d2e01480d289ffff97040080d2030080d2"
        "220080d2810480d2e01480d283ffff97e1e30091040080d2030080d20201a0d2600780d27dffff976000f8b6e003004b"
        "d8ffff17040080d2030080d2020080d2210280d2801b80d274ffff9700ffffb7e93f80b9e703002a040080d2030080d2"
        "020080d2c0040035010080d2801580d26affff97e02700b9040080d2030080d2020080d2010080d2401380d263ffff97"
        "e3930091040080d202828ad2010080d2a00380d25dffff97e2a30091040180d2030080d2410080d2e01080d257ffff97"
        "a10840f9e30306aaa2600091040080d2a01b80d251ffff97e003004be2830091e10309aa040080d2830080d2e02300b9"
        "000880d249ffff97a0ffff17e10309aa200780d245ffff97e13b80b9e2730091040080d2830080d2e00780d23fffff97"
        "1f1000b120ffff541f0000f16d000054e01f40b997ffff17e13b80b9040080d2030080d2020080d2200780d2050080d2"
        "32ffff97e10305aa040080d2030080d2020080d2200780d2a50400912bffff97bf0c00f101ffff54e003052ae57c4093"
        "0100805237ffff97020080d2e1c30091040180d2030080d2201180d21fffff971f0000f1e20300aae0d79f1a1f000071"
        "440844bae6179f9a1f000071441851fa60020054e17c4093040080d2030080d2201080d211ffff97ecffff17bf0000eb"
        "61010054e52740b940008052a6180012e103052a1bffff97a53c48d3c0000211df000071a000801a47ffff17e30306aa"
        "e2930091040080d201008092802080d2fefeff971f0000f1acfdff541f2800b1c1faff5451ffff17a10840f9e30306aa"
        "a2600091040080d2a01b80d2f3feff9777ffff17676f636b65722d006578656300676f636b65722d696e697400"
    ),
}

_MFD_CLOEXEC, _MFD_ALLOW_SEALING, _MFD_EXEC = 0x01, 0x02, 0x10  # linux/memfd.h
_F_ADD_SEALS, _F_GET_SEALS = 1033, 1034  # linux/fcntl.h
_SEALED = 0x01 | 0x02 | 0x04 | 0x08 | 0x10  # F_SEAL_SEAL, SHRINK, GROW, WRITE, FUTURE_WRITE
_F_SEAL_EXEC = 0x20  # Linux 6.3: the mode can no longer change either
_AT_EMPTY_PATH = 0x1000
_FIRST_FREE = 10  # above the fds that a container's process starts with

_made = -1


class StatusRecord(Record):
    """What the stub says: one packet."""

    kind: int  # EXEC_FAILED, ENDED or STARTED
    value: int  # errno, wait status or 0


def parse_record(packet: bytes) -> StatusRecord:
    """One packet as a record; raise KernelError on anything else.

    A hostile program cannot send one (its copy of the socket is closed on exec), but nothing here
    relies on that.
    """
    kind, value = int.from_bytes(packet[:4], "little"), int.from_bytes(packet[4:], "little")
    if len(packet) != RECORD_SIZE or kind not in KINDS:
        raise KernelError("read status", packet[:32].hex(), "not a record of the exec stub")
    return StatusRecord(kind=kind, value=value)


def stub_elf(machine: str) -> bytes:
    """The stub for `machine` (as uname -m says it); raise KernelError when there is none."""
    text = _ELF.get(machine)
    if text is None:
        have = " and ".join(_ELF)
        raise KernelError("make exec stub", machine, f"gocker has one for {have} only")
    return bytes.fromhex(text)


def stub_fd() -> int:
    """A close-on-exec fd of the sealed stub, made once in a process and inherited by its children.

    Raise KernelError.
    """
    global _made  # noqa: PLW0603 - one for the process, as the fd table is
    if not _is_sealed(_made):
        _made = _make(stub_elf(os.uname().machine))
    return _made


def _is_sealed(fd: int) -> bool:
    try:
        return fd >= 0 and fcntl.fcntl(fd, _F_GET_SEALS) & _SEALED == _SEALED
    except OSError:
        return False  # someone closed it, and the number is free or another file's


def _make(elf: bytes) -> int:
    try:
        fd = _memfd()
    except PermissionError as error:
        remedy = "allow executable memfds: sysctl vm.memfd_noexec=1"
        raise KernelError.from_os("make exec stub", "memfd", error, remedy=remedy) from error
    try:
        os.write(fd, elf)
        # Nobody may read or write it. Not readable also means not dumpable (would_dump in the kernel's
        # fs/exec.c): who is not root cannot trace the stub either.
        os.fchmod(fd, 0o111)
        _seal(fd)
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    finally:
        os.close(fd)


def _memfd() -> int:
    flags = _MFD_CLOEXEC | _MFD_ALLOW_SEALING
    try:
        return os.memfd_create("gocker", flags | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.memfd_create("gocker", flags)  # before Linux 6.3: executable without asking


def _seal(fd: int) -> None:
    try:
        fcntl.fcntl(fd, _F_ADD_SEALS, _SEALED | _F_SEAL_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fcntl.fcntl(fd, _F_ADD_SEALS, _SEALED)


def exec_stub(fd: int, mode: str, path: str, argv: Sequence[str], env: Sequence[tuple[str, str]]) -> NoReturn:
    """Become the stub behind `fd`, which execs `path` with `argv` and `env`, byte for byte.

    `mode` is EXEC or INIT. STATUS_FD must be the socket to the launcher. Raise OSError, and
    UsageError where a text holds a NUL byte. Source: execveat(2).
    """
    arguments = _strings([mode, path, *argv])
    variables = _strings([f"{name}={value}" for name, value in env])
    call("execveat", fd, b"", ctypes.addressof(arguments), ctypes.addressof(variables), _AT_EMPTY_PATH)
    raise AssertionError("execveat returned without an error")


def _strings(texts: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    """A NULL-terminated `char *[]`; it keeps the bytes alive."""
    data = [os.fsencode(text) for text in texts]
    if b"\0" in b"".join(data):
        raise UsageError("exec", texts[0], "an argument or variable holds a NUL byte")
    return (ctypes.c_char_p * (len(data) + 1))(*data, None)
