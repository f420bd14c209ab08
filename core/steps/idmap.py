"""Host-phase work for a user namespace: what the container may not open, opened with its ids in place."""

from __future__ import annotations

import errno
import os

from gocker.errors import GockerError, ImageError
from gocker.kernel import mount
from gocker.kernel.userns import IdLine, user_namespace
from gocker.plan import Context, Step

LOWER, CONTAINER = "layer:lower", "layer:container"  # keys of ctx.fds


def source_key(source: str, target: str) -> str:
    """The key in `ctx.fds` of a mount that waits for its place inside."""
    return f"source:{source}:{target}"


class MapLayers(Step):
    """Take copies of the mounts of the image and of the container's own files with the ids mapped.

    Root inside sees as its own what root owns on disk, and what it writes is root's on disk; nothing
    there changes its owner. Root of the user namespace may neither map mounts nor reach these
    directories: hence before the clone, from a user namespace made for the purpose.
    """

    op = "map-layers"

    lower: str  # host directory
    container: str  # host directory with upper and work, when `overlay`, and with etc
    overlay: bool = True
    etc: tuple[str, ...] = ()  # names of files in etc that are mounted one by one
    uid_map: tuple[IdLine, ...] = ()  # (inside, outside, count)
    gid_map: tuple[IdLine, ...] = ()
    userns: str = ""  # path of a namespace that is joined: its maps instead

    def describe(self) -> str:
        """`mount --bind -o X-mount.idmap=0:100000:65536 LOWER CONTAINER`."""
        first = ":".join(str(number) for number in self.uid_map[0]) if self.uid_map else self.userns
        return f"mount --bind -o X-mount.idmap={first} {self.lower} {self.container}"

    def execute(self, ctx: Context) -> None:
        """Leave detached mounts in `ctx.fds`, which the child inherits."""
        if self.userns:
            userns = os.open(self.userns, os.O_RDONLY | os.O_CLOEXEC)
        else:
            userns = user_namespace(self.uid_map, self.gid_map)
        try:
            ctx.fds[LOWER] = _mapped_copy(self.lower, userns)
            if self.overlay:
                ctx.fds[CONTAINER] = _mapped_copy(self.container, userns)
            for name in self.etc:
                source = f"{self.container}/etc/{name}"
                ctx.fds[source_key(source, f"/etc/{name}")] = _mapped_copy(source, userns)
        finally:
            os.close(userns)


def _mapped_copy(path: str, userns: int) -> int:
    try:
        fd = mount.clone_tree(mount.AT_FDCWD, os.fsencode(path))
    except OSError as error:
        raise ImageError.from_os("open layer", path, error) from error
    try:
        # Root inside is their owner on disk: device files among them would be its own to open.
        attributes = mount.MOUNT_ATTR_IDMAP | mount.MOUNT_ATTR_NODEV
        mount.set_attributes(fd, attributes, propagation=mount.MS_PRIVATE, userns=userns)
    except OSError as error:
        os.close(fd)
        remedy = ""
        if error.errno in {errno.EINVAL, errno.EPERM}:
            remedy = "the file system there cannot map ids: use one on ext4, xfs or btrfs, or --userns host"
        raise GockerError.from_os("map the ids of", path, error, remedy=remedy) from error
    return fd
