"""`gocker.Container`: one container as an object, shaped after subprocess.Popen."""

from __future__ import annotations

import _socket
import contextlib
import io
import json
import os
import select
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any, Self

from gocker.embedding import carrier
from gocker.embedding.ends import Collector, Feeder
from gocker.embedding.request import DEVNULL, PIPE, STDOUT, Request, Text, make_request, stream_number
from gocker.embedding.result import CompletedContainer, result_of
from gocker.embedding.words import unpack
from gocker.errors import GockerError, KernelError, StateError

_CHUNK = 64 << 10
_PATIENCE = 10.0  # seconds for a container that is given up
_SIGTERM, _SIGKILL = 15, 9

Stream = int | IO[Any] | None

running: weakref.WeakSet[Container] = weakref.WeakSet()
"""Those that were started and have not been seen to end."""


class Container:
    """A container that `start`, or `with`, starts, and that is removed when its program ends.

    It ends with the program that started it, and with this object: keep it. Safe to start in any thread, and to
    wait for in another one.
    """

    def __init__(
        self,
        args: Sequence[Text],
        *,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Text | None = None,
        limits: Mapping[str, str | float] | None = None,
        rootfs: Text | None = None,
        image: str | None = None,
        user: str | int | None = None,
        volumes: Sequence[Text] = (),
        network: str | None = None,
        hostname: str | None = None,
        name: str | None = None,
        options: Sequence[str] = (),
        text: bool = False,
        encoding: str | None = None,
        errors: str | None = None,
    ) -> None:
        """Check the arguments; nothing is started.

        `args` is the command inside. `stdin` None is nothing, `stdout` and `stderr` None are the program's own;
        else as subprocess has it: PIPE, DEVNULL, STDOUT, a file, an fd. After `timeout` seconds it is killed.
        `env` is added to PATH and HOSTNAME, `cwd` is a directory inside. `limits` are those of `--limit`:
        {"memory": "100m", "pids": 64}. `rootfs` is a directory, or else `image` (`base`). `volumes` are
        "SRC:DST[:ro]", `network` "none" (the default), "host" or "ns:PATH". `options` are further words of
        `gocker run`: ["--read-only", "--userns", "private"]. With `text`, or `encoding` (else UTF-8) or
        `errors`, output is str. Raise TypeError or ValueError.
        """
        self._request: Request = make_request(
            args,
            image=image,
            rootfs=rootfs,
            limits=limits,
            env=env,
            cwd=cwd,
            user=user,
            volumes=volumes,
            network=network,
            hostname=hostname,
            name=name,
            options=options,
            timeout=timeout,
        )
        self._wanted = tuple(
            stream_number(which, stream)
            for which, stream in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr))
        )
        self._encoding = encoding or "utf-8" if text or encoding or errors else ""
        self._errors = errors or "strict"
        self._lock = threading.Lock()
        self._channel: _socket.socket | None = None
        self._heard = b""
        self._failure: GockerError | None = None
        self._over = False
        self._collectors: dict[str, Collector] = {}
        self._feeder: Feeder | None = None
        self.args = self._request.args
        self.id = ""
        """Of the container, once its program runs."""
        self.name = name or ""
        self.pid = 0
        """Of its first process, on the host."""
        self.result: CompletedContainer | None = None
        """How it ended, once it has; without what `communicate` returns."""
        self.stdin: IO[Any] | None = None
        self.stdout: IO[Any] | None = None
        self.stderr: IO[Any] | None = None

    def __repr__(self) -> str:
        state = "not started" if self._channel is None else "running" if not self._over else "ended"
        return f"<gocker.Container {self.id or list(self.args)}: {state}>"

    @property
    def returncode(self) -> int | None:
        """The program's exit status, -N when signal N ended it; None until `poll` or `wait` has seen its end."""
        return None if self.result is None else self.result.returncode

    def start(self) -> Self:
        """Return when the program runs. Raise GockerError when it does not come to that."""
        self._launch()
        try:
            while not (self.pid or self._over):
                self._step([self._listen()], None)
        except BaseException:
            self._abandon()
            raise
        self._require()
        return self

    def _launch(self) -> None:
        """Begin; what comes of it is heard later."""
        if self._channel is not None:
            raise StateError("start container", self.name, "it was started before")
        kinds, fds = self._open_streams()
        message = {
            "args": self.args,
            "words": self._request.words,
            "timeout": self._request.timeout,
            "streams": kinds,
            "actor": _actor(),
        }
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        self._channel = ours
        running.add(self)
        try:
            carrier.carry(theirs, message, fds)
        except OSError as error:
            self._end()
            raise KernelError.from_os("start", "the container's attendant", error) from error

    def _open_streams(self) -> tuple[list[str], list[int]]:
        """What the attendant is told about each stream, and the fds for it. Raise OSError."""
        kinds: list[str] = []
        fds: list[int] = []
        try:
            for number, which in enumerate(("stdin", "stdout", "stderr")):
                wanted = self._wanted[number]
                if wanted is None:
                    wanted = DEVNULL if number == 0 else number
                if wanted == PIPE:
                    kinds.append("end")
                    fds.append(self._pipe(which))
                elif wanted == STDOUT:
                    kinds.append("same")
                elif wanted == DEVNULL or (self._wanted[number] is None and not _is_open(wanted)):
                    kinds.append("null")
                else:
                    kinds.append("file")
                    fds.append(os.dup(wanted))
        except BaseException:
            for fd in fds:
                os.close(fd)
            self._close_streams()
            raise
        return kinds, fds

    def _pipe(self, which: str) -> int:
        read, write = os.pipe2(os.O_CLOEXEC)
        ours, theirs = (write, read) if which == "stdin" else (read, write)
        file: IO[Any] = open(ours, "wb" if which == "stdin" else "rb")  # noqa: SIM115 - the object's, as Popen's
        if self._encoding:
            file = io.TextIOWrapper(file, self._encoding, self._errors, write_through=True)
        setattr(self, which, file)
        return theirs

    def poll(self) -> int | None:
        """The exit status if it has ended, else None. Raise GockerError when it never ran."""
        self._started()
        self._hear()
        self._require()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once all of it is gone. Raise TimeoutExpired after `timeout` seconds; it goes on then."""
        self._started()
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._over:
            self._step([self._listen()], deadline)
            self._check(deadline, timeout)
        self._require()
        assert self.result is not None  # noqa: S101 - else there was an error
        return self.result.returncode

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:  # noqa: A002 - Popen's
        """Give it `input`, take all that it writes until its end: (stdout, stderr), None for what is no PIPE.

        Raise TimeoutExpired after `timeout` seconds: it goes on, and what has come is kept for the next call.
        """
        self._started()
        self._begin(input)
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._over:
            self._step(self._interests(), deadline)
            self._check(deadline, timeout)
        output = self._collect()
        self._require()
        return output

    def _begin(self, data: Any) -> None:
        """Put what `communicate` moves in place of the files."""
        if self.stdin is not None and self._feeder is None:
            content = data.encode(self._encoding, self._errors) if isinstance(data, str) else data
            self._feeder = Feeder(_take_fd(self.stdin), content or b"")
            self.stdin = None
        elif data and self._feeder is None:
            raise ValueError("there is input, but stdin is not PIPE")
        for which in ("stdout", "stderr"):
            file: IO[Any] | None = getattr(self, which)
            if file is not None and which not in self._collectors:
                self._collectors[which] = Collector(_take_fd(file))
                setattr(self, which, None)

    def _interests(self) -> list[tuple[int, int, Any]]:
        """(fd, poll mask, what to do then) of all that there is to wait for."""
        movers = ((mover.fd, mover.mask, mover.step) for mover in self._movers() if mover.fd >= 0)
        return [self._listen(), *movers]

    def _movers(self) -> list[Collector | Feeder]:
        movers: list[Collector | Feeder] = [*self._collectors.values()]
        return [*movers, self._feeder] if self._feeder else movers

    def _listen(self) -> tuple[int, int, Any]:
        assert self._channel is not None  # noqa: S101 - it was started
        return self._channel.fileno(), select.POLLIN, self._hear

    @staticmethod
    def _step(interests: list[tuple[int, int, Any]], deadline: float | None) -> None:
        """Wait for one of them and do it. `deadline` is a time.monotonic()."""
        poll = select.poll()
        actions = {}
        for fd, mask, action in interests:
            poll.register(fd, mask)
            actions[fd] = action
        for fd, _ in poll.poll(None if deadline is None else max(0, (deadline - time.monotonic()) * 1000)):
            actions[fd]()

    def _check(self, deadline: float | None, timeout: float | None) -> None:
        if deadline is not None and not self._over and time.monotonic() >= deadline:
            from gocker.embedding.failures import TimeoutExpired

            out, err = (self._text(which, partial=True) for which in ("stdout", "stderr"))
            raise TimeoutExpired(self.args, timeout or 0.0, out, err)

    def _collect(self) -> tuple[Any, Any]:
        """It has ended: the rest of its output, and all of it."""
        for collector in self._collectors.values():
            collector.drain()
        if self._feeder is not None:
            self._feeder.close()
        return self._text("stdout"), self._text("stderr")

    def _text(self, which: str, *, partial: bool = False) -> Any:
        collector = self._collectors.get(which)
        if collector is None:
            return None
        if not self._encoding:
            return collector.data
        # What a deadline cuts short may end within a character.
        text = collector.data.decode(self._encoding, "replace" if partial else self._errors)
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def _hear(self) -> None:
        """Take what the attendant has said. Threads that wait take turns."""
        with self._lock:
            channel = self._channel
            if self._over or channel is None:
                return
            try:
                data = channel.recv(_CHUNK, _socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            self._heard += data
            *lines, self._heard = self._heard.split(b"\n")
            for line in lines:
                self._take(json.loads(line))
            if not data and not self._over:
                self._failure = KernelError(
                    "attend to", self.name or self.args[0], "its attendant was killed"
                )
                self._end()

    def _take(self, message: dict[str, Any]) -> None:
        if "started" in message:
            started = message["started"]
            self.id, self.name, self.pid = started["id"], started["name"], started["pid"]
            return
        if "error" in message:
            self._failure = unpack(message["error"])
        else:
            ended = message["ended"]
            self.result = result_of(self.args, ended)
            self.id, self.name = self.result.id, self.result.name
            if ended["error"]:
                self._failure = unpack(ended["error"])
        self._end()

    def _end(self) -> None:
        self._over = True
        running.discard(self)

    def _require(self) -> None:
        """Raise what gocker could not do."""
        if self._failure is not None:
            self._close_streams()
            raise self._failure

    def _started(self) -> None:
        if self._channel is None:
            raise StateError(
                "use container", self.name or self.args[0], "it was not started", remedy="start()"
            )

    def send_signal(self, number: int) -> None:
        """Pass a signal to the program, as `gocker run` does; nothing happens once it has ended."""
        self._started()
        if not 0 < number < 65:
            raise ValueError(f"{number} is not the number of a signal")
        assert self._channel is not None  # noqa: S101 - it was started
        if not self._over:
            try:
                self._channel.send(bytes([number]))
            except (BrokenPipeError, ConnectionResetError):
                return  # it has ended

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(_SIGTERM)

    def kill(self) -> None:
        """SIGKILL, to all in it."""
        self.send_signal(_SIGKILL)

    def _give_up(self) -> None:
        """Have it killed and removed; nobody takes interest in it any more."""
        channel = self._channel
        if channel is not None and not self._over:
            try:
                channel.shutdown(_socket.SHUT_WR)
            except OSError:
                return  # the attendant is gone

    def _abandon(self) -> None:
        """Have it killed, and wait until nothing is left of it."""
        self._give_up()
        deadline = time.monotonic() + _PATIENCE
        while self._channel is not None and not self._over and time.monotonic() < deadline:
            self._step([self._listen()], deadline)
        self._release()

    def _release(self) -> None:
        """Close all that is open."""
        for mover in self._movers():
            mover.close()
        self._close_streams()
        if self._channel is not None:
            self._channel.close()
        self._end()

    def _close_streams(self) -> None:
        for file in (self.stdin, self.stdout, self.stderr):
            if file is not None:
                with contextlib.suppress(BrokenPipeError):  # what was buffered has no reader
                    file.close()

    def _forget(self) -> None:
        """In a fork of the program: this is not ours."""
        self._lock = threading.Lock()
        self._failure = StateError("use container", self.name, "it is another process's")
        self._release()

    def __enter__(self) -> Self:
        return self if self._channel is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for its end; after an exception, kill it before that."""
        if kind is not None:
            self._abandon()
            return
        try:
            if self.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    self.stdin.close()
            if not self._over:
                self.wait()
        except BaseException:
            self._abandon()
            raise
        self._release()

    def __del__(self) -> None:
        channel = getattr(self, "_channel", None)
        if channel is not None:
            channel.close()


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _take_fd(file: IO[Any]) -> int:
    """The fd of a file, of our own; the file is closed."""
    fd = os.dup(file.fileno())
    file.close()
    return fd


def _actor() -> dict[str, Any]:
    """Who acts: this program, as the audit log has it."""
    from gocker.audit import current_actor

    return current_actor(sys.argv)
