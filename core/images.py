"""The image store: names that lead to digests, and root file systems kept by their digest.

    GOCKER_ROOT/images/refs/NAME              "sha256:HEX MAKER", what made it
    GOCKER_ROOT/images/manifests/sha256-HEX   the text of that sha256: a line for each file
    GOCKER_ROOT/images/rootfs/sha256-HEX/     the files; .sha256-HEX while they are written
    GOCKER_ROOT/images/lock                   flock of whoever adds an image

Containers never write there: the launcher puts an overlay over an image's files.
"""

from __future__ import annotations

import errno
import os

from gocker import paths
from gocker.errors import ImageError
from gocker.record import Record

BASE = "base"
BASE_MAKER = "gocker-base-1"  # ends in baseimage.RECIPE, whose module is not imported for this
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_NAME = _LETTERS | frozenset("._-")
_MAX_NAME = 128
_HEX = frozenset("0123456789abcdef")
_SHA256 = "sha256:"
_MAX_REF = 200  # bytes
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class Image(Record):
    """An image that is here."""

    name: str
    digest: str  # sha256:HEX of its manifest
    rootfs: str  # absolute host path of its files, which are not to be written to
    maker: str = ""  # what made it


def is_image_name(text: str) -> bool:
    """Whether `text` fully matches `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`."""
    return 0 < len(text) <= _MAX_NAME and text[0] in _LETTERS and _NAME.issuperset(text)


def is_digest(text: str) -> bool:
    """Whether `text` fully matches `sha256:[0-9a-f]{64}`."""
    return len(text) == len(_SHA256) + 64 and text.startswith(_SHA256) and _HEX.issuperset(text[7:])


def resolve_image(name: str) -> str:
    """The directory with the files of image `name`, an absolute path that ends in its digest.

    `base` is made when it is not here yet. Raise ImageError when there is no such image, or the
    store cannot be read or written.
    """
    image = find_image(name)
    if image is None and name == BASE:
        image = make_base()
    if image is None:
        raise _unknown(name)
    return image.rootfs


def planned_image(name: str) -> str:
    """What `resolve_image` would return; nothing is written. Raise ImageError as it does."""
    image = find_image(name)
    if image is not None:
        return image.rootfs
    if name != BASE:
        raise _unknown(name)
    import hashlib

    from gocker.baseimage import make_tree

    try:
        digest = hashlib.sha256(make_tree().manifest()).hexdigest()
    except OSError as error:
        raise _error("plan image", BASE, error) from error
    return f"{_store()}/rootfs/sha256-{digest}"


def find_image(name: str) -> Image | None:
    """The image `name` if it is here and, for `base`, not outdated. Raise ImageError.

    A name is only ever used as the name of a file in refs/, and only after a full match.
    """
    if not is_image_name(name):
        return None
    store = _store()
    try:
        _require_private(store)
        fd = os.open(f"{store}/refs/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            text = os.read(fd, _MAX_REF).decode("ascii", "replace")
        finally:
            os.close(fd)
        digest, _, maker = text.strip().partition(" ")
        if not is_digest(digest):
            raise ImageError(
                "read image", name, f"{store}/refs/{name} holds no digest", remedy="remove that file"
            )
        rootfs = f"{store}/rootfs/{digest.replace(':', '-')}"
        os.stat(rootfs)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _error("read image", name, error) from error
    if name == BASE and maker != BASE_MAKER:
        return None
    return Image(name=name, digest=digest, rootfs=rootfs, maker=maker)


def list_images() -> tuple[Image, ...]:
    """The images that are here, by name. Raise ImageError when the store cannot be read."""
    try:
        names = sorted(os.listdir(f"{_store()}/refs"))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise _error("list images", "", error) from error
    return tuple(image for image in map(find_image, names) if image is not None)


def make_base() -> Image:
    """Make `base` from the host's programs and put it into the store, unless it is there by now.

    Of several that want it at once, one makes it and the others wait. Raise ImageError when it cannot
    be written, or the host has too little for it; then nothing of it is left behind.
    """
    from gocker.baseimage import make_tree
    from gocker.imagestore import lock_store, put_image

    store = _store()
    try:
        lock = lock_store(store)
        try:
            if find_image(BASE) is None:
                put_image(store, BASE, BASE_MAKER, make_tree())
        finally:
            os.close(lock)
    except OSError as error:
        raise _error("make image", BASE, error) from error
    image = find_image(BASE)
    if image is None:
        raise ImageError("make image", BASE, "it went away at once", remedy="try again")
    return image


def check_rootfs(path: str) -> str:
    """The directory `path` as an absolute path without links, fit to be a root file system.

    Raise ImageError when it is not there, no directory, unreadable, or holds gocker's own data.
    """
    remedy = "give the directory of an unpacked root file system"
    if not path:
        raise ImageError("use rootfs", repr(path), "no directory is named", remedy=remedy)
    try:
        real = os.path.realpath(path, strict=True)
        os.close(os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        os.stat(f"{real}/.")  # needs search permission, which opening does not
    except OSError as error:
        raise ImageError.from_os("use rootfs", path, error, remedy=remedy) from error
    except ValueError as error:
        raise ImageError("use rootfs", repr(path), str(error), remedy=remedy) from error
    if real == "/":
        raise ImageError("use rootfs", path, "it is the host's own root", remedy=remedy)
    data = os.path.realpath(paths.data_root())
    if f"{data}/".startswith(f"{real}/"):
        reason = f"gocker's own data in {data} would be inside"
        raise ImageError(
            "use rootfs", path, reason, remedy="give another directory, or set GOCKER_ROOT elsewhere"
        )
    return real


def _store() -> str:
    return f"{paths.data_root()}/images"


def _require_private(store: str) -> None:
    """That nobody else can put a program into an image that root runs."""
    status = os.stat(store)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise ImageError(
            "use image store",
            store,
            "others own it or may write to it",
            remedy="chown and chmod 0700 it, or set GOCKER_ROOT to a directory of your own",
        )


def _unknown(name: str) -> ImageError:
    names = ", ".join(image.name for image in list_images())
    reason = f"not in {_store()}, which has {names or 'none'}"
    return ImageError("find image", name, reason, remedy="use the image base, or --rootfs DIR")


def _error(operation: str, name: str, error: OSError) -> ImageError:
    remedy = "set GOCKER_ROOT to a directory of your own that can be written"
    if error.errno in {errno.EACCES, errno.EPERM} and os.geteuid() != 0:
        remedy = f"run gocker as root, or {remedy}"
    elif error.errno in {errno.ENOSPC, errno.EDQUOT}:
        remedy = f"free some space, or {remedy}"
    number = error.errno or 0
    reason = f"{errno.errorcode.get(number, 'error')}: {os.strerror(number)}"
    return ImageError(operation, f"{name} in {_store()}", reason, remedy=remedy, errno=number)
