"""One worker: waits for one command, does it in the place of the client, and ends.

The client is a process of the same user in the same surroundings, or it is told to do the command itself
(gocker.warm.surroundings). What the two do not share, this process takes over from it: streams, working
directory, environment, umask, limits of resources, ignored signals. What must be the client's own, its
children, stays there (gocker.warm.parent). No file system of a container is ever entered (SECURITY R1).
"""

from __future__ import annotations

import _socket
import contextlib
import os
import select
import signal
import struct
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

from gocker import __version__
from gocker.errors import EXIT_GOCKER_FAILED
from gocker.kernel import caller, native
from gocker.kernel.pages import own_pages
from gocker.kernel.process import PR_SET_PDEATHSIG
from gocker.kernel.sigmask import SETMASK, change_mask
from gocker.kernel.syscalls import call, prctl
from gocker.record import Record
from gocker.warm import protocol
from gocker.warm.parent import ClientParent
from gocker.warm.protocol import Request, parse_request
from gocker.warm.surroundings import Surroundings, is_plain, program_of, steering, surroundings_of

Command = Callable[[], int]
"""Does what sys.argv says, and returns the exit status."""

_FDS = 4  # stdin, stdout, stderr, working directory
_SO_PEERPIDFD = 77  # Linux 6.5
_SO_PASSCRED = 16
_SCM_CREDENTIALS = 2
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid
_LIMIT = struct.Struct("=QQ")
_SIGNALS = tuple(signal.valid_signals())  # not 32 and 33, the C library's, which its posix_spawn() ignores
_INTERRUPTED = 128 + 2


class Post(Record):
    """What a worker gets from its server."""

    listener: _socket.socket
    taken: int  # fd to tell the server by that the worker is no more idle
    changes: int  # fd that polls readable once the installation has changed
    commands: Mapping[bool, Command]  # by whether it is gocker-oci
    programs: frozenset[tuple[int, int]]  # the clients of this installation
    surroundings: Surroundings
    steering: tuple[tuple[bytes, bytes], ...]
    limits: tuple[tuple[int, int], ...]
    server: int  # its pid
    null: int  # fd of /dev/null


class _Unfit(Exception):  # noqa: N818 - it is no error
    """Why the client had better do it itself."""


def work(post: Post) -> NoReturn:
    """Wait for a client, serve it, end."""
    status = EXIT_GOCKER_FAILED
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != post.server:  # it ended before that was in force
            os._exit(status)
        own_pages()
        fd, _ = post.listener._accept()  # type: ignore[attr-defined]  # in no stub
        channel = _socket.socket(fileno=fd)
        post.listener.close()
        os.write(post.taken, struct.pack("=i", os.getpid()))
        prctl(PR_SET_PDEATHSIG, 0)  # from here on it is the client that counts
        status = _serve(channel, post)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the client or the server has gone
    except Exception:  # noqa: BLE001 - a bug: the client may see it, if that is what stderr is by now
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def _serve(channel: _socket.socket, post: Post) -> int:
    explains: list[int] = []
    try:
        request, fds = _receive(channel)
        if (b"GOCKER_WARM", b"explain") in request.env:
            explains.append(os.dup(fds[2]))
        pid = _verify(channel, request, post)
        _take_over(request, fds, post)
    except (_Unfit, ValueError) as unfit:
        return _cold(channel, str(unfit), explains)
    own = os.pidfd_open(os.getpid())
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, own.to_bytes(4, sys.byteorder))
    channel.sendmsg([protocol.message(protocol.WELCOME)], [rights])
    os.close(own)
    caller.stand_in(pid, channel.fileno(), lambda fd: _tell(channel, protocol.END_OUTPUT, fd))
    native.parent = lambda: ClientParent(channel)
    try:
        status = post.commands[request.oci]()
    except caller.GivenBackError as reason:
        return _cold(channel, str(reason), explains)
    except KeyboardInterrupt:
        if request.oci:
            _end_by(signal.SIGINT)
        status = _INTERRUPTED
    _leave(channel, post.null)
    channel.send(protocol.message(protocol.EXIT, status))
    return status


def _cold(channel: _socket.socket, reason: str, explains: list[int]) -> int:
    """Let the client do it; with GOCKER_WARM=explain say why."""
    for fd in explains:
        os.write(fd, f"gocker: not by the warm server: {reason}\n".encode("utf-8", "backslashreplace"))
    channel.send(protocol.message(protocol.COLD))
    return 0


def _tell(channel: _socket.socket, kind: int, value: int) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        channel.send(protocol.message(kind, value))


