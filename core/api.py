"""The plug-in contract, version 1.1: what a controller or namespace package imports.

A plug-in is a class in an entry-point group, `gocker.controllers` or `gocker.namespaces`; the
entry point's name is the plug-in's `name`. It may import `gocker.api`, `gocker.errors`,
`gocker.limits` and `gocker.model`, nothing else of gocker.

A plug-in is plain imperative code. While a start is planned, the `Cgroup` and the `Kernel` that
it is handed are recorders: each call becomes one step of the launch plan, which one executor
runs later, undoes on failure and writes to the audit log. So a plug-in never sees the effect of
its calls, never catches their errors, and none of its code runs inside the container. The same values
have to lead to the same calls: a plan may serve for several containers of one process.

docs/plugins.md builds a complete package from nothing, and says what each minor version added.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import ClassVar, Protocol

from gocker.errors import LimitError
from gocker.model import ContainerSpec, Hierarchy
from gocker.record import Record

API_VERSION = (1, 1)
"""(major, minor). A plug-in is loaded when its major is equal and its minor is not greater."""

Scalar = int | str
Resources = Mapping[str, Scalar]
"""Keyed by OCI path below linux.resources, or `x.NAME.KEY` where OCI has none: `memory.limit`."""


class Cgroup(Protocol):
    """One container's directory in the hierarchy of one controller.

    On v1 each controller has a directory of its own; on v2 all share one.
    """

    @property
    def hierarchy(self) -> Hierarchy:
        """V1 or V2: decides which files exist. Source: kernel Documentation/admin-guide/cgroup-*."""
        ...

    def write(
        self,
        file: str,
        value: str,
        *,
        limit: str,
        accept: tuple[str, ...] = (),
        verify: str = "",
        optional: bool = False,
        remedy: str = "",
        row: bool = False,
        tentative: bool = False,
        fallback: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Write `value` to `file`, read it back, and fail the run unless it binds.

        `limit` is the label of the limit ("memory.swap") under which asked and effective values
        are reported. `accept` lists further texts that the kernel is documented to answer, such
        as the value rounded down to whole pages; texts are compared stripped. `verify` names the file
        to read back where the kernel keeps what was written apart from what holds, as
        `cpuset.cpus.effective` beside `cpuset.cpus`. `optional` is for what nobody asked for: a
        kernel without `file` is then no failure. `remedy` is shown when the write fails.

        Since 1.1: `row` says that `file` is a table and `value` one line of it, as `8:0 rbps=1048576`
        of io.max: it binds when the line that begins with its first word has all its others, or is not
        there and they mean no limit (0, max). `tentative` is for a write that the kernel may refuse
        (EINVAL) until another file has its new value too: it is then passed over, and the same
        write comes again later without `tentative`. `fallback` lists (file, value) to write,
        the first that is there, on kernels without `file`.
        """
        ...

    def enable(self, controller: str) -> None:
        """v2: see to it that the directory has the files of a kernel controller, `cpu`. Since 1.1.

        That of `CgroupController.kernel_names` is enabled anyway. Nothing to do on v1.
        """
        ...

    def inherit(self, file: str, *, above: bool = False) -> None:
        """v1 cpuset: copy `file` from the nearest ancestor that has a value, filling those between.

        Since 1.1, `above` is for what is given down, cpu.rt_runtime_us: the container's own `file` is left to
        `write`, and only what gocker made between and has 0 there is filled.
        """
        ...

    def allow_devices(self, rules: tuple[str, ...], *, limits: tuple[str, ...] = ()) -> None:
        """Let the container make, read and write the devices of `rules` and no other, or fail the run.

        Each rule is `c 1:3 rwm`, as in v1's devices.allow; on v2 they become a BPF program, so that any
        controller can call it there. Source: kernel Documentation/admin-guide/cgroup-v1/devices.rst.

        Since 1.1: the type `a` stands for both, `deny c 1:3 rwm` takes away, and of several rules about one
        device the last decides. `limits` are the labels of what was asked for: with one, each
        rule must hold, whereas without, a device that the cgroup above denies stays denied in silence.
        """
        ...

    def attach(self) -> None:
        """Move the container's first process in, while it is parked before its own set-up."""
        ...

    def rmdir(self) -> None:
        """Remove the directory once it is empty; one that is already gone is fine."""
        ...


class CgroupReader(Protocol):
    """The same directory while the container exists, for counters."""

    @property
    def hierarchy(self) -> Hierarchy:
        """V1 or V2."""
        ...

    def read(self, file: str) -> str | None:
        """The stripped text of `file`; None when this kernel does not have it."""
        ...


def counter(text: str | None, key: str = "") -> int | None:
    """The number in a counter file, or the one after `key` in a flat keyed file (`oom_kill 3`).

    `text` is what `CgroupReader.read` returned. None when there is no such number.
    """
    if key:
        for line in (text or "").splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return counter(value)
        return None
    return int(text) if text and text.isascii() and text.isdigit() else None


