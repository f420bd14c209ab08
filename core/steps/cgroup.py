"""Steps that make a container's cgroups, write its limits, move it in and take them away."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Any

from gocker.errors import GockerError, HierarchyError, LimitError, errno_name
from gocker.kernel import cgroupfs
from gocker.lowering import Code
from gocker.model import Hierarchy
from gocker.plan import Context, Plan, Step


class MakeCgroup(Step):
    """Make the container's own cgroup, and the parents that are missing.

    The parents that gocker makes bear its mark (`cgroupfs.is_marked`): whoever is the last below one
    removes it, whichever run made it. A parent that somebody else made has no mark and stays.
    """

    op = "make-cgroup"
    undoable = True

    path: str  # the container's directory: /sys/fs/cgroup/memory/gocker/ID
    base: str  # the hierarchy's mount point
    version: str  # "v1" or "v2"

    def describe(self) -> str:
        """`mkdir -p PATH`."""
        return f"mkdir -p {self.path}"

    def execute(self, ctx: Context) -> None:
        """One mkdir(2) where the parent is there. Raise HierarchyError when `path` exists."""
        try:
            cgroupfs.make(self.path, self.base)
        except FileExistsError as error:
            ctx.strangers.add(self.path)
            raise self.taken() from error

    def taken(self) -> HierarchyError:
        """What is said when `path` is there already."""
        reason = "another container has it"
        if cgroupfs.read_file(self.path, "cgroup.procs"):
            reason += ": the container's cgroup is not empty"
        elif cgroupfs.read_file(self.path, "freezer.state") == "FROZEN":
            reason += ": the container's cgroup unexpectedly frozen"
        return HierarchyError(
            "make cgroup",
            self.path,
            f"EEXIST: {reason}",
            remedy="choose another id, or remove that container",
            errno=errno.EEXIST,
        )

    def undo(self, ctx: Context) -> None:
        """Kill what is in it and remove it; a cgroup that `execute` found in its way stays."""
        if self.path not in ctx.strangers | ctx.gone:
            cgroupfs.remove(self.path, self.base, self.version)


class ClaimCgroup(MakeCgroup):
    """The same for a container whose id another one may have, below another --root.

    The cgroup bears whose it is: where gocker is killed before it has made its own, the next one leaves the other's
    alone. So does one that finds a plan of before a reboot, with which all claims went.
    """

    op = "claim-cgroup"

    owner: str = ""  # of all containers this one: where its state is

    def execute(self, ctx: Context) -> None:
        """One mkdir(2) and one setxattr(2). Raise HierarchyError when `path` exists."""
        super().execute(ctx)
        if not self._claim(otherwise=True):
            ctx.strangers.add(self.path)
            raise self.taken()

    def _claim(self, *, otherwise: bool) -> bool:
        """`otherwise` where nobody can claim any."""
        try:
            return cgroupfs.claim(self.path, self.owner)
        except OSError as error:
            if error.errno not in {errno.ENOTSUP, errno.EPERM}:
                raise
            return otherwise

    def is_anothers(self) -> bool:
        """Whether `path` was never claimed, or was by another: said by what it bears. Raise OSError."""
        return cgroupfs.claimant(self.path) not in {self.owner, None}

    def undo(self, ctx: Context) -> None:
        """As of one that was made. Of one that a killed gocker has not claimed yet the bare directory goes."""
        super().undo(ctx)
        if ctx.spec is None and self.path in ctx.strangers and cgroupfs.claimant(self.path) == "":
            cgroupfs.remove_bare(self.path, self.base)


class TakeCgroup(ClaimCgroup):
    """Make the cgroup that a caller has named, or take it when it is there and nobody is in it.

    Engines make it beforehand, to set it up. What is taken is the container's from then on and goes with it, as with
    runc and crun. It bears whose it is, so that no two take the same one.
    """

    op = "take-cgroup"

    def describe(self) -> str:
        """`mkdir -p PATH || test ! -s PATH/cgroup.procs`."""
        return f'mkdir -p {self.path} || test -z "$(cat {self.path}/cgroup.procs)"'

    def execute(self, ctx: Context) -> None:
        """One mkdir(2) and one setxattr(2). Raise HierarchyError when `path` is another's."""
        there = False
        try:
            cgroupfs.make(self.path, self.base)
        except FileExistsError:
            there = True
        if not ((not there or self.is_vacant()) and self._claim(otherwise=not there)):
            ctx.strangers.add(self.path)
            raise self.taken()

    def is_vacant(self) -> bool:
        """Whether `path`, which is there, is nobody's: without processes, cgroups below it, and a claim, not frozen.

        What gocker has made its parents for is a container's of its own. Raise OSError.
        """
        above = self.path.rpartition("/")[0]
        if cgroupfs.is_marked(self.path) or (above != self.base and cgroupfs.is_marked(above)):
            return False
        if cgroupfs.claimant(self.path) != "" or cgroupfs.below(self.path):
            return False
        frozen = (
            cgroupfs.read_file(self.path, "freezer.state"),
            cgroupfs.read_file(self.path, "cgroup.freeze"),
        )
        return not cgroupfs.read_file(self.path, "cgroup.procs") and frozen in _THAWED


