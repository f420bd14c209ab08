"""The packets between the client (core/native/client.c, which draws them) and a worker."""

from __future__ import annotations

import os
import struct

from gocker.record import Record

PROTOCOL = 1
WELCOME, COLD, EXIT, SPAWN, WAIT, PEEK, CHALLENGE, END_OUTPUT, REAP = range(1, 10)
"""Kinds of message to the client."""
SPAWNED, WAITED, PEEKED, HERE = range(1, 5)
"""Kinds of answer."""
FAILED, ALIVE = -1, -2
"""Values of PEEKED: no child of the client's, and one that has not ended."""
LIMITS = 16  # RLIM_NLIMITS, asm-generic/resource.h
MOST = (120 << 10) + 1024  # bytes of a request; the client asks for no more

_REQUEST = struct.Struct(f"=6IQ{2 * LIMITS}Q")
_MESSAGE = struct.Struct("=Ii")
_USAGE = struct.Struct("=18q")  # struct rusage, getrusage(2)


class Request(Record):
    """A command, and what it needs to know of the process that it was given to."""

    protocol: int
    oci: bool  # gocker-oci
    umask: int
    blocked: int  # its signal mask
    limits: tuple[tuple[int, int], ...]  # (soft, hard) of each resource, in the kernel's order
    version: str
    program: str  # the client's path
    argv: tuple[str, ...]  # without argv[0]
    env: tuple[tuple[bytes, bytes], ...]


def parse_request(packet: bytes) -> Request:
    """Of the client's first packet. Raise ValueError on anything else."""
    if len(packet) < _REQUEST.size:
        raise ValueError("too short")
    protocol, oci, umask, argc, envc, _, blocked, *limits = _REQUEST.unpack_from(packet)
    texts = packet[_REQUEST.size :].split(b"\0")
    if len(texts) != argc + envc + 3 or texts.pop():
        raise ValueError("another number of words")
    version, program, *argv = map(os.fsdecode, texts[: argc + 2])
    env = tuple([_pair(text) for text in texts[argc + 2 :] if b"=" in text[1:]])
    pairs = tuple(zip(limits[::2], limits[1::2], strict=True))
    return Request(protocol, bool(oci), umask, blocked, pairs, version, program, tuple(argv), env)


def _pair(text: bytes) -> tuple[bytes, bytes]:
    at = text.index(b"=", 1)  # as Python's own: a name may begin with one
    return text[:at], text[at + 1 :]


def pack_request(request: Request) -> bytes:
    """What the client sends; for tests, and for the server's own rehearsals."""
    limits = [value for pair in request.limits for value in pair]
    counts = (len(request.argv), len(request.env), 0)
    head = _REQUEST.pack(request.protocol, request.oci, request.umask, *counts, request.blocked, *limits)
    words = map(os.fsencode, (request.version, request.program, *request.argv))
    texts = [*words, *(b"=".join(pair) for pair in request.env)]
    return head + b"".join(text + b"\0" for text in texts)


def message(kind: int, value: int = 0) -> bytes:
    """One to the client; an answer of it looks the same."""
    return _MESSAGE.pack(kind, value)


def parse_answer(packet: bytes, kind: int) -> int:
    """The value of an answer of this kind. Raise ValueError on another."""
    if len(packet) < _MESSAGE.size:
        raise ValueError("too short")
    found, value = _MESSAGE.unpack_from(packet)
    if found != kind:
        raise ValueError(f"{found} is not {kind}")
    return int(value)


def parse_usage(packet: bytes) -> tuple[float, ...]:
    """The 16 numbers of a resource.struct_rusage that a WAITED answer ends with. Raise ValueError."""
    if len(packet) != _MESSAGE.size + _USAGE.size:
        raise ValueError("not as long as an answer with its usage")
    user, user_us, system, system_us, *rest = _USAGE.unpack_from(packet, _MESSAGE.size)
    return (user + user_us / 1e6, system + system_us / 1e6, *rest)
