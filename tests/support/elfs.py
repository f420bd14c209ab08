"""Tiny ELF files that say what they need, for hosts that exist only in a test."""

import os
import struct
from pathlib import Path

X86_64, AARCH64 = 62, 183


def elf(
    *needed: str,
    interpreter: str = "",
    rpath: str = "",
    runpath: str = "",
    machine: int = X86_64,
    bits: int = 64,
    big: bool = False,
) -> bytes:
    """A file with the headers that a loader reads, loaded at 0x10000."""
    order = ">" if big else "<"
    wide = bits == 64
    header_size, segment_size, tag_shape = (64, 56, "qQ") if wide else (52, 32, "iI")
    strings = b"\0"
    tags = []
    for tag, text in [*((1, name) for name in needed), (15, rpath), (29, runpath)]:
        if text:
            tags.append((tag, len(strings)))
            strings += os.fsencode(text) + b"\0"
    segments = 3 if interpreter else 2
    strings_at = header_size + segments * segment_size
    interpreter_at = strings_at + len(strings)
    dynamic_at = interpreter_at + len(os.fsencode(interpreter)) + 1
    tags += [(5, 0x10000 + strings_at), (0, 0)]
    dynamic = b"".join(struct.pack(order + tag_shape, *tag) for tag in tags)
    size = dynamic_at + len(dynamic)

    def segment(kind: int, offset: int, length: int) -> bytes:
        at = 0x10000 + offset
        if wide:
            return struct.pack(order + "IIQQQQQQ", kind, 4, offset, at, at, length, length, 1)
        return struct.pack(order + "IIIIIIII", kind, offset, at, at, length, length, 4, 1)

    ident = b"\x7fELF" + bytes([2 if wide else 1, 2 if big else 1, 1]) + bytes(9)
    shape = "HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"
    head = struct.pack(
        order + shape, 3, machine, 1, 0, header_size, 0, 0, header_size, segment_size, segments, 0, 0, 0
    )
    table = segment(1, 0, size) + segment(2, dynamic_at, len(dynamic))
    if interpreter:
        table += segment(3, interpreter_at, len(interpreter) + 1)
    return ident + head + table + strings + os.fsencode(interpreter) + b"\0" + dynamic


def make_host(top: Path, files: dict[str, bytes | str]) -> str:
    """Put files below `top`: bytes are a program's content, text is a symbolic link's target."""
    for path, content in files.items():
        real = top / path.lstrip("/")
        real.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            real.symlink_to(content)
        else:
            real.write_bytes(content)
            real.chmod(0o755)
    return str(top)
