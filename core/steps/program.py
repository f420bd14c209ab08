"""Finds the program of a container, and says beforehand why it cannot be started.

Runs inside, as the container's user, before the seccomp filter. It decides nothing that safety
rests on: what the exec stub is given may be exchanged in between (SECURITY R1 holds all the same).
"""

from __future__ import annotations

import errno
import os
import stat

from gocker.errors import ExecError
from gocker.kernel.inroot import RESOLVE_NO_MAGICLINKS, openat2
from gocker.lowering import Code, Failure
from gocker.plan import Context, Step
from gocker.steps import quote

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What docker sets; searched when the environment has no PATH."""

_HEAD = 256  # BINPRM_BUF_SIZE: what the kernel looks at
_MAX_SCRIPTS = 5  # a script whose interpreter is a script ...: the kernel gives up after as many
_MAX_PATH = 4096
_PT_INTERP = 3
_AT_FDCWD = -100
# Offsets in Elf64_Ehdr and Elf64_Phdr, Elf32_Ehdr and Elf32_Phdr: elf(5).
_ELF64 = {"phoff": (32, 8), "phentsize": (54, 2), "phnum": (56, 2), "offset": (8, 8), "filesz": (32, 8)}
_ELF32 = {"phoff": (28, 4), "phentsize": (42, 2), "phnum": (44, 2), "offset": (4, 4), "filesz": (16, 4)}
_MAX_PHDRS = 64


def find_program(name: str, path: str | None) -> str:
    """The path to exec for `name`: itself when it has a `/`, else the first fit in `path`.

    `path` is the container's PATH, None when it has none; only its absolute directories count.
    Raise ExecError: ENOENT when there is no such file, EACCES when there is one that this user cannot
    execute, and what the kernel would say of its interpreter.
    """
    if "/" in name:
        _check_executable(name, name)
        _check_header(name, name, 0)
        return name
    search = DEFAULT_PATH if path is None else path
    refused: ExecError | None = None
    for directory in search.split(":"):
        candidate = f"{directory}/{name}"
        if not name or not directory.startswith("/"):
            continue
        try:
            _check_executable(candidate, name)
        except ExecError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
                refused = refused or error
            continue
        _check_header(candidate, name, 0)
        return candidate
    if refused:
        raise refused
    raise _not_found(name, search)


def _not_found(name: str, search: str) -> ExecError:
    return ExecError("exec", name, f"ENOENT: not found in PATH={search}", errno=errno.ENOENT)


def _check_executable(path: str, name: str) -> None:
    """Raise ExecError unless `path` is a regular file that this process may execute."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise ExecError.from_os("exec", path, error) from error
    if not stat.S_ISREG(mode):
        raise _no_file(path, "a directory" if stat.S_ISDIR(mode) else "not a regular file")
    if not os.access(path, os.X_OK, effective_ids=True):
        raise _no_mode(path, name, os.geteuid())
    _refuse_magic_link(path, path)


def _no_file(path: str, kind: str) -> ExecError:
    return ExecError("exec", path, f"EACCES: it is {kind}", errno=errno.EACCES)


def _no_mode(path: str, name: str, uid: int) -> ExecError:
    reason = f"EACCES: uid {uid} may not execute it"
    return ExecError("exec", path, reason, remedy=f"chmod +x {name}", errno=errno.EACCES)


def _refuse_magic_link(path: str, name: str) -> None:
    """Raise ExecError when a magic link of /proc is on the way, such as /proc/self/exe.

    At the exec it would name gocker's stub, and as an interpreter the stub for ever.
    """
    start = os.open("/", os.O_PATH | os.O_CLOEXEC) if path.startswith("/") else _AT_FDCWD
    try:
        os.close(openat2(start, path, os.O_PATH, RESOLVE_NO_MAGICLINKS))
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise ExecError.from_os("exec", name, error) from error
        raise _magic_link(path, name) from error
    finally:
        if start != _AT_FDCWD:
            os.close(start)


def _magic_link(path: str, name: str) -> ExecError:
    through = "itself" if path == name else f"by its interpreter {path}"
    reason = f"ELOOP: {through} a link of /proc to gocker's own program"
    return ExecError("exec", name, reason, errno=errno.ELOOP)


