"""The container's view of its own cgroups at /sys/fs/cgroup, read-only."""

from __future__ import annotations

import os

from gocker.kernel import mount
from gocker.plan import Context, Step
from gocker.steps.options import sort_options
from gocker.steps.targets import system_directory

PATH = "/sys/fs/cgroup"


class MountCgroups(Step):
    """Mount hierarchies of cgroup v1, and v2 beside them, in a directory each; after UnshareCgroup.

    Pure v2 is a MountFs of cgroup2.
    """

    op = "mount-cgroups"

    rows: tuple[tuple[str, str, tuple[str, ...]], ...]
    """(directory, `cgroup` or `cgroup2`, options): ("cpu,cpuacct", "cgroup", ("cpu", "cpuacct"))."""
    readonly: bool = True

    def describe(self) -> str:
        """`mount -t cgroup -o ro /sys/fs/cgroup/{memory,pids}`."""
        mode = "ro" if self.readonly else "rw"
        return f"mount -t cgroup -o {mode} cgroup {PATH}/{{{','.join(row[0] for row in self.rows)}}}"

    def execute(self, ctx: Context) -> None:
        """A tmpfs with the directories, then the hierarchies; the root of each is the own cgroup."""
        attributes = sort_options(("nosuid", "nodev", "noexec", "ro" if self.readonly else "rw")).attributes
        top = mount.new_mount("tmpfs", ("mode=755", "size=64k"), attributes & ~mount.MOUNT_ATTR_RDONLY)
        for directory, _, _ in self.rows:
            os.mkdir(directory, 0o755, dir_fd=top)
            for name in directory.split(",") if "," in directory else ():
                os.symlink(directory, name, dir_fd=top)
        target = system_directory(ctx, PATH)
        mount.attach(top, target)
        os.close(target)
        for directory, fstype, options in self.rows:
            fd = mount.new_mount(fstype, options, attributes)
            mount.attach_at(fd, os.fsencode(directory), top)
            os.close(fd)
        if self.readonly:
            mount.set_attributes(top, mount.MOUNT_ATTR_RDONLY)
        ctx.fds[PATH] = top
