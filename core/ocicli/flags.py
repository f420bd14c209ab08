"""The options of `gocker-oci` and its sub-commands as data, with runc's names; nothing is imported for them."""

from __future__ import annotations

from gocker.cli.flags import Flags
from gocker.record import Record

_HELP: Flags = ((("--help", "-h"), {"is_flag": True, "help": "Show this message and exit."}),)

DEFAULT_ROOT = "/run/gocker-oci"

GLOBAL: Flags = (
    (
        ("--root",),
        {"metavar": "DIR", "default": DEFAULT_ROOT, "help": "Where the state of containers is kept."},
    ),
    (("--log",), {"metavar": "FILE", "default": "", "help": "Append errors to this file."}),
    (("--log-format",), {"metavar": "[text|json]", "default": "text", "help": "How they are written there."}),
    (
        ("--log-level",),
        {"metavar": "LEVEL", "default": "", "help": "Accepted for others' sake: errors are logged."},
    ),
    (("--debug",), {"is_flag": True, "help": "Show tracebacks of errors."}),
    (("--systemd-cgroup",), {"is_flag": True, "help": "Systemd makes the container's cgroup, a scope."}),
    (
        ("--cgroup-manager",),
        {"metavar": "NAME", "default": "cgroupfs", "help": "cgroupfs, or systemd: the same."},
    ),
    (("--rootless",), {"metavar": "MODE", "default": "auto", "help": "Accepted for others' sake."}),
    (
        ("--annotation",),
        {
            "multiple": True,
            "metavar": "NAME=VALUE",
            "help": "Add it to the config of what is created: for engines that pass none on.",
        },
    ),
    (("--version", "-v"), {"is_flag": True, "help": "Print the version and exit."}),
    *_HELP,
)
_BUNDLE: Flags = (
    (
        ("--bundle", "-b"),
        {"metavar": "DIR", "default": "", "help": "Where config.json is; the working directory."},
    ),
    (("--config", "-f"), {"metavar": "FILE", "default": "config.json", "help": "Its name in the bundle."}),
)
_CREATE: Flags = (
    *_BUNDLE,
    (
        ("--console-socket",),
        {"metavar": "PATH", "default": "", "help": "Unix socket that gets the pty master."},
    ),
    (("--pid-file",), {"metavar": "FILE", "default": "", "help": "Write the first process's pid there."}),
    (
        ("--preserve-fds",),
        {"type": int, "metavar": "N", "default": 0, "help": "Pass N fds from 3 on to the program."},
    ),
    (
        ("--pidfd-socket",),
        {"metavar": "PATH", "default": "", "help": "Unix socket that gets a pidfd of the first process."},
    ),
    (("--no-pivot",), {"is_flag": True, "help": "Refused: the root is always pivoted."}),
    (("--no-new-keyring",), {"is_flag": True, "help": "Keep the caller's session keyring."}),
    *_HELP,
)
_MANY = {"multiple": True}


class Verb(Record):
    """A sub-command."""

    text: str  # one line
    usage: str  # its arguments
    flags: Flags = _HELP
    words: int = 99  # leading arguments among which options may stand
    least: int = 1  # how many arguments it needs
    most: int = 1


