"""The assembler of the native executor: a step's init-phase work as system calls with registers, and its errors as data.

A step that can be lowered has a method `emit(code)` beside `execute`; what it emits does the same calls
in the same order, and each call that may fail remembers how `execute` would have said so. core/native/executor.c
is the machine: one chunk for each step, words of 64 bits, 256 registers, data that are written in place.
"""

from __future__ import annotations

import errno as _errno
import json
import os
import stat
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from gocker.errors import ExecError, GockerError, errno_name
from gocker.kernel import mount
from gocker.kernel.inroot import DIRECTORY
from gocker.kernel.syscalls import NUMBERS
from gocker.model import ContainerSpec
from gocker.plan import Step

Explain = Callable[["Failure"], Exception]
Wrap = Callable[[Exception, "Failure"], Exception]
_Raisers = dict[int, tuple[str, Explain | None, tuple[Wrap, ...]]]

_LONG, _DIGITS = 16, frozenset("0123456789abcdef")
SHORT = 12  # characters of a random id's short form
_MOST_KEPT = 2000
_kept: dict[
    Any, tuple[Any, ...]
] = {}  # what became of a step in a state; the same step comes in most starts of a process


def is_random(container: str) -> bool:
    """Whether an id has the form of `gocker.state.new_id`: no text has it in it by chance."""
    return len(container) == _LONG and _DIGITS.issuperset(container)


class Register(int):
    """The number of a register; as an argument, what is in it."""


class Data(int):
    """An offset in the data of a chunk; as an argument, its address."""


class Label:
    """A place in the code to jump to."""

    __slots__ = ("at", "uses")

    def __init__(self) -> None:
        self.at = -1
        self.uses: list[int] = []  # words whose upper half is the target


class Failure(NamedTuple):
    """What the executor says of a call that failed; `text` is the path or the kernel's own words."""

    place: int  # of the step in the init phase
    at: int  # word in the step's chunk
    errno: int
    where: int  # kind of failure of a built-in, else 0
    euid: int
    permitted: int  # capabilities of the process at that moment
    text: str
    blob: bytes

    @classmethod
    def parse(cls, packet: bytes) -> Failure:
        """From struct failure."""
        index, at, number, where, euid, permitted, size, more = _FAILURE.unpack_from(packet)
        end = _FAILURE.size + size
        text = os.fsdecode(packet[_FAILURE.size : end])
        return cls(index, at, number, where, euid, permitted, text, packet[end : end + more])


_FAILURE = struct.Struct("=4xIIiIIQII")
FAILED = b"!"

PID, ROOT, HOME, PROGRAM = Register(1), Register(2), Register(3), Register(4)
"""Of this process as the launcher sees it; ctx.root; ctx.home and ctx.program as addresses."""
_FIRST_FREE, _SCRATCH, _MOST = 24, 8, 250

# Operations and argument kinds of executor.c.
_END, _CALL, _CATCH, _JUMP, _TEST, _LOAD, _STORE, _SET, _BUILTIN = range(9)
_RETRY = 1
_BUILTIN_NAMES = (
    "fail",
    "open_in",
    "directory",
    "file",
    "directory_entry",
    "file_entry",
    "new_mount",
    "magic",
    "fd_path",
    "text",
    "find_program",
    "set_user",
    "drop_bounding",
    "send_fd",
    "await_start",
    "exec",
    "exit",
    "number",
    "same",
    "or",
    "node",
    "open_node",
    "last_digits",
)
_BUILTINS = {name: number for number, name in enumerate(_BUILTIN_NAMES)}
WHERE_SPLIT = 30
QUIET, AT_HOST, PARKS, DISARMS = 1, 2, 4, 8
# New ids clear PR_SET_PDEATHSIG, and make dumpable again where the sysctl fs.suid_dumpable is 1: commit_creds().
DISARMING = frozenset({"become-root", "set-user"})
"""Steps after which the first process arms itself anew."""
ADDS_HOME, ADDS_PID, BY_STUB = 1, 2, 4
"""Flags of the built-in `exec`."""
_CHUNK = struct.Struct("=4I")
_ALL = (1 << 64) - 1
MOST_CHUNKS = 512

