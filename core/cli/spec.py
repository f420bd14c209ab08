"""Turns the options of `run` and `plan` into a container spec."""

from __future__ import annotations

import os
import signal
import stat
from typing import Any

from gocker.cli.mounts import absolute, mounts
from gocker.defaults import MASKED_PATHS, READONLY_PATHS
from gocker.errors import UsageError
from gocker.kernel.caps import docker_capabilities
from gocker.limits import LimitRequest, parse_limit
from gocker.model import ContainerSpec, Device, IdMap, NamespaceRequest, Rlimit, Rootfs, plain_capabilities
from gocker.state import SHORT_ID, new_id
from gocker.steps.namespaces import sysctl_parts

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LIMIT_FLAGS = (
    ("memory", "memory"),
    ("memory_swap", "memory.swap"),
    ("memory_reservation", "memory.reservation"),
    ("cpuset_cpus", "cpuset"),
    ("cpuset_mems", "cpuset.mems"),
    ("cpu_shares", "cpushare"),
    ("pids_limit", "pids"),
    ("cpus", "cpu"),
    ("cpu_quota", "cpu.quota"),
    ("cpu_period", "cpu.period"),
    ("cpu_rt_runtime", "cpu.rt_runtime"),
    ("cpu_rt_period", "cpu.rt_period"),
    ("blkio_weight", "blkio.weight"),
    ("memory_swappiness", "memory.swappiness"),
)
_NOT_SET = {"memory_swappiness": "-1", **dict.fromkeys(("cpus", "cpu_quota", "cpu_period"), "0")}
_NOT_SET |= dict.fromkeys(("cpu_rt_runtime", "cpu_rt_period", "blkio_weight"), "0")
"""What docker takes for no limit."""
_LIST_FLAGS = (
    ("blkio_weight_device", "blkio.weight_device"),
    ("device_read_bps", "blkio.read_bps"),
    ("device_write_bps", "blkio.write_bps"),
    ("device_read_iops", "blkio.read_iops"),
    ("device_write_iops", "blkio.write_iops"),
)
_NAMESPACE_FLAGS = (
    ("uts", "uts"),
    ("ipc", "ipc"),
    ("pid", "pid"),
    ("network", "network"),
    ("cgroupns", "cgroup"),
    ("userns", "user"),
    ("timens", "time"),
)
_DEFAULT_IDMAP = "0:100000:65536"
_HOSTNAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
_MAX_ENV_FILE = 1 << 20  # bytes
_MAX_TIMEOUT = 10 * 365 * 86400.0  # seconds

Options = dict[str, Any]


def build_spec(options: Options, find_rootfs: Any) -> ContainerSpec:
    """The spec of `gocker run` with these options; `find_rootfs(image)` gives an image's directory.

    Raise UsageError, LimitError or ImageError.
    """
    arguments = tuple(options["arguments"])
    rootfs, image, arguments = _root(options, arguments, find_rootfs)
    if options["entrypoint"]:
        arguments = (options["entrypoint"], *arguments)
    if not arguments:
        raise UsageError("run", image, "no command was given", remedy=f"gocker run {image} COMMAND")
    container = new_id()
    namespaces = _namespaces(options)
    modes = {request.kind: request.mode for request in namespaces}
    uid_map, gid_map = _id_maps(options, private=modes["user"] == "private")
    privileged: bool = options["privileged"]
    no_new_privileges, seccomp = _security(options["security_opt"], privileged=privileged)
    hostname = _hostname(options, container, private=modes["uts"] == "private")
    nodes, device_rules = _devices(options)
    return ContainerSpec(
        id=container,
        name=options["name"] or container[:SHORT_ID],
        argv=arguments,
        rootfs=rootfs,
        image=image,
        hostname=hostname,
        domainname=options["domainname"],
        env=_environment(options, hostname),
        cwd=_directory(options["workdir"]),
        user=options["user"],
        groups=tuple(options["group_add"]),
        namespaces=namespaces,
        uid_map=uid_map,
        gid_map=gid_map,
        time_offsets=_time_offsets(options, private=modes["time"] == "private"),
        limits=_limits(options, device_rules),
        devices=nodes,
        cgroup_path=_cgroup_path(options["cgroup_parent"], container),
        mounts=mounts(options, modes, gid_map),
        etc=True,
        capabilities=plain_capabilities(
            docker_capabilities(options["cap_add"], options["cap_drop"], privileged=privileged)
        ),
        no_new_privileges=no_new_privileges,
        seccomp=seccomp,
        privileged=privileged,
        masked_paths=() if privileged else MASKED_PATHS,
        readonly_paths=() if privileged else READONLY_PATHS,
        rlimits=_rlimits(options["ulimit"]),
        sysctls=_sysctls(options["sysctl"]),
        oom_score_adj=options["oom_score_adj"],
        terminal=options["tty"],
        interactive=options["interactive"],
        init=options["init"],
        stop_signal=_signal_name(options["stop_signal"]),
        timeout=_timeout(options["timeout"]),
        labels=_labels(options["label"]),
    )


