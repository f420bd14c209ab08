"""Compiles stub.c for every machine and writes the bytes into core/kernel/stub.py.

Run it after a change of stub.c: `python core/stub/build.py`. It needs gcc and
gcc-aarch64-linux-gnu. Not part of the installed package.
"""

from __future__ import annotations

import os
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
MODULE = os.path.join(HERE, "..", "kernel", "stub.py")
COMPILERS = {"x86_64": "x86_64-linux-gnu-gcc", "aarch64": "aarch64-linux-gnu-gcc"}
_FLAGS = [
    *("-std=gnu11", "-Os", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-nostdlib", "-static", "-s"),
    *("-fno-builtin", "-fno-pie", "-no-pie", "-fno-stack-protector", "-fno-asynchronous-unwind-tables"),
    "-fno-tree-loop-distribute-patterns",  # no calls of a memcpy that is not there
    *("-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-z,max-page-size=65536", "-Wl,-T,stub.ld"),
]
_MACHINE_FLAGS = {"x86_64": ["-fcf-protection=none"], "aarch64": ["-mbranch-protection=none"]}
_LINE = 96  # hexadecimal digits


def compile_stub(machine: str) -> bytes:
    """The ELF file for `machine`, without its section headers. Raise CalledProcessError, FileNotFoundError."""
    with tempfile.TemporaryDirectory() as scratch:
        output = os.path.join(scratch, "stub")
        command = [COMPILERS[machine], *_FLAGS, *_MACHINE_FLAGS[machine], "-o", output, "stub.c"]
        subprocess.run(command, cwd=HERE, check=True)
        with open(output, "rb") as file:
            elf = bytearray(file.read())
    # Elf64_Ehdr: e_shoff at 40, e_shentsize, e_shnum and e_shstrndx from 58. Elf64_Phdr: p_filesz at 32.
    elf[40:48] = bytes(8)
    elf[58:64] = bytes(6)
    end = int.from_bytes(elf[64 + 32 : 64 + 40], "little")
    return bytes(elf[:end])


def source_lines(machine: str, elf: bytes) -> list[str]:
    """The lines of core/kernel/stub.py that hold `elf`."""
    text = elf.hex()
    lines = [f'    "{text[i : i + _LINE]}"' for i in range(0, len(text), _LINE)]
    return [f"    # {machine}: {len(elf)} bytes", *lines]


def main() -> None:
    """Rewrite the block of each machine, between `"MACHINE": (` and `),`."""
    with open(MODULE, encoding="utf-8") as file:
        lines = file.read().splitlines()
    for machine in COMPILERS:
        block = [f"    {line}" for line in source_lines(machine, compile_stub(machine))]
        first = lines.index(f'    "{machine}": (') + 1
        last = lines.index("    ),", first)
        lines[first:last] = block
    with open(MODULE, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
