"""The container spec and the values in it; no I/O. Names follow the OCI runtime spec."""

from __future__ import annotations

import enum

from gocker.limits import LimitRequest
from gocker.record import Record

OCI_VERSION = "1.3.0"
"""Of the runtime specification whose names these are: what gocker says in states and configs of its own."""
ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}"


class Hierarchy(enum.Enum):
    """The version of the cgroup hierarchy that carries a controller."""

    V1 = "v1"
    V2 = "v2"


class IdMap(Record):
    """One line of uid_map or gid_map (user_namespaces(7)); all three are 0..2**32-2."""

    inside: int
    outside: int
    count: int


class NamespaceRequest(Record):
    """How the container gets a namespace: `private` (new), `host` (gocker's own) or joined by path."""

    kind: str  # OCI type and plug-in name: uts ipc pid mount network cgroup user time
    mode: str = "private"  # private | host | path
    path: str = ""  # /proc/PID/ns/KIND or a bind mount of it, when mode is path


class Mount(Record):
    """A mount inside the container, in the order of the list that it is in."""

    kind: str  # bind, or a file system: proc sysfs cgroup devpts mqueue tmpfs ...; cgroup is v1 or v2, as the host has it
    target: str  # absolute, inside
    source: str = ""  # host path of a bind
    options: tuple[
        str, ...
    ] = ()  # of mount(8): ro nosuid nodev noexec size=64m mode=1777 rprivate rbind rro ...
    uid_map: tuple[IdMap, ...] = ()  # ids of a bind, mapped: mount_setattr(2)
    gid_map: tuple[IdMap, ...] = ()


class Device(Record):
    """A device node inside, beyond the ones that every container has."""

    path: str  # absolute, inside
    kind: str  # c u b p, as mknod(1)
    major: int = 0
    minor: int = 0
    mode: int = 0o666  # permission bits
    uid: int = 0
    gid: int = 0


class Rootfs(Record):
    """The root file system: `lower` is never written unless `writable` is true."""

    lower: str  # absolute host path of a directory
    writable: bool = False  # true: bind it; false: overlay with an upper of its own
    readonly: bool = False  # --read-only: the root inside is mounted read-only
    nodev: bool = True  # device files in it cannot be opened
    recursive: bool = False  # what is mounted below a writable one comes along
    mapped: bool = True  # in a user namespace its ids are those of the inside; false: those of the host
    propagation: str = ""  # of the root inside, in the end: private slave shared unbindable; "" is private


class Rlimit(Record):
    """One resource limit by its RLIMIT_ name in lower case ("nofile"); 2**64-1 is unlimited."""

    name: str
    soft: int
    hard: int


class Capabilities(Record):
    """The five sets of capabilities(7), by CAP_ names."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


def plain_capabilities(names: tuple[str, ...]) -> Capabilities:
    """Bounding, effective and permitted; nothing is inherited (SECURITY R9)."""
    return Capabilities(bounding=names, effective=names, permitted=names)


class Hook(Record):
    """A program that is run at one point of a container's life. Source: OCI runtime spec, config, POSIX-platform Hooks."""

    kind: str  # prestart createRuntime createContainer startContainer poststart poststop
    path: str  # absolute
    args: tuple[str, ...] = ()  # with argv[0]; () is the path alone
    env: tuple[str, ...] | None = ()  # NAME=VALUE; None is gocker's own
    timeout: float | None = None  # seconds


class Scheduler(Record):
    """The arguments of sched_setattr(2)."""

    policy: str  # SCHED_OTHER SCHED_FIFO SCHED_RR SCHED_BATCH SCHED_ISO SCHED_IDLE SCHED_DEADLINE
    nice: int = 0
    priority: int = 0
    flags: tuple[str, ...] = ()  # SCHED_FLAG_*
    runtime: int = 0  # nanoseconds, as the next two
    deadline: int = 0
    period: int = 0


class IoPriority(Record):
    """The arguments of ioprio_set(2)."""

    kind: str  # IOPRIO_CLASS_RT IOPRIO_CLASS_BE IOPRIO_CLASS_IDLE
    priority: int = 0


class MemoryPolicy(Record):
    """The arguments of set_mempolicy(2)."""

    mode: str  # MPOL_DEFAULT MPOL_BIND MPOL_INTERLEAVE MPOL_PREFERRED MPOL_LOCAL ...
    nodes: str = ""  # list format of cpuset(7)
    flags: tuple[str, ...] = ()  # MPOL_F_*


class ContainerSpec(Record):
    """All that a start needs to know. Text that reaches the kernel is surrogateescape text."""

    id: str
    name: str
    argv: tuple[str, ...]
    rootfs: Rootfs | None = None  # None only when the mount namespace is not private
    image: str = ""  # what the user named, for the record
    hostname: str = ""
    domainname: str = ""
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    user: str = ""  # "", "uid", "uid:gid", "name", "name:group"
    groups: tuple[str, ...] = ()  # supplementary, by name or number
    only_groups: bool = (
        False  # no other ones: neither the primary one nor those of the container's /etc/group
    )
    namespaces: tuple[NamespaceRequest, ...] = ()
    uid_map: tuple[IdMap, ...] = ()
    gid_map: tuple[IdMap, ...] = ()
    time_offsets: tuple[tuple[str, int, int], ...] = ()  # ("boottime", seconds, nanoseconds)
    limits: tuple[LimitRequest, ...] = ()
    default_limits: bool = True  # those of the controllers that hold where nobody asked for any
    joins: tuple[str, ...] = ()  # controllers to be in without a limit, where they are there
    cgroup_path: str = ""  # absolute, below the mount point of each hierarchy; "" is /gocker/ID
    scope: bool = False  # the cgroup is a scope that systemd makes
    mounts: tuple[Mount, ...] = ()
    etc: bool = False  # hosts, hostname and resolv.conf of its own below /etc
    devices: tuple[Device, ...] = ()
    capabilities: Capabilities = Capabilities()
    no_new_privileges: bool = True
    seccomp: str = "default"  # default | unconfined | absolute path of a profile, or its name where seccomp_profile is set
    seccomp_profile: str = ""  # JSON: linux.seccomp of an OCI config
    privileged: bool = False
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    rlimits: tuple[Rlimit, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    oom_score_adj: int | None = None
    umask: int = 0o022
    scheduler: Scheduler | None = None
    io_priority: IoPriority | None = None
    cpu_affinity: tuple[str, str] = ("", "")  # CPU lists until the exec and from then on; "" leaves it
    memory_policy: MemoryPolicy | None = None
    personality: int | None = None  # personality(2)
    apparmor_profile: str = ""
    selinux_label: str = ""  # of the process
    mount_label: str = ""  # SELinux context of the file systems that are made
    hooks: tuple[Hook, ...] = ()
    preserve_fds: int = 0  # how many fds from 3 on the program gets
    session_keyring: bool = True  # a new one
    terminal: bool = False
    console_size: tuple[int, int] = (0, 0)  # rows and columns of the terminal; 0 leaves it
    interactive: bool = False
    init: bool = False
    stop_signal: str = "SIGTERM"
    timeout: float | None = None  # seconds
    labels: tuple[tuple[str, str], ...] = ()  # annotations, in the words of the OCI
    bundle: str = ""  # host directory with config.json; "" for `gocker run`

    def namespace(self, kind: str) -> NamespaceRequest:
        """The request for `kind`; host when none was made."""
        for request in self.namespaces:
            if request.kind == kind:
                return request
        return NamespaceRequest(kind=kind, mode="host")
