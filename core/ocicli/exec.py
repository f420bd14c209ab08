"""`gocker-oci exec`."""

from __future__ import annotations

import json
import os
from typing import Any

from gocker.errors import UsageError
from gocker.execing import execute
from gocker.lasting import Lasting, read_lasting
from gocker.oci.process import read_process
from gocker.ocicli.attending import attend_to, window_of
from gocker.ocicli.common import (
    audit_log,
    read_text_file,
    send_console,
    send_pidfd,
    spec_of_lasting,
    write_pid_file,
)
from gocker.registry import Registry
from gocker.state import State


def command(
    root: str,
    *,
    arguments: tuple[str, ...],
    process: str,
    console_socket: str,
    pid_file: str,
    pidfd_socket: str,
    detach: bool,
    cgroup: tuple[str, ...],
    ignore_paused: bool,
    no_new_keyring: bool,
    preserve_fds: int,
    **changes: Any,
) -> int:
    """Run it; its exit status, or 0 at once with --detach."""
    container, *argv = arguments
    state, registry = State(root), Registry()
    lasting = read_lasting(state, container)
    base = spec_of_lasting(lasting, registry, for_exec=True)
    if process:
        fields, _ = read_process(read_text_file("read process.json", process))
    else:
        fields, _ = read_process(changed_process(lasting, argv, changes))
    if process and changes["tty"]:
        fields["terminal"] = True
    spec = base.replace(
        **fields,
        preserve_fds=preserve_fds,
        session_keyring=base.session_keyring and not no_new_keyring,
    )
    if spec.terminal and detach and not console_socket:
        raise UsageError(
            "exec", "--detach", "a terminal needs somebody at it", remedy="--console-socket PATH"
        )
    if console_socket and not spec.terminal:
        raise UsageError("set --console-socket", console_socket, "the process has no terminal")
    attended = not detach and spec.terminal and not console_socket

    def started(pid: int, console: int) -> None:
        if console >= 0 and not attended:
            send_console(console_socket, console)
        send_pidfd(pidfd_socket, pid)
        write_pid_file(pid_file, pid)

    with attend_to(spec, terminal=attended) as attendant:
        made = execute(
            spec,
            lasting,
            state,
            registry,
            audit_log(),
            cgroups=cgroup,
            paused=ignore_paused,
            newlines=attended and not os.isatty(1),
            stdio=attendant.stdio,
            window=window_of(spec) or attendant.window,
            started=started,
        )
        try:
            return 0 if detach else attendant.wait(made.pid, made.pidfd, made.console if attended else -1)
        finally:
            made.close()


def changed_process(lasting: Lasting, argv: list[str], changes: dict[str, Any]) -> dict[str, Any]:
    """The container's own process, with what the options change in it; pure. Raise UsageError.

    A member that is null is one that is absent.
    """
    if not argv:
        raise UsageError(
            "exec", lasting.id, "no command was given", remedy="exec ID COMMAND, or --process FILE"
        )
    made: dict[str, Any] = {**(json.loads(lasting.config).get("process") or {}), "args": argv}
    made["terminal"] = changes["tty"]
    if changes["cwd"]:
        made["cwd"] = changes["cwd"]
    if changes["env"]:
        made["env"] = [*(made.get("env") or ()), *changes["env"]]
    if changes["user"]:
        made["user"] = {**(made.get("user") or {}), **_user(changes["user"])}
    if changes["additional_gids"]:
        user = made.get("user") or {}
        gids = [*(user.get("additionalGids") or ()), *changes["additional_gids"]]
        made["user"] = {**user, "additionalGids": gids}
    if changes["cap"]:
        sets = made.get("capabilities") or {}
        # Ambient ones survive the program's exec for a user that is not root; they have to be inheritable.
        names = ("bounding", "effective", "permitted", *(("ambient",) if sets.get("inheritable") else ()))
        more = {name: [*(sets.get(name) or ()), *changes["cap"]] for name in names}
        made["capabilities"] = {**sets, **more}
    if changes["no_new_privs"]:
        made["noNewPrivileges"] = True
    if changes["apparmor"]:
        made["apparmorProfile"] = changes["apparmor"]
    if changes["process_label"]:
        made["selinuxLabel"] = changes["process_label"]
    return made


def _user(text: str) -> dict[str, int]:
    """Of UID or UID:GID; the rest of the user stays, the group too unless it is named. Raise UsageError."""
    parts = text.split(":")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and len(part) < 20 for part in parts):
        raise UsageError("set --user", text, "not UID or UID:GID in numbers")
    return dict(zip(("uid", "gid"), map(int, parts), strict=False))
