"""The options that `run` and `plan` share, with docker's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Option(click.Option):
    """Its help text needs no tidying, for which click.Option would load `inspect` (see gocker.lazy)."""

    def __init__(self, *args: Any, help: str | None = None, **kwargs: Any) -> None:  # noqa: A002 - click's name
        super().__init__(*args, **kwargs)
        self.help = help


def _show_help(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(ctx.get_help())
        ctx.exit()


def help_option() -> Option:
    """`--help`, as click makes it, but for Option."""
    return Option(
        ["--help"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_show_help,
        help="Show this message and exit.",
    )


_MANY = {"multiple": True}
_MODE = "[private|host|ns:PATH]"

# flags, attributes of click.Option
_OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (
        ("--limit",),
        {
            **_MANY,
            "metavar": "NAME[.KEY]=VALUE[?]",
            "help": "Set a limit of any installed controller; `?` asks for best effort.",
        },
    ),
    (("-m", "--memory"), {"metavar": "SIZE", "help": "The same as --limit memory=SIZE."}),
    (("--memory-swap",), {"metavar": "SIZE", "help": "Memory and swap together: --limit memory.swap."}),
    (("--memory-reservation",), {"metavar": "SIZE", "help": "Soft limit: --limit memory.reservation."}),
    (("--cpuset-cpus",), {"metavar": "LIST", "help": "CPUs, as 0-2,5: --limit cpuset."}),
    (("--cpuset-mems",), {"metavar": "LIST", "help": "Memory nodes: --limit cpuset.mems."}),
    (
        ("-c", "--cpu-shares"),
        {"metavar": "N", "help": "Relative CPU weight, 1024 is usual: --limit cpushare."},
    ),
    (("--pids-limit",), {"metavar": "N", "help": "Most processes: --limit pids."}),
    (
        ("--cgroup-parent",),
        {"metavar": "PATH", "default": "", "help": "Make the container's cgroup below this one."},
    ),
    (
        ("--rootfs",),
        {"metavar": "DIR[:rw]", "help": "Use a directory as the image; :rw writes through to it."},
    ),
    (("--read-only",), {"is_flag": True, "help": "Mount the root file system read-only."}),
    (("-v", "--volume"), {**_MANY, "metavar": "SRC:DST[:ro]", "help": "Bind a host path inside."}),
    (
        ("--mount",),
        {**_MANY, "metavar": "type=bind,src=...,dst=...[,ro]", "help": "Bind a host path or mount a tmpfs."},
    ),
    (
        ("--tmpfs",),
        {**_MANY, "metavar": "DST[:OPTIONS]", "help": "Mount a tmpfs, as /run:size=64m,mode=755."},
    ),
    (("--shm-size",), {"metavar": "SIZE", "default": "64m", "help": "Size of /dev/shm."}),
    (("--name",), {"default": "", "help": "Name; the short id if none is given."}),
    (("-h", "--hostname"), {"default": "", "help": "Hostname; the short id if none is given."}),
    (("--domainname",), {"default": "", "help": "NIS domain name."}),
    (
        ("-e", "--env"),
        {**_MANY, "metavar": "NAME[=VALUE]", "help": "Environment; NAME alone passes gocker's own value on."},
    ),
    (("--env-file",), {**_MANY, "metavar": "FILE", "help": "Read environment lines from a file."}),
    (("-w", "--workdir"), {"default": "", "metavar": "DIR", "help": "Working directory inside."}),
    (
        ("-u", "--user"),
        {"default": "", "metavar": "USER[:GROUP]", "help": "User and group, by name or number."},
    ),
    (("--group-add",), {**_MANY, "metavar": "GROUP", "help": "A further group."}),
    (("--entrypoint",), {"metavar": "PROGRAM", "help": "Run this; COMMAND and ARG are its arguments."}),
    (("-i", "--interactive"), {"is_flag": True, "help": "Pass stdin on."}),
    (("-t", "--tty"), {"is_flag": True, "help": "Give the program a terminal."}),
    (("--init",), {"is_flag": True, "help": "Run a process 1 that passes signals on and reaps."}),
    (
        ("--rm",),
        {"is_flag": True, "help": "Remove the container at its end; a foreground container always is."},
    ),
    (
        ("--network", "--net"),
        {
            "default": "none",
            "metavar": "[none|host|ns:PATH]",
            "help": "Network: loopback only, the host's, or joined.",
        },
    ),
    (("--uts",), {"default": "private", "metavar": _MODE, "help": "UTS namespace."}),
    (("--ipc",), {"default": "private", "metavar": _MODE, "help": "IPC namespace."}),
    (("--pid",), {"default": "private", "metavar": _MODE, "help": "PID namespace."}),
    (("--cgroupns",), {"default": "private", "metavar": _MODE, "help": "Cgroup namespace."}),
    (("--userns",), {"default": "host", "metavar": _MODE, "help": "User namespace."}),
    (
        ("--uidmap",),
        {**_MANY, "metavar": "INSIDE:OUTSIDE:COUNT", "help": "Map user ids of a private user namespace."},
    ),
    (
        ("--gidmap",),
        {**_MANY, "metavar": "INSIDE:OUTSIDE:COUNT", "help": "Map group ids; as --uidmap if none is given."},
    ),
    (("--timens",), {"default": "host", "metavar": _MODE, "help": "Time namespace."}),
    (
        ("--monotonic",),
        {
            "type": int,
            "metavar": "SECONDS",
            "help": "Offset of the monotonic clock in a private time namespace.",
        },
    ),
    (
        ("--boottime",),
        {
            "type": int,
            "metavar": "SECONDS",
            "help": "Offset of the boot-time clock in a private time namespace.",
        },
    ),
    (("--cap-add",), {**_MANY, "metavar": "CAP", "help": "Add a capability, or ALL."}),
    (("--cap-drop",), {**_MANY, "metavar": "CAP", "help": "Drop a capability, or ALL."}),
    (
        ("--security-opt",),
        {
            **_MANY,
            "metavar": "OPTION",
            "help": "no-new-privileges[=BOOL], seccomp=FILE or seccomp=unconfined.",
        },
    ),
    (("--privileged",), {"is_flag": True, "help": "All capabilities, no seccomp, no masked paths."}),
    (("--ulimit",), {**_MANY, "metavar": "NAME=SOFT[:HARD]", "help": "A resource limit of setrlimit(2)."}),
    (
        ("--sysctl",),
        {**_MANY, "metavar": "NAME=VALUE", "help": "A kernel parameter of the container's own namespaces."},
    ),
    (
        ("--oom-score-adj",),
        {"type": click.IntRange(-1000, 1000), "help": "What the OOM killer prefers, -1000 to 1000."},
    ),
    (
        ("--stop-signal",),
        {"default": "SIGTERM", "metavar": "SIGNAL", "help": "The signal that asks the program to stop."},
    ),
    (
        ("--timeout",),
        {
            "metavar": "SECONDS",
            "help": "Kill the container after this time.",
        },
    ),
    (("-l", "--label"), {**_MANY, "metavar": "NAME=VALUE", "help": "Put a label on the record."}),
    (("--cidfile",), {"metavar": "FILE", "help": "Write the container's id to a new file."}),
)


def run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options and the arguments to a command's function, which gets them as keywords."""
    function = click.argument(
        "arguments", nargs=-1, type=click.UNPROCESSED, metavar="[IMAGE] [COMMAND] [ARG]..."
    )(function)
    for flags, attributes in reversed(_OPTIONS):
        function = click.option(*flags, cls=Option, **attributes)(function)
    return function


class Command(click.Command):
    """A command with that help option."""

    def get_help_option(self, ctx: click.Context) -> click.Option:
        """Ours."""
        return help_option()

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Options, as long as none of the arguments is there: after that they are the program's."""
        return [] if ctx.params.get("arguments") else super().shell_complete(ctx, incomplete)


CONTEXT = {"allow_interspersed_args": False}
"""Options of COMMAND are its own: the first argument ends gocker's."""
