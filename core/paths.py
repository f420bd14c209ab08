"""Where gocker keeps its data, its run-time state and its audit log."""

from __future__ import annotations

import os

from gocker.errors import UsageError


def data_root() -> str:
    """`$GOCKER_ROOT` or /var/lib/gocker: images, caches, what containers write.

    Raise UsageError when the variable is not an absolute path.
    """
    return _from_environment("GOCKER_ROOT") or "/var/lib/gocker"


def state_root() -> str:
    """`$GOCKER_STATE` or /run/gocker: the plans and locks of living containers.

    Raise UsageError when the variable is not an absolute path.
    """
    return _from_environment("GOCKER_STATE") or "/run/gocker"


def audit_log() -> str:
    """`$GOCKER_AUDIT_LOG`, else /var/log/gocker/audit.jsonl for root, else below `$XDG_STATE_HOME`.

    Raise UsageError when a variable is not an absolute path. Source: XDG base directory
    specification, which gives ~/.local/state where `$XDG_STATE_HOME` is unset.
    """
    path = _from_environment("GOCKER_AUDIT_LOG")
    if path:
        return path
    if os.geteuid() == 0:
        return "/var/log/gocker/audit.jsonl"
    state = _from_environment("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return f"{state}/gocker/audit.jsonl"


def _from_environment(variable: str) -> str:
    """The variable without trailing slashes, "" when it is unset or empty.

    A relative path would name another directory in each working directory, so that a later gocker
    would not find what a killed one left.
    """
    text = os.environ.get(variable, "")
    if text and not text.startswith("/"):
        raise UsageError("read", f"{variable}={text}", "not an absolute path")
    return text.rstrip("/") or text[:1]