_THAWED = ((None, None), ("THAWED", None), (None, "0"))


class EnableControllers(Step):
    """v2: hand controllers down from `base` to the parent of `path`, so that `path` has their files.

    Left on afterwards: with the last container the directories go, and in those of others
    somebody else may have come to rely on it.
    """

    op = "enable-controllers"

    path: str  # the container's directory
    base: str  # the topmost directory to enable them in: the mount point
    controllers: tuple[str, ...]  # ("memory", "pids")

    def describe(self) -> str:
        """`echo "+memory +pids" > DIR/cgroup.subtree_control` for each directory."""
        wanted = " ".join(f"+{name}" for name in self.controllers)
        above = cgroupfs.ancestors(self.path, self.base)
        names = above[0] if len(above) == 1 else f"{{{','.join(above)}}}"
        return f'echo "{wanted}" | tee {names}/cgroup.subtree_control'

    def execute(self, ctx: Context) -> None:
        """Nothing but one read where the parent has them: a child's set is a part of its parent's."""
        cgroupfs.require_below(self.path, self.base)
        above = cgroupfs.ancestors(self.path, self.base)
        if not self._missing(above[-1]):
            return
        for directory in above:
            missing = self._missing(directory)
            if missing:
                self._enable(directory, missing)

    def _missing(self, directory: str) -> list[str]:
        enabled = (cgroupfs.read_file(directory, "cgroup.subtree_control") or "").split()
        return [name for name in self.controllers if name not in enabled]

    def _enable(self, directory: str, missing: list[str]) -> None:
        try:
            cgroupfs.write_file(directory, "cgroup.subtree_control", " ".join(f"+{name}" for name in missing))
        except OSError as error:
            reason, remedy = self._explained(directory, error)
            raise HierarchyError(
                "enable controllers", " ".join(missing), reason, remedy=remedy, errno=error.errno or 0
            ) from error

    def _explained(self, directory: str, error: OSError) -> tuple[str, str]:
        """The kernel's rules behind its answers, in the order in which it checks them."""
        number = error.errno or 0
        name = errno_name(number)
        if number in {errno.ENOENT, errno.EINVAL}:
            offered = cgroupfs.read_file(directory, "cgroup.controllers") or "none"
            remedy = "enable them in the cgroup above, or with Delegate= where systemd manages it"
            return f"{name}: {directory} is given only {offered}", remedy
        if number == errno.EOPNOTSUPP:
            reason = f"{directory} is in a threaded subtree, which takes no controller of whole processes"
            return f"{name}: {reason}", "name a cgroup outside of it with --cgroup-parent"
        if number != errno.EBUSY:
            return f"{name}: {os.strerror(number)} in {directory}", ""
        leaf = f"{directory}/leaf"
        remedy = f"move them: mkdir {leaf} && for p in $(cat {directory}/cgroup.procs); do echo $p >{leaf}/cgroup.procs; done"
        if directory != self.base:
            remedy = f"name an empty cgroup with --cgroup-parent, or {remedy}"
        return f"{name}: processes run in {directory}, and the kernel allows them only in leaves", remedy


class TryControllers(EnableControllers):
    """The same for a limit of best effort: where it fails the limit's own file is not there, and that is said."""

    op = "try-controllers"

    def describe(self) -> str:
        """The same, whatever comes of it."""
        return f"{super().describe()} || :"

    def execute(self, ctx: Context) -> None:
        """Leave it to the write of the limit to say what is missing."""
        with suppress(HierarchyError):
            super().execute(ctx)