def oci_text(path: str, value: object) -> str:
    """A number, text or truth value of an OCI config as `--limit` has it; `path` names it in the LimitError."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | str):
        return str(value)
    raise LimitError("read linux.resources", path, f"{type(value).__name__} is not a number, text or boolean")


class LimitHelp(Record):
    """One key that a controller takes: a row of `gocker plugins` and of the reference page."""

    key: str  # "memory" or "memory.swap"
    example: str  # "memory=100m"
    text: str  # one sentence
    oci: str  # the path that it claims: "memory.limit"
    files: Mapping[Hierarchy, str]  # {V1: "memory.limit_in_bytes", V2: "memory.max"}

    def takes(self, label: str) -> bool:
        """Whether it is the help of `label`; the key `unified.*` is of each label that begins so. Since 1.1."""
        if self.key.endswith(".*"):
            return label.startswith(self.key[:-1]) and len(label) >= len(self.key)
        return label == self.key


class Plugin(abc.ABC):
    """What every plug-in declares; checked before it is used. The class is made without arguments."""

    api_version: ClassVar[tuple[int, int]]
    """The API_VERSION it was written for, as a literal: `(1, 0)`."""
    name: ClassVar[str]
    """Equal to the entry point's name; `[a-z][a-z0-9_]*`."""


class CgroupController(Plugin):
    """A limit or a counter of one kernel controller. Stateless: the directory is the state."""

    kernel_names: ClassVar[Mapping[Hierarchy, str]]
    """The kernel's name of the controller, `memory`, on each version; a missing key means not there.
    On v2 the name `cgroup` stands for what every directory has, such as cpu.stat."""
    limits: ClassVar[tuple[LimitHelp, ...]] = ()
    always: ClassVar[bool] = False
    """True: joined by every container that runs where the kernel has it, for its counters."""
    defaults: ClassVar[Mapping[str, str]] = {}
    """Limits, key to value, that hold where the user asked for none ("" is the bare key)."""

    oci_paths: ClassVar[tuple[str, ...]] = ()
    """The paths below linux.resources that it claims: `hugepageLimits`. None: those of `limits`. Since 1.1."""

    @abc.abstractmethod
    def parse(self, fields: Mapping[str, str]) -> Resources:
        """Check `--limit` fields, key to text ("" is the bare key), and name them by OCI path.

        Pure. Only keys that `limits` declares arrive. Raise `gocker.errors.LimitError` that names the field, the reason and the remedy.
        """

    def from_oci(self, part: Mapping[str, object]) -> Mapping[str, str]:
        """What an OCI config asks for, as the fields that `parse` takes. Since 1.1.

        `part` is JSON by claimed path: {"memory.limit": 104857600}. Pure. Raise LimitError that names
        what cannot be honoured. Unless overridden, a number or text goes to the key that claims its path.
        """
        keys = {row.oci: row.key for row in self.limits}
        return {keys[path].partition(".")[2]: oci_text(path, value) for path, value in part.items()}

    @abc.abstractmethod
    def set(self, group: Cgroup, resources: Resources) -> None:
        """Write the limits in an order that the kernel accepts. Idempotent.

        `resources` holds only paths that this controller claims.
        """

    def apply(self, group: Cgroup) -> None:
        """Move the container in. On v2 the core has attached it already."""
        if group.hierarchy is Hierarchy.V1:
            group.attach()

    def remove(self, group: Cgroup) -> None:
        """Undo `set` when the container has ended, however it ended. No process is left in it."""
        group.rmdir()

    def stats(self, group: CgroupReader) -> Mapping[str, int]:
        """Counters for the receipt, read after the container's end and before removal.

        Well-known keys: `memory_peak_bytes`, `pids_peak`, `cpu_user_us`, `cpu_system_us`,
        `io_read_bytes`, `io_write_bytes`, `oom_kills`. Others are taken as they are, prefixed by the
        plug-in's name if it brings its own. Leave out what the kernel does not say.
        """
        return {}


class Kernel(Protocol):
    """What a namespace handler may ask for; each call is one step.

    In `set` the steps run on the host before the clone, in `set_child` on the host while the
    child is parked, in `apply` inside the new namespace before the root changes, in `remove` on
    the host after the end.
    """

    def write_file(self, path: str, data: str) -> None:
        """Write to a /proc or /sys file. In `set_child`, `{pid}` in `path` is the child's pid."""
        ...

    def sethostname(self, name: str) -> None:
        """sethostname(2)."""
        ...

    def setdomainname(self, name: str) -> None:
        """setdomainname(2)."""
        ...

    def link_up(self, name: str) -> None:
        """Set a network interface up: SIOCSIFFLAGS, netdevice(7)."""
        ...

    def sysctl(self, name: str, value: str) -> None:
        """Write /proc/sys/NAME of the namespace, `.` between the parts."""
        ...


class NamespaceContext(Record):
    """What a handler is given in each phase."""

    spec: ContainerSpec
    join_path: str | None  # OCI linux.namespaces[].path; None means a new one
    kernel: Kernel


class NamespaceHandler(Plugin):
    """Makes one kind of namespace usable; `name` is the OCI type ("uts")."""

    flag: ClassVar[int]
    """CLONE_NEW* of clone(2). The core creates or joins; the handler sets up what is new."""
    order: ClassVar[int] = 50
    """Handlers run from small to great: user 0, mount 90."""
    sysctls: ClassVar[tuple[str, ...]] = ()
    """Prefixes of the sysctls that are per namespace here: `net.`, `fs.mqueue.`."""

    def set(self, ctx: NamespaceContext) -> None:
        """Check the spec before anything is made; raise UsageError."""
        return

    def set_child(self, ctx: NamespaceContext) -> None:
        """Host side, child parked: uid_map, veth."""
        return

    @abc.abstractmethod
    def apply(self, ctx: NamespaceContext) -> None:
        """What happens inside; recorded now, executed by init. Only called for a new namespace."""

    def remove(self, ctx: NamespaceContext) -> None:
        """Host side after the end, also after a failure. A namespace itself goes with its last process."""
        return
