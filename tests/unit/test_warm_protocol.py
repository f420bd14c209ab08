"""What the client of a warm server and a worker say to each other."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import pytest

from gocker.kernel import caller
from gocker.warm import protocol
from gocker.warm.protocol import Request, pack_request, parse_answer, parse_request, parse_usage
from gocker.warm.surroundings import is_plain, steering, surroundings_of

CLIENT = (Path(__file__).parents[2] / "core/native/client.c").read_text()
REQUEST = Request(
    protocol=protocol.PROTOCOL,
    oci=True,
    umask=0o22,
    blocked=1 << 63,
    limits=tuple((number, (1 << 64) - 1) for number in range(protocol.LIMITS)),
    version="1",
    program="/bin/gocker",
    argv=("run", "", "\udcff"),
    env=((b"A", b"b=c"), (b"=odd", b""), (b"E", b"")),
)


def test_a_request_is_read_as_it_was_packed() -> None:
    assert parse_request(pack_request(REQUEST)) == REQUEST


def test_what_is_no_variable_is_left_out_as_python_does() -> None:
    packet = pack_request(REQUEST).replace(b"A=b=c\0", b"nothing\0").replace(b"=odd=", b"=odd ")
    assert parse_request(packet).env == ((b"E", b""),)


@pytest.mark.parametrize("length", [0, 1, 200, -1, -2])
def test_a_request_that_was_cut_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=r"short|words"):
        parse_request(pack_request(REQUEST)[:length])


def test_words_too_many_are_refused() -> None:
    with pytest.raises(ValueError, match="words"):
        parse_request(pack_request(REQUEST) + b"more\0")


def test_an_answer_of_another_kind_is_refused() -> None:
    assert parse_answer(protocol.message(protocol.SPAWNED, -2), protocol.SPAWNED) == -2
    with pytest.raises(ValueError, match="is not"):
        parse_answer(protocol.message(protocol.HERE), protocol.SPAWNED)
    with pytest.raises(ValueError, match="short"):
        parse_answer(b"", protocol.SPAWNED)


def test_usage_is_seconds_first() -> None:
    packet = protocol.message(protocol.WAITED) + struct.pack("=18q", 1, 500_000, 2, 250_000, *range(14))
    assert parse_usage(packet) == (1.5, 2.25, *range(14))
    with pytest.raises(ValueError, match="usage"):
        parse_usage(packet[:-1])


def test_the_client_has_the_same_numbers() -> None:
    lists = {
        text.split(",")[0].split("=")[0].strip(): text for text in re.findall(r"enum \{([^}]*)\}", CLIENT)
    }
    to_client = [word.split("=")[0].strip() for word in lists["WELCOME"].split(",")]
    answers = [word.split("=")[0].strip() for word in lists["SPAWNED"].split(",")]
    assert [getattr(protocol, name) for name in to_client] == list(range(1, len(to_client) + 1))
    assert [getattr(protocol, name) for name in answers] == list(range(1, len(answers) + 1))
    assert f"PROTOCOL = {protocol.PROTOCOL}," in CLIENT
    assert f"RLIMITS = {protocol.LIMITS}," in CLIENT
    assert f"PASSED_ON = {caller.PASSED_ON} " in CLIENT


def test_the_locale_counts_by_its_encoding() -> None:
    plain = steering({})
    assert steering({b"LANG": b"C"}) == steering({b"LC_ALL": b"en_US.UTF-8"}) == plain
    assert steering({b"LANG": b"de_DE.ISO-8859-1"}) != plain
    assert steering({b"LC_ALL": b"C.utf8", b"LANG": b"de_DE.ISO-8859-1"}) == plain
    assert is_plain({b"LC_ALL": b"", b"LANG": b"POSIX"})
    assert not is_plain({b"LANG": b"C.UTF-8"})


@pytest.mark.parametrize("name", [b"PYTHONPATH", b"LD_PRELOAD", b"GLIBC_TUNABLES", b"MALLOC_ARENA_MAX"])
def test_what_steers_the_interpreter_counts(name: bytes) -> None:
    assert steering({name: b"1"}) != steering({})
    assert steering({name: b"1"}) == steering({name: b"1", b"HOME": b"/"})


def test_a_process_has_its_own_surroundings() -> None:
    one, _ = surroundings_of("/proc/self")
    other, _ = surroundings_of(f"/proc/{os.getpid()}")
    assert one == other
    assert one.identity.startswith(b"\nUid:")
    assert b"\nSeccomp:" in one.rights
    assert one.namespaces[2] != (0, 0)


def test_without_a_client_this_process_works_for_itself() -> None:
    assert caller.pid() == os.getpid()
    assert caller.proc() == "/proc/self"
    assert not caller.is_other()
    caller.give_back("nothing comes of it")