_X86_64 = {
    "read": 0,
    "write": 1,
    "madvise": 28,
    "close": 3,
    "fstat": 5,
    "ioctl": 16,
    "dup": 32,
    "socket": 41,
    "fcntl": 72,
    "chdir": 80,
    "fchdir": 81,
    "umask": 95,
    "setsid": 112,
    "getsid": 124,
    "getpid": 39,
    "geteuid": 107,
    "sched_setaffinity": 203,
    "openat": 257,
    "mkdirat": 258,
    "fchownat": 260,
    "newfstatat": 262,
    "symlinkat": 266,
    "fchmodat": 268,
    "dup3": 292,
    "pipe2": 293,
}
_AARCH64 = {
    "read": 63,
    "write": 64,
    "madvise": 233,
    "close": 57,
    "fstat": 80,
    "ioctl": 29,
    "dup": 23,
    "socket": 198,
    "fcntl": 25,
    "chdir": 49,
    "fchdir": 50,
    "umask": 166,
    "setsid": 157,
    "getsid": 156,
    "getpid": 172,
    "geteuid": 175,
    "sched_setaffinity": 122,
    "openat": 56,
    "mkdirat": 34,
    "fchownat": 54,
    "newfstatat": 79,
    "symlinkat": 36,
    "fchmodat": 53,
    "dup3": 24,
    "pipe2": 59,
}
_MACHINE = os.uname().machine
_NUMBERS = {**({"x86_64": _X86_64, "aarch64": _AARCH64}.get(_MACHINE, {})), **NUMBERS}
# struct stat: offsets of st_mode, st_uid, st_gid, st_rdev; st_dev is at 0 and st_ino at 8 on both.
STAT_MODE, STAT_UID, STAT_GID, STAT_RDEV = (24, 28, 32, 40) if _MACHINE == "x86_64" else (16, 24, 28, 32)
STAT_DEV, STAT_INO, STAT_SIZE = 0, 8, 144
S_IFMT = 0o170000
PROC_INODE = 1  # of the root of a procfs: PROC_ROOT_INO of the kernel's include/linux/proc_fs.h


class NotLoweredError(Exception):
    """This step, as it is here, is the Python executor's."""


_known: dict[type[Step], bool] = {}


def can_lower(step: Step) -> bool:
    """Whether a step can be lowered: its class has an `emit` that is not older than its `execute`.

    An instance that has got an `execute` of its own counts for itself.
    """
    cls = type(step)
    known = _known.get(cls)
    if known is None:
        known = _known[cls] = cls.at_host or _has_own_emit(cls)
    if "execute" in step.__dict__ and "emit" not in step.__dict__:
        return False
    return known and step.lowers


def _has_own_emit(cls: type[Step]) -> bool:
    for base in cls.__mro__:
        if "emit" in base.__dict__:
            return base is not Step
        if "execute" in base.__dict__:
            return False
    return False


