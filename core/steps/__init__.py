"""The steps of a launch plan, one noun a module; here, how they quote a word."""

from __future__ import annotations

_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_")


def quote(text: str) -> str:
    """`text` as a shell would want it, in one line: as bash's $'...' where it has control characters."""
    if text and _SAFE.issuperset(text):
        return text
    if all(char.isprintable() or _is_byte(char) for char in text):
        return "'" + text.replace("'", "'\\''") + "'"
    return "$'" + "".join(map(_escaped, text)) + "'"


def _is_byte(char: str) -> bool:
    """One that is no part of a text: surrogateescape keeps it as it is."""
    return "\udc80" <= char <= "\udcff"


def _escaped(char: str) -> str:
    if char in "\\'":
        return f"\\{char}"
    if char.isprintable() or _is_byte(char):
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode()) if char != "\n" else "\\n"
