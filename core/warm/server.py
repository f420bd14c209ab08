"""The server: imports everything, forks workers ahead of the commands, sees to it that it is up to date, goes.

It does no command itself, opens nothing of a container's, and has one thread: what it forks is as it is. It
ends by SIGTERM, when nobody has needed it for some time, and when what is installed has changed.
"""

from __future__ import annotations

import _socket
import contextlib
import gc
import importlib
import os
import pkgutil
import select
import signal
import struct
import sys
import time
from collections.abc import Iterable, Mapping
from typing import NoReturn

import gocker
from gocker import __version__, paths
from gocker.errors import GockerError
from gocker.kernel import inotify, native, stub
from gocker.kernel.sigmask import BLOCK, SETMASK, SIGINFO_SIZE, change_mask, mask_of, parse_siginfo, signal_fd
from gocker.warm.surroundings import files_of, steering, surroundings_of
from gocker.warm.worker import Command, Post, own_limits, work
from gocker.warmfolder import Server, WarmFolder

_BACKLOG = 64
_SPARE = 4  # idle workers
_LEAST = 2  # below it there is no waiting for a better moment to make more
_LULL = 0.02  # seconds without a new command: to fork costs the commands that run meanwhile
_REHEARSALS = 16  # twice what makes CPython 3.11 specialise a function, PEP 659
_NOT_USED = ("gocker.testing", "gocker.__main__", "gocker.stub")
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(arguments: list[str]) -> NoReturn:
    """Be the server: its programs' directory, idle timeout in seconds, an fd to report to, `sys.path[0]` of the command."""
    programs, timeout, report, first = arguments
    gc.disable()
    if first:
        sys.path.insert(0, first)
    status, said = 1, ""
    try:
        said = _Server(programs, float(timeout)).run(int(report))
        status = 0
    except GockerError as error:
        said = str(error)
    except OSError as error:
        said = f"start warm server: {error}"
    with contextlib.suppress(OSError):
        os.write(int(report), said.encode("utf-8", "backslashreplace"))
    os._exit(status)


