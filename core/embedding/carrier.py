"""What an attendant runs in: a thread of the program where that is safe, else a process of the fork server.

A thread needs the native executor: a fork of a program with threads would leave Python in a child whose locks
nobody holds any more. It lives as long as the container does, since PR_SET_PDEATHSIG is about the thread
that made the first process, not about the program. Source: PR_SET_PDEATHSIG(2const).
"""

from __future__ import annotations

import _socket
import atexit
import os
import signal
import threading
from collections.abc import Mapping
from typing import Any

from gocker.embedding.server import Server

_PATIENCE = 10.0  # seconds at the end of the program for what is still to be removed

_lock = threading.Lock()
_server: Server | None = None
_built: bool | None = None
_threads: set[threading.Thread] = set()
_far: set[_socket.socket] = set()  # ends that a forked child must not hold


def carry(channel: _socket.socket, message: Mapping[str, Any], fds: list[int]) -> None:
    """Start an attendant with these; all become its own. Raise OSError."""
    if _threads_will_do():
        thread = threading.Thread(
            target=_attend, args=(channel, message, fds), name=f"gocker {message['args'][0]}", daemon=True
        )
        with _lock:
            _threads.add(thread)
            _far.add(channel)
        _prepare()
        thread.start()
    else:
        _send_away(channel, message, fds)


def _threads_will_do() -> bool:
    if os.environ.get("GOCKER_EXECUTOR") == "python":
        return False
    if signal.getsignal(signal.SIGCHLD) is not signal.SIG_DFL:
        return False  # the program may take the exits of children that it does not know
    global _built  # noqa: PLW0603 - a cache
    if _built is None:
        from gocker.kernel.native import is_built

        _built = is_built()
    return _built


def _attend(channel: _socket.socket, message: Mapping[str, Any], fds: list[int]) -> None:
    try:
        # The program's signals are for its own threads; and no call here is interrupted.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        from gocker.embedding.attendant import attend

        if not attend(channel, message, fds, threads=True):
            _send_away(channel, message, fds)
    finally:
        with _lock:
            _threads.discard(threading.current_thread())
            _far.discard(channel)


def _send_away(channel: _socket.socket, message: Mapping[str, Any], fds: list[int]) -> None:
    try:
        the_server().request(channel, message, fds)
    finally:
        channel.close()
        while fds:
            os.close(fds.pop())


def the_server() -> Server:
    """The program's fork server, started if need be: anew when the program has other rights than then."""
    global _server  # noqa: PLW0603 - one for the process
    with _lock:
        if _server is None or not _server.fits():
            if _server is not None:
                _server.stop()
            _server = Server()
        server = _server
    _prepare()
    return server


_prepared = False


def _prepare() -> None:
    global _prepared  # noqa: PLW0603 - once
    with _lock:
        if _prepared:
            return
        _prepared = True
    atexit.register(stop)
    os.register_at_fork(after_in_child=_forget)


def stop() -> None:
    """Kill and remove what still runs and end the fork server: at exit, when the program has no say any more."""
    from gocker.embedding.container import running

    for container in list(running):
        container._abandon()
    global _server
    with _lock:
        server, _server = _server, None
        threads = list(_threads)
    if server is not None:
        server.stop()
    for thread in threads:
        thread.join(_PATIENCE)


def _forget() -> None:
    """In a fork of the program: its containers and its server are its own, and end with it."""
    global _lock, _server  # noqa: PLW0603 - whoever holds the lock is not here
    _lock = threading.Lock()
    for channel in list(_far):
        channel.close()
    _far.clear()
    _threads.clear()
    if _server is not None:
        _server.forget()
        _server = None
    from gocker.embedding.container import running

    for container in list(running):
        container._forget()
