"""The session keyring: a container gets its own, so that the caller's keys stay the caller's."""

from __future__ import annotations

import errno
import os

from gocker.errors import GockerError, KernelError
from gocker.kernel.syscalls import call

JOIN = 1  # KEYCTL_JOIN_SESSION_KEYRING
NO_KEYS = (errno.ENOSYS, errno.EPERM)
"""Errors that mean that there are no keys to leave behind; `join_session_keyring` says why."""


def join_session_keyring(name: str) -> bool:
    """Leave the inherited session keyring for one called `name`; False when there was none to leave.

    A kernel without keys (ENOSYS), and a seccomp filter around gocker that refuses keyctl (EPERM, as
    docker's does), both mean that the container cannot reach any keyring either: nothing to do.
    Anything else, such as a quota that is used up (EDQUOT), would leave the container with the
    caller's keys and is an error: raise KernelError. Source: keyctl(2), keyrings(7).
    """
    try:
        call("keyctl", JOIN, os.fsencode(name))
    except OSError as error:
        if error.errno in NO_KEYS:
            return False
        raise refused(name, error) from error
    return True


def refused(name: str, error: OSError) -> GockerError:
    """What is said of any other error."""
    remedy = "raise kernel.keys.maxkeys and kernel.keys.maxbytes" if error.errno == errno.EDQUOT else ""
    return KernelError.from_os("join session keyring", name, error, remedy=remedy)