class Code:
    """The program of one init phase, step by step."""

    def __init__(self, spec: ContainerSpec | None, window: bytes, fds: tuple[str, ...], status: int) -> None:
        """`fds` are the names in ctx.fds at the clone, `status` the number of the channel's fd."""
        self.spec = spec
        self.window = window
        self.status = status
        self.fds = {name: Register(_FIRST_FREE + number) for number, name in enumerate(fds)}
        self.named = tuple(self.fds.values())
        self._id = spec.id if spec else ""
        self._names = fds
        self._parked = False  # what comes now is told to another launcher than ours
        self.has_home = False
        self.has_program = False
        self.result = Register(0)  # where the last call left what it returned
        self._next = _FIRST_FREE + len(fds)
        self._free: list[int] = []
        self._scratch = _SCRATCH
        self._words: list[int] = []
        self._data = bytearray()
        self._strings: dict[bytes, Data] = {}
        self._wraps: tuple[Wrap, ...] = ()
        self._labels: list[Label] = []
        self._raisers: list[_Raisers | None] = []
        self._chunks: list[bytes] = []
        self._steps: list[tuple[Step, bool, bool]] = []

    # What a step emits.

    def call(
        self,
        name: str,
        *args: int | bytes,
        into: Register | None = None,
        retry: bool = False,
        path: str = "",
    ) -> Register:
        """The system call `name`: ints, Registers, Data and texts, which get a NUL. `path` is the OSError's.

        Return the register of the result, a scratch one without `into`. With `retry` EAGAIN has it tried again.
        """
        return self._emit(_CALL, _NUMBERS[name], args, into, path, None, _RETRY if retry else 0)

    def builtin(
        self,
        name: str,
        *args: int | bytes,
        into: Register | None = None,
        path: str = "",
        explain: Explain | None = None,
    ) -> Register:
        """The same for what executor.c has built in; `explain` makes the exception of its own failures."""
        return self._emit(_BUILTIN, _BUILTINS[name], args, into, path, explain, 0)

    def fail(self, error: Exception, number: int = 0) -> None:
        """Raise `error` here."""
        self.builtin("fail", number or _errno.EINVAL, 1, explain=lambda _: error)

    def set(self, register: Register, value: int | bytes) -> None:
        """Put a value, an address or another register into `register`."""
        self._emit(_SET, 0, (value,), register, "", None, 0)

    def catch(self, number: int, label: Label | None = None) -> None:
        """Go on at `label`, or right after, when the call before failed with errno `number`; 0 is any."""
        word = _CATCH | number << 16
        if label is not None:
            label.uses.append(len(self._words))
        self._words.append(word)

    def jump(self, label: Label) -> None:
        """Go on at `label`."""
        label.uses.append(len(self._words))
        self._words.append(_JUMP)

    def jump_if(
        self, register: Register, value: int, label: Label, mask: int = _ALL, *, other: bool = False
    ) -> None:
        """Go on at `label` when the bits of `mask` are `value`; with `other` when they are not."""
        label.uses.append(len(self._words))
        self._words += (_TEST | register << 8 | other << 16, mask, value & _ALL)

    def load(self, place: int, size: int, into: Register | None = None) -> Register:
        """`size` bytes of the data at `place`, as a number."""
        register = self.scratch() if into is None else into
        self._words.append(_LOAD | register << 8 | size << 16 | place << 32)
        return register

    def store(self, register: Register, place: int, size: int) -> None:
        """The reverse."""
        self._words.append(_STORE | register << 8 | size << 16 | place << 32)

    def label(self) -> Label:
        """A label that is placed later."""
        label = Label()
        self._labels.append(label)
        return label

    def place(self, label: Label) -> None:
        """It is here."""
        label.at = len(self._words)

    def data(self, content: bytes | int) -> Data:
        """Bytes, or so many of them, aligned to 8."""
        self._data += bytes(-len(self._data) % 8)
        place = Data(len(self._data))
        self._data += content if isinstance(content, bytes) else bytes(content)
        return place

    def text(self, content: bytes) -> Data:
        """A text and its NUL, each but once. Raise ValueError, as os does, when it holds one."""
        place = self._strings.get(content)
        if place is None:
            if b"\0" in content:
                raise NotLoweredError("a text holds a NUL byte")
            place = self._strings[content] = Data(len(self._data))
            self._data += content
            self._data.append(0)
        return place

    def scratch(self) -> Register:
        """A register until the end of the step, one of a few that go round."""
        self._scratch = self._scratch + 1 if self._scratch < _FIRST_FREE - 1 else _SCRATCH
        return Register(self._scratch)

    def register(self) -> Register:
        """One that stays."""
        if self._free:
            return Register(self._free.pop())
        if self._next >= _MOST:
            raise NotLoweredError("too many file descriptors")
        self._next += 1
        return Register(self._next - 1)

    def release(self, register: Register) -> None:
        """It may be another's."""
        if register >= _FIRST_FREE:
            self._free.append(register)

    def close(self, register: Register) -> None:
        """Close the fd in it."""
        self.call("close", register, into=Register(0))

    def explained(self, wrap: Wrap) -> _Explained:
        """For `with`: what is raised inside goes through `wrap(error, failure)`, as an `except` would have it."""
        return _Explained(self, wrap)

    # The program.

    def add(self, step: Step, *, disarms: bool, parks: bool) -> None:
        """Lower one step, or take what became of it, or of one like it, the last time. Raise NotLoweredError."""
        self._steps.append((step, disarms, parks))
        if step.at_host or parks or self._parked:
            self._lower(step, disarms=disarms, parks=parks)
            self._parked |= parks
            return
        key = (step.template(self._id), self._state())
        kept = _kept.get(key)
        if kept is None:
            self._lower(step, disarms=disarms, parks=parks)
            if len(_kept) >= _MOST_KEPT:
                _kept.clear()
            fds, free = tuple(self.fds.items()), tuple(self._free)
            _kept[key] = (self._chunks[-1], self._id, fds, free, self._next, self.has_home, self.has_program)
            return
        chunk, other, fds, free, self._next, self.has_home, self.has_program = kept
        if other != self._id and key[0] is not step:
            # The texts are of the same length, so that all else is where it was.
            chunk = chunk.replace(other.encode(), self._id.encode()).replace(
                other[:SHORT].encode(), self._id[:SHORT].encode()
            )
        self.fds, self._free = dict(fds), list(free)
        self._chunks.append(chunk)
        self._raisers.append(None)

    def _state(self) -> tuple[Any, ...]:
        """All that what a step emits depends on, beside the step."""
        return (
            tuple(self.fds.items()),
            tuple(self._free),
            self._next,
            self.has_home,
            self.has_program,
            self.status,
            self.window,
        )

    def _lower(self, step: Step, *, disarms: bool, parks: bool) -> None:
        flags = (QUIET if step.quiet else 0) | (DISARMS if disarms else 0) | (PARKS if parks else 0)
        self._words, self._data, self._strings, self._labels = [], bytearray(), {}, []
        self._scratch = _SCRATCH
        self._raisers.append({})
        if step.at_host:
            flags |= AT_HOST
        else:
            if not can_lower(step):
                raise NotLoweredError(step.op)
            step.emit(self)
        words = self._words
        words.append(_END)
        for label in self._labels:
            if label.uses and label.at < 0:
                raise AssertionError(f"{step.op}: a label was never placed")
            for use in label.uses:
                words[use] |= label.at << 32
        code = struct.pack(f"={len(words)}Q", *words)
        self._data += bytes(-len(self._data) % 8)
        blob = self._words_for_strangers(len(self._chunks)) if self._parked else b""
        size = _CHUNK.size + len(code) + len(self._data) + len(blob) + -len(blob) % 8
        head = _CHUNK.pack(size, _CHUNK.size + len(code), flags, len(blob))
        self._chunks.append(b"".join((head, code, self._data, blob, bytes(-len(blob) % 8))))

    def program(self) -> bytes:
        """All of it."""
        return b"".join(self._chunks)

    @property
    def chunks(self) -> int:
        """How many steps."""
        return len(self._chunks)

    def error(self, failure: Failure) -> Exception:
        """The exception that `execute` would have raised."""
        raisers = self._raisers[failure.place]
        if raisers is None:  # it was not lowered this time: do so
            again = Code(self.spec, self.window, self._names, self.status)
            for step, disarms, parks in self._steps:
                again._lower(step, disarms=disarms, parks=parks)
            return again.error(failure)
        return _error(failure, *raisers.get(failure.at, ("", None, ())))

    def step(self, failure: Failure) -> Step:
        """Which step failed."""
        return self._steps[failure.place][0]

    def _emit(
        self,
        op: int,
        number: int,
        args: tuple[int | bytes, ...],
        into: Register | None,
        path: str,
        explain: Explain | None,
        flags: int,
    ) -> Register:
        words = self._words
        at = len(words)
        words.append(0)
        kinds = shift = 0
        for value in args:
            kind = type(value)
            if kind is Register:
                kinds |= 1 << shift
                words.append(value)  # type: ignore[arg-type]
            elif kind is Data:
                kinds |= 2 << shift
                words.append(value)  # type: ignore[arg-type]
            elif kind is bytes:
                kinds |= 2 << shift
                words.append(self.text(value))  # type: ignore[arg-type]
            else:
                words.append(value & _ALL)  # type: ignore[operator]
            shift += 2
        register = self.scratch() if into is None else into
        self.result = register
        words[at] = op | register << 8 | len(args) << 16 | flags << 20 | kinds << 24 | number << 36
        if op != _SET:
            raisers = self._raisers[-1]
            if raisers is not None:
                raisers[at] = (path, explain, self._wraps)
        return register

    def _words_for_strangers(self, index: int) -> bytes:
        """What a launcher is to say that does not know this program: by place, then by errno.

        Another gocker starts what this one has created.
        """
        step = self._steps[index][0]
        table: dict[str, Any] = {}
        for at in self._raisers[index] or ():
            row: dict[str, Any] = {}
            for number in (0, *_USUAL):
                failure = Failure(index, at, number or _UNUSUAL, 0, os.geteuid(), _ALL, "", b"")
                row[str(number)] = failure_of(index, step, self.error(failure))
            usual = row["0"]
            table[str(at)] = {
                key: words
                for key, words in row.items()
                if key == "0" or not _is_alike(words, usual, int(key))
            }
        return json.dumps(table, separators=(",", ":")).encode()


