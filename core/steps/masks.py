"""Paths of the kernel's file systems that are hidden or made read-only inside."""

from __future__ import annotations

import errno
import os
import stat

from gocker import lowering
from gocker.kernel import mount
from gocker.kernel.inroot import IN_ROOT, openat2
from gocker.lowering import ROOT, S_IFMT, STAT_MODE, Code, Label, Register
from gocker.plan import Context, Step
from gocker.steps.devices import emit_null_device, null_device
from gocker.steps.targets import anchor, emit_anchor


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

    def emit(self, code: Code) -> None:
        """The same; but the null device is opened, and proved, also where there is nothing to cover with it."""
        null, empty = emit_null_device(code), code.register()
        cover, target = code.register(), code.register()
        code.set(empty, -1)
        for path in self.paths:
            absent, directory, first, attach = (code.label() for _ in range(4))
            _emit_existing(code, path, target, absent)
            lowering.jump_if_directory(code, lowering.fstat(code, target), directory)
            lowering.clone_tree(code, null, into=cover)
            code.jump(attach)
            code.place(directory)
            code.jump_if(empty, -1, first)
            lowering.clone_tree(code, empty, into=cover)
            code.jump(attach)
            code.place(first)
            lowering.new_mount(code, "tmpfs", ("size=4k", "mode=755"), _EMPTY_ATTRIBUTES, into=empty)
            code.call("dup", empty, into=cover)
            code.place(attach)
            lowering.attach(code, cover, target)
            code.close(cover)
            code.close(target)
            code.place(absent)
        none = code.label()
        code.jump_if(empty, -1, none)
        code.close(empty)
        code.place(none)
        for register in (empty, cover, target):
            code.release(register)


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

    def emit(self, code: Code) -> None:
        """The same."""
        cover, target = code.register(), code.register()
        for path in self.paths:
            absent, plain = code.label(), code.label()
            _emit_existing(code, path, target, absent)
            mode = code.load(lowering.fstat(code, target) + STAT_MODE, 4)
            code.jump_if(mode, stat.S_IFLNK, plain, S_IFMT, other=True)
            code.close(target)
            lowering.openat2(code, ROOT, path, os.O_PATH, IN_ROOT, into=target)
            _emit_absent(code, absent)
            code.place(plain)
            lowering.clone_tree(code, target, recursive=True, into=cover)
            lowering.set_attributes(code, cover, mount.MOUNT_ATTR_RDONLY, recursive=True)
            lowering.attach(code, cover, target)
            code.close(cover)
            code.close(target)
            code.place(absent)
        code.release(cover)
        code.release(target)


_EMPTY_ATTRIBUTES = (
    mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC
)


def _open_existing(ctx: Context, path: str) -> int:
    fd, rest, resolve = anchor(ctx, path)
    try:
        return openat2(fd, rest, os.O_PATH | os.O_NOFOLLOW, resolve)
    except (FileNotFoundError, NotADirectoryError):  # ENOTDIR: a part of the path is a file
        return -1


def _emit_existing(code: Code, path: str, target: Register, absent: Label) -> None:
    """As `_open_existing`; to `absent` where there is nothing."""
    fd, rest, resolve = emit_anchor(code, path)
    lowering.openat2(code, fd, rest, os.O_PATH | os.O_NOFOLLOW, resolve, into=target)
    _emit_absent(code, absent)


def _emit_absent(code: Code, absent: Label) -> None:
    code.catch(errno.ENOENT, absent)
    code.catch(errno.ENOTDIR, absent)


def _follow(ctx: Context, path: str) -> int:
    try:
        return openat2(ctx.root, path, os.O_PATH, IN_ROOT)
    except (FileNotFoundError, NotADirectoryError):
        return -1
