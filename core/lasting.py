"""What is known of a container that outlives the gocker that made it, and how it fares."""

from __future__ import annotations

import json
import os
from typing import Any

from gocker.errors import StateError
from gocker.kernel import freezer
from gocker.kernel.process import start_time
from gocker.limits import LimitRequest
from gocker.model import ContainerSpec, Hierarchy, Hook
from gocker.record import Record
from gocker.state import State

CREATED, RUNNING, PAUSED, STOPPED = "created", "running", "paused", "stopped"
_DEAD = frozenset("ZXx")  # states of proc_pid_stat(5): pid 1 of some hosts reaps late


class Group(Record):
    """A cgroup of the container's."""

    controllers: tuple[str, ...]  # names of the plug-ins that use it
    path: str  # host directory
    version: str  # v1 or v2


class Lasting(Record):
    """The content of state.json."""

    id: str
    argv: tuple[str, ...]
    hooks: tuple[Hook, ...]
    bundle: str
    rootfs: str
    pid: int  # of the first process
    started: int  # its start time, in clock ticks after boot
    boot: str  # /proc/sys/kernel/random/boot_id: a pid of another boot is nobody's
    begun: int  # when its creation began, in ns since the epoch
    owner: int  # uid of who made it
    annotations: tuple[tuple[str, str], ...]
    groups: tuple[Group, ...]  # the best one to kill and to freeze from first
    config: str  # config.json
    digest: str  # of the plan
    updates: tuple[
        LimitRequest, ...
    ] = ()  # limits that were asked for since, in place of those of the config

    @property
    def spec(self) -> ContainerSpec:
        """As much of the spec as its hooks, its receipt and messages need; all of it is in `config`."""
        return ContainerSpec(
            id=self.id,
            name=self.id,
            argv=self.argv,
            bundle=self.bundle,
            labels=self.annotations,
            hooks=self.hooks,
        )

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps({"version": 1, **self.asdict()}).encode("ascii")


def read_lasting(state: State, container: str) -> Lasting:
    """What is known of `container`. Raise StateError."""
    return in_this_boot(parse_lasting(state.describe(container), container))


def in_this_boot(lasting: Lasting) -> Lasting:
    """The same, without groups after a reboot: a cgroup of that name is another container's, like the pid."""
    return lasting if lasting.boot == boot_id() else lasting.replace(groups=())


def parse_lasting(text: bytes, container: str) -> Lasting:
    """What `Lasting.to_bytes` made. Raise StateError."""
    try:
        data: dict[str, Any] = json.loads(text)
        if data.pop("version") != 1:
            raise StateError("read state of", container, "of another version of gocker")
        groups = tuple(
            Group(controllers=tuple(group["controllers"]), path=group["path"], version=group["version"])
            for group in data["groups"]
        )
        annotations = tuple((name, value) for name, value in data["annotations"])
        updates = tuple(LimitRequest(**request) for request in data["updates"])
        hooks = tuple(_hook(**hook) for hook in data["hooks"])
        argv = tuple(map(str, data["argv"]))
        parts = {
            "groups": groups,
            "annotations": annotations,
            "updates": updates,
            "hooks": hooks,
            "argv": argv,
        }
        return Lasting(**{**data, **parts})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StateError("read state of", container, f"not a state: {error!r}") from error


def _hook(args: list[str], env: list[str] | None, **fields: Any) -> Hook:
    return Hook(args=tuple(args), env=None if env is None else tuple(env), **fields)


def status_of(lasting: Lasting, state: State) -> str:
    """created, running, paused or stopped. A zombie counts as stopped."""
    if not lives(lasting):
        return STOPPED
    if is_frozen(lasting):
        return PAUSED
    return CREATED if os.path.exists(state.start_socket(lasting.id)) else RUNNING


def lives(lasting: Lasting) -> bool:
    """Whether the first process is there, and is the one that gocker made."""
    if lasting.boot != boot_id():
        return False
    try:
        with open(f"/proc/{lasting.pid}/stat", "rb") as file:
            text = file.read()
        same = start_time(lasting.pid) == lasting.started
    except (FileNotFoundError, ProcessLookupError):
        return False
    return same and chr(text[text.rindex(b")") + 2]) not in _DEAD


def open_first(lasting: Lasting) -> int:
    """A pidfd of the first process; raise StateError when it has ended. Source: pidfd_open(2)."""
    try:
        fd = os.pidfd_open(lasting.pid)
    except ProcessLookupError as error:
        raise StateError("use container", lasting.id, "it is not running") from error
    if not lives(lasting):  # after the fd is held: the pid cannot become another's unseen
        os.close(fd)
        raise StateError("use container", lasting.id, "it is not running")
    return fd


def freezers(lasting: Lasting) -> list[Group]:
    """The cgroups that the container can be frozen by, the best one first: v2 lets what is frozen be killed."""
    return [
        group
        for group in lasting.groups
        if (group.version == Hierarchy.V2.value or "freezer" in group.controllers)
        and freezer.can_freeze(group.path, group.version)
    ]


def is_frozen(lasting: Lasting) -> bool:
    """Whether the container is paused, by whichever of them."""
    return any(freezer.is_frozen(group.path, group.version) for group in freezers(lasting))


def boot_id() -> str:
    """Of this boot; random(4)."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