class _Explained:
    __slots__ = ("before", "code", "wrap")

    def __init__(self, code: Code, wrap: Wrap) -> None:
        self.code = code
        self.wrap = wrap

    def __enter__(self) -> None:
        self.before = self.code._wraps
        self.code._wraps = (self.wrap, *self.before)

    def __exit__(self, *_: object) -> None:
        self.code._wraps = self.before


def failure_of(index: int, step: Step, error: BaseException) -> dict[str, Any]:
    """What the launcher is told of a step that failed."""
    remedy, number, executing = "", 0, False
    if isinstance(error, GockerError):
        reason, remedy, number = error.reason, error.remedy, error.errno
        executing = isinstance(error, ExecError)
    elif isinstance(error, OSError):
        number = error.errno or 0
        where = f" {error.filename}" if error.filename else ""
        reason = f"{errno_name(number)}: {error.strerror}{where}"
    else:
        reason = f"{type(error).__name__}: {error}"
    what = step.describe()[:_MAX_SHOWN]  # the words of Exec can be longer than a packet
    return {
        "index": index,
        "what": what,
        "reason": reason,
        "remedy": remedy,
        "errno": number,
        "exec": executing,
    }


# errno values that steps have remedies for, and one that none has.
_MAX_SHOWN = 1000  # characters of a step's line
_USUAL = (_errno.EPERM, _errno.ENOENT, _errno.E2BIG, _errno.EACCES, _errno.EINVAL, _errno.ENOSYS)
_UNUSUAL = 4000


