"""What steps emit for the native executor, one function for each of kernel/mount, kernel/inroot and their kin.

Each does the calls of the function that it is named after, and fails in its words.
"""

from __future__ import annotations

import errno
import os
import stat

from gocker.errors import GockerError
from gocker.kernel import mount
from gocker.kernel.inroot import DIRECTORY
from gocker.lowering import (
    S_IFMT,
    STAT_DEV,
    STAT_INO,
    STAT_MODE,
    Code,
    Data,
    Failure,
    Label,
    NotLoweredError,
    Register,
)

SYMLINK_NOFOLLOW = 0x100  # AT_SYMLINK_NOFOLLOW
STAT_BYTES = 144  # struct stat of x86-64; arm64's is smaller
_OPEN_TREE_CLONE = 1
_MOVE_EMPTY_PATHS = 0x04 | 0x40
_MOVE_FROM_EMPTY_PATH = 0x04


def new_mount(
    code: Code,
    fstype: str,
    options: tuple[str, ...] = (),
    attributes: int = 0,
    source: str = "",
    *,
    texts: dict[str, Register] | None = None,
    into: Register | None = None,
) -> Register:
    """As mount.new_mount; `texts` are options whose values are texts that a register points to."""
    name = fstype.encode()
    parts = [b"ssource\0", os.fsencode(source) or name, b"\0"]
    for option in options:
        key, equals, value = option.partition("=")
        if "\0" in option:
            raise NotLoweredError("an option holds a NUL byte")
        parts += (
            (b"s", key.encode(), b"\0", os.fsencode(value), b"\0") if equals else (b"f", key.encode(), b"\0")
        )
    for key, register in (texts or {}).items():
        parts += (b"r", key.encode(), b"\0", bytes([register]))
    block = code.data(b"".join((*parts, b"\0")))
    register = code.register() if into is None else into

    def explain(failure: Failure) -> Exception:
        error = OSError(failure.errno, os.strerror(failure.errno))
        wrapped = GockerError.from_os("make file system", fstype, error)
        wrapped.reason = f"{wrapped.reason}: {failure.text}"
        return wrapped

    return code.builtin("new_mount", name, block, attributes, into=register, explain=explain)


def clone_tree(
    code: Code, fd: int, path: bytes = b"", *, recursive: bool = False, into: Register | None = None
) -> Register:
    """As mount.clone_tree."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (mount.AT_RECURSIVE if recursive else 0)
    flags |= 0 if path else mount.AT_EMPTY_PATH
    return code.call("open_tree", fd, path, flags, into=code.register() if into is None else into)


def attach(code: Code, fd: Register, target: Register) -> None:
    """As mount.attach."""
    code.call("move_mount", fd, b"", target, b"", _MOVE_EMPTY_PATHS)


def attach_at(code: Code, fd: Register, path: bytes, directory: int = mount.AT_FDCWD) -> None:
    """As mount.attach_at."""
    code.call("move_mount", fd, b"", directory, path, _MOVE_FROM_EMPTY_PATH)


def set_attributes(
    code: Code,
    fd: Register,
    attributes: int,
    *,
    clear: int = 0,
    propagation: int = 0,
    recursive: bool = False,
) -> None:
    """As mount.set_attributes, without a user namespace."""
    value = code.data(b"".join(word.to_bytes(8, "little") for word in (attributes, clear, propagation, 0)))
    flags = mount.AT_EMPTY_PATH | (mount.AT_RECURSIVE if recursive else 0)
    code.call("mount_setattr", fd, b"", flags, value, 32)


def openat2(
    code: Code, directory: int, path: str, flags: int, resolve: int, into: Register | None = None
) -> Register:
    """As inroot.openat2."""
    if "\0" in path:
        raise NotLoweredError("a path holds a NUL byte")
    register = code.register() if into is None else into
    return code.builtin("open_in", directory, os.fsencode(path), flags, resolve, into=register)


def open_path(code: Code, path: str, flags: int, directory: int = mount.AT_FDCWD) -> Register:
    """As os.open of what is there."""
    flags |= os.O_CLOEXEC
    return code.call("openat", directory, os.fsencode(path), flags, 0, into=code.register(), path=path)


def open_root(code: Code) -> Register:
    """An O_PATH fd of `/`."""
    return open_path(code, "/", DIRECTORY)


def close(code: Code, *fds: Register) -> None:
    """Close them, and let go of their registers."""
    for fd in fds:
        code.close(fd)
        code.release(fd)


def fstat(code: Code, fd: Register) -> Data:
    """Where the struct stat is."""
    place = code.data(STAT_BYTES)
    code.call("fstat", fd, place)
    return place


def jump_if_directory(code: Code, status: Data, label: Label, *, other: bool = False) -> None:
    """By the struct stat; with `other` when it is none."""
    mode = code.load(status + STAT_MODE, 4)
    code.jump_if(mode, stat.S_IFDIR, label, S_IFMT, other=other)


def jump_if_same_file(code: Code, one: Data, two: Data, label: Label) -> None:
    """By device and inode of two struct stat."""
    different = code.label()
    for offset, size in ((STAT_DEV, 8), (STAT_INO, 8)):
        same = code.builtin("same", code.load(one + offset, size), code.load(two + offset, size))
        code.jump_if(same, 0, different)
    code.jump(label)
    code.place(different)


def require_magic(code: Code, fd: Register, magic: int, error: Exception, *, other: bool = False) -> None:
    """Fail with `error` unless `fd` is on a file system with this `magic`; with `other` when it is."""
    fine = code.label()
    code.jump_if(code.builtin("magic", fd), magic, fine, other=other)
    code.fail(error, error.errno if isinstance(error, GockerError) else 0)
    code.place(fine)


def write_text(code: Code, fd: Register, text: bytes) -> None:
    """One write(2)."""
    code.call("write", fd, text, len(text))


def is_permission(error: Exception) -> bool:
    """Whether it is an OSError of EPERM or EACCES."""
    return isinstance(error, OSError) and error.errno in {errno.EPERM, errno.EACCES}
