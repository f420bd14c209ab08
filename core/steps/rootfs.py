"""The root file system itself: cut off from the host, made of layers or bound, pivoted into."""

from __future__ import annotations

import errno
import os
from typing import Any

from gocker import lowering
from gocker.errors import GockerError, ImageError
from gocker.kernel import mount
from gocker.kernel.inroot import DIRECTORY, PLAIN, make_directory, openat2
from gocker.lowering import (
    ROOT,
    STAT_GID,
    STAT_MODE,
    STAT_UID,
    Code,
    Failure,
    NotLoweredError,
    Register,
    is_random,
)
from gocker.plan import Context, Step
from gocker.steps.idmap import CONTAINER, LOWER
from gocker.steps.options import PROPAGATION, sort_options

_LAYER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_UMASK_INSIDE = 0o022
_MOST_JOINED = 12  # of /proc/self/fd/NN: fsconfig(2) takes a string of 255 bytes
# No redirects are followed and no metadata-only copies believed, whatever attributes a lower layer
# carries; a mount whose layers come and go has no use for xino and index.
_OVERLAY_OPTIONS = ("redirect_dir=nofollow", "metacopy=off", "index=off", "xino=off")


class Propagation(Step):
    """Make every mount private: none that is made here shows on the host, and none of the host's here.

    More than MS_SLAVE, which would let mounts of the host in until the root has been pivoted; the
    parent of the new root is private with all the others, as pivot_root(2) wants it.
    """

    op = "propagation"

    def describe(self) -> str:
        """`mount --make-rprivate /`."""
        return "mount --make-rprivate /"

    def execute(self, ctx: Context) -> None:
        """Also clear the umask until PivotRoot: what the steps make has the mode that they say."""
        os.umask(0)
        mount.set_propagation(b"/", mount.MS_PRIVATE | mount.MS_REC)

    def emit(self, code: Code) -> None:
        """The same."""
        code.call("umask", 0)
        code.call("mount", 0, b"/", 0, mount.MS_PRIVATE | mount.MS_REC, 0)