class WriteLimit(Step):
    """Write one limit and read it back: it binds, or the run fails unless best effort was asked for."""

    op = "write-limit"
    event = "controller.set"

    path: str  # the container's directory
    file: str  # "memory.max"
    value: str  # "104857600"
    limit: str  # label: "memory", "memory.swap"
    asked: str  # as the user wrote it: "100m"
    accept: tuple[str, ...] = ()  # other texts that the kernel is documented to answer
    required: bool = True  # false: `VALUE?`
    remedy: str = ""
    verify: str = ""  # the file to read back when it is not `file`
    optional: bool = False  # nobody asked for it: a kernel without `file` is no failure

    def describe(self) -> str:
        """`echo VALUE > PATH/FILE`."""
        return f"echo {self.value} > {self.path}/{self.file}"

    def execute(self, ctx: Context) -> None:
        """Four system calls: open, write, pread, close. Raise LimitError when it does not bind."""
        try:
            answer = self._write()
        except OSError as error:
            number = error.errno or 0
            if self.optional and number == errno.ENOENT:
                ctx.unbound[self.limit] = f"this kernel has no {self.file}"
                return
            reason = f"{errno_name(number)}: {os.strerror(number)} on write of {self.value} to {self.path}/{self.file}"
            if number == errno.ENOENT:
                reason = f"this kernel has no {self.file} in {self.path}"
            if self.required:
                raise self._error(reason, number) from error
            held = cgroupfs.read_file(self.path, self.verify or self.file)
        else:
            if self._binds(answer):
                ctx.effective[self.limit] = (self.asked, answer)
                return
            reason = (
                f"asked {self.value}, the kernel answers {answer or 'nothing'} in {self.verify or self.file}"
            )
            if self.required:
                raise self._error(reason, 0)
            held = answer
        ctx.unbound[self.limit] = reason
        if held is not None:
            ctx.effective[self.limit] = (self.asked, held)

    def _write(self) -> str:
        return self._write_to(self.file, self.value)

    def _binds(self, answer: str) -> bool:
        return answer == self.value or answer in self.accept

    def _write_to(self, file: str, value: str) -> str:
        try:
            return self._write_once(file, value)
        except FileNotFoundError:
            # It may be on its way: when another gocker enables the controllers of the cgroup above, the
            # kernel says so in cgroup.subtree_control before the files are there.
            if not cgroupfs.await_controllers(os.path.dirname(self.path)):
                raise
            return self._write_once(file, value)

    def _write_once(self, file: str, value: str) -> str:
        flags = os.O_WRONLY if self.verify else os.O_RDWR
        fd = os.open(f"{self.path}/{file}", flags | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
            if not self.verify:
                return os.pread(fd, 4096, 0).decode("utf-8", "replace").strip()
        finally:
            os.close(fd)
        answer = cgroupfs.read_file(self.path, self.verify)
        if answer is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.verify)
        return answer

    def _error(self, reason: str, number: int) -> GockerError:
        target = f"{self.limit}={self.asked}"
        return LimitError("set limit", target, reason, remedy=self.remedy, errno=number)

    def audit(self, ctx: Context) -> dict[str, Any]:
        """Both figures, and why it does not bind when it does not."""
        _, effective = ctx.effective.get(self.limit, ("", None))
        fields = {
            "controller": self.limit.partition(".")[0],
            "limit": self.limit,
            "file": f"{self.path}/{self.file}",
            "asked": self.asked,
            "written": self.value,
            "effective": effective,
        }
        if self.limit in ctx.unbound:
            fields["unbound"] = ctx.unbound[self.limit]
        return fields