def _root(
    options: Options, arguments: tuple[str, ...], find_rootfs: Any
) -> tuple[Rootfs, str, tuple[str, ...]]:
    """The root file system, what the user calls it, and the arguments left."""
    readonly: bool = options["read_only"]
    nodev = not options["privileged"]
    if options["rootfs"] is not None:
        from gocker.images import check_rootfs

        path, _, mode = options["rootfs"].rpartition(":")
        if mode not in ("rw", "ro"):
            path, mode = options["rootfs"], "ro"
        lower = check_rootfs(path)
        rootfs = Rootfs(lower=lower, writable=mode == "rw", readonly=readonly, nodev=nodev)
        return rootfs, options["rootfs"], arguments
    if not arguments:
        raise UsageError(
            "run", "", "no image was given", remedy="gocker run base COMMAND, or --rootfs DIR COMMAND"
        )
    rootfs = Rootfs(lower=find_rootfs(arguments[0]), readonly=readonly, nodev=nodev)
    return rootfs, arguments[0], arguments[1:]


def _limits(options: Options, device_rules: str) -> tuple[LimitRequest, ...]:
    texts = [
        f"{label}={options[flag]}"
        for flag, label in _LIMIT_FLAGS
        if options[flag] not in (None, _NOT_SET.get(flag))
    ]
    texts += [f"{label}={','.join(options[flag])}" for flag, label in _LIST_FLAGS if options[flag]]
    if options["oom_kill_disable"]:
        texts.append("memory.oom_kill_disable=true")
    if device_rules:
        texts.append(f"devices.allow={device_rules}")
    return tuple(parse_limit(text) for text in (*options["limit"], *texts))


def _devices(options: Options) -> tuple[tuple[Device, ...], str]:
    """The nodes and the rules that were asked for."""
    if not options["device"] and not options["device_cgroup_rule"]:
        return (), ""
    from gocker.cli.devices import devices

    return devices(options)


def _namespaces(options: Options) -> tuple[NamespaceRequest, ...]:
    requests = [NamespaceRequest(kind="mount")]
    for flag, kind in _NAMESPACE_FLAGS:
        text: str = options[flag]
        mode, path = text, ""
        if text.startswith("ns:"):
            mode, path = "path", text[3:]
        elif kind == "network" and text == "none":
            mode = "private"
        if mode not in ("private", "host", "path") or (mode == "path" and not path.startswith("/")):
            choices = "none, host or ns:PATH" if kind == "network" else "private, host or ns:PATH"
            raise UsageError(f"set --{flag}", text, f"not one of {choices}")
        requests.append(NamespaceRequest(kind=kind, mode=mode, path=path))
    return tuple(requests)


def _id_maps(options: Options, *, private: bool) -> tuple[tuple[IdMap, ...], tuple[IdMap, ...]]:
    for option in ("uidmap", "gidmap"):
        if options[option] and not private:
            reason = "only a new user namespace takes a map"
            raise UsageError(f"set --{option}", options[option][0], reason, remedy="--userns private")
    uids = options["uidmap"] or ((_DEFAULT_IDMAP,) if private else ())
    gids = options["gidmap"] or uids
    return _id_map("uidmap", uids), _id_map("gidmap", gids)


def _id_map(option: str, texts: tuple[str, ...]) -> tuple[IdMap, ...]:
    maps = []
    for text in texts:
        parts = text.split(":")
        if len(parts) == 2:
            parts.append("1")
        if len(parts) != 3 or not all(_is_number(part) for part in parts):
            raise UsageError(
                f"set --{option}", text, "not INSIDE:OUTSIDE:COUNT", remedy=f"for example {_DEFAULT_IDMAP}"
            )
        inside, outside, count = map(int, parts)
        maps.append(IdMap(inside=inside, outside=outside, count=count))
    return tuple(maps)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10  # of 32 bits; int() refuses thousands


def _hostname(options: Options, container: str, *, private: bool) -> str:
    """The one asked for; else the short id where there is a name to set. Source: hostname(7)."""
    name: str = options["hostname"]
    if not name:
        return container[:SHORT_ID] if private else ""
    if not private:
        raise UsageError(
            "set hostname", name, "the UTS namespace is not the container's own", remedy="--uts private"
        )
    if not _HOSTNAME.issuperset(name) or name[0] in "-.":
        # It becomes a line of /etc/hosts.
        raise UsageError("set hostname", repr(name), "not a hostname", remedy="letters, digits, - _ and .")
    return name


