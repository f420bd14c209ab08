"""Paths of the kernel's file systems that are hidden or made read-only inside."""

from __future__ import annotations

import os
import stat

from gocker.kernel import mount
from gocker.kernel.inroot import IN_ROOT, openat2
from gocker.plan import Context, Step
from gocker.steps.devices import null_device
from gocker.steps.targets import anchor


class MaskPaths(Step):
    """Cover each path that is there: a file with the null device, a directory with an empty tmpfs."""

    op = "mask-paths"

    paths: tuple[str, ...]

    def describe(self) -> str:
        """`mount --bind /dev/null PATH...`."""
        return f"mask {' '.join(self.paths)}"

    def execute(self, ctx: Context) -> None:
        """A path that is not there needs no cover; any other error is fatal."""
        empty = -1
        for path in self.paths:
            target = _open_existing(ctx, path)
            if target < 0:
                continue
            if not stat.S_ISDIR(os.fstat(target).st_mode):
                cover = mount.clone_tree(null_device(ctx))
            elif empty < 0:
                empty = mount.new_mount("tmpfs", ("size=4k", "mode=755"), _EMPTY_ATTRIBUTES)
                cover = os.dup(empty)
            else:
                cover = mount.clone_tree(empty)
            mount.attach(cover, target)
            os.close(cover)
            os.close(target)
        if empty >= 0:
            os.close(empty)


class ReadonlyPaths(Step):
    """Make each path that is there, and what is below it, read-only."""

    op = "readonly-paths"

    paths: tuple[str, ...]

    def describe(self) -> str:
        """`mount --bind -o ro PATH PATH`."""
        return f"mount --bind -o ro {' '.join(self.paths)}"

    def execute(self, ctx: Context) -> None:
        """As a mount of its own onto itself; absent is fine, any other error is fatal.

        A link protects nothing: what it names in the root is made read-only.
        """
        for path in self.paths:
            target = _open_existing(ctx, path)
            if target >= 0 and stat.S_ISLNK(os.fstat(target).st_mode):
                os.close(target)
                target = _follow(ctx, path)
            if target < 0:
                continue
            cover = mount.clone_tree(target, recursive=True)
            mount.set_attributes(cover, mount.MOUNT_ATTR_RDONLY, recursive=True)
            mount.attach(cover, target)
            os.close(cover)
            os.close(target)


_EMPTY_ATTRIBUTES = (
    mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC
)


def _open_existing(ctx: Context, path: str) -> int:
    fd, rest, resolve = anchor(ctx, path)
    try:
        return openat2(fd, rest, os.O_PATH | os.O_NOFOLLOW, resolve)
    except (FileNotFoundError, NotADirectoryError):  # ENOTDIR: a part of the path is a file
        return -1


def _follow(ctx: Context, path: str) -> int:
    try:
        return openat2(ctx.root, path, os.O_PATH, IN_ROOT)
    except (FileNotFoundError, NotADirectoryError):
        return -1
