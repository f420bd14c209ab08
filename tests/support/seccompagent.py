"""Who is asked by a seccomp filter: takes a listener at a socket and answers calls."""

from __future__ import annotations

import array
import fcntl
import json
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

# include/uapi/linux/seccomp.h, x86-64 and arm64
_NOTIF_RECV, _NOTIF_SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1


class Agent(threading.Thread):
    """Listens at a socket, takes one listener, and answers each call by `answer(number, args)`: an errno, or None to go on."""

    def __init__(self, path: str, answer: Callable[[int, tuple[int, ...]], int | None]) -> None:
        super().__init__(daemon=True)
        self.answer = answer
        self.state: dict[str, Any] = {}
        self.calls: list[int] = []
        self.more = b"?"
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(path)
        self._server.listen(1)

    def run(self) -> None:
        connection, _ = self._server.accept()
        with connection:
            text, control, _, _ = connection.recvmsg(1 << 16, socket.CMSG_SPACE(4))
            self.more = connection.recv(100)  # the connection ends after one state
        self.state = json.loads(text)
        ((_, _, data),) = control
        (listener,) = array.array("i", data)
        try:
            while True:
                request = bytearray(80)
                fcntl.ioctl(listener, _NOTIF_RECV, request)
                ident, _, _, number, _, _, *args = struct.unpack("=QIIiIQ6Q", request)
                self.calls.append(number)
                errno = self.answer(number, tuple(args))
                reply = (ident, 0, 0, _CONTINUE) if errno is None else (ident, 0, -errno, 0)
                fcntl.ioctl(listener, _NOTIF_SEND, bytearray(struct.pack("=QqiI", *reply)))
        except OSError:  # nobody is left who could ask
            pass
        finally:
            os.close(listener)
            self._server.close()
