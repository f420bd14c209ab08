"""Mounts inside the new root: kernel file systems, the user's binds and tmpfs, files below /etc."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from typing import Any

from gocker import lowering
from gocker.errors import GockerError
from gocker.kernel import mount
from gocker.kernel.inroot import IN_ROOT, make_directory, make_file_entry, openat2
from gocker.kernel.userns import IdLine, user_namespace
from gocker.lowering import ROOT, STAT_MODE, Code, Register, is_random
from gocker.plan import Context, Step
from gocker.steps.idmap import source_key
from gocker.steps.options import MountOptions, sort_options
from gocker.steps.procfs import PATH as PROC
from gocker.steps.procfs import emit_own_procfs, emit_restrict_procfs, own_procfs, restrict_procfs
from gocker.steps.targets import (
    bind_target,
    emit_bind_target,
    emit_put_on,
    emit_refuse_proc,
    emit_system_directory,
    emit_user_target,
    mode_there,
    put_on,
    refuse_proc,
    system_directory,
    user_target,
)


class MountFs(Step):
    """Mount a new file system, on a system directory or at a place that the user chose."""

    op = "mount-fs"

    fstype: str  # proc sysfs tmpfs devpts mqueue cgroup2 ...
    target: str  # absolute, inside
    options: tuple[str, ...] = ()  # as in mount -o
    source: str = ""  # a device, for file systems on one
    bind: str = ""  # host path that is bound, with all below, where a new instance is not permitted
    follow: bool = False  # symbolic links in the target, in the root; else they are errors

    def describe(self) -> str:
        """`mount -t proc -o nosuid,nodev,noexec proc /proc`."""
        options = f" -o {','.join(self.options)}" if self.options else ""
        return f"mount -t {self.fstype}{options} {self.source or self.fstype} {self.target}"

    def execute(self, ctx: Context) -> None:
        """Make it and attach it; a system directory's fd is left in `ctx.fds[target]`."""
        if self.follow:
            self._attach_for_user(ctx)
            return
        if self.target == PROC:
            fd = own_procfs(ctx)
            restrict_procfs(fd, sort_options(self.options))
        else:
            fd = ctx.fds[self.target] = self._make()
        target = system_directory(ctx, self.target)
        try:
            self._fill(fd, target)
            mount.attach(fd, target)
        finally:
            os.close(target)

    @property
    def lowers(self) -> bool:
        """Not options of a procfs: hidepid and the like."""
        return self.target != PROC or not sort_options(self.options).data

    def emit(self, code: Code) -> None:
        """The same."""
        if self.follow:
            self._emit_for_user(code)
            return
        if self.target == PROC:
            fd = emit_own_procfs(code)
            emit_restrict_procfs(code, fd, sort_options(self.options))
        else:
            fd = self._emit_new(code, code.register())
            code.fds[self.target] = fd
        target = emit_system_directory(code, self.target)
        lowering.attach(code, fd, target)
        lowering.close(code, target)

    def _emit_for_user(self, code: Code) -> None:
        fd, octal = code.register(), code.register()
        asks = self.fstype == "tmpfs" and not any(word.startswith("mode=") for word in self.options)
        if asks:
            code.set(octal, 0)
            none, some = code.label(), code.label()
            there = lowering.openat2(code, ROOT, self.target, os.O_PATH, IN_ROOT)
            code.catch(errno.ENOENT, none)
            mode = code.load(lowering.fstat(code, there) + STAT_MODE, 2)
            lowering.close(code, there)
            code.set(octal, code.data(16))
            # All of the mode as digits, of which the kind is left out: at most two of six.
            end = code.builtin("number", octal, mode, 8)
            code.set(octal, code.builtin("last_digits", octal, end, 4))
            code.jump(some)
            code.place(none)
            code.place(some)
        target = emit_user_target(code, self.target, directory=True)
        if asks:
            plain, done = code.label(), code.label()
            code.jump_if(octal, 0, plain)
            self._emit_new(code, fd, {"mode": octal})
            code.jump(done)
            code.place(plain)
            self._emit_new(code, fd)
            code.place(done)
        else:
            self._emit_new(code, fd)
        emit_put_on(code, fd, target, self.target)
        lowering.close(code, target)
        code.release(octal)
        code.release(fd)

    def _emit_new(self, code: Code, fd: Register, texts: dict[str, Register] | None = None) -> Register:
        """As `_make`."""
        options = sort_options(self.options)
        attributes = options.attributes | options.deep_attributes
        propagation = options.propagation & ~mount.MS_REC
        lowering.new_mount(code, self.fstype, options.data, attributes, self.source, texts=texts, into=fd)
        refused, done = code.label(), code.label()
        if self.bind and not options.data and not texts:
            code.catch(errno.EPERM, refused)
            code.catch(errno.EACCES, refused)
        if propagation:
            lowering.set_attributes(code, fd, 0, propagation=propagation)
        if self.bind and not options.data and not texts:
            code.jump(done)
            code.place(refused)
            lowering.clone_tree(code, mount.AT_FDCWD, os.fsencode(self.bind), recursive=True, into=fd)
            lowering.set_attributes(code, fd, attributes, propagation=mount.MS_PRIVATE, recursive=True)
            code.place(done)
        return fd

    def _attach_for_user(self, ctx: Context) -> None:
        """A tmpfs without a mode has that of the directory that the image has there, as by runc."""
        step = self
        if self.fstype == "tmpfs" and not any(word.startswith("mode=") for word in self.options):
            mode = mode_there(ctx, self.target)
            step = self if mode is None else self.replace(options=(*self.options, f"mode={mode:o}"))
        target = user_target(ctx, self.target, directory=True)
        try:
            fd = step._make()
            step._fill(fd, target)
            put_on(ctx, fd, target, self.target)
        finally:
            os.close(target)

    def _fill(self, fd: int, target: int) -> None:
        """What is done to it before anybody can see it; nothing."""

    def _make(self) -> int:
        options = sort_options(self.options)
        attributes = options.attributes | options.deep_attributes
        propagation = options.propagation & ~mount.MS_REC
        try:
            fd = mount.new_mount(self.fstype, options.data, attributes, self.source)
        except PermissionError:
            if not self.bind or options.data:
                raise
        else:
            if propagation:
                mount.set_attributes(fd, 0, propagation=propagation)
            return fd
        # sysfs belongs to the network namespace's owner: with the host's network, a user namespace
        # cannot have one of its own.
        fd = mount.clone_tree(mount.AT_FDCWD, os.fsencode(self.bind), recursive=True)
        mount.set_attributes(fd, attributes, propagation=mount.MS_PRIVATE, recursive=True)
        return fd


