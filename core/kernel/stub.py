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
"""Where the SEQPACKET socket to the launcher is, unless the program gets fds from here on; closed on exec."""
EXEC, INIT = "gocker-exec", "gocker-init"
"""argv[0] of the stub: its mode."""
EXEC_FAILED, ENDED, STARTED = KINDS = (1, 2, 3)
"""Kinds of record: the exec failed (errno), --init's program ended (wait status), it runs (0)."""
RECORD_SIZE = 8

_ELF = {
    "x86_64": (
        # x86_64: 1268 bytes
        "7f454c4602010100000000000000000002003e0001000000b00040000000000040000000000000000000000000000000"
        "000000004000380002000000000000000100000005000000000000000000000000004000000000000000400000000000"
        "f404000000000000f404000000000000000001000000000051e574640600000000000000000000000000000000000000"
        "00000000000000000000000000000000000000000000000008000000000000004889e74883e4f0e8930000004863ff41"
        "b9e700000031d24531d24531c04c89c84889d60f05ebee4883ec104189f14863ff4531d28974240c4531c0488d742408"
        "b801000000c744240801000000ba080000000f0531ff4183f902400f94c783c77ee8a6ffffffb8db0440008a108a0f84"
        "d2740c48ffc748ffc038ca74eeeb1d31c08a0c068a140784c9740948ffc038ca74efeb0831c084d20f94c0c331c0c341"
        "5741564155415455534883ec404c8b2f4d85ed7f0abf7e000000e9930000004c8b47084889fdbeef0440004c89c7e893"
        "ffffff4189c185c07511bee30440004c89c7e87fffffff85c074ca83cbff4983fd01742f488b5510803a00742631db0f"
        "be0284c0741d83e83083f809771281fb00001000770a6bdb0a48ffc201c3ebdf83cbff4863c341bc020000004531d245"
        "31c0488904244863fbb8480000004c89e6ba010000000f054885c0790abf7d000000e8b5feffff48837d0003be160000"
        "000f8ebd0200004a8d44ed1048894424084585c90f848c02000031c041bf0e0000004531c04c89e78944241841ba0800"
        "00004c89f8488d74242848c7442428ffffffff488d5424200f054531c94531d2bee8044000bf0f00000041bd9d000000"
        "4c89ca4c89e80f05bf040000004c89e84c89ce0f05bf240000004c89e8be010000000f05b825010000488d7c2430be00"
        "0008000f054885c00f88220200004531d24531c0b838000000bf110000004c89ce0f054885c00f88040200004c636c24"
        "344189c64531d24531c085c07572b8270000004c89cf0f0589442438b86d0000000f05b810000000488d542438be1054"
        "00000f0541ba080000004c89f84c89e74c89ca488d7424200f054531d2488b7d18488b542408488d7520b83b0000000f"
        "05f7d8488d74241c4c89efba040000008944241cb8010000000f05e9adfeffffb8030000004c89ef0f05ba0400000048"
        "8d7424184531c948637c24304531d24531c04c89c80f054883f8fc74e74885c07e098b742418e94901000048637c2430"
        "4531d24531c0b8030000004c89ce4c89ca0f0531ff41b90300000039fb7e1531d24531d24531c04c89c84889d60f0548"
        "ffc7ebe74c8d4c24384531d24531c0b80100000048c744243803000000ba08000000488b3c244c89ce0f0541bd800000"
        "00488d5c241cbd3d0000004d63fe4983ccff31d241ba080000004531c04c89e8488d7c24284889d60f054889c64885c0"
        "0f9fc04883fe11741384c0740f4963fe4531d2b83e0000000f05ebc64883fefc0f94c209c20fb6d24531d24531c04889"
        "e84c89e74889de0f054885c07e494939c775e58b5c241c488b3c244531d24531c0c744243802000000b801000000ba08"
        "0000004c89ce89dd895c243c83e57f0f050fb6ff85ed0f8466fdffff8dbd80000000e95bfdffff4883f8f60f8551ffff"
        "ffe947fdffff488d7520488b7d184531d24531c0b83b000000488b5424080f0589c6f7de89dfe8fcfbffff676f636b65"
        "722d006578656300676f636b65722d696e697400"
    ),
    "aarch64": (
        # aarch64: 1381 bytes
        "7f454c460201010000000000000000000200b70001000000b00040000000000040000000000000000000000000000000"
        "000000004000380002000000000000000100000005000000000000000000000000004000000000000000400000000000"
        "65050000000000006505000000000000000001000000000051e574640600000000000000000000000000000000000000"
        "0000000000000000000000000000000000000000000000000800000000000000e00300913e000094e80300aae00301aa"
        "e10302aae20303aae30304aa040080d2010000d4c0035fd6057c4093fd7bbfa9fd030091e10305aa040080d2030080d2"
        "020080d2c00b80d2f0ffff97faffff17fd7bbea9040080d2030180d2fd030091e10b0329e2630091017c4093000880d2"
        "e6ffff97fd7bc2a8c0035fd6fd7bbfa9e503012ae203012afd03009121008052f0ffff97bf080071e0179f1a00f80111"
        "e2ffff970200009042301591430040390400403903010035020080d22468623803686238440100357f000071e0179f1a"
        "c0035fd600040091420400917f00046b60feff5400008052faffff17420400917f00046b40feff54fbffff17fd7bbca9"
        "fd030091070040f9ff0000f16c000054c00f8052c5ffff97050440f9e60300aa0100009021801591e00305aadeffff97"
        "e903002ac000003501000090e00305aa21501591d8ffff9740feff34ff0400f100030054c00840f901004039a1020034"
        "05008052420180520100403941010035a17c4093040080d2230080d2420080d2200380d2a1ffff978001f8b6a00f8052"
        "e1ffff1721c00051bf0044712298497a88000054a504021b00040091efffff1705008012efffff17c00040f91f0c00f1"
        "8c000054c1028052e003052aacffff97e7080091c70c078b4915003400008092e3a30091e2c30091040180d2410080d2"
        "ff1f00b9e01b00f9e01080d283ffff97040080d2030080d2e10180d202000090e01480d2426415917cffff97040080d2"
        "030080d2020080d2810080d2e01480d276ffff97040080d2030080d2220080d2810480d2e01480d270ffff97e1e30091"
        "040080d2030080d20201a0d2600780d26affff976000f8b6e103004bd7ffff17040080d2030080d2020080d2210280d2"
        "801b80d261ffff9700ffffb7ea3f80b9e903002a040080d2030080d2020080d2c0040035010080d2801580d257ffff97"
        "e02700b9040080d2030080d2020080d2010080d2401380d250ffff97e3930091040080d202828ad2010080d2a00380d2"
        "4affff97e2a30091040180d2030080d2410080d2e01080d244ffff97c10c40f9e30307aac2800091040080d2a01b80d2"
        "3effff97e003004be2830091e1030aaa040080d2830080d2e02300b9000880d236ffff9796ffff17e1030aaa200780d2"
        "32ffff97e13b80b9e2730091040080d2830080d2e00780d22cffff971f1000b120ffff541f0000f16d000054e11f40b9"
        "96ffff17e13b80b9040080d2030080d2020080d2200780d2060080d21fffff97bf00066b6c030054267d4093e003052a"
        "02008052610080522affff97020080d2e1c30091040180d2030080d2201180d212ffff971f0000f1e20300aae0d79f1a"
        "1f000071440844bae7179f9a1f000071441851fa80030054217d4093040080d2030080d2201080d204ffff97ecffff17"
        "e10306aa040080d2030080d2020080d2200780d2c6040091fcfeff97ddffff17df0000eb81010054e62740b9e003052a"
        "41008052c7180012e203062a05ffff97c63c48d3e0000211ff000071c000801a31ffff17e30307aae2930091040080d2"
        "01008092802080d2e8feff971f0000f18cfdff541f2800b1a1f9ff5444ffff17c10c40f9e30307aac2800091040080d2"
        "a01b80d2ddfeff9774ffff17676f636b65722d006578656300676f636b65722d696e697400"
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


def stub_fd(lowest: int = 0) -> int:
    """A close-on-exec fd of the sealed stub, made once in a process and inherited by its children.

    It is at least `lowest`. Raise KernelError.
    """
    global _made  # noqa: PLW0603 - one for the process, as the fd table is
    if not is_sealed(_made) or _made < lowest:
        _made = make(stub_elf(os.uname().machine), max(lowest, _FIRST_FREE))
    return _made


def is_sealed(fd: int) -> bool:
    """Whether `fd` is open and of a memfd that nobody can change."""
    try:
        return fd >= 0 and fcntl.fcntl(fd, _F_GET_SEALS) & _SEALED == _SEALED
    except OSError:
        return False  # someone closed it, and the number is free or another file's


def make(elf: bytes, lowest: int) -> int:
    """A close-on-exec fd, at least `lowest`, of a sealed memfd with `elf`, mode 0111. Raise KernelError, OSError."""
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
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
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


def exec_stub(
    fd: int,
    mode: str,
    path: str,
    argv: Sequence[str],
    env: Sequence[tuple[str, str]],
    status: int = STATUS_FD,
) -> NoReturn:
    """Become the stub behind `fd`, which execs `path` with `argv` and `env`, byte for byte.

    `mode` is EXEC or INIT; `status` is the socket to the launcher, and what lies below it is the
    program's. Raise OSError, and UsageError where a text holds a NUL byte. Source: execveat(2).
    """
    arguments = _strings([mode, str(status), path, *argv])
    variables = _strings([f"{name}={value}" for name, value in env])
    call("execveat", fd, b"", ctypes.addressof(arguments), ctypes.addressof(variables), _AT_EMPTY_PATH)
    raise AssertionError("execveat returned without an error")


def _strings(texts: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    """A NULL-terminated `char *[]`; it keeps the bytes alive."""
    data = [os.fsencode(text) for text in texts]
    if b"\0" in b"".join(data):
        raise UsageError("exec", texts[0], "an argument or variable holds a NUL byte")
    return (ctypes.c_char_p * (len(data) + 1))(*data, None)