class OverlayRoot(Step):
    """Mount an overlay whose lower layers are never written and whose upper layer is the container's."""

    op = "overlay-root"

    lower: tuple[str, ...]  # host directories, the topmost first
    upper: str
    work: str  # an empty directory beside upper
    userxattr: bool = False  # in a user namespace: MapLayers has opened the layers
    nodev: bool = True  # device files in the layers cannot be opened
    volatile: bool = True  # do not sync upper at the end: a crash of the host may cost its content

    def describe(self) -> str:
        """`mount -t overlay -o lowerdir=LOWER,upperdir=UPPER,workdir=WORK overlay /`."""
        layers = f"lowerdir={':'.join(self.lower)},upperdir={self.upper},workdir={self.work}"
        return f"mount -t overlay -o {','.join((layers, *self._flags()))} overlay /"

    def _flags(self) -> tuple[str, ...]:
        wanted = {"nodev": self.nodev, "userxattr": self.userxattr, "volatile": self.volatile}
        return tuple(word for word, is_set in wanted.items() if is_set)

    def execute(self, ctx: Context) -> None:
        """Set `ctx.root`. The layers are named by fd: no comma or colon in a path can be misread.

        The mount lies on `/` until PivotRoot makes it that: what is looked up meanwhile goes past it.
        """
        fds: list[int] = []
        try:
            fds += self._layers(ctx)
            *lower, upper, work = (f"/proc/self/fd/{fd}" for fd in fds)
            _copy_attributes(fds[0], upper, fds[-2])
            options = (
                *_lower_options(lower),
                f"upperdir={upper}",
                f"workdir={work}",
                *_OVERLAY_OPTIONS,
                *self._flags(),
            )
            try:
                sorted_options = sort_options(options)
                ctx.root = mount.new_mount("overlay", sorted_options.data, sorted_options.attributes)
            except (OSError, GockerError) as error:
                raise self._explained(error, fds[-2]) from error
        finally:
            for fd in fds:
                os.close(fd)
        if self.userxattr:  # the overlay has copies of its own of the two mounts
            mount.detach(b"/")
            mount.detach(b"/")
        mount.attach_at(ctx.root, b"/")

    def _layers(self, ctx: Context) -> list[int]:
        """O_PATH fds of the lower layers, upper and work."""
        if not self.userxattr:
            return [_open_layer(path) for path in (*self.lower, self.upper, self.work)]
        lower, container = ctx.fds.pop(LOWER), ctx.fds.pop(CONTAINER)
        for fd in (lower, container):  # before Linux 6.15 a layer must be attached in this namespace
            mount.attach_at(fd, b"/")
        own = [os.path.basename(path) for path in (self.upper, self.work)]
        layers = [lower, *(openat2(container, name, DIRECTORY, PLAIN) for name in own)]
        os.close(container)
        return layers

    def template(self, container: str) -> Any:
        """The directories of the container have the id in them."""
        if not is_random(container):
            return self
        upper, work = self.upper.replace(container, ""), self.work.replace(container, "")
        return OverlayRoot, self.lower, upper, work, self.userxattr, self.nodev, self.volatile

    def emit(self, code: Code) -> None:
        """The same."""
        fds = self._emit_layers(code)
        texts = [code.register() for _ in fds]
        for fd, register in zip(fds, texts, strict=True):
            code.set(register, code.data(32))
            code.builtin("fd_path", register, fd)
        _emit_copy_attributes(code, fds[0], texts[-2], fds[-2])
        lower = texts[:-2]
        if len(lower) == 1:
            named = {"lowerdir": lower[0]}
        elif len(lower) <= _MOST_JOINED:
            named = {"lowerdir": code.register()}
            code.set(named["lowerdir"], code.data(256))
            end = code.builtin("text", named["lowerdir"], lower[0])
            for part in lower[1:]:
                end = code.builtin("text", code.builtin("text", end, b":"), part)
        else:
            raise NotLoweredError("more layers than a string of fsconfig(2) holds")
        named |= {"upperdir": texts[-2], "workdir": texts[-1]}
        options = sort_options((*_OVERLAY_OPTIONS, *self._flags()))

        def explain(error: Exception, _: Failure) -> Exception:
            return self._explained(error, -1) if isinstance(error, OSError | GockerError) else error

        with code.explained(explain):
            lowering.new_mount(code, "overlay", options.data, options.attributes, texts=named, into=ROOT)
        lowering.close(code, *fds)
        for register in {*texts, *named.values()}:
            code.release(register)
        if self.userxattr:
            code.call("umount2", b"/", mount.MNT_DETACH)
            code.call("umount2", b"/", mount.MNT_DETACH)
        lowering.attach_at(code, ROOT, b"/")

    def _emit_layers(self, code: Code) -> list[Register]:
        if not self.userxattr:
            return [_emit_open_layer(code, path) for path in (*self.lower, self.upper, self.work)]
        lower, container = code.fds.pop(LOWER), code.fds.pop(CONTAINER)
        for fd in (lower, container):
            lowering.attach_at(code, fd, b"/")
        own = [os.path.basename(path) for path in (self.upper, self.work)]
        layers = [lower, *(lowering.openat2(code, container, name, DIRECTORY, PLAIN) for name in own)]
        lowering.close(code, container)
        return layers

    def _explained(self, error: OSError | GockerError, upper: int) -> GockerError:
        """`upper` is an fd of that directory, -1 to look for it by its path."""
        number = error.errno or 0
        if number == errno.EINVAL and upper < 0:
            fd = _open_layer(self.upper)
            try:
                return self._explained(error, fd)
            finally:
                os.close(fd)
        remedy = _OVERLAY_REMEDIES.get(number, "")
        if number == errno.EINVAL and mount.file_system_magic(upper) == mount.OVERLAY_MAGIC:
            remedy = "an overlay cannot be the upper layer of another: set GOCKER_ROOT to a directory on ext4, xfs or tmpfs"
        elif number == errno.EINVAL and os.path.exists(f"{self.work}/work/incompat/volatile"):
            remedy = f"a volatile overlay was here before: remove {self.work} and make it anew"
        if isinstance(error, GockerError):
            return GockerError("mount overlay", self.upper, error.reason, remedy=remedy, errno=number)
        return GockerError.from_os("mount overlay", self.upper, error, remedy=remedy)


_OVERLAY_REMEDIES = {
    errno.EINVAL: "GOCKER_ROOT must lie on a file system with xattrs and whiteouts, such as ext4, xfs or tmpfs",
    errno.ENODEV: "this kernel has no overlay: modprobe overlay, or use --rootfs DIR:rw",
    errno.ENOSPC: "the file system of GOCKER_ROOT is full",
    errno.EROFS: "the file system of GOCKER_ROOT is read-only",
    errno.ELOOP: "the layers contain one another: keep the root file system out of GOCKER_ROOT/containers",
}


