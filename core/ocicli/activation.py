"""Sockets that gocker was activated by, for the program: sd_listen_fds(3)."""

from __future__ import annotations

from collections.abc import Mapping

from gocker.model import ContainerSpec

_MAX = 4096


def activated(spec: ContainerSpec, environ: Mapping[str, str], pid: int) -> ContainerSpec:
    """`spec` with the sockets that `environ` announces to the process `pid`, before what is preserved anyway.

    LISTEN_PID is the program's, which Exec knows. What is announced to another process, or badly, is not there;
    what is announced to nobody in particular is ours, as it is crun's.
    """
    number, whose = environ.get("LISTEN_FDS", ""), environ.get("LISTEN_PID", "")
    if not _is_number(number) or whose not in {"", str(pid)}:
        return spec
    count = int(number)
    if not 0 < count <= _MAX:
        return spec
    env = tuple(pair for pair in spec.env if pair[0] not in {"LISTEN_FDS", "LISTEN_PID"})
    return spec.replace(env=(*env, ("LISTEN_FDS", number)), preserve_fds=spec.preserve_fds + count)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(1 << 32))