VERBS = {
    "create": Verb(text="Create a container, all but its program.", usage="ID", flags=_CREATE),
    "start": Verb(text="Start what was created.", usage="ID"),
    "run": Verb(
        text="Create a container, start it, and delete it when it ends.",
        usage="ID",
        flags=(
            *_CREATE[:-1],
            (("--detach", "-d"), {"is_flag": True, "help": "Return once it runs; it is not deleted."}),
            (("--keep",), {"is_flag": True, "help": "Do not delete it when it ends."}),
            *_HELP,
        ),
    ),
    "exec": Verb(
        text="Run one more process in a container.",
        usage="ID [COMMAND ARG...]",
        flags=(
            (
                ("--process", "-p"),
                {"metavar": "FILE", "default": "", "help": "Its process object; COMMAND else."},
            ),
            (
                ("--console-socket",),
                {"metavar": "PATH", "default": "", "help": "Unix socket for the pty master."},
            ),
            (("--pid-file",), {"metavar": "FILE", "default": "", "help": "Write its pid there."}),
            (
                ("--pidfd-socket",),
                {"metavar": "PATH", "default": "", "help": "Unix socket that gets a pidfd of it."},
            ),
            (("--detach", "-d"), {"is_flag": True, "help": "Return once it runs."}),
            (("--tty", "-t"), {"is_flag": True, "help": "Give it a terminal."}),
            (("--cwd",), {"metavar": "DIR", "default": "", "help": "Working directory inside."}),
            (("--env", "-e"), {**_MANY, "metavar": "NAME=VALUE", "help": "One more variable."}),
            (("--user", "-u"), {"metavar": "UID[:GID]", "default": "", "help": "User, by number."}),
            (
                ("--additional-gids", "-g"),
                {**_MANY, "type": int, "metavar": "GID", "help": "One more group."},
            ),
            (("--cap", "-c"), {**_MANY, "metavar": "CAP", "help": "One more capability."}),
            (("--no-new-privs",), {"is_flag": True, "help": "Nothing it executes gives privileges."}),
            (("--apparmor",), {"metavar": "NAME", "default": "", "help": "AppArmor profile."}),
            (("--process-label",), {"metavar": "LABEL", "default": "", "help": "SELinux label."}),
            (
                ("--preserve-fds",),
                {"type": int, "metavar": "N", "default": 0, "help": "Pass N fds from 3 on."},
            ),
            (
                ("--cgroup",),
                {
                    "multiple": True,
                    "metavar": "[CONTROLLER,...:]PATH",
                    "help": "A cgroup below the container's own; of these controllers' alone.",
                },
            ),
            (("--ignore-paused",), {"is_flag": True, "help": "Also in a paused container, where it waits."}),
            (("--no-new-keyring",), {"is_flag": True, "help": "Keep the caller's session keyring."}),
            *_HELP,
        ),
        words=1,
        most=1 << 30,
    ),
    "state": Verb(text="Print the state of a container, as JSON.", usage="ID"),
    "kill": Verb(
        text="Send a signal to a container.",
        usage="ID [SIGNAL]",
        flags=(
            (("--all", "-a"), {"is_flag": True, "help": "To every process in it."}),
            (("--regex", "-r"), {"is_flag": True, "help": "Refused: name the container."}),
            *_HELP,
        ),
        most=2,
    ),
    "delete": Verb(
        text="Delete a container that has stopped.",
        usage="ID",
        flags=(
            (("--force", "-f"), {"is_flag": True, "help": "Kill it before; fine when there is none."}),
            *_HELP,
        ),
    ),
    "list": Verb(
        text="List the containers of this root.",
        usage="",
        flags=(
            (("--format", "-f"), {"metavar": "[table|json]", "default": "table", "help": "How."}),
            (("--quiet", "-q"), {"is_flag": True, "help": "The ids alone."}),
            *_HELP,
        ),
        least=0,
        most=0,
    ),
    "ps": Verb(
        text="List the processes of a container.",
        usage="ID [PS OPTION...]",
        flags=((("--format", "-f"), {"metavar": "[table|json]", "default": "table", "help": "How."}), *_HELP),
        words=0,
        most=1 << 30,
    ),
    "pause": Verb(text="Freeze every process of a container.", usage="ID"),
    "resume": Verb(text="Let them go on.", usage="ID"),
    "update": Verb(
        text="Change the limits of a container.",
        usage="ID",
        flags=(
            (
                ("--resources", "-r"),
                {"metavar": "FILE", "default": "", "help": "linux.resources as JSON; - is stdin."},
            ),
            (("--limit",), {**_MANY, "metavar": "NAME[.KEY]=VALUE[?]", "help": "A limit of any controller."}),
            (("--blkio-weight",), {"metavar": "N", "help": "--limit blkio.weight=N"}),
            (("--cpu-period",), {"metavar": "US", "help": "--limit cpu.period=US"}),
            (("--cpu-quota",), {"metavar": "US", "help": "--limit cpu.quota=US"}),
            (("--cpu-burst",), {"metavar": "US", "help": "--limit cpu.burst=US"}),
            (("--cpu-share", "--cpu-shares"), {"metavar": "N", "help": "--limit cpushare=N"}),
            (("--cpu-idle",), {"metavar": "N", "help": "--limit cpu.idle=N"}),
            (("--cpu-rt-period",), {"metavar": "US", "help": "--limit cpu.rt_period=US"}),
            (("--cpu-rt-runtime",), {"metavar": "US", "help": "--limit cpu.rt_runtime=US"}),
            (("--cpuset-cpus",), {"metavar": "LIST", "help": "--limit cpuset=LIST"}),
            (("--cpuset-mems",), {"metavar": "LIST", "help": "--limit cpuset.mems=LIST"}),
            (("--memory",), {"metavar": "SIZE", "help": "--limit memory=SIZE"}),
            (("--memory-reservation",), {"metavar": "SIZE", "help": "--limit memory.reservation=SIZE"}),
            (("--memory-swap",), {"metavar": "SIZE", "help": "--limit memory.swap=SIZE"}),
            (("--pids-limit",), {"metavar": "N", "help": "--limit pids=N"}),
            *_HELP,
        ),
    ),
    "events": Verb(
        text="Print what a container uses, as JSON lines.",
        usage="ID",
        flags=(
            (("--stats",), {"is_flag": True, "help": "Once."}),
            (("--interval",), {"metavar": "TIME", "default": "5s", "help": "Between two lines."}),
            *_HELP,
        ),
    ),
    "spec": Verb(
        text="Write a config.json to begin with.",
        usage="",
        flags=(
            (("--bundle", "-b"), {"metavar": "DIR", "default": "", "help": "Where to."}),
            (("--rootless",), {"is_flag": True, "help": "One for a user without privileges."}),
            *_HELP,
        ),
        least=0,
        most=0,
    ),
    "features": Verb(text="Say what this runtime honours, as JSON.", usage="", least=0, most=0),
    "version": Verb(text="Print the version.", usage="", least=0, most=0),
}