class OpenRoot(Step):
    """Take a copy of the mount of the root, before the clone: root of a user namespace may not reach it.

    Or, as `slave`, before all mounts are private: one that follows the host's, as rootfsPropagation has it.
    """

    op = "open-root"

    path: str  # host directory
    recursive: bool = False  # with what is mounted below
    slave: bool = False

    def describe(self) -> str:
        """`open_tree PATH  # for /`."""
        return f"open_tree {'-R ' if self.recursive else ''}{self.path}  # for /"

    def execute(self, ctx: Context) -> None:
        """Leave the detached mount in `ctx.fds`, which the child inherits."""
        ctx.fds[LOWER] = _copy_root(self.path, nodev=False, recursive=self.recursive, slave=self.slave)

    def emit(self, code: Code) -> None:
        """The same."""
        code.fds[LOWER] = _emit_copy_root(
            code, self.path, nodev=False, recursive=self.recursive, slave=self.slave
        )


class BindRoot(Step):
    """Make a host directory the root, written through.

    It is mounted on itself, where hooks look for it that enter this mount namespace.
    """

    op = "bind-root"

    path: str  # host directory
    nodev: bool = True  # device files in it cannot be opened
    recursive: bool = False  # with what is mounted below
    slave: bool = False  # OpenRoot took it for that alone

    def describe(self) -> str:
        """`mount --bind -o nodev PATH /`."""
        kind = "--rbind" if self.recursive else "--bind"
        return f"mount {kind} {'-o nodev ' if self.nodev else ''}{self.path} /"

    def execute(self, ctx: Context) -> None:
        """Set `ctx.root`."""
        root = ctx.fds.pop(LOWER, -1)
        if root >= 0 and not self.slave:
            mount.attach_at(root, b"/")  # root of a user namespace may not go where it is
        else:
            if root < 0:
                root = _copy_root(self.path, nodev=self.nodev, recursive=self.recursive)
            target = _open_layer(self.path)
            mount.attach(root, target)
            os.close(target)
        ctx.root = root

    def emit(self, code: Code) -> None:
        """The same."""
        root = code.fds.pop(LOWER, None)
        if root is not None and not self.slave:
            lowering.attach_at(code, root, b"/")
        else:
            if root is None:
                root = _emit_copy_root(code, self.path, nodev=self.nodev, recursive=self.recursive)
            target = _emit_open_layer(code, self.path)
            lowering.attach(code, root, target)
            lowering.close(code, target)
        code.set(ROOT, root)
        code.release(root)


def _copy_root(path: str, *, nodev: bool, recursive: bool, slave: bool = False) -> int:
    try:
        directory = os.open(path, _LAYER | os.O_NOFOLLOW)
        try:
            root = mount.clone_tree(directory, recursive=recursive)
        finally:
            os.close(directory)
    except OSError as error:
        raise _no_root(path, error) from error
    attributes = mount.MOUNT_ATTR_NODEV if nodev else 0
    kind = mount.MS_SLAVE if slave else mount.MS_PRIVATE
    mount.set_attributes(root, attributes, propagation=kind, recursive=recursive)
    return root


def _no_root(path: str, error: Exception) -> Exception:
    if not isinstance(error, OSError):
        return error
    link = os.path.islink(path)
    remedy = "it is a symbolic link: name the directory itself" if link else ""
    return ImageError.from_os("open root file system", path, error, remedy=remedy)


def _emit_copy_root(code: Code, path: str, *, nodev: bool, recursive: bool, slave: bool = False) -> Register:
    """As `_copy_root`."""
    with code.explained(lambda error, _: _no_root(path, error)):
        directory = lowering.open_path(code, path, _LAYER | os.O_NOFOLLOW)
        root = lowering.clone_tree(code, directory, recursive=recursive)
    lowering.close(code, directory)
    attributes = mount.MOUNT_ATTR_NODEV if nodev else 0
    kind = mount.MS_SLAVE if slave else mount.MS_PRIVATE
    lowering.set_attributes(code, root, attributes, propagation=kind, recursive=recursive)
    return root