class WriteEntry(WriteLimit):
    """The same for what is more than one value in one file; see gocker.api.Cgroup.write."""

    op = "write-entry"

    row: bool = False  # `file` is a table, `value` one line of it
    tentative: bool = False  # EINVAL is no failure: the same write comes again
    fallback: tuple[tuple[str, str], ...] = ()  # (file, value) where the kernel has no `file`

    def describe(self) -> str:
        """`echo VALUE > PATH/FILE`, and what a refusal leads to."""
        others = "".join(f" || echo {value} > {self.path}/{file}" for file, value in self.fallback)
        return f"{super().describe()}{others}{' || :' if self.tentative else ''}"

    def execute(self, ctx: Context) -> None:
        """One write, or one more for each file that is not there. Raise LimitError when it does not bind."""
        if not self.tentative:
            super().execute(ctx)
            return
        try:
            cgroupfs.write_file(self.path, self.file, self.value)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOENT}:
                raise self._error(
                    f"{errno_name(error.errno or 0)} in {self.file}", error.errno or 0
                ) from error

    def _write(self) -> str:
        """The answer of the first file that is there; of a table the line that matters."""
        for file, value in ((self.file, self.value), *self.fallback[:-1]):
            try:
                return self._row(value, self._write_to(file, value))
            except FileNotFoundError:
                if not self.fallback:
                    raise
        file, value = self.fallback[-1]
        return self._row(value, self._write_to(file, value))

    def _row(self, value: str, answer: str) -> str:
        return (table_row(value, answer) or answer) if self.row else answer

    def _binds(self, answer: str) -> bool:
        values = (self.value, *(value for _, value in self.fallback))
        if any(answer == value or (self.row and row_holds(value, answer)) for value in values):
            return True
        return answer in self.accept


def table_row(row: str, table: str) -> str:
    """The line of `table` that begins with the first word of `row`, or ""."""
    key = row.split(maxsplit=1)[0]
    return next((line for line in table.splitlines() if line.split()[:1] == [key]), "")


def row_holds(row: str, table: str) -> bool:
    """Whether the line of `table` with the first word of `row` has its other words.

    No line is fine where these mean no limit: the kernel shows none then (block/blk-throttle.c).
    """
    words = row.split()[1:]
    if line := table_row(row, table):
        return set(words) <= set(line.split()[1:])
    return bool(words) and all(word.rpartition("=")[2] in {"0", "max"} for word in words)


def limit_step(
    *, row: bool = False, tentative: bool = False, fallback: tuple[tuple[str, str], ...] = (), **fields: Any
) -> WriteLimit:
    """The step of one `gocker.api.Cgroup.write`; the plain one wherever it will do."""
    if row or tentative or fallback:
        return WriteEntry(**fields, row=row, tentative=tentative, fallback=fallback)
    return WriteLimit(**fields)


class InheritFile(Step):
    """v1 cpuset: fill a file that is born empty from the nearest ancestor that has a value.

    Until cpuset.cpus and cpuset.mems are filled the kernel lets no process in. Those on the way that are empty are
    filled, too, whoever made them: nobody can be in them, and the kernel takes no value below that is not in the one
    above. Source: cpuset(7).
    """

    op = "inherit-file"

    path: str
    base: str  # the last ancestor to look at: the mount point
    file: str

    def describe(self) -> str:
        """`cat PARENT/FILE > PATH/FILE`."""
        return f"cat {self.path.rpartition('/')[0]}/{self.file} > {self.path}/{self.file}"

    def execute(self, ctx: Context) -> None:
        """Fill `path` and the empty ones above it, from the top down. Raise HierarchyError, OSError."""
        empty: list[str] = []
        for directory in reversed([*cgroupfs.ancestors(self.path, self.base), self.path]):
            value = cgroupfs.read_file(directory, self.file) or ""
            if value:
                break
            empty.append(directory)
        if not value:
            raise HierarchyError(
                "fill", f"{self.path}/{self.file}", f"no cgroup up to {directory} has a value"
            )
        for directory in reversed(empty):
            cgroupfs.write_file(directory, self.file, value)


class FillAbove(InheritFile):
    """v1 realtime: what gocker made between `base` and `path` passes on all that the cgroup above it has.

    Its share counts against those beside it, so that it is given only when a container asks for realtime; it
    goes with the directory. Another's directory keeps its 0: that is an operator's word. Source: kernel
    Documentation/scheduler/sched-rt-group.rst.
    """

    op = "fill-above"

    def describe(self) -> str:
        """`cat BASE/FILE > PARENT/FILE`."""
        return f"cat {self.base}/{self.file} > {self.path.rpartition('/')[0]}/{self.file}"

    def execute(self, ctx: Context) -> None:
        """Fill those that have 0, from the top down. The write of the limit says what is still missing."""
        value = cgroupfs.read_file(self.base, self.file) or ""
        for directory in cgroupfs.ancestors(self.path, self.base)[1:]:
            held = cgroupfs.read_file(directory, self.file) or ""
            if held == "0" and value not in {"", "0"} and cgroupfs.is_marked(directory):
                with suppress(OSError):  # those beside it have too much
                    cgroupfs.write_file(directory, self.file, value)
                held = cgroupfs.read_file(directory, self.file) or ""
            value = held


