"""The ELF reader agrees with pyelftools and takes nothing amiss."""

import glob
import os
import sys

import pytest
from elfs import elf
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment
from hypothesis import given
from hypothesis import strategies as st

from gocker.elf import Abi, Elf, parse_elf

SAMPLES = sorted(
    {
        os.path.realpath(path)
        for pattern in (sys.executable, "/bin/sh", "/bin/ls", "/usr/bin/[a-d]*", "/lib/*/lib[a-d]*.so.*")
        for path in glob.glob(pattern)
    }
)


def parse(path: str) -> Elf | None:
    with open(path, "rb") as file:
        return parse_elf(file.read())


def oracle(path: str) -> tuple[str, list[str], list[str]]:
    """(interpreter, needed, rpath and runpath) as pyelftools reads them."""
    interpreter, needed, search = "", [], []
    with open(path, "rb") as file:
        for segment in ELFFile(file).iter_segments():
            if isinstance(segment, InterpSegment):
                interpreter = segment.get_interp_name()
            elif isinstance(segment, DynamicSegment):
                tags = list(segment.iter_tags())
                needed = [vars(tag)["needed"] for tag in tags if tag.entry.d_tag == "DT_NEEDED"]
                search = [vars(tag)["rpath"] for tag in tags if tag.entry.d_tag == "DT_RPATH"]
                search += [vars(tag)["runpath"] for tag in tags if tag.entry.d_tag == "DT_RUNPATH"]
    return interpreter, needed, search


def test_it_reads_what_pyelftools_reads() -> None:
    compared = 0
    for path in SAMPLES:
        elf = parse(path) if os.path.isfile(path) else None
        if elf is None:
            continue
        mine = (
            elf.interpreter,
            list(elf.needed),
            [":".join(part) for part in (elf.rpath, elf.runpath) if part],
        )
        assert mine == oracle(path), path
        compared += 1
    assert compared > 3


def test_it_knows_this_machine() -> None:
    elf = parse(os.path.realpath("/bin/sh"))
    assert elf is not None
    machine = {"x86_64": Abi(2, 1, 62), "aarch64": Abi(2, 1, 183)}.get(os.uname().machine)
    if machine is None:
        pytest.skip(f"no expectation for {os.uname().machine}")
    assert elf.abi == machine


@pytest.mark.parametrize(
    "data", [b"", b"\x7fEL", b"\x7fELF", b"\x7fELF\x03\x01", b"#!/bin/sh\n", b"\x7fELF\x02\x07"]
)
def test_what_is_no_elf_file_is_none(data: bytes) -> None:
    assert parse_elf(data) is None


with open(os.path.realpath("/bin/sh"), "rb") as _file:
    _SHELL = _file.read()


def test_a_file_cut_short_is_an_error() -> None:
    with pytest.raises(ValueError, match="broken ELF file"):
        parse_elf(_SHELL[:100])


@given(
    edits=st.lists(st.tuples(st.integers(4, 2000), st.integers(0, 255)), max_size=20),
    end=st.integers(0, len(_SHELL)),
)
def test_a_damaged_file_gives_a_value_error_at_most(edits: list[tuple[int, int]], end: int) -> None:
    data = bytearray(_SHELL)
    for offset, value in edits:
        data[offset] = value
    try:
        parse_elf(bytes(data[:end]))
    except ValueError as error:
        assert "broken ELF file" in str(error)  # noqa: PT017 - most damage goes unnoticed


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("big", [False, True])
def test_both_classes_and_byte_orders_are_read(bits: int, big: bool) -> None:
    data = elf(
        "libc.so.6", "liba.so", interpreter="/lib/ld.so", rpath="/a:/b", runpath="$ORIGIN", bits=bits, big=big
    )
    assert parse_elf(data) == Elf(
        abi=Abi(bits=bits // 32, order=1 + big, machine=62),
        interpreter="/lib/ld.so",
        needed=("libc.so.6", "liba.so"),
        rpath=("/a", "/b"),
        runpath=("$ORIGIN",),
    )