def _is_alike(words: dict[str, Any], usual: dict[str, Any], number: int) -> bool:
    return told(usual, number) == words


def told(usual: dict[str, Any], number: int) -> dict[str, Any]:
    """The words for an errno that is not among the usual ones."""
    name = errno_name(number)
    reason = usual["reason"].replace(
        f"errno {_UNUSUAL}: {os.strerror(_UNUSUAL)}", f"{name}: {os.strerror(number)}"
    )
    return {**usual, "reason": reason, "errno": number if usual["errno"] == _UNUSUAL else usual["errno"]}


def words_from(failure: Failure) -> dict[str, Any]:
    """What to say of the failure of a program that this process does not know."""
    row = json.loads(failure.blob or b"{}").get(str(failure.at))
    if row is None:
        reason = f"{errno_name(failure.errno)}: {os.strerror(failure.errno)}"
        return {
            "index": failure.place,
            "what": "start it",
            "reason": reason,
            "remedy": "",
            "errno": failure.errno,
            "exec": False,
        }
    return row.get(str(failure.errno)) or told(row["0"], failure.errno)


def _error(failure: Failure, path: str, explain: Explain | None, wraps: tuple[Wrap, ...]) -> Exception:
    number = failure.errno
    if failure.where and explain is not None:
        error = explain(failure)
    elif failure.where == WHERE_SPLIT:
        error = GockerError("make mount point", failure.text, "not a path that can be made", errno=number)
    elif failure.where:
        error = AssertionError(f"failure {failure.where} is not explained")
    else:
        name = failure.text or path
        error = OSError(number, os.strerror(number), name) if name else OSError(number, os.strerror(number))
    for wrap in wraps:
        error = wrap(error, failure)
    return error


# What steps emit in the place of kernel/mount, kernel/inroot and their kin: each function does the calls of the one that it is
# named after, and fails in its words.

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
    return isinstance(error, OSError) and error.errno in {_errno.EPERM, _errno.EACCES}
