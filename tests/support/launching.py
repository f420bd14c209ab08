"""Plans of a few steps, started by the real launcher; as a program, in a process whose fds are known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from firstprocess import HOST_PATH

from gocker.kernel.process import CLONE_NEWPID
from gocker.launcher import Launcher
from gocker.model import ContainerSpec
from gocker.plan import Plan, Step
from gocker.steps import identity
from gocker.steps.launch import Clone


class Ran(NamedTuple):
    """How it ended."""

    code: int  # as a shell's $?
    output: str
    pid: int


def spec(*argv: str, **changes: Any) -> ContainerSpec:
    """A container without file systems of its own."""
    env = (("PATH", HOST_PATH), *changes.pop("env", ()))
    return ContainerSpec(**{"id": "c0ffee", "name": "c0ffee", "argv": argv, "env": env, **changes})


def run(
    container: ContainerSpec,
    *,
    init: Sequence[Step] | None = None,
    seccomp: Any = None,
    flags: int = CLONE_NEWPID,
    kinds: tuple[str, ...] = ("pid",),
    between: Sequence[Step] = (),
    during: Callable[[Launcher], None] | None = None,
) -> Ran:
    """Start `container` with the steps of identity (or `init`) and see it to its end. Raise GockerError.

    `between` come right after the clone; `during` is called while the program runs.
    """
    if init is None:
        init = (*identity.first_steps(container), *identity.last_steps(container, seccomp))
    clone = Clone(kinds=kinds, flags=flags)
    parent = (clone, *between, *identity.parent_steps(container))
    launcher = Launcher(Plan(container="c0ffee", name="c0ffee", parent=parent, init=tuple(init)), container)
    read, write = os.pipe2(os.O_CLOEXEC)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        launcher.start((null, write, write))
        launcher.await_program()
        os.close(write)
        write = -1
        if during:
            during(launcher)
        with open(os.dup(read), encoding="utf-8", errors="surrogateescape") as file:
            output = file.read()
        pid = launcher.ctx.pid
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return Ran(128 - code if code < 0 else code, output, pid)
    finally:
        for fd in (read, null, *((write,) if write >= 0 else ())):
            os.close(fd)
        assert launcher.undo() == []


def run_apart(fields: Mapping[str, Any], fds: Mapping[int, int]) -> tuple[int, str]:
    """(exit status, output) of `run` in a process that was started with `fds`, {number there: fd here}."""

    def arrange() -> None:
        high = {number: os.dup(fd) for number, fd in fds.items()}
        for number, fd in high.items():
            os.dup2(fd, number)
        os.closerange(max([2, *fds]) + 1, 256)

    done = subprocess.run(
        [sys.executable, __file__, json.dumps(fields)],
        capture_output=True,
        text=True,
        check=False,
        close_fds=False,
        preexec_fn=arrange,
        env={**os.environ, "PYTHONPATH": os.path.dirname(__file__)},
    )
    return done.returncode, done.stdout + done.stderr


def main() -> int:
    """Run the spec of the first argument."""
    fields = {
        name: tuple(tuple(item) if isinstance(item, list) else item for item in value)
        if isinstance(value, list)
        else value
        for name, value in json.loads(sys.argv[1]).items()
    }
    ran = run(spec(*fields.pop("argv"), **fields))
    sys.stdout.write(ran.output)
    return ran.code


if __name__ == "__main__":
    sys.exit(main())
