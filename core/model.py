"""The container spec and the values in it; no I/O. Names follow the OCI runtime spec."""

from __future__ import annotations

import enum

from gocker.limits import LimitRequest
from gocker.record import Record

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
    """A mount inside the container beyond the ones that every container has."""

    kind: str  # bind | tmpfs
    target: str  # absolute, inside
    source: str = ""  # host path of a bind
    readonly: bool = False
    options: tuple[str, ...] = ()  # nosuid nodev noexec size=64m mode=1777 rprivate rbind ...


class Rootfs(Record):
    """The root file system: `lower` is never written unless `writable` is true."""

    lower: str  # absolute host path of a directory
    writable: bool = False  # true: bind it; false: overlay with an upper of its own
    readonly: bool = False  # --read-only: the root inside is mounted read-only


class Rlimit(Record):
    """One resource limit by its RLIMIT_ name in lower case ("nofile"); 2**64-1 is unlimited."""

    name: str
    soft: int
    hard: int


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
    namespaces: tuple[NamespaceRequest, ...] = ()
    uid_map: tuple[IdMap, ...] = ()
    gid_map: tuple[IdMap, ...] = ()
    time_offsets: tuple[tuple[str, int, int], ...] = ()  # ("boottime", seconds, nanoseconds)
    limits: tuple[LimitRequest, ...] = ()
    cgroup_parent: str = ""  # below which gocker/ID is made; "" is gocker's own cgroup's root
    mounts: tuple[Mount, ...] = ()
    shm_size: int = 64 << 20  # bytes
    capabilities: tuple[str, ...] = ()  # CAP_ names, bounding = permitted = effective
    no_new_privileges: bool = True
    seccomp: str = "default"  # default | unconfined | absolute path of an OCI profile
    privileged: bool = False
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    rlimits: tuple[Rlimit, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    oom_score_adj: int | None = None
    terminal: bool = False
    interactive: bool = False
    init: bool = False
    stop_signal: str = "SIGTERM"
    timeout: float | None = None  # seconds
    labels: tuple[tuple[str, str], ...] = ()

    def namespace(self, kind: str) -> NamespaceRequest:
        """The request for `kind`; host when none was made."""
        for request in self.namespaces:
            if request.kind == kind:
                return request
        return NamespaceRequest(kind=kind, mode="host")
