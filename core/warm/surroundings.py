"""What a caller must have in common with the server, so that a worker sees and may do just what the caller does."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence

from gocker.record import Record

_NAMESPACES = (
    *("cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts"),
)
_STEERING = (b"PYTHON", b"LD_", b"GLIBC_TUNABLES", b"MALLOC_")
"""Variables that the loader or the interpreter reads before gocker has its say."""
_LOCALE = (b"LC_ALL", b"LC_CTYPE", b"LANG")  # the first that is not empty counts, setlocale(3)
_PLAIN = frozenset((b"", b"C", b"POSIX"))  # Python takes them for UTF-8, PEP 538


class Surroundings(Record):
    """Of a process; two that are equal make no difference to gocker."""

    identity: bytes  # uids, gids and groups
    rights: bytes  # capability sets, no_new_privs, seccomp mode and filters
    namespaces: tuple[tuple[int, int], ...]
    root: tuple[int, int]
    label: bytes  # of the security module


def surroundings_of(proc: str) -> tuple[Surroundings, int]:
    """(those of the process whose directory is `proc`, the signals that it ignores as a mask). Raise OSError.

    Source: proc_pid_status(5), namespaces(7), proc_pid_attr(5).
    """
    status = _read(f"{proc}/status")
    places = [_place(f"{proc}/ns/{name}") for name in _NAMESPACES]
    found = Surroundings(
        identity=_part(status, b"\nUid:", b"\nFDSize:") + _part(status, b"\nGroups:", b"\nNStgid:"),
        rights=_part(status, b"\nCapInh:", b"\nSpeculation"),
        namespaces=tuple(places),
        root=_place(f"{proc}/root"),
        label=_label(proc),
    )
    return found, int(_part(status, b"\nSigIgn:", b"\nSigCgt:")[8:], 16)


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)


def _part(status: bytes, first: bytes, end: bytes) -> bytes:
    start = status.index(first)
    stop = status.find(end, start)
    return status[start : stop if stop >= 0 else len(status)]


def _place(path: str) -> tuple[int, int]:
    """What is behind it; (0, 0) for a kind of namespace that the kernel lacks."""
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return 0, 0
    return info.st_dev, info.st_ino


def _label(proc: str) -> bytes:
    """The confinement by AppArmor, SELinux or Smack; b"" without one."""
    try:
        return _read(f"{proc}/attr/current")
    except OSError:  # EINVAL: no such module
        return b""


def steering(env: Mapping[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """The variables that make another interpreter of it, and the encoding that the locale asks for."""
    found = [(name, value) for name, value in env.items() if name.startswith(_STEERING)]
    locale = _locale(env)
    codeset = locale.partition(b"@")[0].rpartition(b".")[2].lower().replace(b"-", b"")
    return (*sorted(found), (b"", b"utf8" if locale in _PLAIN or codeset == b"utf8" else locale))


def is_plain(env: Mapping[bytes, bytes]) -> bool:
    """Whether the locale is one in which Python writes back bytes that are no text as they were, PEP 538."""
    return _locale(env) in _PLAIN


def _locale(env: Mapping[bytes, bytes]) -> bytes:
    return next((value for name in _LOCALE if (value := env.get(name, b""))), b"")


def program_of(proc: str) -> tuple[int, int]:
    """The file that a process runs. Raise OSError."""
    return _place(f"{proc}/exe")


def files_of(paths: Sequence[str]) -> frozenset[tuple[int, int]]:
    """The executables among `paths` as `program_of` has them."""
    found = []
    for path in paths:
        try:
            info = os.stat(path)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(info.st_mode):
            found.append((info.st_dev, info.st_ino))
    return frozenset(found)
