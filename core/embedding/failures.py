"""How a container's program can disappoint; a subprocess's caller catches the same classes.

Only loaded when one of them is raised or named: subprocess costs some milliseconds.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gocker.embedding.result import CompletedContainer
    from gocker.receipt import Verdict


class ContainerError(subprocess.CalledProcessError):
    """The program did not end well, and `check` asked that it do."""

    def __init__(self, result: CompletedContainer) -> None:
        super().__init__(result.returncode, list(result.args), result.stdout, result.stderr)
        self.result = result
        self.verdict: Verdict = result.verdict
        self.usage: Mapping[str, int | None] = result.usage
        self.id: str = result.id

    def __str__(self) -> str:
        return f"container {self.result.name} of {self.cmd}: {self.verdict.kind}: {self.verdict.detail}"

    def __reduce__(self) -> tuple[Any, ...]:
        return ContainerError, (self.result,)


class TimeoutExpired(subprocess.TimeoutExpired):
    """The program was still running after `timeout` seconds. After `gocker.run` nothing is left of it."""

    def __init__(
        self,
        args: Sequence[str],
        timeout: float,
        output: Any = None,
        stderr: Any = None,
        result: CompletedContainer | None = None,
    ) -> None:
        """`result` tells of its end, None when it goes on: `Container.wait` and `communicate` kill nothing."""
        super().__init__(list(args), timeout, output, stderr)
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        return TimeoutExpired, (self.cmd, self.timeout, self.output, self.stderr, self.result)
