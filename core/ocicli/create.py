"""`gocker-oci create`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from gocker import lifecycle
from gocker.errors import UsageError
from gocker.lasting import Lasting
from gocker.model import ContainerSpec
from gocker.ocicli.activation import activated
from gocker.ocicli.attending import window_of
from gocker.ocicli.common import audit_log, read_bundle, send_console, send_pidfd, write_pid_file
from gocker.ocicli.log import LOG
from gocker.plan import Plan
from gocker.record import Record
from gocker.registry import Registry
from gocker.state import State, is_id
from gocker.steps.exec import InstallSeccomp

_MAX_FDS = 4096  # --preserve-fds


def command(root: str, **options: Any) -> int:
    """Create it; whoever wants to starts it."""
    prepare(root, **options).create((0, 1, 2), b"", None)
    return 0


class Preparation(Record):
    """A bundle that was read and found good, and how it is to be created."""

    spec: ContainerSpec
    config: bytes
    state: State
    registry: Registry
    console_socket: str
    pid_file: str
    pidfd_socket: str
    notifies: bool  # sd_notify(3)

    def create(
        self, stdio: tuple[int, int, int], window: bytes, console: Callable[[int], object] | None
    ) -> Lasting:
        """Create it; `console` takes the pty master where there is no socket for it. Raise GockerError."""

        def created(pid: int, master: int) -> None:
            if master >= 0 and console is not None:
                console(master)
            elif master >= 0:
                send_console(self.console_socket, master)
            send_pidfd(self.pidfd_socket, pid)
            write_pid_file(self.pid_file, pid)

        planned = lifecycle.plan(self.spec, self.registry, self.state)
        if self.notifies:
            from gocker.ocicli.notifying import with_directory

            planned = with_directory(planned, self.state)
        if self.spec.scope:
            from gocker.ocicli.scoping import with_scope

            planned = with_scope(planned, self.spec.labels)
        if os.environ.get("GOCKER_DEBUG"):
            _log_plan(planned.plan)
        return lifecycle.create(
            self.spec,
            planned,
            self.state,
            audit_log(),
            config=self.config.decode("utf-8", "surrogateescape"),
            stdio=stdio,
            window=window_of(self.spec) or window,
            created=created,
        )


def _log_plan(plan: Plan) -> None:
    for _, phase, step in plan.numbered():
        LOG.debug(f"{phase}: {step.describe()}")
        if isinstance(step, InstallSeccomp):
            LOG.debug(f"seccomp filter flags: {step.flags}")


def prepare(
    root: str,
    *,
    arguments: tuple[str, ...],
    bundle: str,
    config: str,
    console_socket: str,
    pid_file: str,
    pidfd_socket: str,
    preserve_fds: int,
    no_pivot: bool,
    no_new_keyring: bool,
    annotation: tuple[str, ...] = (),
    systemd_cgroup: bool = False,
    foreground: bool = False,
) -> Preparation:
    """Read the bundle; with `foreground` a terminal needs no console socket. Raise GockerError."""
    (container,) = arguments
    if not is_id(container):
        raise UsageError(
            "create container",
            container,
            "not a container id",
            remedy="letters, digits and _.+-, at most 128",
        )
    if no_pivot:
        raise UsageError("create container", "--no-pivot", "the root is always pivoted: a chroot can be left")
    if not 0 <= preserve_fds <= _MAX_FDS:
        raise UsageError("set --preserve-fds", preserve_fds, f"not from 0 to {_MAX_FDS}")
    if systemd_cgroup:
        from gocker.ocicli.scoping import require_systemd

        require_systemd()
    registry, state = Registry(), State(root)
    spec, data = read_bundle(bundle, config, container, registry, annotation, systemd=systemd_cgroup)
    spec = spec.replace(preserve_fds=preserve_fds, session_keyring=not no_new_keyring)
    if "LISTEN_FDS" in os.environ:
        spec = activated(spec, os.environ, os.getpid())
    notifies = bool(os.environ.get("NOTIFY_SOCKET"))
    if notifies:
        from gocker.ocicli.notifying import with_socket

        spec = with_socket(spec, state)
    _check_console(spec, console_socket, foreground=foreground)
    return Preparation(
        spec=spec,
        config=data,
        state=state,
        registry=registry,
        console_socket=console_socket,
        pid_file=pid_file,
        pidfd_socket=pidfd_socket,
        notifies=notifies,
    )


def _check_console(spec: ContainerSpec, path: str, *, foreground: bool) -> None:
    if spec.terminal and not path and not foreground:
        raise UsageError(
            "create container",
            spec.id,
            "process.terminal is true",
            remedy="--console-socket PATH takes its pty master",
        )
    if path and not spec.terminal:
        raise UsageError("set --console-socket", path, "process.terminal is not true")
