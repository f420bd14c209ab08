"""Seccomp: BPF instructions, installing a filter, and the binding to libseccomp that compiles one.

Only `compile_rules` and `library_version` load libseccomp: a start whose filter is cached does not.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from typing import Any

from gocker.errors import KernelError, errno_name
from gocker.kernel.syscalls import call

INSTRUCTION_SIZE = 8  # struct sock_filter
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS

# include/uapi/linux/seccomp.h
SET_MODE_FILTER = 1
FILTER_FLAGS = {
    "SECCOMP_FILTER_FLAG_LOG": 1 << 1,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 1 << 2,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 1 << 5,  # Linux 5.19, and with a listener alone
}
NEW_LISTENER = 1 << 3
"""SECCOMP_FILTER_FLAG_NEW_LISTENER: there is an fd by which NOTIFY asks."""
KILL_PROCESS, KILL_THREAD, TRAP, ERRNO = 0x80000000, 0x00000000, 0x00030000, 0x00050000
TRACE, LOG, ALLOW = 0x7FF00000, 0x7FFC0000, 0x7FFF0000
NOTIFY = 0x7FC00000

# include/uapi/linux/audit.h
ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_* by machine (as uname -m says it)."""

# enum scmp_compare of libseccomp's seccomp.h
COMPARE = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}

Argument = tuple[int, int, int, int]
"""(index, one of COMPARE, value, second value): for MASKED_EQ the mask and what must be left."""
SyscallRule = tuple[str, int, tuple[Argument, ...]]
"""(system call, action, comparisons that must all hold)."""

_LIBRARY = "libseccomp.so.2"
_PATHS = (
    "/usr/lib/x86_64-linux-gnu/libseccomp.so.2",
    "/usr/lib/aarch64-linux-gnu/libseccomp.so.2",
    "/usr/lib64/libseccomp.so.2",
    "/usr/lib/libseccomp.so.2",
    "/lib/libseccomp.so.2",
)
_loaded: dict[str, Any] = {}
_REMEDY = "apt-get install libseccomp2, or --security-opt seccomp=unconfined"
_ATTR_ACT_BADARCH, _ATTR_CTL_OPTIMIZE = 2, 8  # enum scmp_filter_attr
_BINARY_TREE = 2
_UNKNOWN = -1  # __NR_SCMP_ERROR: the library does not know the name
_ARGUMENT = struct.Struct("=IIQQ")  # struct scmp_arg_cmp
_PROGRAM = struct.Struct("@HQ")  # struct sock_fprog: length, pointer
_INSTRUCTION = struct.Struct("=HBBI")

# BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_RET|K
_LD_WORD, _JEQ, _JGE, _RET = 0x20, 0x15, 0x35, 0x06


def load(offset: int) -> bytes:
    """Load the 32-bit word at `offset` of struct seccomp_data."""
    return _INSTRUCTION.pack(_LD_WORD, 0, 0, offset)


def jump_if_equal(value: int, then: int, otherwise: int) -> bytes:
    """Skip `then` instructions when the loaded word is `value`, else `otherwise`."""
    return _INSTRUCTION.pack(_JEQ, then, otherwise, value)


def jump_if_at_least(value: int, then: int, otherwise: int) -> bytes:
    """Skip `then` instructions when the loaded word is `value` or above, else `otherwise`."""
    return _INSTRUCTION.pack(_JGE, then, otherwise, value)


def answer(action: int) -> bytes:
    """End with `action`: ALLOW, ERRNO | number, ..."""
    return _INSTRUCTION.pack(_RET, 0, 0, action)


def has_answer(program: bytes, action: int) -> bool:
    """Whether `program` may end with `action`."""
    wanted = answer(action)
    return any(
        program[at : at + INSTRUCTION_SIZE] == wanted for at in range(0, len(program), INSTRUCTION_SIZE)
    )


