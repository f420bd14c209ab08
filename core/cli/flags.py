"""The options of `run` and `plan` as data, with docker's names; nothing is imported for them."""

from __future__ import annotations

from typing import Any

Flags = tuple[tuple[tuple[str, ...], dict[str, Any]], ...]
"""(names, attributes of click.Option); `between` is a range of whole numbers."""

_MANY = {"multiple": True}
_MODE = "[private|host|ns:PATH]"

RUN_FLAGS: Flags = (
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
    (("--cpus",), {"metavar": "N", "help": "CPU time in whole CPUs, as 1.5: --limit cpu."}),
    (("--cpu-quota",), {"metavar": "US", "help": "CPU time in each period: --limit cpu.quota."}),
    (("--cpu-period",), {"metavar": "US", "help": "The period of the quota: --limit cpu.period."}),
    (("--cpu-rt-runtime",), {"metavar": "US", "help": "Realtime in each period: --limit cpu.rt_runtime."}),
    (("--cpu-rt-period",), {"metavar": "US", "help": "The realtime period: --limit cpu.rt_period."}),
    (("--blkio-weight",), {"metavar": "N", "help": "Weight at the disks, 10 to 1000: --limit blkio.weight."}),
    (
        ("--blkio-weight-device",),
        {**_MANY, "metavar": "DEVICE:N", "help": "Weight at one disk: --limit blkio.weight_device."},
    ),
    (
        ("--device-read-bps",),
        {**_MANY, "metavar": "DEVICE:SIZE", "help": "Bytes read a second: --limit blkio.read_bps."},
    ),
    (
        ("--device-write-bps",),
        {**_MANY, "metavar": "DEVICE:SIZE", "help": "Bytes written a second: --limit blkio.write_bps."},
    ),
    (
        ("--device-read-iops",),
        {**_MANY, "metavar": "DEVICE:N", "help": "Reads a second: --limit blkio.read_iops."},
    ),
    (
        ("--device-write-iops",),
        {**_MANY, "metavar": "DEVICE:N", "help": "Writes a second: --limit blkio.write_iops."},
    ),
    (
        ("--memory-swappiness",),
        {"metavar": "N", "help": "How readily it is swapped, 0 to 100: --limit memory.swappiness."},
    ),
    (
        ("--oom-kill-disable",),
        {"is_flag": True, "help": "Stop programs instead of killing one: --limit memory.oom_kill_disable."},
    ),
    (
        ("--device",),
        {
            **_MANY,
            "metavar": "PATH[:INSIDE][:rwm]",
            "help": "Make a device of the host's inside, and allow it.",
        },
    ),
    (
        ("--device-cgroup-rule",),
        {**_MANY, "metavar": "RULE", "help": "Allow devices, as 'c 10:229 rw': --limit devices.allow."},
    ),
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
        {"between": (-1000, 1000), "help": "What the OOM killer prefers, -1000 to 1000."},
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
"""Of `run` and `plan`."""

START_FLAGS: Flags = (
    *RUN_FLAGS,
    (("--report",), {"metavar": "FILE", "help": "Write how it ended, as JSON; `-` is stderr."}),
    (("--profile",), {"metavar": "FILE", "help": "Write how long each step took, as a Chrome trace."}),
    (("--dry-run",), {"is_flag": True, "help": "Print the plan and touch nothing."}),
)
"""Of `run`."""