class OpenSource(Step):
    """Take a copy of a host mount for a later BindMount, before anything changes on the way to it.

    For binds that keep their propagation, for those that a user namespace could not open, and for those
    whose ids are mapped, which needs a user namespace of the host's side.
    """

    op = "open-source"

    source: str  # host path
    target: str  # of the BindMount that will use it
    recursive: bool = True
    uid_map: tuple[IdLine, ...] = ()  # (inside, outside, count); () leaves the ids alone
    gid_map: tuple[IdLine, ...] = ()
    map_all: bool = False  # mounts below it, too
    userns: str = ""  # path of a namespace whose maps are meant instead

    def describe(self) -> str:
        """`open_tree SOURCE  # for TARGET`."""
        maps = f", mapped {':'.join(map(str, self.uid_map[0]))}" if self.uid_map else ""
        return f"open_tree {'-R ' if self.recursive else ''}{self.source}  # for {self.target}{maps}"

    def execute(self, ctx: Context) -> None:
        """Leave the detached mount in `ctx.fds`."""
        fd = _clone_source(self.source, recursive=self.recursive)
        ctx.fds[source_key(self.source, self.target)] = fd
        if self.uid_map or self.userns:
            if self.userns:
                userns = os.open(self.userns, os.O_RDONLY | os.O_CLOEXEC)
            else:
                userns = user_namespace(self.uid_map, self.gid_map)
            try:
                mount.set_attributes(fd, mount.MOUNT_ATTR_IDMAP, userns=userns, recursive=self.map_all)
            except OSError as error:
                raise GockerError.from_os("map the ids of", self.source, error) from error
            finally:
                os.close(userns)


class OpenIds(Step):
    """Make the id maps of a later BindInside, which needs a user namespace of the host's side."""

    op = "open-ids"

    source: str  # of the BindInside that will use it
    target: str
    uid_map: tuple[IdLine, ...]  # (inside, outside, count)
    gid_map: tuple[IdLine, ...]

    def describe(self) -> str:
        """`unshare --user --map-users=MAP  # for TARGET`."""
        return f"unshare --user --map-users={':'.join(map(str, self.uid_map[0]))}  # for {self.target}"

    def execute(self, ctx: Context) -> None:
        """Leave the namespace in `ctx.fds`."""
        ctx.fds[f"ids:{source_key(self.source, self.target)}"] = user_namespace(self.uid_map, self.gid_map)