def _end_by(number: int) -> NoReturn:
    """The client does the same."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def _receive(channel: _socket.socket) -> tuple[Request, list[int]]:
    """The request and what came with it. Raise ValueError."""
    space = _socket.CMSG_SPACE(4 * _FDS)
    packet, control, flags, _ = channel.recvmsg(protocol.MOST, space, _socket.MSG_CMSG_CLOEXEC)
    fds = [
        fd
        for _, kind, data in control
        if kind == _socket.SCM_RIGHTS
        for (fd,) in struct.iter_unpack("=i", data)
    ]
    if len(fds) != _FDS or flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
        raise ValueError("not a request")
    return parse_request(packet), fds


def _verify(channel: _socket.socket, request: Request, post: Post) -> int:
    """The client's pid. Raise _Unfit when it is not just what the server is, or not of this installation."""
    if request.protocol != protocol.PROTOCOL or request.version != __version__:
        raise _Unfit("another version")
    poll = select.poll()
    poll.register(post.changes, select.POLLIN)
    if poll.poll(0):
        raise _Unfit("the installation has changed")
    if steering(dict(request.env)) != post.steering:
        raise _Unfit("its environment asks for another interpreter")
    pid, uid, _ = _CREDENTIALS.unpack(
        channel.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    if uid != os.geteuid():
        raise _Unfit("another user")
    pidfd = _pin(channel, pid)
    try:
        proc = f"/proc/{pid}"
        if program_of(proc) not in post.programs:
            raise _Unfit("not the client of this installation")
        found, ignored = surroundings_of(proc)
        if found != post.surroundings:
            raise _Unfit("other surroundings")
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if poll.poll(0):
            raise _Unfit("it has ended")  # what was looked at may have been another's
    except OSError as error:
        raise _Unfit(str(error)) from error
    finally:
        os.close(pidfd)
    for number in _SIGNALS:
        if ignored >> number - 1 & 1 and number not in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_IGN)
    return int(pid)


def _pin(channel: _socket.socket, pid: int) -> int:
    """A pidfd of the process that connected, whose pid was `pid` then. Raise _Unfit.

    Before Linux 6.5 the kernel does not keep the process: it may have ended, and the pid be another's. So
    ask for a word of it once there is a pidfd: that the pid is still the sender's the kernel vouches for.
    """
    try:
        data = channel.getsockopt(_socket.SOL_SOCKET, _SO_PEERPIDFD, 4)
        return int.from_bytes(data, sys.byteorder)
    except OSError:
        pass
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        raise _Unfit("it has ended") from error
    channel.setsockopt(_socket.SOL_SOCKET, _SO_PASSCRED, 1)
    channel.send(protocol.message(protocol.CHALLENGE))
    _, control, _, _ = channel.recvmsg(64, _socket.CMSG_SPACE(_CREDENTIALS.size))
    channel.setsockopt(_socket.SOL_SOCKET, _SO_PASSCRED, 0)
    senders = [_CREDENTIALS.unpack(data)[0] for _, kind, data in control if kind == _SCM_CREDENTIALS]
    if senders != [pid]:
        os.close(pidfd)
        raise _Unfit("another process speaks for it")
    return pidfd


def _take_over(request: Request, fds: list[int], post: Post) -> None:
    """Be as the client is. Raise _Unfit."""
    try:
        for target, fd in enumerate(fds[:3]):
            os.dup2(fd, target)
            os.close(fd)
        os.fchdir(fds[3])
        os.close(fds[3])
        os.umask(request.umask)
        for number, (old, new) in enumerate(zip(post.limits, request.limits, strict=True)):
            if old != new:
                call("prlimit64", 0, number, _LIMIT.pack(*new), None)
    except OSError as error:
        raise _Unfit(str(error)) from error
    _replace_environment(request.env)
    sys.argv = [request.program, *request.argv]
    _open_streams("surrogateescape" if is_plain(os.environb) else "strict")
    change_mask(SETMASK, request.blocked)


def _open_streams(errors: str) -> None:
    """As the interpreter opens them: those that are there know too much about the server's own."""
    encoding = sys.stdout.encoding
    sys.stdin = open(0, encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding=encoding, errors="backslashreplace", closefd=False)  # noqa: SIM115


def _replace_environment(env: tuple[tuple[bytes, bytes], ...]) -> None:
    """Of this process and of what it starts."""
    wanted = dict(env)
    data: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]  # both are bytes
    for name in [name for name in data if name not in wanted]:
        del os.environb[name]
    for name, value in wanted.items():
        if data.get(name) != value:
            os.environb[name] = value


def _leave(channel: _socket.socket, null: int) -> None:
    """Hold nothing of the client's any more when it ends: its caller may wait for the end of a pipe."""
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.chdir("/")
    number = channel.fileno()
    with contextlib.suppress(OSError):
        call("close_range", 3, number - 1, 0)
        call("close_range", number + 1, (1 << 32) - 1, 0)


def own_limits() -> tuple[tuple[int, int], ...]:
    """Of this process, in the kernel's order and numbers; prlimit(2)."""
    from resource import getrlimit

    most = (1 << 64) - 1  # RLIM_INFINITY, which is -1 there
    return tuple((soft & most, hard & most) for soft, hard in map(getrlimit, range(protocol.LIMITS)))
