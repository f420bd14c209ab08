"""Mounts inside the new root: kernel file systems, the user's binds and tmpfs, files below /etc."""

from __future__ import annotations

import errno
import os
import stat

from gocker.errors import GockerError
from gocker.kernel import mount
from gocker.kernel.inroot import make_directory, make_file_entry
from gocker.plan import Context, Step
from gocker.steps.idmap import source_key
from gocker.steps.options import sort_options
from gocker.steps.procfs import PATH as PROC
from gocker.steps.procfs import own_procfs
from gocker.steps.targets import refuse_proc, system_directory, user_target


class MountFs(Step):
    """Mount a kernel file system of the container's own on a system directory."""

    op = "mount-fs"

    fstype: str  # proc sysfs tmpfs devpts mqueue cgroup2
    target: str  # absolute, inside
    options: tuple[str, ...] = ()  # as in mount -o
    bind: str = ""  # host path that is bound, with all below, where a new instance is not permitted

    def describe(self) -> str:
        """`mount -t proc -o nosuid,nodev,noexec proc /proc`."""
        options = f" -o {','.join(self.options)}" if self.options else ""
        return f"mount -t {self.fstype}{options} {self.fstype} {self.target}"

    def execute(self, ctx: Context) -> None:
        """Make it, attach it, and leave its fd in `ctx.fds[target]`."""
        if self.target == PROC:
            fd = own_procfs(ctx)
        else:
            fd = self._make()
            ctx.fds[self.target] = fd
        target = system_directory(ctx, self.target)
        mount.attach(fd, target)
        os.close(target)

    def _make(self) -> int:
        options = sort_options(self.options)
        try:
            return mount.new_mount(self.fstype, options.data, options.attributes)
        except PermissionError:
            if not self.bind:
                raise
        # sysfs belongs to the network namespace's owner: with the host's network, a user namespace
        # cannot have one of its own.
        fd = mount.clone_tree(mount.AT_FDCWD, os.fsencode(self.bind), recursive=True)
        mount.set_attributes(fd, options.attributes, propagation=mount.MS_PRIVATE, recursive=True)
        return fd


class OpenSource(Step):
    """Take a copy of a host mount for a later BindMount, before anything changes on the way to it.

    For binds that keep their propagation, and for those that a user namespace could not open.
    """

    op = "open-source"

    source: str  # host path
    target: str  # of the BindMount that will use it
    recursive: bool = True

    def describe(self) -> str:
        """`open_tree SOURCE  # for TARGET`."""
        return f"open_tree {'-R ' if self.recursive else ''}{self.source}  # for {self.target}"

    def execute(self, ctx: Context) -> None:
        """Leave the detached mount in `ctx.fds`."""
        ctx.fds[source_key(self.target)] = _clone_source(self.source, recursive=self.recursive)


class BindMount(Step):
    """Bind a host file or directory to a place inside (`-v`, `--mount type=bind`)."""

    op = "bind-mount"

    source: str  # host path
    target: str  # absolute, inside; links in it are followed in the root
    options: tuple[str, ...] = ()  # ro nosuid nodev noexec rbind bind rprivate rslave ...

    def describe(self) -> str:
        """`mount --rbind -o ro SOURCE TARGET`."""
        words = [word for word in self.options if word not in {"bind", "rbind"}]
        options = f" -o {','.join(words)}" if words else ""
        return f"mount --{'bind' if 'bind' in self.options else 'rbind'}{options} {self.source} {self.target}"

    def execute(self, ctx: Context) -> None:
        """Attach a copy of the source, with its attributes set before anybody can see it."""
        options = sort_options(self.options)
        fd = ctx.fds.pop(source_key(self.target), -1)
        if fd < 0:
            fd = _clone_source(self.source, recursive=options.recursive)
        try:
            propagation = options.propagation or mount.MS_PRIVATE
            mount.set_attributes(
                fd,
                options.attributes,
                clear=options.clear & ~mount.MOUNT_ATTR_RDONLY,  # `rw` opens nothing that the host has closed
                propagation=propagation & ~mount.MS_REC,
                recursive=options.recursive,
            )
            target = user_target(ctx, self.target, directory=stat.S_ISDIR(os.fstat(fd).st_mode))
            try:
                mount.attach(fd, target)
            finally:
                os.close(target)
        finally:
            os.close(fd)


class TmpfsMount(Step):
    """Mount an empty tmpfs at a place inside (`--tmpfs`, `--mount type=tmpfs`)."""

    op = "tmpfs-mount"

    target: str  # absolute, inside; links in it are followed in the root
    options: tuple[str, ...] = ()  # ro nosuid nodev noexec size=64m mode=1777 ...

    def describe(self) -> str:
        """`mount -t tmpfs -o size=64m tmpfs TARGET`."""
        options = f" -o {','.join(self.options)}" if self.options else ""
        return f"mount -t tmpfs{options} tmpfs {self.target}"

    def execute(self, ctx: Context) -> None:
        """Make it and attach it."""
        options = sort_options(self.options)
        target = user_target(ctx, self.target, directory=True)
        try:
            fd = mount.new_mount("tmpfs", options.data, options.attributes)
            try:
                mount.attach(fd, target)
            finally:
                os.close(fd)
        finally:
            os.close(target)


class MountEtc(Step):
    """Mount the container's own hosts, hostname and resolv.conf on those of the image.

    The name in /etc is the mount point even where the image has a symbolic link: it is covered, not
    followed.
    """

    op = "mount-etc"

    directory: str  # host directory that holds the files
    names: tuple[str, ...] = ("hosts", "hostname", "resolv.conf")
    readonly: bool = False

    def describe(self) -> str:
        """`mount --bind DIRECTORY/{hosts,hostname} /etc/`."""
        options = " -o ro" if self.readonly else ""
        return f"mount --bind{options} {self.directory}/{{{','.join(self.names)}}} /etc/"

    def execute(self, ctx: Context) -> None:
        """One bind each; /etc and empty files to mount on are made where the image lacks them."""
        etc = make_directory(ctx.root, "etc")
        refuse_proc(etc, "/etc")
        for name in self.names:
            fd = ctx.fds.pop(source_key(f"/etc/{name}"), -1)
            if fd < 0:
                fd = _clone_source(f"{self.directory}/{name}", recursive=False)
            if self.readonly:
                mount.set_attributes(fd, mount.MOUNT_ATTR_RDONLY)
            target = make_file_entry(etc, name)
            try:
                mount.attach(fd, target)
            except OSError as error:
                if not stat.S_ISDIR(os.fstat(target).st_mode):
                    raise
                raise GockerError(
                    "mount on",
                    f"/etc/{name}",
                    "the root file system has a directory there",
                    remedy="make it a file in the image",
                    errno=errno.ENOTDIR,
                ) from error
            os.close(fd)
            os.close(target)
        os.close(etc)


def _clone_source(source: str, *, recursive: bool) -> int:
    try:
        return mount.clone_tree(mount.AT_FDCWD, os.fsencode(source), recursive=recursive)
    except OSError as error:
        remedy = "make it first" if error.errno == errno.ENOENT else ""
        raise GockerError.from_os("open mount source", source, error, remedy=remedy) from error
