"""A user namespace as an fd and nothing else: what an idmapped mount takes its map from."""

from __future__ import annotations

import os
from collections.abc import Sequence

from gocker.kernel import process

IdLine = tuple[int, int, int]  # inside, outside, count


def user_namespace(uid_map: Sequence[IdLine], gid_map: Sequence[IdLine]) -> int:
    """The fd of a new user namespace with these maps, held by no process.

    A helper is born in it and waits while its maps are written. Raise OSError. Source:
    user_namespaces(7), mount_setattr(2).
    """
    waits, go = os.pipe2(os.O_CLOEXEC)
    try:
        pid, pidfd = process.clone(process.CLONE_NEWUSER)
        if pid == 0:
            os.close(go)
            os.read(waits, 1)  # end of file when the parent has done its work, or has died
            os._exit(0)
        try:
            for kind, lines in (("uid", uid_map), ("gid", gid_map)):
                _write(f"/proc/{pid}/{kind}_map", "".join(f"{a} {b} {n}\n" for a, b, n in lines))
            return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(go)
            go = -1
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
            os.close(pidfd)
    finally:
        os.close(waits)
        if go >= 0:
            os.close(go)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
