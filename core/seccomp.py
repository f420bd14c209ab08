"""The seccomp filter of a container: from a profile, compiled once and cached.

A start whose filter is cached neither parses a profile nor loads libseccomp: the name of the cache
file is a digest of everything that the filter depends on (docs/adr/0006-seccomp.md).
"""

from __future__ import annotations

import os
import stat
import time
from typing import Any

from gocker.digest import sha256
from gocker.errors import GockerError, UsageError
from gocker.kernel.seccomp import (
    FILTER_FLAGS,
    INSTRUCTION_SIZE,
    MAX_INSTRUCTIONS,
    NEW_LISTENER,
    NOTIFY,
    has_answer,
    library_stamp,
)
from gocker.model import ContainerSpec
from gocker.record import Record
from gocker.steps.exec import InstallSeccomp

DEFAULT, UNCONFINED = "default", "unconfined"
_COMPILER = "3"  # raise it when compiled filters change: older cache files are then not found
_DEFAULT_PROFILE = os.path.join(os.path.dirname(__file__), "data", "seccomp-default.json")
_MAX_PROFILE = 4 << 20
_LISTENER_ONLY = FILTER_FLAGS["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
_FLAGS = 4  # bytes before the program in a cache file
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Filter(Record):
    """A compiled filter."""

    profile: str  # "default" or the path of the profile, or its name
    program: bytes  # struct sock_filter[]
    flags: int = 0  # SECCOMP_FILTER_FLAG_*
    listener_path: str = ""  # with NEW_LISTENER: who is told of it
    listener_metadata: str = ""

    @property
    def instructions(self) -> int:
        """Length of the program in BPF instructions."""
        return len(self.program) // INSTRUCTION_SIZE

    @property
    def digest(self) -> str:
        """`sha256:HEX` of the program."""
        return f"sha256:{sha256(self.program).hexdigest()}"


def seccomp_step(spec: ContainerSpec, data_root: str, first: int = 0) -> InstallSeccomp | None:
    """The step that installs the filter of `spec`, None when it is unconfined; see `seccomp_filter`.

    `first` is the pid of the container's first process where this is one more of it.
    """
    wanted = (spec.seccomp, spec.seccomp_profile, spec.capabilities.bounding, data_root)
    known = _steps.get(wanted) if data_root else None
    seen = _seen(spec) if data_root else None
    if known and seen and known[0] == seen:
        return known[1]
    step = _step(spec, data_root, first)
    if seen and type(step) is InstallSeccomp:
        if len(_steps) >= _MAX_STEPS:
            _steps.clear()
        _steps[wanted] = seen, step
    return step


_steps: dict[tuple[Any, ...], tuple[tuple[int, ...], InstallSeccomp]] = {}
"""Of earlier starts in this process, beside what tells whether the profile is still the same."""
_MAX_STEPS = 16
_RACY = (
    2_000_000_000  # ns: what was changed so lately may change again within one tick of the file's time stamps
)


def _seen(spec: ContainerSpec) -> tuple[int, ...] | None:
    """What tells one state of the profile's file from another; None for what is read each time."""
    if spec.seccomp_profile:
        return (0,)
    if spec.seccomp == UNCONFINED:
        return None
    try:
        info = os.stat(_DEFAULT_PROFILE if spec.seccomp == DEFAULT else spec.seccomp)
    except OSError:
        return None
    if time.time_ns() - info.st_ctime_ns < _RACY:
        return None
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def _step(spec: ContainerSpec, data_root: str, first: int) -> InstallSeccomp | None:
    found = seccomp_filter(spec.seccomp, spec.capabilities.bounding, data_root, spec.seccomp_profile)
    if found is None:
        return None
    values: dict[str, Any] = {
        "profile": found.profile,
        "digest": found.digest,
        "instructions": found.instructions,
        "flags": found.flags,
        "program": found.program,
    }
    if not found.flags & NEW_LISTENER:
        return InstallSeccomp(**values)
    from gocker.steps.seccomplistener import InstallWithListener

    path, metadata = found.listener_path, found.listener_metadata
    return InstallWithListener(**values, listener=path, metadata=metadata, first=first)


def seccomp_filter(
    profile: str, capabilities: tuple[str, ...], data_root: str, text: str = ""
) -> Filter | None:
    """The filter for `profile` (default, unconfined or the path of a file), None for unconfined.

    `text` is the linux.seccomp of a config.json, whose name is then `profile`; `capabilities` are the container's
    bounding set. The cache is below `data_root` ("" for none); one that is odd or cannot be written is
    not used. Raise UsageError for a bad profile, KernelError without libseccomp.
    """
    if profile == UNCONFINED and not text:
        return None
    system = os.uname()
    data = os.fsencode(text) if text else _read_profile(profile)
    kind = "oci" if text else DEFAULT if profile == DEFAULT else "file"
    # The release stands for minKernel, the stamp for the names that libseccomp knows.
    parts = (_COMPILER, kind, system.machine, system.release, library_stamp(), capabilities)
    key = sha256(repr(parts).encode() + data).hexdigest()
    directory = _open_cache(data_root)
    try:
        cached = _read_cache(directory, key)
        if cached is None:
            cached = _compile(profile, kind, data, capabilities, system)
            _write_cache(directory, key, cached)
    finally:
        if directory >= 0:
            os.close(directory)
    flags = int.from_bytes(cached[:_FLAGS], "little")
    found = Filter(profile=profile, program=cached[_FLAGS:], flags=flags)
    if not flags & NEW_LISTENER:
        return found
    from gocker.seccompprofile import parse_profile

    asked = parse_profile(data, profile, system.machine, oci=kind == "oci")
    return found.replace(listener_path=asked.listener_path, listener_metadata=asked.listener_metadata)


def _read_profile(profile: str) -> bytes:
    path = _DEFAULT_PROFILE if profile == DEFAULT else profile
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise UsageError("read seccomp profile", path, "not a regular file")
            if info.st_size > _MAX_PROFILE:
                raise UsageError("read seccomp profile", path, f"larger than {_MAX_PROFILE >> 20} MiB")
            return os.read(fd, info.st_size)
        finally:
            os.close(fd)
    except OSError as error:
        raise GockerError.from_os("read seccomp profile", path, error) from error


def _compile(
    profile: str, kind: str, data: bytes, capabilities: tuple[str, ...], system: os.uname_result
) -> bytes:
    """Flags and program, as in a cache file."""
    from gocker.seccompcompile import compile_profile
    from gocker.seccompprofile import parse_profile

    parsed = parse_profile(data, profile, system.machine, oci=kind == "oci")
    strict = kind == DEFAULT
    program = compile_profile(parsed, capabilities, system.machine, system.release, strict=strict)
    if not _plausible(len(program)):
        raise UsageError(
            "compile seccomp profile",
            profile,
            f"{len(program) // INSTRUCTION_SIZE} instructions, the kernel takes {MAX_INSTRUCTIONS}",
        )
    flags = parsed.flags
    # Who listens waits for the fd, as of crun, whether or not there is anything to ask by it.
    asks = parsed.listener_path or has_answer(program, NOTIFY)
    flags = flags | NEW_LISTENER if asks else flags & ~_LISTENER_ONLY
    return flags.to_bytes(_FLAGS, "little") + program


def _plausible(size: int) -> bool:
    return size % INSTRUCTION_SIZE == 0 and 0 < size <= MAX_INSTRUCTIONS * INSTRUCTION_SIZE


def _private(info: os.stat_result, mode: int) -> bool:
    return info.st_uid == os.geteuid() and stat.S_IMODE(info.st_mode) == mode


def _open_cache(data_root: str) -> int:
    """An fd of the cache directory, made when missing; -1 for none: not gocker's alone, or cannot be made."""
    if not data_root:
        return -1
    path = f"{data_root}/cache/seccomp"
    try:
        try:
            fd = os.open(path, _DIRECTORY)
        except FileNotFoundError:
            os.makedirs(path, 0o700, exist_ok=True)
            fd = os.open(path, _DIRECTORY)
    except OSError:
        return -1  # read-only, full or odd: compiled each time, and right all the same
    if _private(os.fstat(fd), 0o700):
        return fd
    os.close(fd)
    return -1


def _read_cache(directory: int, key: str) -> bytes | None:
    """The bytes of a cache file; None when there is none, or none to trust."""
    if directory < 0:
        return None
    try:
        fd = os.open(f"{key}.bpf", _READ, dir_fd=directory)
    except OSError:
        return None
    try:
        info = os.fstat(fd)
        good = stat.S_ISREG(info.st_mode) and _private(info, 0o600) and info.st_nlink == 1
        if not good or not _plausible(info.st_size - _FLAGS):
            return None
        data = os.read(fd, info.st_size)
        return data if len(data) == info.st_size else None
    finally:
        os.close(fd)


def _write_cache(directory: int, key: str, data: bytes) -> None:
    """Keep `data` for the next start. A failure costs that start 10 ms and nothing else: no error."""
    if directory < 0:
        return
    temporary = f".{key}.{os.getpid()}"
    try:
        fd = os.open(temporary, _NEW, 0o600, dir_fd=directory)
        try:
            os.fchmod(fd, 0o600)
            os.write(fd, data)
            os.fsync(fd)  # a crash must not leave a name without its bytes
        finally:
            os.close(fd)
        os.rename(temporary, f"{key}.bpf", src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        _discard(directory, temporary)


def _discard(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except OSError:
        return  # it was not made
