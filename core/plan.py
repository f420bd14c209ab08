"""The launch plan: a start as data before it is action.

A plan is an ordered list of steps in four phases:

    host    before the clone        mkdir cgroup, write memory.max, ...
    parent  the child is parked     clone3, uid_map, attach, ...
    init    inside the container    mounts, pivot_root, capabilities, seccomp, exec
    remove  after the end           what the plug-ins' `remove` asked for

A step says itself (`describe`), becomes JSON (`to_json`), is executed and is undone. The launcher
runs host, parent and remove; init runs init. Undo works from the JSON alone, so that a later
gocker can undo what a killed one left.
"""

from __future__ import annotations

import json
from _socket import socket
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from gocker.digest import sha256
from gocker.errors import StateError
from gocker.kernel import native
from gocker.model import ContainerSpec
from gocker.record import Record

if TYPE_CHECKING:
    from gocker.lowering import Code

HOST, PARENT, INIT, REMOVE = PHASES = ("host", "parent", "init", "remove")


class Context:
    """What the steps of one execution share; each process (launcher, init) has its own."""

    def __init__(self, spec: ContainerSpec | None) -> None:
        """`spec` is None when a later process only undoes."""
        self.spec = spec
        self.pid = 0  # of the container's first process, seen from the launcher; 0 before the clone
        self.pidfd = -1
        self.root = -1  # init: O_PATH fd of the new root directory, -1 until it is made
        self.enter: Callable[[], NoReturn] = _nowhere  # where the child of the clone goes on
        self.clone: Callable[..., tuple[int, int]] = (
            self.spawn
        )  # makes the first process; the launcher may have another
        self.window = b""  # struct winsize of gocker's terminal, b"" without one; ioctl_tty(2)
        self.program = ""  # init: the path of the program, once it was looked up
        self.status = "creating"  # init: of the container, in the words of the OCI
        self.home = ""  # init: the home directory of the program's user
        self.fds: dict[str, int] = {}  # named fds that one step opens and a later one uses
        self.effective: dict[str, tuple[str, str]] = {}  # limit label -> (asked, read back)
        self.strangers: set[str] = set()  # directories that a step found taken: not ours to undo
        self.gone: set[str] = set()  # directories that a step has removed
        self.unbound: dict[str, str] = {}  # best-effort limit label -> why it does not bind
        self.parent = native.parent()  # whose child the first process is
        self.holder = 0  # of the launcher's child that keeps a scope of systemd's until the clone
        self.channel: socket | None = None  # init: to the launcher, or to whoever starts what was created

    def spawn(self, *how: Any) -> tuple[int, int]:
        """Have a copy of this process go on in `enter`; `how` is as kernel.spawn takes it. Raise OSError."""
        from gocker.kernel.spawn import spawn

        return spawn(self.enter, *how)


def _nowhere() -> NoReturn:
    raise StateError("clone", "", "this context only undoes")


