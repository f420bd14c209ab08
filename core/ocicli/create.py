"""`gocker-oci create`."""

from __future__ import annotations

import struct
from typing import Any

from gocker import lifecycle
from gocker.errors import UsageError
from gocker.model import ContainerSpec
from gocker.ocicli.common import audit_log, read_bundle, send_console, write_pid_file
from gocker.registry import Registry
from gocker.state import State, is_id

_MAX_FDS = 4096  # --preserve-fds


def command(root: str, **options: Any) -> int:
    """Create it; whoever wants to starts it."""
    create(root, **options)
    return 0


def create(
    root: str,
    *,
    arguments: tuple[str, ...],
    bundle: str,
    config: str,
    console_socket: str,
    pid_file: str,
    preserve_fds: int,
    no_pivot: bool,
    no_new_keyring: bool,
    foreground: bool = False,
) -> ContainerSpec:
    """Create a container as the options say; with `foreground` it needs no console socket. Raise GockerError."""
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
    registry, state = Registry(), State(root)
    recover_abandoned(state)
    spec, data = read_bundle(bundle, config, container, registry)
    spec = spec.replace(preserve_fds=preserve_fds, session_keyring=not no_new_keyring)
    _check_console(spec, console_socket, foreground=foreground)
    if not spec.argv:
        raise UsageError("create container", container, "its config has no process")

    def created(pid: int, console: int) -> None:
        if console >= 0:
            send_console(console_socket, console)
        write_pid_file(pid_file, pid)

    planned = lifecycle.plan(spec, registry, state)
    lifecycle.create(
        spec,
        planned,
        state,
        audit_log(),
        config=data.decode("utf-8", "surrogateescape"),
        window=_window(spec),
        created=created,
    )
    return spec


def recover_abandoned(state: State) -> None:
    """Take back what a killed gocker left halfway. Raise StateError."""
    for claim in state.abandoned():
        from gocker.cli.show import show_warning
        from gocker.recovery import recover

        show_warning(recover(claim))


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


def _window(spec: ContainerSpec) -> bytes:
    """A struct winsize of process.consoleSize; ioctl_tty(2)."""
    size = spec.console_size
    return struct.pack("=4H", size[0], size[1], 0, 0) if any(size) else b""
