"""What several verbs need: the spec of a bundle or of a container, the log, files that callers name."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
import time

from gocker import paths
from gocker.audit import AuditLog, current_actor
from gocker.errors import GockerError, UsageError
from gocker.lasting import Lasting
from gocker.model import ContainerSpec
from gocker.ocicli.log import LOG
from gocker.registry import Registry

_MAX_CONFIG = 4 << 20  # bytes; SECURITY R13
_PID_ATTEMPTS = 30  # while others write the same file
_PID_NAP = 0.0005  # seconds: those that take each other's away are out of step behind it
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


def audit_log() -> AuditLog:
    """The log of this command."""
    return AuditLog(paths.audit_log(), current_actor(sys.argv))


def read_bundle(
    bundle: str,
    name: str,
    container: str,
    registry: Registry,
    annotations: tuple[str, ...] = (),
    *,
    systemd: bool = False,
) -> tuple[ContainerSpec, bytes]:
    """The spec of a bundle, and its config, with more `annotations` (NAME=VALUE). Raise GockerError.

    With `systemd` the config has a cgroupsPath, and it is one for systemd.
    """
    directory = os.path.abspath(bundle or ".")
    data = read_text_file("read bundle", os.path.join(directory, name))
    if annotations:
        data = _annotated(data, annotations)
    if systemd:
        from gocker.oci.document import parse_document
        from gocker.ocicli.scoping import with_path

        data = json.dumps(with_path(parse_document(data, "read config.json"), container)).encode()
    spec, warnings = _read(data, container, directory, registry, systemd=systemd)
    for warning in warnings:
        LOG.warn(warning)
    return spec, data


def _annotated(data: bytes, texts: tuple[str, ...]) -> bytes:
    from gocker.oci.document import parse_document

    document = parse_document(data, "read config.json")
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError("set --annotation", text, "not NAME=VALUE")
        pairs[name] = value
    there = document.get("annotations") or {}
    if not isinstance(there, dict):
        return data  # the reader says what is wrong
    return json.dumps({**document, "annotations": {**there, **pairs}}).encode()


def spec_of_lasting(lasting: Lasting, registry: Registry, *, for_exec: bool = False) -> ContainerSpec:
    """The spec that a container was created from, or that of one more process in it. Raise GockerError."""
    data = lasting.config.encode("utf-8", "surrogateescape")
    return _read(data, lasting.id, lasting.bundle, registry, systemd=None, for_exec=for_exec)[0]


def _read(
    data: bytes,
    container: str,
    bundle: str,
    registry: Registry,
    *,
    systemd: bool | None,
    for_exec: bool = False,
) -> tuple[ContainerSpec, tuple[str, ...]]:
    from gocker.oci.spec import read_config  # state, kill and their like do without
    from gocker.ociresources import deal_all

    return read_config(
        data,
        container=container,
        bundle=bundle,
        limits=lambda resources, annotations: deal_all(resources, annotations, registry),
        systemd_cgroup=systemd,
        for_exec=for_exec,
    )


def read_text_file(operation: str, path: str) -> bytes:
    """All of a regular file or a pipe, of at most 4 MiB. Raise UsageError."""
    try:
        fd = os.open(path, _READ)
        try:
            mode = os.fstat(fd).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
                raise UsageError(operation, path, "neither a file nor a pipe")
            os.set_blocking(fd, True)
            return read_fd(operation, path, fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise UsageError.from_os(operation, path, error) from error


def read_fd(operation: str, path: str, fd: int) -> bytes:
    """All that is left to read, at most 4 MiB. Raise UsageError, OSError."""
    data = b""
    while part := os.read(fd, 1 << 16):
        data += part
        if len(data) > _MAX_CONFIG:
            raise UsageError(operation, path, f"longer than {_MAX_CONFIG >> 20} MiB")
    return data


def write_pid_file(path: str, pid: int) -> None:
    """Write the pid, whole or not at all. Raise GockerError.

    It is written beside the file and renamed, under one name for all: what a killed gocker left there, the
    next one with this file replaces.
    """
    if not path:
        return
    directory, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(directory, f".{name}.gocker")
    try:
        for attempt in range(1, _PID_ATTEMPTS + 1):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            try:
                _make_and_rename(temporary, path, b"%d" % pid)
            except (FileExistsError, FileNotFoundError):
                if attempt == _PID_ATTEMPTS:
                    raise
                time.sleep(attempt * (1 + pid % 7) * _PID_NAP)
            else:
                return
    except OSError as error:
        raise GockerError.from_os("write pid file", path, error) from error


def _make_and_rename(temporary: str, path: str, data: bytes) -> None:
    """Another gocker that writes the same file may take `temporary` away: then ENOENT, or EEXIST, is raised."""
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
    os.rename(temporary, path)


def send_console(path: str, master: int) -> None:
    """Hand the pty master over by the caller's socket, and close ours. Raise GockerError."""
    try:
        _send(path, b"/dev/ptmx", master)
    except OSError as error:
        raise GockerError.from_os("send console to", path, error) from error
    finally:
        os.close(master)


def send_pidfd(path: str, pid: int) -> None:
    """Hand a pidfd of our child `pid` over by the caller's socket, if there is one. Raise GockerError."""
    if not path:
        return
    try:
        pidfd = os.pidfd_open(pid)
        try:
            _send(path, b"pidfd", pidfd)
        finally:
            os.close(pidfd)
    except OSError as error:
        raise GockerError.from_os("send pidfd to", path, error) from error


def _send(path: str, text: bytes, fd: int) -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as client:
        client.connect(path)
        socket.send_fds(client, [text], [fd])
