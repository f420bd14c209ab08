"""Whom a container runs as: a user's text, resolved against the container's own passwd and group, and taken on.

Source: passwd(5), group(5). As docker: a user without a group gets the one of passwd and the
supplementary groups of /etc/group; with `USER:GROUP` only that group.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable, Iterable, Iterator

from gocker.errors import GockerError, UsageError
from gocker.kernel import ids
from gocker.kernel.inroot import DIRECTORY, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from gocker.kernel.mount import DEVPTS_MAGIC, file_system_magic
from gocker.lowering import Code, Data, Failure, NotLoweredError
from gocker.plan import Context, Step
from gocker.record import Record
from gocker.steps import quote

MAX_ID = (1 << 32) - 2  # 2**32-1 means "leave it" to setresuid(2)
_MAX_DATABASE = 10 << 20
_DATABASE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY
_REMEDY = "give numbers: --user UID:GID"
_PIPEFS_MAGIC = 0x50495045  # include/uapi/linux/magic.h


class Identity(Record):
    """Ids to take on."""

    uid: int
    gid: int
    groups: tuple[int, ...]  # supplementary, the primary among them
    home: str


def parse_id(text: str) -> int | None:
    """The number that `text` is, None for a name; raise UsageError for a number that is no id.

    Only decimal digits make a number (no sign, no underscore, no other script's digits).
    """
    if not (text.isascii() and text.isdigit()):
        if text[:1] in {"+", "-"} and text[1:].isdigit():
            raise UsageError("parse id", text, f"not from 0 to {MAX_ID}")
        return None
    if len(text) > len(str(MAX_ID)) or int(text) > MAX_ID:
        raise UsageError("parse id", text, f"not from 0 to {MAX_ID}")
    return int(text)


def split_user(text: str) -> tuple[str, str]:
    """`user:group` as (user, group), an absent group as ""; "" is root. Raise UsageError."""
    user, colon, group = text.partition(":")
    if text and (not user or (colon and not group) or ":" in group or "\0" in text or "\n" in text):
        raise UsageError("parse user", text, "not USER or USER:GROUP")
    for part in (user, group):
        parse_id(part)
    return user, group


def read_database(root: int, path: str) -> bytes:
    """/etc/passwd or /etc/group below the directory fd `root`; b"" when it is not there.

    It belongs to the image: a link, a device or a huge file is an error. Raise GockerError.
    """
    try:
        fd = openat2(root, path, _DATABASE, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else ""
        raise _refused(path, reason or os.strerror(error.errno or 0), error.errno or 0) from error
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise _refused(path, "not a regular file", errno.EINVAL)
        if info.st_size > _MAX_DATABASE:
            raise _refused(path, f"larger than {_MAX_DATABASE >> 20} MiB", errno.EFBIG)
        return os.read(fd, info.st_size)
    finally:
        os.close(fd)


def _refused(path: str, reason: str, number: int) -> GockerError:
    return GockerError("read", path, reason, remedy=_REMEDY, errno=number)


def resolve_user(user: str, extra: Iterable[str], read: Callable[[str], bytes]) -> Identity:
    """The ids of `user` ("", "uid", "uid:gid", "name", "name:group") with the further groups `extra`.

    `read` gives the text of "etc/passwd" and "etc/group". Where all is numbers they only say where
    HOME is, and one that cannot be read is passed over. Raise UsageError when a name is in neither,
    and what `read` raises.
    """
    name, group_name = split_user(user)
    number = parse_id(name) if name else 0
    try:
        passwd = read("etc/passwd")
    except GockerError:
        if number is None or not group_name:
            raise
        passwd = b""
    group = read("etc/group") if _needs_groups(group_name, extra) else b""
    uid, gid, account, home = _find_user(name, number, passwd)
    member_of: list[int] = []
    if group_name:
        gid = _find_group(group_name, group)
    elif account:
        member_of = [number for _, number, members in _groups(group) if account in members]
    # The primary group among them, so that a set-group-id program cannot drop it: CVE-2022-36109.
    groups = [gid, *member_of, *(_find_group(text, group) for text in extra)]
    return Identity(uid=uid, gid=gid, groups=tuple(dict.fromkeys(groups)), home=home)


def _needs_groups(group_name: str, extra: Iterable[str]) -> bool:
    return not group_name or any(parse_id(text) is None for text in (group_name, *extra))


def _find_user(name: str, number: int | None, passwd: bytes) -> tuple[int, int, bytes, str]:
    """(uid, gid, account name, home); a number that passwd does not list has gid 0 and home /."""
    wanted = os.fsencode(name)
    for account, uid, gid, home in _users(passwd):
        if uid == number if number is not None else account == wanted:
            return uid, gid, account, os.fsdecode(home) or "/"
    if number is None:
        raise _no_user(name)
    return number, 0, b"", "/"


def _no_user(name: str) -> UsageError:
    return UsageError("find user", name, "not in the container's /etc/passwd", remedy=_REMEDY)


def _no_group(name: str) -> UsageError:
    return UsageError("find group", name, "not in the container's /etc/group", remedy="give its number")


def _find_group(name: str, group: bytes) -> int:
    number = parse_id(name)
    if number is not None:
        return number
    wanted = os.fsencode(name)
    for account, gid, _ in _groups(group):
        if account == wanted:
            return gid
    raise _no_group(name)


def _users(passwd: bytes) -> Iterator[tuple[bytes, int, int, bytes]]:
    """(name, uid, gid, home) of each sound line."""
    for line in passwd.split(b"\n"):
        fields = line.split(b":")
        if len(fields) == 7 and fields[0]:
            uid, gid = _file_id(fields[2]), _file_id(fields[3])
            if uid is not None and gid is not None:
                yield fields[0], uid, gid, fields[5]


def _groups(group: bytes) -> Iterator[tuple[bytes, int, list[bytes]]]:
    """(name, gid, members) of each sound line."""
    for line in group.split(b"\n"):
        fields = line.split(b":")
        if len(fields) == 4 and fields[0]:
            gid = _file_id(fields[2])
            if gid is not None:
                yield fields[0], gid, fields[3].split(b",")


def _file_id(field: bytes) -> int | None:
    """An id in a file of the image; None for what is none, whose line then counts for nothing."""
    if not field.isdigit() or len(field) > len(str(MAX_ID)):
        return None
    number = int(field)
    return number if number <= MAX_ID else None


class SetUser(Step):
    """Take on the user and the groups, by the container's own /etc/passwd and /etc/group."""

    op = "set-user"

    user: str = ""  # "" is root; "uid", "uid:gid", "name", "name:group"
    groups: tuple[str, ...] = ()  # further ones, by name or number
    only: bool = False  # those groups and no other
    terminal: bool = False  # 0, 1 and 2 are a terminal of the container's own

    def describe(self) -> str:
        """`setpriv --reuid USER --regid GROUP --init-groups`."""
        user, _, group = self.user.partition(":")
        words = [f"--reuid {quote(user or '0')}"]
        words.append(f"--regid {quote(group)}" if group else "--init-groups")
        if self.groups:
            words.append(f"--groups {'' if self.only else '+'}{quote(',+'.join(self.groups))}")
        return " ".join(["setpriv", *words])

    def execute(self, ctx: Context) -> None:
        """Resolve, then setgroups, setresgid, setresuid. The permitted capabilities stay for now."""
        root = os.open("/", DIRECTORY | os.O_CLOEXEC)
        try:
            who = resolve_user(self.user, self.groups, lambda path: read_database(root, path))
        finally:
            os.close(root)
        _give_stdio(who.uid, terminal=self.terminal)
        groups = tuple(number for number in map(parse_id, self.groups) if number is not None)
        ids.set_ids(who.uid, who.gid, groups if self.only else who.groups)
        ctx.home = who.home

    def emit(self, code: Code) -> None:
        """The same, by the executor's own reading of the two files."""
        name, group = split_user(self.user)
        number = parse_id(name) if name else 0
        rows = [
            _who(code, name, number),
            *(_who(code, text, parse_id(text)) for text in (group, *self.groups)),
        ]
        (user, uid, name_at), (kind, gid, group_at), *extra = rows
        kind = (1 if kind else 2) if group else 0
        head = (user, uid, name_at, kind, gid, group_at, self.only, self.terminal, len(extra))
        flat = [value for row in extra for value in row]
        block = code.data(struct.pack(f"={len(head) + len(flat)}I", *head, *flat))

        def explain(failure: Failure) -> Exception:
            return _explained(failure, name)

        code.builtin("set_user", block, explain=explain)
        code.has_home = True


def _who(code: Code, text: str, number: int | None) -> tuple[int, int, Data]:
    """(whether it is a number, the number, where its text is)."""
    raw = os.fsencode(text)
    if b"\0" in raw:
        raise NotLoweredError("a name holds a NUL byte")
    return int(number is not None), number or 0, code.text(raw)


# Kinds of failure of the built-in, as executor.c has them.
_DATABASE_REFUSED, _IRREGULAR, _LARGE, _NO_USER, _NO_GROUP, _IDS = range(60, 66)


def _explained(failure: Failure, name: str) -> Exception:
    path, number = failure.text, failure.errno
    if failure.where == _NO_USER:
        return _no_user(name)
    if failure.where == _NO_GROUP:
        return _no_group(failure.text)
    if failure.where == _IRREGULAR:
        return _refused(path, "not a regular file", number)
    if failure.where == _LARGE:
        return _refused(path, f"larger than {_MAX_DATABASE >> 20} MiB", number)
    if failure.where == _IDS:
        return ids.not_taken(failure.text)
    reason = "it is a symbolic link" if number == errno.ELOOP else os.strerror(number)
    return _refused(path, reason, number)


def _give_stdio(uid: int, *, terminal: bool) -> None:
    """Let the user own the pipes and the terminal that are 0, 1 and 2, so that it can open /dev/stdout.

    Nothing else: a file or a terminal of the caller's stays the caller's.
    """
    theirs = {_PIPEFS_MAGIC, DEVPTS_MAGIC} if terminal else {_PIPEFS_MAGIC}
    for fd in (0, 1, 2):
        info = os.fstat(fd)
        if info.st_uid == uid or file_system_magic(fd) not in theirs:
            continue
        try:
            os.fchown(fd, uid, -1)
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EINVAL}:  # its owner is not mapped here
                raise