class AttachCgroup(Step):
    """Move the parked first process in, from the launcher.

    On v1 the kernel waits for an RCU grace period before it moves a process that is not the
    writer: 5 to 10 ms. `OpenCgroup` and `JoinCgroup` together do the same in 10 us.
    """

    op = "attach-cgroup"

    path: str
    controller: str

    def describe(self) -> str:
        """`echo $PID > PATH/cgroup.procs`."""
        return f"echo $PID > {self.path}/cgroup.procs"

    def execute(self, ctx: Context) -> None:
        """One write of `ctx.pid`."""
        try:
            cgroupfs.write_file(self.path, "cgroup.procs", str(ctx.pid))
        except OSError as error:
            raise _attach_error(self.path, error) from error


class OpenCgroup(Step):
    """v1, before the clone: hold the `tasks` file open for `JoinCgroup` in the child.

    The kernel checks the opener's credentials, not the writer's, so it works across a user namespace;
    and no path is looked up in a mount namespace that was joined.
    """

    op = "open-cgroup"
    undoable = True

    path: str
    controller: str

    def describe(self) -> str:
        """`exec {fd}> PATH/tasks`."""
        return f"exec {{fd}}> {self.path}/tasks"

    def execute(self, ctx: Context) -> None:
        """Leave the fd in `ctx.fds` under `tasks:PATH`; the launcher closes its copy after the clone."""
        fd = os.open(f"{self.path}/tasks", os.O_WRONLY | os.O_CLOEXEC)
        ctx.fds[f"tasks:{self.path}"] = fd

    def undo(self, ctx: Context) -> None:
        """Close it, if it is open."""
        fd = ctx.fds.pop(f"tasks:{self.path}", -1)
        if fd >= 0:
            os.close(fd)


class JoinCgroup(Step):
    """v1, in the child before anything else: move itself in.

    A thread that writes `0` for itself to `tasks` takes none of the locks that a move from outside
    takes (Linux commit 9a3284fad42f, "cgroup: Optimize single thread migration", 2019). The child has
    one thread, so all of it moves.
    """

    op = "join-cgroup"

    path: str
    controller: str

    def describe(self) -> str:
        """`echo 0 > PATH/tasks`."""
        return f"echo 0 > {self.path}/tasks"

    def execute(self, ctx: Context) -> None:
        """One write and one close."""
        fd = ctx.fds.pop(f"tasks:{self.path}")
        try:
            os.write(fd, b"0")
        except OSError as error:
            raise _attach_error(self.path, error) from error
        finally:
            os.close(fd)

    def emit(self, code: Code) -> None:
        """The same."""
        fd = code.fds.pop(f"tasks:{self.path}")
        path = self.path
        with code.explained(
            lambda error, _: _attach_error(path, error) if isinstance(error, OSError) else error
        ):
            code.call("write", fd, b"0", 1)
        code.close(fd)
        code.release(fd)


def _attach_error(path: str, error: OSError) -> GockerError:
    remedy = ""
    if error.errno == errno.ENOSPC:
        remedy = "a v1 cpuset takes no process until cpuset.cpus and cpuset.mems are set"
    return HierarchyError.from_os("attach to cgroup", path, error, remedy=remedy)


class RemoveCgroup(Step):
    """Remove the container's cgroup after its end."""

    op = "remove-cgroup"
    event = "controller.remove"

    path: str
    base: str  # as in MakeCgroup
    controller: str = ""
    version: str = Hierarchy.V2.value

    def describe(self) -> str:
        """`rmdir PATH`."""
        return f"rmdir {self.path}"

    def execute(self, ctx: Context) -> None:
        """One rmdir(2) for it and one for each parent that gocker made, as long as nothing is left in it."""
        if self.path in ctx.strangers:
            return
        cgroupfs.remove(self.path, self.base, self.version)
        ctx.gone.add(self.path)

    def audit(self, ctx: Context) -> dict[str, Any]:
        """Whose directory went."""
        return {"controller": self.controller, "path": self.path}


def without_cgroups(plan: Plan) -> Plan:
    """What is left of it after a reboot, with which its cgroups went: those of its names are others'."""
    return plan.replace(
        host=tuple(step for step in plan.host if not isinstance(step, MakeCgroup)),
        remove=tuple(step for step in plan.remove if not isinstance(step, RemoveCgroup)),
    )
