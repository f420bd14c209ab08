"""SHA-256 without loading OpenSSL.

`import hashlib` links libcrypto: 1.9 ms of a start that has about 38 ms. The interpreter carries an
implementation of its own (`_sha256` in Python 3.11, `_sha2` from 3.12), which hashlib itself falls
back on; it is slower by the byte (3 µs a KiB), and gocker hashes a few KiB a start. A program that has loaded
hashlib before gets that one: it hashes five times as fast.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol


class Hash(Protocol):
    """What `sha256()` returns."""

    def update(self, data: bytes, /) -> None:
        """Take in more bytes."""
        ...

    def hexdigest(self) -> str:
        """The digest as 64 lower-case hexadecimal digits."""
        ...


def find_sha256() -> Callable[[bytes], Hash]:
    """The built-in constructor; hashlib's where it is loaded, and on interpreters that were built without the other."""
    if "_hashlib" in sys.modules and "hashlib" in sys.modules:
        return sys.modules["hashlib"].sha256  # type: ignore[no-any-return]
    for name in ("_sha2", "_sha256"):
        try:
            return __import__(name).sha256  # type: ignore[no-any-return]
        except ImportError:
            continue  # named otherwise in this version of Python
    import hashlib

    return hashlib.sha256


sha256 = find_sha256()
