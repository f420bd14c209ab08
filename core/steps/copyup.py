"""A tmpfs that begins with what the image has at its place (`tmpcopyup`)."""

from __future__ import annotations

from gocker.kernel import mount
from gocker.kernel.copytree import copy_tree
from gocker.steps.mounts import MountFs
from gocker.steps.options import sort_options

_READONLY = frozenset({"ro", "rro"})


class MountCopy(MountFs):
    """Mount a tmpfs with a copy of the directory that it covers."""

    op = "mount-copy"

    def describe(self) -> str:
        """`mount -t tmpfs -o tmpcopyup tmpfs /run`."""
        return super().describe()

    lowers = False  # a tree of any depth is not a matter of single calls

    def _make(self) -> int:
        """Writable, until it is filled."""
        return self.replace(options=tuple(word for word in self.options if word not in _READONLY))._new()

    def _new(self) -> int:
        return super()._make()

    def _fill(self, fd: int, target: int) -> None:
        """By fd: a link in the image leads nowhere (SECURITY R2)."""
        copy_tree(target, fd)
        if sort_options(self.options).attributes & mount.MOUNT_ATTR_RDONLY:
            mount.set_attributes(fd, mount.MOUNT_ATTR_RDONLY)
