"""Adding to the image store: a tree is written aside, then appears under its digest by one rename."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os

from gocker.filetree import FileTree
from gocker.kernel.tree import remove_tree

_FOLDERS = ("refs", "manifests", "rootfs")
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def lock_store(store: str) -> int:
    """Make the store if need be, and wait until it is ours; close the fd that this returns to end it.

    What one that was killed left half-written is removed. Raise OSError.
    """
    os.makedirs(os.path.dirname(store), 0o700, exist_ok=True)
    for folder in ("", *(f"/{name}" for name in _FOLDERS)):
        with contextlib.suppress(FileExistsError):
            os.mkdir(store + folder, 0o700)
    lock = os.open(f"{store}/lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for folder in _FOLDERS:
            for entry in os.listdir(f"{store}/{folder}"):
                if entry.startswith("."):
                    remove_tree(f"{store}/{folder}", entry)
    except BaseException:
        os.close(lock)
        raise
    return lock


def put_image(store: str, name: str, maker: str, tree: FileTree) -> None:
    """Keep `tree` under its digest, and make `name`, a valid image name, lead there.

    The caller holds the lock. Raise OSError; then nothing of it is left.
    """
    manifest = tree.manifest()
    digest = hashlib.sha256(manifest).hexdigest()
    key = f"sha256-{digest}"
    if not os.path.isdir(f"{store}/rootfs/{key}"):
        _write_rootfs(f"{store}/rootfs", key, tree)
    _write_file(f"{store}/manifests", key, manifest)
    _write_file(f"{store}/refs", name, f"sha256:{digest} {maker}\n".encode("ascii"))


def _write_rootfs(folder: str, key: str, tree: FileTree) -> None:
    hidden = f".{key}"
    try:
        os.mkdir(f"{folder}/{hidden}", 0o700)
        tree.write(f"{folder}/{hidden}")
        os.rename(f"{folder}/{hidden}", f"{folder}/{key}")
    except BaseException as error:
        _clean_up(folder, hidden, error)
        raise


def _write_file(folder: str, name: str, data: bytes) -> None:
    hidden = f".{name}"
    try:
        with open(os.open(f"{folder}/{hidden}", _NEW_FILE, 0o600), "wb") as file:
            file.write(data)
        os.rename(f"{folder}/{hidden}", f"{folder}/{name}")
    except BaseException as error:
        _clean_up(folder, hidden, error)
        raise


def _clean_up(folder: str, hidden: str, error: BaseException) -> None:
    try:
        remove_tree(folder, hidden)
    except OSError as second:
        error.add_note(f"remove {folder}/{hidden}: {second}")