class _Server:
    """One, from its folder to its end."""

    def __init__(self, programs: str, timeout: float) -> None:
        self._programs = [f"{programs}/gocker", f"{programs}/gocker-oci"]
        self._timeout = timeout
        self._folder = WarmFolder(paths.state_root())
        self._idle: dict[int, int] = {}  # pid -> pidfd
        self._busy: dict[int, int] = {}
        self._used = time.monotonic()

    def run(self, report: int) -> str:
        """Serve; return what is to be said when there is no need to. Raise GockerError, OSError."""
        if not self._folder.take():
            return "there is one already"
        try:
            self._post = post = self._prepare()
            self._signals = signal_fd(self._block())
            self._fill(_SPARE)
            os.write(report, b"\n")  # it is ready
            os.close(report)
            self._attend(post)
        finally:
            self._folder.release()
        # Idle workers end with this process, by PR_SET_PDEATHSIG; the others when their command has.
        return ""

    def _prepare(self) -> Post:
        loaded = load_everything()
        os.chdir("/")
        rehearse()
        self._folder.describe(
            Server(
                pid=os.getpid(),
                version=__version__,
                program=self._programs[0],
                started=int(time.time()),
                idle_timeout=self._timeout,
            )
        )
        native.executor_fd(stub.STATUS_FD + 1)
        stub.stub_fd(stub.STATUS_FD + 1)
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        directory = os.open(self._folder.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        listener.bind(f"/proc/self/fd/{directory}/socket")  # such a path has at most 107 bytes
        os.close(directory)
        listener.listen(_BACKLOG)
        self._taken, taken = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._taken, False)
        surroundings, _ = surroundings_of("/proc/self")
        post = Post(
            listener=listener,
            taken=taken,
            changes=inotify.watch(loaded),
            commands=_commands(),
            programs=files_of(self._programs),
            surroundings=surroundings,
            steering=steering(os.environb),
            limits=own_limits(),
            server=os.getpid(),
            null=os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC),
        )
        gc.collect()
        gc.freeze()
        return post

    def _block(self) -> int:
        mask = mask_of((*_ENDING, signal.SIGCHLD))
        self._mask = change_mask(BLOCK, mask)
        return mask

    def _fill(self, wanted: int) -> None:
        while len(self._idle) < wanted:
            pid = os.fork()
            if not pid:
                self._become_worker()
            self._idle[pid] = os.pidfd_open(pid)

    def _become_worker(self) -> NoReturn:
        try:
            self._folder.forget()
            for fd in (self._signals, self._taken, *self._idle.values(), *self._busy.values()):
                os.close(fd)
            change_mask(SETMASK, self._mask)
            work(self._post)
        finally:
            os._exit(125)

    def _attend(self, post: Post) -> None:
        poll = select.poll()
        for fd in (self._signals, self._taken, post.changes):
            poll.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(self._patience() * 1000)}
            if self._signals in ready or self._taken in ready:
                self._note_taken()  # first: who ends is no more idle
            if self._signals in ready and self._reap():
                return
            if post.changes in ready and self._is_outdated():
                return
            if not ready and len(self._idle) < _SPARE:
                self._fill(_SPARE)
            elif len(self._idle) < _LEAST:
                self._fill(_LEAST)
            if self._busy:
                self._used = time.monotonic()
            elif time.monotonic() - self._used >= self._timeout:
                return

    def _patience(self) -> float:
        """Seconds until there is something to do, whatever comes."""
        if len(self._idle) < _SPARE:
            return _LULL
        return max(0.0, self._timeout - (time.monotonic() - self._used)) + 0.001 if not self._busy else 3600.0

    def _note_taken(self) -> None:
        try:
            data = os.read(self._taken, 4096)
        except BlockingIOError:
            return
        for (pid,) in struct.iter_unpack("=i", data):
            if pid in self._idle:
                self._busy[pid] = self._idle.pop(pid)
                self._used = time.monotonic()

    def _reap(self) -> bool:
        """Take those that ended; whether this process is to end."""
        data = os.read(self._signals, 64 * SIGINFO_SIZE)
        ended = any(number != signal.SIGCHLD for number, _, _, _ in parse_siginfo(data))
        while self._idle or self._busy:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            if pid in self._idle:
                os.close(self._idle.pop(pid))
                ended = True  # before it took a command: the next one would fare no better
            elif pid in self._busy:
                os.close(self._busy.pop(pid))
        return ended

    def _is_outdated(self) -> bool:
        return any(name != b"__pycache__" for name in inotify.names_of(self._post.changes))


def load_everything() -> set[str]:
    """Import all that a command may need; return the directories that hold it or decide what would be imported."""
    import resource  # noqa: F401
    import termios  # noqa: F401
    import tty  # noqa: F401

    from gocker.audit import AuditLog
    from gocker.registry import Registry

    _import_below(gocker.__path__, "gocker.")
    AuditLog("/", {}).load()
    registry = Registry()
    registry.controllers()
    registry.namespaces()
    directories = set()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file:
            directories |= {os.path.dirname(file), os.path.dirname(os.path.realpath(file))}
    directories |= {entry for entry in sys.path if entry}
    return {path for path in directories if os.path.isdir(path)}


def _import_below(path: Iterable[str], prefix: str) -> None:
    for info in pkgutil.iter_modules(path, prefix):
        if info.name in _NOT_USED or info.name.startswith("gocker.plugins"):
            continue
        with contextlib.suppress(ImportError):  # an option of gocker that is not installed
            module = importlib.import_module(info.name)
            if info.ispkg:
                _import_below(module.__path__, f"{info.name}.")


def rehearse() -> None:
    """Plan a run some times, and touch nothing: what the interpreter and gocker learn by it the workers know already."""
    from gocker import engine
    from gocker.cli import quick
    from gocker.cli.flags import RUN_FLAGS
    from gocker.cli.spec import build_spec
    from gocker.lowering import can_lower
    from gocker.registry import Registry

    options = quick.parse(RUN_FLAGS, ["--limit", "memory=100m", "--rootfs", "/usr", "true"])
    for _ in range(_REHEARSALS):
        plan = engine.plan(build_spec(options, str), Registry(), cache=False).plan
        plan.to_json()
        [can_lower(step) for step in plan.init]


def _commands() -> Mapping[bool, Command]:
    from gocker.cli.main import run
    from gocker.ocicli.main import run as run_oci

    return {False: run, True: run_oci}
