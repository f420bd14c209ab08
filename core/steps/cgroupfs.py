"""The container's view of its own cgroups at /sys/fs/cgroup, read-only."""

from __future__ import annotations

import os
from typing import Any

from gocker import lowering
from gocker.kernel import mount
from gocker.lowering import Code, Register
from gocker.plan import Context, Step
from gocker.steps.options import sort_options
from gocker.steps.targets import emit_system_directory, system_directory

PATH = "/sys/fs/cgroup"


class MountCgroups(Step):
    """Mount hierarchies of cgroup v1, and v2 beside them, in a directory each; pure v2 right at PATH.

    After UnshareCgroup the root of each is the container's own cgroup. Without a cgroup namespace of its
    own the container's cgroup alone is bound there.
    """

    op = "mount-cgroups"

    rows: tuple[tuple[str, str, tuple[str, ...], str], ...]
    """(directory, `cgroup` or `cgroup2`, options, host path of the container's own cgroup)."""
    target: str = PATH
    options: tuple[str, ...] = ()  # of mount(8)
    bind: bool = False

    def describe(self) -> str:
        """`mount -t cgroup -o ro cgroup /sys/fs/cgroup/{memory,pids}`."""
        names = ",".join(row[0] for row in self.rows)
        kind = "cgroup" if names else self.rows[0][1]
        where = f"{self.target}/{{{names}}}" if names else self.target
        options = f" -o {','.join(self.options)}" if self.options else ""
        if self.bind:
            return f"mount --bind{options} {' '.join(row[3] for row in self.rows)} {where}"
        return f"mount -t {kind}{options} {kind} {where}"

    def execute(self, ctx: Context) -> None:
        """A tmpfs with the directories, then the hierarchies, and read-only last."""
        options = sort_options(self.options)
        attributes = options.attributes | options.deep_attributes
        target = system_directory(ctx, self.target)
        if len(self.rows) == 1 and not self.rows[0][0]:
            top = self._make(self.rows[0], attributes)
            mount.attach(top, target)
        else:
            top = mount.new_mount("tmpfs", ("mode=755", "size=64k"), attributes & ~mount.MOUNT_ATTR_RDONLY)
            mount.attach(top, target)
            for row in self.rows:
                self._mount_below(top, row, attributes)
            mount.set_attributes(top, attributes & mount.MOUNT_ATTR_RDONLY)
        os.close(target)
        ctx.fds[self.target] = top

    def template(self, container: str) -> Any:
        """A new mount does not say where the container's own cgroup is on the host."""
        if self.bind:
            return self
        return MountCgroups, tuple(row[:3] for row in self.rows), self.target, self.options

    def emit(self, code: Code) -> None:
        """The same."""
        options = sort_options(self.options)
        attributes = options.attributes | options.deep_attributes
        target = emit_system_directory(code, self.target)
        if len(self.rows) == 1 and not self.rows[0][0]:
            top = self._emit_one(code, self.rows[0], attributes)
            lowering.attach(code, top, target)
        else:
            bits = attributes & ~mount.MOUNT_ATTR_RDONLY
            top = lowering.new_mount(code, "tmpfs", ("mode=755", "size=64k"), bits)
            lowering.attach(code, top, target)
            for row in self.rows:
                self._emit_below(code, top, row, attributes)
            lowering.set_attributes(code, top, attributes & mount.MOUNT_ATTR_RDONLY)
        lowering.close(code, target)
        code.fds[self.target] = top

    def _emit_below(
        self, code: Code, top: Register, row: tuple[str, str, tuple[str, ...], str], attributes: int
    ) -> None:
        directory = row[0]
        code.call("mkdirat", top, os.fsencode(directory), 0o755, path=directory)
        for name in directory.split(",") if "," in directory else ():
            code.call("symlinkat", os.fsencode(directory), top, os.fsencode(name), path=directory)
        fd = self._emit_one(code, row, attributes)
        lowering.attach_at(code, fd, os.fsencode(directory), top)
        lowering.close(code, fd)

    def _emit_one(self, code: Code, row: tuple[str, str, tuple[str, ...], str], attributes: int) -> Register:
        _, fstype, options, path = row
        if not self.bind:
            return lowering.new_mount(code, fstype, options, attributes)
        fd = lowering.clone_tree(code, mount.AT_FDCWD, os.fsencode(path))
        lowering.set_attributes(code, fd, attributes, propagation=mount.MS_PRIVATE)
        return fd

    def _mount_below(self, top: int, row: tuple[str, str, tuple[str, ...], str], attributes: int) -> None:
        directory = row[0]
        os.mkdir(directory, 0o755, dir_fd=top)
        for name in directory.split(",") if "," in directory else ():
            os.symlink(directory, name, dir_fd=top)
        fd = self._make(row, attributes)
        mount.attach_at(fd, os.fsencode(directory), top)
        os.close(fd)

    def _make(self, row: tuple[str, str, tuple[str, ...], str], attributes: int) -> int:
        _, fstype, options, path = row
        if not self.bind:
            return mount.new_mount(fstype, options, attributes)
        fd = mount.clone_tree(mount.AT_FDCWD, os.fsencode(path))
        mount.set_attributes(fd, attributes, propagation=mount.MS_PRIVATE)
        return fd