class BindMount(Step):
    """Bind a host file or directory to a place inside (`-v`, `--mount type=bind`)."""

    op = "bind-mount"

    source: str  # host path
    target: str  # absolute, inside; links in it are followed in the root
    options: tuple[str, ...] = ()  # ro nosuid nodev noexec rro rbind bind rprivate rslave ...

    def describe(self) -> str:
        """`mount --rbind -o ro SOURCE TARGET`."""
        words = [word for word in self.options if word not in {"bind", "rbind"}]
        options = f" -o {','.join(words)}" if words else ""
        return f"mount --{'bind' if 'bind' in self.options else 'rbind'}{options} {self.source} {self.target}"

    def execute(self, ctx: Context) -> None:
        """Attach a copy of the source, with its attributes set before anybody can see it."""
        options = sort_options(self.options)
        fd = self._copy(ctx, recursive=options.recursive)
        try:
            _set_up_copy(fd, options)
            target = bind_target(ctx, self.target, fd)
            try:
                put_on(ctx, os.dup(fd), target, self.target)
            finally:
                os.close(target)
            if posixpath.normpath(self.target) == PROC:  # from now on that is /proc
                if PROC in ctx.fds:
                    os.close(ctx.fds[PROC])
                ctx.fds[PROC] = os.dup(fd)
        finally:
            os.close(fd)

    def emit(self, code: Code) -> None:
        """The same."""
        options = sort_options(self.options)
        fd = code.fds.pop(source_key(self.source, self.target), None)
        if fd is None:
            fd = emit_clone_source(code, self.source, recursive=options.recursive)
        else:
            renewed, kept = code.register(), code.label()
            lowering.clone_tree(code, fd, recursive=options.recursive, into=renewed)
            code.catch(0, kept)
            code.close(fd)
            code.set(fd, renewed)
            code.place(kept)
            code.release(renewed)
        for attributes in _attributes(options):
            lowering.set_attributes(code, fd, **attributes)
        target = emit_bind_target(code, self.target, fd)
        emit_put_on(code, code.call("dup", fd), target, self.target)
        lowering.close(code, target)
        if posixpath.normpath(self.target) == PROC:
            if PROC in code.fds:
                code.close(code.fds[PROC])
            code.fds[PROC] = code.call("dup", fd, into=code.register())
        lowering.close(code, fd)

    def _copy(self, ctx: Context, *, recursive: bool) -> int:
        fd = ctx.fds.pop(source_key(self.source, self.target), -1)
        if fd < 0:
            return _clone_source(self.source, recursive=recursive)
        return _renewed(fd, recursive=recursive)


class BindInside(BindMount):
    """Bind what lies in the container's own root, with the mounts that were made there before, to another place in it.

    `source` is looked up as a process inside would: an image's symbolic link leads nowhere else (SECURITY R2).
    """

    op = "bind-inside"

    mapped: str = ""  # idmap, or ridmap: OpenIds has the ids

    def describe(self) -> str:
        """`mount --rbind -o ro SOURCE TARGET  # both in the root`."""
        return f"{super().describe()}  # both in the root"

    lowers = False  # few ask for it

    def _copy(self, ctx: Context, *, recursive: bool) -> int:
        """A copy. What is of the own procfs has its masks where it is, and nowhere else."""
        try:
            there = openat2(ctx.root, self.source, os.O_PATH, IN_ROOT)
        except OSError as error:
            raise GockerError.from_os("open mount source", f"{self.source} in the root", error) from error
        try:
            top = os.path.sameopenfile(there, ctx.root)
            if mount.file_system_magic(there) == mount.PROC_MAGIC or (top and recursive and PROC in ctx.fds):
                raise GockerError(
                    "mount on",
                    self.target,
                    f"the container's own /proc is in {self.source} of the root",
                    remedy="another mount of the type proc is not to be had: bind what is needed by itself",
                )
            fd = mount.clone_tree(there, recursive=recursive)
        finally:
            os.close(there)
        if self.mapped:
            self._map(ctx, fd)
        return fd

    def _map(self, ctx: Context, fd: int) -> None:
        ids = ctx.fds.pop(f"ids:{source_key(self.source, self.target)}")
        try:
            mount.set_attributes(fd, mount.MOUNT_ATTR_IDMAP, userns=ids, recursive=self.mapped == "ridmap")
        except OSError as error:
            raise GockerError.from_os("map the ids of", f"{self.source} in the root", error) from error
        finally:
            os.close(ids)


