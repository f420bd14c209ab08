"""What a container's run has come to, for the program that asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gocker.receipt import Report, Verdict, report_from_json
from gocker.record import Record


class CompletedContainer(Record):
    """As subprocess.CompletedProcess, with gocker's verdict and the kernel's figures."""

    args: tuple[str, ...]
    returncode: int  # of the program; -9 when SIGKILL ended it
    stdout: Any  # bytes, str in text mode, None when it was not captured
    stderr: Any
    verdict: Verdict  # kind (ok, exit, signal, oom, timeout), code as docker gives it, signal, detail
    usage: Mapping[
        str, int | None
    ]  # memory_peak_bytes, cpu_user_us, wall_us, ...; None: the kernel does not say
    limits: Mapping[str, Mapping[str, Any]]  # label -> asked, effective
    id: str
    name: str
    report: Report  # all of it, as `gocker run --report` writes it
    warnings: tuple[str, ...] = ()  # limits that do not bind, what could not be undone

    def check_returncode(self) -> None:
        """Raise ContainerError unless the program ended well."""
        if self.returncode or self.verdict.kind != "ok":
            from gocker.embedding.failures import ContainerError

            raise ContainerError(self)


def result_of(args: tuple[str, ...], ended: Mapping[str, Any]) -> CompletedContainer:
    """From what the attendant says of the end; without the output. Raise ValueError."""
    report = report_from_json(ended["report"])
    return CompletedContainer(
        args=args,
        returncode=_returncode(report.verdict),
        stdout=None,
        stderr=None,
        verdict=report.verdict,
        usage=report.usage,
        limits=report.limits,
        id=report.container,
        name=report.name,
        report=report,
        warnings=tuple(ended["warnings"]),
    )


def _returncode(verdict: Verdict) -> int:
    """Subprocess's: minus the number of the signal that ended it."""
    code = 125 if verdict.code is None else verdict.code
    return 128 - code if verdict.signal else code