def install_filter(program: bytes, flags: int = 0) -> int:
    """Put `program` in force for this process and what it execs, for good.

    Return the listener's fd with NEW_LISTENER, which is close-on-exec, else 0. Needs no_new_privs or CAP_SYS_ADMIN in the user namespace. Raise OSError. Source: seccomp(2).
    """
    code = ctypes.create_string_buffer(program, len(program))
    header = _PROGRAM.pack(len(program) // INSTRUCTION_SIZE, ctypes.addressof(code))
    return call("seccomp", SET_MODE_FILTER, flags, header)


def library_stamp() -> str:
    """What tells one installed libseccomp from another without loading it; "" when it is nowhere usual."""
    for path in _PATHS:
        try:
            info = os.stat(path)
        except OSError:
            continue
        return f"{info.st_size}.{info.st_mtime_ns}.{info.st_ino}"
    return ""


def library_version() -> tuple[int, int, int]:
    """(major, minor, micro) of the libseccomp here; raise KernelError when there is none."""
    numbers = _load().seccomp_version().contents
    return numbers[0], numbers[1], numbers[2]


def syscall_number(name: str, machine: str) -> int | None:
    """The number of `name` on `machine`; negative when it has no such call, None when unknown."""
    number = _load().seccomp_syscall_resolve_name_arch(ARCHES[machine], name.encode())
    return None if number == _UNKNOWN else number


def compile_rules(
    default_action: int,
    rules: Iterable[SyscallRule],
    *,
    machine: str,
    foreign: tuple[str, ...] = (),
) -> bytes:
    """A BPF program that answers `default_action` unless a rule holds; other ABIs are killed.

    `machine` is as uname -m says it; `foreign` are libseccomp's names of further ABIs that are let in
    ("x86"). Calls that this machine does not have, or whose name the library does not know, are left
    out. Raise KernelError.
    """
    library = _load()
    context = library.seccomp_init(default_action)
    if not context:
        raise KernelError("compile seccomp filter", "", "libseccomp refused the default action")
    try:
        _choose_arches(library, context, machine, foreign)
        _check(
            "set attribute", "bad arch", library.seccomp_attr_set(context, _ATTR_ACT_BADARCH, KILL_PROCESS)
        )
        # A tree instead of a list: the kernel walks it once per system call number when it is installed.
        library.seccomp_attr_set(context, _ATTR_CTL_OPTIMIZE, _BINARY_TREE)  # refused before 2.5: a list
        for name, action, arguments in rules:
            if action != default_action:  # libseccomp calls that an error
                _add(library, context, name, action, arguments)
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def _choose_arches(library: Any, context: int, machine: str, foreign: tuple[str, ...]) -> None:
    native = library.seccomp_arch_native()
    wanted = ARCHES[machine]
    if wanted != native:
        _check("add architecture", machine, library.seccomp_arch_add(context, wanted))
        _check("remove architecture", machine, library.seccomp_arch_remove(context, native))
    for name in foreign:
        token = library.seccomp_arch_resolve_name(name.encode())
        if not token:
            raise KernelError("add architecture", name, "libseccomp does not know it")
        result = library.seccomp_arch_add(context, token)
        if result != -errno.EEXIST:
            _check("add architecture", name, result)


def _add(library: Any, context: int, name: str, action: int, arguments: tuple[Argument, ...]) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number == _UNKNOWN:
        return
    data = b"".join(_ARGUMENT.pack(*argument) for argument in arguments)
    result = library.seccomp_rule_add_array(context, action, number, len(arguments), data)
    if result not in {-errno.EEXIST, -errno.EDOM}:  # there already; not on this machine
        _check("add rule", name, result)


def _export(library: Any, context: int) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        _check("export filter", "", library.seccomp_export_bpf(context, fd))
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


def _check(operation: str, target: str, result: int) -> None:
    if result < 0:
        reason = f"{errno_name(-result)}: {os.strerror(-result)}"
        raise KernelError(f"compile seccomp filter: {operation}", target, reason, errno=-result)


def _load() -> Any:
    """The library with its functions declared."""
    if _LIBRARY in _loaded:
        return _loaded[_LIBRARY]
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise KernelError("load", _LIBRARY, str(error), remedy=_REMEDY) from error
    word, pointer, text, number = ctypes.c_uint32, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "seccomp_version": (ctypes.POINTER(ctypes.c_uint * 3), []),
        "seccomp_init": (pointer, [word]),
        "seccomp_release": (None, [pointer]),
        "seccomp_attr_set": (number, [pointer, number, word]),
        "seccomp_arch_native": (word, []),
        "seccomp_arch_resolve_name": (word, [text]),
        "seccomp_arch_add": (number, [pointer, word]),
        "seccomp_arch_remove": (number, [pointer, word]),
        "seccomp_syscall_resolve_name": (number, [text]),
        "seccomp_syscall_resolve_name_arch": (number, [word, text]),
        "seccomp_rule_add_array": (number, [pointer, word, number, ctypes.c_uint, text]),
        "seccomp_export_bpf": (number, [pointer, number]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    _loaded[_LIBRARY] = library
    return library
