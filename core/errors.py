"""One tree of errors: each names the operation, its target, the reason and the remedy.

Shown as `operation target: reason (remedy)`. `exit_code` follows docker run: 125 gocker failed,
126 the command cannot be executed, 127 the command was not found.
"""

from __future__ import annotations

import errno as _errno
import os
import signal as _signal

EXIT_GOCKER_FAILED = 125
EXIT_CANNOT_EXECUTE = 126
EXIT_NOT_FOUND = 127


def errno_name(number: int) -> str:
    """`ENOENT` for 2; `errno 9999` for one without a name."""
    return _errno.errorcode.get(number, f"errno {number}")


_SHOWN = 1000  # characters of a part of an error; what a config or an option holds may be of any length


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


class GockerError(Exception):
    """What gocker raises on purpose; anything else that escapes is a bug in gocker."""

    exit_code: int = EXIT_GOCKER_FAILED

    def __init__(
        self,
        operation: str,
        target: object = "",
        reason: str = "",
        *,
        remedy: str = "",
        errno: int = 0,
    ) -> None:
        """`operation` is a verb phrase ("set limit"), `target` its object, `errno` 0 or the cause."""
        self.operation = operation
        self.target = str(target)
        self.reason = reason
        self.remedy = remedy
        self.errno = errno
        super().__init__(operation, target, reason)

    @classmethod
    def from_os(cls, operation: str, target: object, error: OSError, *, remedy: str = "") -> GockerError:
        """Wrap an OSError: the reason becomes `ENOENT: No such file or directory`."""
        number = error.errno or 0
        reason = f"{errno_name(number)}: {os.strerror(number)}" if number else str(error)
        return cls(operation, target, reason, remedy=remedy, errno=number)

    def __str__(self) -> str:
        head = f"{self.operation} {_short(self.target)}".rstrip()
        text = f"{head}: {_short(self.reason)}" if self.reason else head
        if self.remedy:
            text = f"{text} ({_short(self.remedy)})"
        return text.replace("\n", " ")


class UsageError(GockerError):
    """An option or argument that makes no sense."""


class LimitError(GockerError):
    """A limit that cannot be parsed, is out of range, or does not bind."""


class HierarchyError(GockerError):
    """No cgroup hierarchy here carries the controller that was asked for."""


class PluginError(GockerError):
    """A plug-in that is missing, refused, or breaks its contract."""


class ImageError(GockerError):
    """An image or root file system that is not there or cannot be used."""


class StateError(GockerError):
    """The state or data directory cannot be read or written, or holds nonsense."""


class AuditError(GockerError):
    """The audit log cannot be written, read or verified."""


class KernelError(GockerError):
    """The kernel refused a call outside a plan, or lacks a feature that gocker needs."""


class StepError(GockerError):
    """A step of a launch plan failed: `step 17/42 mount proc on /proc: EPERM: ...`."""

    def __init__(
        self, number: int, total: int, describe: str, reason: str, *, remedy: str = "", errno: int = 0
    ) -> None:
        """`number` counts from 1; `describe` is the step's own line; `errno` 0 or the cause."""
        super().__init__(f"step {number}/{total}", describe, reason, remedy=remedy, errno=errno)
        self.number = number
        self.total = total


class SignalError(GockerError):
    """A signal asked gocker to give something up; exit code 128 + its number, as a shell has it."""

    def __init__(self, operation: str, target: object, number: int, when: str) -> None:
        """`number` is the signal's; `when` says what it came before."""
        signal = _signal.Signals(number).name
        super().__init__(operation, target, f"{signal} came before {when}")
        self.exit_code = 128 + number


class ExecError(GockerError):
    """The command cannot be started; exit code 127 when it is not there, else 126."""

    def __init__(
        self, operation: str, target: object = "", reason: str = "", *, remedy: str = "", errno: int = 0
    ) -> None:
        """As GockerError; ENOENT means not found."""
        super().__init__(operation, target, reason, remedy=remedy, errno=errno)
        self.exit_code = EXIT_NOT_FOUND if errno == _errno.ENOENT else EXIT_CANNOT_EXECUTE