def _check_header(path: str, name: str, depth: int) -> None:
    """Look for the interpreter that `path` asks for; what cannot be read is left to the kernel."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        return  # execute-only
    except OSError as error:
        raise ExecError.from_os("exec", path, error) from error
    try:
        head = os.pread(fd, _HEAD, 0)
        interpreter = _script_interpreter(head, path) if head[:2] == b"#!" else _elf_interpreter(fd, head)
    finally:
        os.close(fd)
    if interpreter and depth < _MAX_SCRIPTS:
        wanted = os.fsdecode(interpreter)
        _check_interpreter(wanted, name)
        if head[:2] == b"#!":
            _check_header(wanted, name, depth + 1)


def _check_interpreter(path: str, name: str) -> None:
    try:
        _check_executable(path, name)
    except ExecError as error:
        if error.errno == errno.ELOOP:
            _refuse_magic_link(path, name)
        raise _no_interpreter(path, name, error) from error


def _no_interpreter(path: str, name: str, error: ExecError) -> ExecError:
    remedy = "the script has DOS line ends" if path.endswith("\r") else ""
    if error.errno == errno.ENOENT and not remedy:
        remedy = "put it into the root file system"
    reason = f"its interpreter {path!r}: {error.reason}"
    return ExecError("exec", name, reason, remedy=remedy, errno=error.errno)


def _script_interpreter(head: bytes, path: str) -> bytes:
    """The interpreter of a `#!` line: the kernel's fs/binfmt_script.c."""
    words = head[2:].split(b"\n", 1)[0].replace(b"\t", b" ").split(b" ")
    interpreter = next((word for word in words if word), b"").split(b"\0", 1)[0]
    if not interpreter:
        raise _no_word(path)
    return interpreter


def _no_word(path: str) -> ExecError:
    return ExecError("exec", path, "ENOEXEC: no interpreter after #!", errno=errno.ENOEXEC)


def _elf_interpreter(fd: int, head: bytes) -> bytes:
    """The PT_INTERP of an ELF file, b"" when it has none or is something else."""
    layouts = {b"\x7fELF\x02\x01": _ELF64, b"\x7fELF\x01\x01": _ELF32}
    layout = layouts.get(head[:6])
    if layout is None or len(head) < 64:
        return b""
    start, size, count = (_field(head, layout[key]) for key in ("phoff", "phentsize", "phnum"))
    if start > 1 << 62 or size < 32 or size > 256:
        return b""
    table = os.pread(fd, size * min(count, _MAX_PHDRS), start)
    for at in range(0, len(table) - size + 1, size):
        entry = table[at : at + size]
        if int.from_bytes(entry[:4], "little") == _PT_INTERP:
            offset = _field(entry, layout["offset"])
            length = min(_field(entry, layout["filesz"]), _MAX_PATH)
            return os.pread(fd, length, offset).split(b"\0", 1)[0] if offset < 1 << 62 else b""
    return b""


def _field(data: bytes, place: tuple[int, int]) -> int:
    start, size = place
    return int.from_bytes(data[start : start + size], "little")


class FindProgram(Step):
    """Look the command up as the container's user, before few files or a filter stand in the way."""

    op = "find-program"

    name: str
    path: str | None = None  # the container's PATH, None when it has none

    def describe(self) -> str:
        """`command -v NAME`."""
        where = "" if "/" in self.name or self.path is None else f"PATH={quote(self.path)} "
        return f"{where}command -v {quote(self.name)}"

    def execute(self, ctx: Context) -> None:
        """Leave the path to Exec; raise ExecError."""
        ctx.program = find_program(self.name, self.path)

    def emit(self, code: Code) -> None:
        """The same, by the executor's own reading of the headers."""
        search = DEFAULT_PATH if self.path is None else self.path
        code.builtin(
            "find_program",
            os.fsencode(self.name),
            os.fsencode(search),
            explain=lambda failure: _explained(failure, self.name, search),
        )
        code.has_program = True


# Kinds of failure of the built-in, as executor.c has them.
(_NOT_FOUND, _STAT, _DIRECTORY, _NO_FILE, _MODE, _LINK, _HEADER, _NO_WORD, _LOOKUP) = range(40, 49)
_IN_INTERPRETER, _BY_INTERPRETER = 0x100, 0x200


def _explained(failure: Failure, name: str, search: str) -> Exception:
    path, kind = failure.text, failure.where & 0xFF
    if failure.where & _BY_INTERPRETER:  # the second look at it, which says so by itself
        return _magic_link(path, name) if kind == _LINK else _from_number(name, failure.errno)
    if failure.where & _IN_INTERPRETER:
        inner = _explained(failure._replace(where=kind), path, search)
        return _no_interpreter(path, name, inner) if isinstance(inner, ExecError) else inner
    if kind == _NOT_FOUND:
        return _not_found(name, search)
    if kind in {_DIRECTORY, _NO_FILE}:
        return _no_file(path, "a directory" if kind == _DIRECTORY else "not a regular file")
    if kind == _MODE:
        return _no_mode(path, name, failure.euid)
    if kind == _LINK:
        return _magic_link(path, path)
    if kind == _NO_WORD:
        return _no_word(path)
    return _from_number(path, failure.errno)


def _from_number(target: str, number: int) -> ExecError:
    made = ExecError.from_os("exec", target, OSError(number, os.strerror(number)))
    assert isinstance(made, ExecError)  # noqa: S101 - from_os makes what it is called on
    return made