class RemountRootReadonly(Step):
    """Make the root read-only (`--read-only`); what is mounted below it keeps its own mode."""

    op = "root-readonly"

    directory: str = "/"  # the program's working directory, which cannot be made afterwards

    def describe(self) -> str:
        """`mount -o remount,bind,ro /`."""
        return "mount -o remount,bind,ro /"

    def execute(self, ctx: Context) -> None:
        """After every mount point has been made."""
        os.close(make_directory(ctx.root, self.directory))
        mount.set_attributes(ctx.root, mount.MOUNT_ATTR_RDONLY)

    def emit(self, code: Code) -> None:
        """The same."""
        code.close(code.builtin("directory", ROOT, os.fsencode(self.directory), 0o755))
        lowering.set_attributes(code, ROOT, mount.MOUNT_ATTR_RDONLY)


class PivotRoot(Step):
    """Make the new root this process's root and let the old one go, with every mount of the host."""

    op = "pivot-root"

    propagation: str = ""  # of the new root from then on, with `r` for all mounts below: slave, rshared ...

    def describe(self) -> str:
        """`pivot_root . . && umount -l .`."""
        last = f" && mount --make-{self.propagation} /" if self.propagation else ""
        return f"pivot_root . . && umount -l .{last}"

    def execute(self, ctx: Context) -> None:
        """Also close the fds that the file-system steps kept, and end their umask."""
        os.fchdir(ctx.root)
        mount.pivot_root_here()
        mount.detach(b".")
        os.chdir("/")
        if self.propagation:
            mount.set_propagation(b"/", PROPAGATION[self.propagation])
        os.umask(_UMASK_INSIDE)
        os.close(ctx.root)
        ctx.root = -1
        for name in [name for name in ctx.fds if name.startswith("/")]:
            os.close(ctx.fds.pop(name))

    def emit(self, code: Code) -> None:
        """The same."""
        code.call("fchdir", ROOT)
        code.call("pivot_root", b".", b".")
        code.call("umount2", b".", mount.MNT_DETACH)
        code.call("chdir", b"/", path="/")
        if self.propagation:
            code.call("mount", 0, b"/", 0, PROPAGATION[self.propagation], 0)
        code.call("umask", _UMASK_INSIDE)
        code.close(ROOT)
        for name in [name for name in code.fds if name.startswith("/")]:
            lowering.close(code, code.fds.pop(name))


def _lower_options(lower: list[str]) -> tuple[str, ...]:
    if len(lower) <= _MOST_JOINED:
        return (f"lowerdir={':'.join(lower)}",)
    return tuple(f"lowerdir+={path}" for path in lower)  # since Linux 6.5


def _open_layer(path: str) -> int:
    try:
        return os.open(path, _LAYER)
    except OSError as error:
        raise ImageError.from_os("open layer", path, error) from error


def _emit_open_layer(code: Code, path: str) -> Register:
    def explain(error: Exception, _: Failure) -> Exception:
        return ImageError.from_os("open layer", path, error) if isinstance(error, OSError) else error

    with code.explained(explain):
        return lowering.open_path(code, path, _LAYER)


def _emit_copy_attributes(code: Code, lower: Register, upper: Register, upper_fd: Register) -> None:
    """As `_copy_attributes`; `upper` points to the path of the fd."""
    want, have = lowering.fstat(code, lower), lowering.fstat(code, upper_fd)
    uid, gid = code.load(want + STAT_UID, 4), code.load(want + STAT_GID, 4)
    chown, owned, done = code.label(), code.label(), code.label()
    code.jump_if(code.builtin("same", uid, code.load(have + STAT_UID, 4)), 0, chown)
    code.jump_if(code.builtin("same", gid, code.load(have + STAT_GID, 4)), 1, owned)
    code.place(chown)
    code.call("fchownat", mount.AT_FDCWD, upper, uid, gid, 0)
    code.place(owned)
    mode = code.load(want + STAT_MODE, 4)
    code.jump_if(code.builtin("same", mode, code.load(have + STAT_MODE, 4)), 1, done)
    code.call("fchmodat", mount.AT_FDCWD, upper, mode)  # of which the kernel takes the permissions alone
    code.place(done)


def _copy_attributes(lower: int, upper: str, upper_fd: int) -> None:
    """The root directory inside is upper's: give it the mode and the owner that the image's has."""
    want, have = os.fstat(lower), os.fstat(upper_fd)
    if (want.st_uid, want.st_gid) != (have.st_uid, have.st_gid):
        os.chown(upper, want.st_uid, want.st_gid)
    if want.st_mode != have.st_mode:
        os.chmod(upper, want.st_mode & 0o7777)
