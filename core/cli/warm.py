"""`gocker warm`."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time

import click

from gocker import __version__, paths
from gocker.errors import GockerError, StateError
from gocker.warmfolder import WarmFolder

_IDLE = 600.0  # seconds
_PATIENCE = 10.0  # seconds, for its start and its end
_PROGRAM = "import sys; from gocker.warm.server import main; main(sys.argv[1:])"
_STOPPED = 3  # exit status of `status`, as systemctl(1) has it


@click.group("warm")
def command() -> None:
    """Keep a process ready, so that `gocker run` and `gocker-oci` start in milliseconds.

    The commands use it when it is there and is of the same user, in the same namespaces and with the same
    privileges; else they do all themselves, as they do without it.

    \b
    Examples:
      gocker warm start
      gocker warm status
      gocker warm stop
    """  # noqa: D301


@command.command("start")
@click.option(
    "--idle-timeout",
    type=click.FloatRange(1, 365 * 86400.0),
    default=_IDLE,
    metavar="SECONDS",
    help="End once nobody has used it for so long; 600.",
)
def start(idle_timeout: float) -> int:
    """Start it, unless it is there.

    \b
    Example:
      gocker warm start --idle-timeout 3600
    """  # noqa: D301
    folder = WarmFolder(paths.state_root())
    pid, _ = folder.server()
    if pid:
        click.echo(f"the warm server is running: process {pid}")
        return 0
    programs = _programs()
    said = _launch(programs, idle_timeout)
    if said != "\n":
        raise GockerError("start warm server", "", said or "it ended without a word")
    click.echo(f"the warm server is running: process {folder.server()[0]}")
    return 0


def _programs() -> str:
    """The directory of the compiled commands. Raise GockerError."""
    directory = os.path.dirname(os.path.realpath(sys.argv[0]))
    missing = [name for name in ("gocker", "gocker-oci") if not _is_program(f"{directory}/{name}")]
    if missing:
        raise GockerError(
            "start warm server",
            f"{directory}/{missing[0]}",
            "it is no compiled program, and a Python one would not be any faster for it",
            remedy="install gocker (not editable) where there is a C compiler",
        )
    return directory


def _is_program(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def _launch(programs: str, idle_timeout: float) -> str:
    """Start it in a session of its own; return what it says, a newline once it is ready."""
    read, write = os.pipe2(os.O_CLOEXEC)
    os.set_inheritable(write, True)
    first = sys.path[0] if sys.path[:1] == [os.path.dirname(sys.argv[0])] else ""
    # -P: the working directory is nobody's place to import from
    argv = [sys.executable, "-P", "-c", _PROGRAM, programs, str(idle_timeout), str(write), first]
    null = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
    os.posix_spawn(
        sys.executable,
        argv,
        os.environ,
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=(signal.SIGPIPE,),
    )
    os.close(write)
    os.close(null)
    poll = select.poll()
    poll.register(read, select.POLLIN)
    said = os.read(read, 4096) if poll.poll(_PATIENCE * 1000) else b"it does not get ready"
    os.close(read)
    return os.fsdecode(said)


@command.command("stop")
def stop() -> int:
    """End it; commands that it is at work on are done to their end.

    \b
    Example:
      gocker warm stop
    """  # noqa: D301
    folder = WarmFolder(paths.state_root())
    pid, _ = folder.server()
    if not pid:
        click.echo("the warm server is not running")
        return 0
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return 0
    if folder.server()[0] == pid:  # after the fd is held: it is no other process
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not poll.poll(_PATIENCE * 1000):
        raise StateError("stop warm server", f"process {pid}", "it does not end")
    click.echo("the warm server has ended")
    return 0


@command.command("status")
@click.option(
    "--format", "shape", type=click.Choice(["text", "json"]), default="text", help="A line or JSON."
)
def status(shape: str) -> int:
    """Say whether it is running; exit status 0 when it is, else 3.

    \b
    Example:
      gocker warm status --format json
    """  # noqa: D301
    pid, server = WarmFolder(paths.state_root()).server()
    if shape == "json":
        click.echo(json.dumps({"running": bool(pid), **(server.asdict() if server else {})}))
        return 0 if pid else _STOPPED
    if not pid:
        click.echo("the warm server is not running")
        return _STOPPED
    since = f", for {time.time() - server.started:.0f} s, of gocker {server.version}" if server else ""
    click.echo(f"the warm server is running: process {pid}{since}")
    if server and server.version != __version__:
        click.echo(
            f"this is gocker {__version__}, which does not use it: gocker warm stop && gocker warm start"
        )
    return 0
