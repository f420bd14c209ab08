"""The hooks of an OCI config: programs that are told of the container on stdin, each at its point of a start."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

from gocker.errors import GockerError
from gocker.kernel.program import Ended, run_program
from gocker.kernel.seccomp import install_filter
from gocker.model import OCI_VERSION, ContainerSpec, Hook
from gocker.plan import Context, Step
from gocker.steps import quote

PRESTART, CREATE_RUNTIME, CREATE_CONTAINER = "prestart", "createRuntime", "createContainer"
START_CONTAINER, POSTSTART, POSTSTOP = "startContainer", "poststart", "poststop"
_STATUS = {
    PRESTART: "created",
    START_CONTAINER: "created",
    POSTSTART: "running",
    POSTSTOP: "stopped",
}  # else "creating"
_SHOWN = 400  # characters of a hook's output in an error


class RunHook(Step):
    """Run a hook inside: createContainer before the root is pivoted, startContainer after, as the container's user."""

    op = "run-hook"
    event = "hook.run"

    kind: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] | None = ()  # None is gocker's own at the host, the program's for startContainer
    timeout: float | None = None  # seconds
    filter: bytes = (
        b""  # struct sock_filter[] that it runs below: it is a program of the image, too; not in to_json
    )

    def describe(self) -> str:
        """`PATH ARGS  # KIND hook`."""
        return f"{' '.join(map(quote, (self.path, *self.args[1:])))}  # {self.kind} hook"

    def execute(self, ctx: Context) -> None:
        """Its end is waited for. Raise GockerError when it is not 0."""
        assert ctx.spec is not None  # noqa: S101 - it is there whenever something is started
        hook = Hook(**{name: getattr(self, name) for name in Hook.fields})
        if not self.at_host and hook.env is None:
            hook = hook.replace(env=_own(ctx.spec, ctx.home) if self.kind == START_CONTAINER else ())
        if self.kind != CREATE_CONTAINER:
            return run_hook(hook, ctx.spec, ctx.pid, self._confine if self.filter else None)
        before = os.open(".", os.O_PATH | os.O_CLOEXEC)
        os.fchdir(
            ctx.root
        )  # where the container's files are, as in other runtimes: there is no path for them
        try:
            run_hook(hook, ctx.spec, ctx.pid)
        finally:
            os.fchdir(before)
            os.close(before)

    def _confine(self) -> None:
        install_filter(self.filter, 0)

    def to_json(self) -> dict[str, Any]:
        """Without the filter."""
        data = super().to_json()
        del data["filter"]
        return data

    def audit(self, ctx: Context) -> dict[str, object]:
        """Which."""
        return {"hook": self.kind, "path": self.path}


class RunHostHook(RunHook):
    """Run a hook in gocker's own namespaces, with the container's file systems mounted and not yet its root."""

    op = "run-host-hook"
    at_host = True


def _own(spec: ContainerSpec, home: str) -> tuple[str, ...]:
    """The program's environment: gocker's own stays outside (SECURITY R12)."""
    env = dict(spec.env)
    return tuple(f"{name}={value}" for name, value in {**env, "HOME": env.get("HOME") or home}.items())


def hook_steps(spec: ContainerSpec, *kinds: str, filter: bytes = b"") -> tuple[Step, ...]:  # noqa: A002
    """The hooks of these kinds, in their order; `filter` is what those inside run below."""
    steps: list[Step] = []
    for kind in kinds:
        cls = RunHook if kind in {CREATE_CONTAINER, START_CONTAINER} else RunHostHook
        extra: dict[str, Any] = {"filter": filter} if kind == START_CONTAINER else {}
        steps += [cls(**hook.asdict(), **extra) for hook in spec.hooks if hook.kind == kind]
    return tuple(steps)


def state_document(spec: ContainerSpec, status: str, pid: int) -> dict[str, object]:
    """The state of the OCI runtime spec; `pid` is that of the host, 0 for none."""
    document: dict[str, object] = {"ociVersion": OCI_VERSION, "id": spec.id, "status": status}
    if pid:
        document["pid"] = pid
    return {**document, "bundle": spec.bundle, "annotations": dict(spec.labels)}


def run_hook(hook: Hook, spec: ContainerSpec, pid: int, before: Callable[[], object] | None = None) -> None:
    """Run it to its end, with the state on its stdin, `before` the last of its process's own. Raise GockerError."""
    state = state_document(spec, _STATUS.get(hook.kind, "creating"), 0 if hook.kind == POSTSTOP else pid)
    operation = f"run {hook.kind} hook"
    try:
        ended = run_program(
            hook.path,
            hook.args or (hook.path,),
            hook.env,
            json.dumps(state).encode(),
            hook.timeout,
            before=before,
        )
    except OSError as error:
        raise GockerError.from_os(operation, hook.path, error) from error
    if ended.status != 0:
        which = f"error running {hook.kind} hook #{_place(hook, spec)}"  # runc's words
        raise GockerError(operation, hook.path, f"{which}: {_reason(ended, hook)}")


def _place(hook: Hook, spec: ContainerSpec) -> int:
    """Which of its kind it is, from 0 on."""
    kindred = [(other.path, *other.args) for other in spec.hooks if other.kind == hook.kind]
    return kindred.index((hook.path, *hook.args))


def _ended_by(number: int) -> str:
    return f"ended by {signal.Signals(number).name}: {(signal.strsignal(number) or '').lower()}"


def _reason(ended: Ended, hook: Hook) -> str:
    if ended.status is None:
        how = f"killed after its timeout of {hook.timeout:g} s"
    else:
        code = os.waitstatus_to_exitcode(ended.status)
        how = f"exit status {code}" if code >= 0 else _ended_by(-code)
    text = ended.output.decode("utf-8", "backslashreplace").strip()[-_SHOWN:]
    return f"{how}{f': {text}' if text else ''}"
