"""What the dynamic loader wants to know of an ELF file: its interpreter and the libraries it needs.

A reader of its own: the 114 programs and libraries of an image take it 1.5 ms, and pyelftools 130 ms,
its import included (docs/adr/0004-base-image.md).
"""

from __future__ import annotations

import struct

from gocker.record import Record

# Source: elf(5), System V ABI chapters 4 and 5.
_CLASS32, _CLASS64 = 1, 2
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 15, 29
_HEADER = {_CLASS32: "HHIIIIIHHH", _CLASS64: "HHIQQQIHHH"}  # from e_type to e_phnum
_SEGMENT = {_CLASS32: "IIIIIIII", _CLASS64: "IIQQQQQQ"}
_DYNAMIC = {_CLASS32: "iI", _CLASS64: "qQ"}


class Abi(Record):
    """What a program and its libraries have to agree on."""

    bits: int  # EI_CLASS: 1 is 32 bit, 2 is 64 bit
    order: int  # EI_DATA: 1 is little endian, 2 is big endian
    machine: int  # e_machine: 62 is x86-64, 183 is aarch64


class Elf(Record):
    """One program or library; text is surrogateescape text."""

    abi: Abi
    interpreter: str = ""  # "" for a library and for a static program
    needed: tuple[str, ...] = ()
    rpath: tuple[str, ...] = ()  # searched for what this and all that it loads needs
    runpath: tuple[str, ...] = ()  # searched for what this needs, and in place of rpath


def parse_elf(data: bytes) -> Elf | None:
    """Read a whole file; None when it is no ELF file.

    Raise ValueError when it is one that contradicts itself.
    """
    if data[:4] != b"\x7fELF" or len(data) < 6 or data[4] not in _HEADER or data[5] not in {1, 2}:
        return None
    bits, order = data[4], data[5]
    endian = "<" if order == 1 else ">"
    try:
        header = struct.unpack_from(endian + _HEADER[bits], data, 16)
        abi = Abi(bits=bits, order=order, machine=header[1])
        offset, size, count = header[4], header[8], header[9]
        segments = [
            _segment(bits, struct.unpack_from(endian + _SEGMENT[bits], data, offset + number * size))
            for number in range(count)
        ]
        interpreter = "".join(_text(data, start) for kind, start, _, _ in segments if kind == _PT_INTERP)
        tags = [
            tag
            for kind, start, _, length in segments
            if kind == _PT_DYNAMIC
            for tag in _tags(endian + _DYNAMIC[bits], data, start, length)
        ]
        tables = [_offset(segments, value) for tag, value in tags if tag == _DT_STRTAB]
        strings = {
            wanted: tuple(_text(data, tables[0] + value) for tag, value in tags if tag == wanted)
            for wanted in (_DT_NEEDED, _DT_RPATH, _DT_RUNPATH)
        }
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError(f"a broken ELF file: {error}") from error
    return Elf(
        abi=abi,
        interpreter=interpreter,
        needed=strings[_DT_NEEDED],
        rpath=_split(strings[_DT_RPATH]),
        runpath=_split(strings[_DT_RUNPATH]),
    )


Segment = tuple[int, int, int, int]  # p_type, p_offset, p_vaddr, p_filesz


def _segment(bits: int, words: tuple[int, ...]) -> Segment:
    if bits == _CLASS64:
        return words[0], words[2], words[3], words[5]
    return words[0], words[1], words[2], words[4]


def _tags(shape: str, data: bytes, start: int, length: int) -> list[tuple[int, int]]:
    size = struct.calcsize(shape)
    tags = []
    for offset in range(start, start + length - size + 1, size):
        tag, value = struct.unpack_from(shape, data, offset)
        if tag == _DT_NULL:
            break
        tags.append((tag, value))
    return tags


def _offset(segments: list[Segment], address: int) -> int:
    """Where in the file the byte lies that is loaded at `address`."""
    for kind, start, base, length in segments:
        if kind == _PT_LOAD and base <= address < base + length:
            return start + address - base
    raise ValueError(f"a broken ELF file: nothing is loaded at {address:#x}")


def _text(data: bytes, start: int) -> str:
    end = data.find(b"\0", start)
    if not 0 <= start < len(data) or end < 0:
        raise ValueError(f"a broken ELF file: no text at offset {start}")
    return data[start:end].decode("utf-8", "surrogateescape")


def _split(paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part for path in paths for part in path.split(":") if part)