class Step(Record):
    """One action. Subclasses set `op`, add fields of JSON types, and define `describe` and `execute`."""

    op: ClassVar[str] = ""
    """The tag in JSON; unique."""
    event: ClassVar[str] = ""
    """The audit event of its outcome ("controller.set"), or "" when the plan's own event says enough."""
    undoable: ClassVar[bool] = False
    """True when `undo` does something; only such host and parent steps matter to recovery."""
    at_host: ClassVar[bool] = False
    """Of the init phase, but executed by the launcher, while init waits in its place."""
    quiet: ClassVar[bool] = False
    """Of the init phase: before the first such step init says that it is ready; then a filter may forbid it to speak."""
    known: ClassVar[dict[str, type[Step]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.op:
            other = Step.known.setdefault(cls.op, cls)
            if other is not cls:
                raise TypeError(f"step op {cls.op} is taken by {other.__module__}.{other.__name__}")

    def describe(self) -> str:
        """One line, close to the shell command that does the same."""
        raise NotImplementedError

    def execute(self, ctx: Context) -> None:
        """Do it; raise OSError or GockerError."""
        raise NotImplementedError

    @property
    def lowers(self) -> bool:
        """Whether `emit` can do all that this very step asks for."""
        return True

    def emit(self, code: Code) -> None:
        """Of the init phase: emit what `execute` does, for the native executor; raise NotLoweredError.

        A class without one of its own has its plan run by the Python executor; so has one whose `execute` is younger.
        """
        raise NotImplementedError(self.op)

    def template(self, container: str) -> Any:
        """What is equal for steps that emit the same but for the random id `container`, and its short form, in texts."""
        return self

    def undo(self, ctx: Context) -> None:
        """Take it back; fine when it was never, or only half, done. `ctx` may be a fresh one."""

    def audit(self, ctx: Context) -> dict[str, Any]:
        """The fields of `event`, after `execute`."""
        return {}

    def to_json(self) -> dict[str, Any]:
        """The step as JSON types, without secrets."""
        return {"op": self.op, **self.asdict()}


_RARE = frozenset({"start-scope", "stop-scope"})
"""Steps of the remove and host phases whose module only plans with them need."""


def step_from_json(data: dict[str, Any]) -> Step:
    """The step that `to_json` wrote; raise StateError when it is not one.

    The module that defines the step must have been imported: `import gocker.steps.host`.
    """
    fields = dict(data)
    op = str(fields.pop("op", ""))
    cls = Step.known.get(op)
    if cls is None and op in _RARE:
        import gocker.steps.scope  # noqa: F401 - makes itself known

        cls = Step.known.get(op)
    if cls is None:
        raise StateError("read plan", data.get("op", ""), "no such step in this version of gocker")
    try:
        return cls(**{name: _frozen(value) for name, value in fields.items()})
    except TypeError as error:
        raise StateError("read plan", cls.op, str(error)) from error


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


class Plan(Record):
    """All steps of one start."""

    container: str
    name: str
    host: tuple[Step, ...] = ()
    parent: tuple[Step, ...] = ()
    init: tuple[Step, ...] = ()
    remove: tuple[Step, ...] = ()

    def phases(self) -> Iterator[tuple[str, tuple[Step, ...]]]:
        """(phase, its steps) in order of execution."""
        yield HOST, self.host
        yield PARENT, self.parent
        yield INIT, self.init
        yield REMOVE, self.remove

    def numbered(self) -> Iterator[tuple[int, str, Step]]:
        """(number from 1, phase, step) over all phases."""
        number = 0
        for phase, steps in self.phases():
            for step in steps:
                number += 1
                yield number, phase, step

    @property
    def total(self) -> int:
        """How many steps bring the container up; the remove phase is not counted."""
        return len(self.host) + len(self.parent) + len(self.init)

    def to_json(self) -> dict[str, Any]:
        """Shape: {version, container, name, phases: {host: [step], ...}}."""
        return {
            "version": 1,
            "container": self.container,
            "name": self.name,
            "phases": {phase: [step.to_json() for step in steps] for phase, steps in self.phases()},
        }

    @cached_property
    def canonical(self) -> bytes:
        """The JSON that is written to disk and digested: sorted keys, no spaces, ASCII."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":")).encode("ascii")

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """`PHASE: what the step says of itself`, of each, for the audit log."""
        return tuple([f"{phase}: {step.describe()}" for phase, steps in self.phases() for step in steps])

    @property
    def digest(self) -> str:
        """`sha256:HEX` of the canonical JSON."""
        return "sha256:" + sha256(self.canonical).hexdigest()


def plan_from_json(data: Any) -> Plan:
    """The host, parent and remove phases of a plan as read from disk, for undoing it."""
    try:
        phases = data["phases"]
        if data["version"] != 1:
            raise StateError("read plan", data["container"], f"version {data['version']} is not 1")
        return Plan(
            container=str(data["container"]),
            name=str(data["name"]),
            host=tuple(step_from_json(step) for step in phases[HOST]),
            parent=tuple(step_from_json(step) for step in phases[PARENT] if step["op"] in Step.known),
            remove=tuple(step_from_json(step) for step in phases[REMOVE]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StateError("read plan", "", f"not a plan: {error!r}") from error
