"""The session keyring: a container gets its own, so that the caller's keys stay the caller's."""

from __future__ import annotations

import errno
import os

from gocker.errors import KernelError
from gocker.kernel.syscalls import call

_KEYCTL_JOIN_SESSION_KEYRING = 1


def join_session_keyring(name: str) -> bool:
    """Leave the inherited session keyring for one called `name`; False when there was none to leave.

    A kernel without keys (ENOSYS), and a seccomp filter around gocker that refuses keyctl (EPERM, as
    docker's does), both mean that the container cannot reach any keyring either: nothing to do.
    Anything else, such as a quota that is used up (EDQUOT), would leave the container with the
    caller's keys and is an error: raise KernelError. Source: keyctl(2), keyrings(7).
    """
    try:
        call("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, os.fsencode(name))
    except OSError as error:
        if error.errno in {errno.ENOSYS, errno.EPERM}:
            return False
        remedy = "raise kernel.keys.maxkeys and kernel.keys.maxbytes" if error.errno == errno.EDQUOT else ""
        raise KernelError.from_os("join session keyring", name, error, remedy=remedy) from error
    return True