def _time_offsets(options: Options, *, private: bool) -> tuple[tuple[str, int, int], ...]:
    offsets = [
        (clock, options[clock], 0) for clock in ("monotonic", "boottime") if options[clock] is not None
    ]
    if offsets and not private:
        clock, seconds, _ = offsets[0]
        raise UsageError(
            f"set --{clock}", seconds, "needs a time namespace of its own", remedy="--timens private"
        )
    return tuple(offsets)


def _timeout(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _MAX_TIMEOUT:  # false for nan
        raise UsageError(
            "set --timeout", text or "''", f"not a number of seconds above 0 and up to {_MAX_TIMEOUT:.0f}"
        )
    return seconds


def _rlimits(texts: tuple[str, ...]) -> tuple[Rlimit, ...]:
    if not texts:
        return ()
    from gocker.kernel.rlimit import parse_ulimit

    return tuple(parse_ulimit(text) for text in texts)


def _sysctls(texts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError("set sysctl", text, "not NAME=VALUE", remedy="for example net.ipv4.ip_forward=1")
        sysctl_parts(name)
        pairs.append((name, value))
    return tuple(pairs)


def _labels(texts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for text in texts:
        name, _, value = text.partition("=")
        if not name:
            raise UsageError("set label", text, "not NAME=VALUE")
        pairs.append((name, value))
    return tuple(pairs)


def _environment(options: Options, hostname: str) -> tuple[tuple[str, str], ...]:
    """Docker's few, then files, then -e; nothing of gocker's own that was not named."""
    env = {"PATH": _PATH}
    if hostname:
        env["HOSTNAME"] = hostname
    if options["tty"]:
        env["TERM"] = "xterm"
    lines = [entry for path in options["env_file"] for entry in _read_env_file(path)]
    for origin, line in (*lines, *(("-e", text) for text in options["env"])):
        name, equals, value = line.partition("=")
        if not name or "\0" in line:
            reason = "it has a NUL byte" if name else f"{line!r} has no name"
            raise UsageError("set environment", origin, reason, remedy="NAME=VALUE, or NAME for gocker's own")
        if equals:
            env[name] = value
        elif name in os.environ:
            env[name] = os.environ[name]
    return tuple(env.items())


def _read_env_file(path: str) -> list[tuple[str, str]]:
    """(where, line) of each line that is neither empty nor a comment. A pipe is fine: `<(command)`."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
                raise UsageError("read env file", path, "neither a file nor a pipe")
            text = file.read(_MAX_ENV_FILE + 1)
    except OSError as error:
        raise UsageError.from_os("read env file", path, error) from error
    if len(text) > _MAX_ENV_FILE:
        raise UsageError("read env file", path, f"longer than {_MAX_ENV_FILE} characters")
    lines = ((f"{path} line {number}", line.lstrip()) for number, line in enumerate(text.split("\n"), 1))
    return [(where, line.removesuffix("\r")) for where, line in lines if line and line[0] != "#"]


def _security(texts: tuple[str, ...], *, privileged: bool) -> tuple[bool, str]:
    no_new_privileges, seccomp = not privileged, "unconfined" if privileged else "default"
    for text in texts:
        name, _, value = text.replace(":", "=", 1).partition("=")
        if name == "no-new-privileges" and value in ("", "true", "false"):
            no_new_privileges = value != "false"
        elif name == "seccomp" and value:
            seccomp = value if value in ("default", "unconfined") else os.path.abspath(value)
        else:
            raise UsageError(
                "set --security-opt",
                text,
                "not known",
                remedy="no-new-privileges[=BOOL], seccomp=FILE or seccomp=unconfined",
            )
    return no_new_privileges, seccomp


def _directory(path: str) -> str:
    """A working directory without `//` and `.`; `..` stays, since a link may come before it."""
    if not path:
        return "/"
    parts = absolute("set working directory", path).split("/")
    return "/" + "/".join(part for part in parts if part not in {"", "."})


def _cgroup_path(path: str, container: str) -> str:
    """gocker/ID below the parent that was asked for, or the root of each hierarchy."""
    if ".." in path.split("/") or "\0" in path:
        raise UsageError("set --cgroup-parent", path, "has a .. in it", remedy="a path such as /slurm/job7")
    parent = f"/{path.strip('/')}" if path.strip("/") else ""
    return f"{parent}/gocker/{container}"


def _signal_name(text: str) -> str:
    try:
        if text.isascii() and text.isdigit():
            return signal.Signals(int(text)).name
        name = text.upper()
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"].name
    except (KeyError, ValueError) as error:
        raise UsageError("set --stop-signal", text, "no such signal", remedy="SIGTERM, TERM or 15") from error