def _renewed(fd: int, *, recursive: bool) -> int:
    """A copy that is as young as its place in the list of mounts: the kernel shows them by age.

    It has what `fd` has, and `fd` is closed. Root of a user namespace may not copy it, and keeps it.
    """
    try:
        copy = mount.clone_tree(fd, recursive=recursive)
    except OSError:
        return fd
    os.close(fd)
    return copy


def _set_up_copy(fd: int, options: MountOptions) -> None:
    for attributes in _attributes(options):
        mount.set_attributes(fd, **attributes)


def _attributes(options: MountOptions) -> tuple[dict[str, Any], ...]:
    """What is said of all mounts first, then what is said of the topmost. What is not said stays as the host has it.

    The copy may be one of the host's own mounts: those below, of which nothing was said, follow the
    topmost as far as nothing travels out of the container by them.
    """
    kind = (options.propagation or mount.MS_PRIVATE) & ~mount.MS_REC
    deep = not options.propagation or bool(options.propagation & mount.MS_REC)
    return (
        {
            "attributes": options.deep_attributes,
            "clear": options.deep_clear,
            "propagation": kind if deep else _BELOW[kind],
            "recursive": options.recursive,
        },
        {
            "attributes": options.attributes,
            "clear": options.clear,
            "propagation": 0 if deep else kind,
        },
    )


# Propagation of the topmost -> what is set for all before. To be a peer of the host's, a mount must not be
# private even for a moment: those below a shared one stay what they are on the host.
_BELOW = {
    mount.MS_PRIVATE: mount.MS_PRIVATE,
    mount.MS_UNBINDABLE: mount.MS_PRIVATE,
    mount.MS_SLAVE: mount.MS_SLAVE,
    mount.MS_SHARED: 0,
}


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
            source = f"{self.directory}/{name}"
            fd = ctx.fds.pop(source_key(source, f"/etc/{name}"), -1)
            if fd < 0:
                fd = _clone_source(source, recursive=False)
            if self.readonly:
                mount.set_attributes(fd, mount.MOUNT_ATTR_RDONLY)
            target = make_file_entry(etc, name)
            try:
                mount.attach(fd, target)
            except OSError as error:
                if not stat.S_ISDIR(os.fstat(target).st_mode):
                    raise
                raise _directory_there(name) from error
            os.close(fd)
            os.close(target)
        os.close(etc)

    def template(self, container: str) -> Any:
        """The directory has the id in it."""
        if not is_random(container):
            return self
        return MountEtc, self.directory.replace(container, ""), self.names, self.readonly

    def emit(self, code: Code) -> None:
        """The same."""
        etc = code.builtin("directory", ROOT, b"etc", 0o755, into=code.register())
        emit_refuse_proc(code, etc, "/etc")
        for name in self.names:
            source = f"{self.directory}/{name}"
            fd = code.fds.pop(source_key(source, f"/etc/{name}"), None)
            if fd is None:
                fd = emit_clone_source(code, source, recursive=False)
            if self.readonly:
                lowering.set_attributes(code, fd, mount.MOUNT_ATTR_RDONLY)
            target = code.builtin("file_entry", etc, os.fsencode(name), 0o644, into=code.register())
            refused, is_directory, done = code.label(), code.label(), code.label()
            lowering.attach(code, fd, target)
            code.catch(0, refused)
            code.jump(done)
            code.place(refused)
            result = code.register()
            code.set(result, code.result)
            lowering.jump_if_directory(code, lowering.fstat(code, target), is_directory)
            code.builtin("fail", result, 0)
            code.place(is_directory)
            code.fail(_directory_there(name), errno.ENOTDIR)
            code.place(done)
            code.release(result)
            lowering.close(code, fd, target)
        lowering.close(code, etc)


def _directory_there(name: str) -> GockerError:
    return GockerError(
        "mount on",
        f"/etc/{name}",
        "the root file system has a directory there",
        remedy="make it a file in the image",
        errno=errno.ENOTDIR,
    )


def emit_clone_source(code: Code, source: str, *, recursive: bool) -> Register:
    """As `_clone_source`."""
    with code.explained(lambda error, _: _no_source(source, error)):
        return lowering.clone_tree(code, mount.AT_FDCWD, os.fsencode(source), recursive=recursive)


def _no_source(source: str, error: Exception) -> Exception:
    if not isinstance(error, OSError):
        return error
    remedy = "make it first" if error.errno == errno.ENOENT else ""
    return GockerError.from_os("open mount source", source, error, remedy=remedy)


def _clone_source(source: str, *, recursive: bool) -> int:
    try:
        return mount.clone_tree(mount.AT_FDCWD, os.fsencode(source), recursive=recursive)
    except OSError as error:
        raise _no_source(source, error) from error
