"""A D-Bus socket with as much of systemd behind it as gocker speaks with: what it was asked for, and what it answers."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from jeepney import (
    DBusAddress,
    HeaderFields,
    Message,
    MessageType,
    Parser,
    new_error,
    new_method_return,
    new_signal,
)

NAME = "org.freedesktop.systemd1"
MANAGER = DBusAddress("/org/freedesktop/systemd1", bus_name=NAME, interface=f"{NAME}.Manager")
JOB = "/org/freedesktop/systemd1/job/7"


class FakeBus:
    """One client at a time; each unit that is started becomes a directory below `cgroups`, as one of cgroup v2."""

    def __init__(self, path: str, cgroups: str) -> None:
        self.cgroups = cgroups
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.units: dict[str, dict[str, Any]] = {}
        self.failed: set[str] = set()  # units that were there and are not forgotten
        self.refusals: dict[str, str] = {}  # method -> the name of an error
        self.result = "done"  # of every job
        self.early = False  # its end is told before the call is answered
        self.hangs_up = ""  # the method whose call it does not survive
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def methods(self) -> list[str]:
        """What systemd was asked for, without what every client says first."""
        return [method for method, _ in self.calls if method not in {"Hello", "AddMatch", "Subscribe"}]

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, suppress(ConnectionError):
                self._talk(client)

    def _talk(self, client: socket.socket) -> None:
        data = b""
        while b"\r\n" not in data:
            data += client.recv(4096)
        assert data.startswith(b"\0AUTH EXTERNAL "), data
        client.sendall(b"OK 0123456789abcdef0123456789abcdef\r\n")
        data = b""
        while b"BEGIN\r\n" not in data:
            data += client.recv(4096)
        parser = Parser()
        parser.add_data(data.partition(b"BEGIN\r\n")[2])
        serial = 0
        while True:
            message = parser.get_next_message()
            if message is None:
                data = client.recv(4096)
                if not data:
                    return
                parser.add_data(data)
                continue
            answers = self._answers(message)
            if answers is None:
                return
            for answer in answers:
                serial += 1
                client.sendall(answer.serialise(serial=serial))

    def _answers(self, message: Message) -> list[Message] | None:
        assert message.header.message_type is MessageType.method_call
        method = message.header.fields[HeaderFields.member]
        self.calls.append((method, message.body))
        if method == self.hangs_up:
            return None
        if method == "Hello":
            return [new_method_return(message, "s", (":1.7",))]
        error = self.refusals.get(method) or self._act(method, message.body)
        if error:
            return [new_error(message, f"{NAME}.{error}", "s", (f"no {method}",))]
        if method not in {"StartTransientUnit", "StopUnit"}:
            return [new_method_return(message)]
        other = new_signal(MANAGER, "JobRemoved", "uoss", (6, f"{JOB}1", "other.service", "failed"))
        ended = new_signal(MANAGER, "JobRemoved", "uoss", (7, JOB, message.body[0], self.result))
        reply = new_method_return(message, "o", (JOB,))
        return [other, ended, reply] if self.early else [reply, other, ended]

    def _act(self, method: str, body: tuple[Any, ...]) -> str:
        """The name of an error, or ""."""
        if method == "StartTransientUnit":
            unit, _, properties, _ = body
            if unit in self.units or unit in self.failed:
                return "UnitExists"
            self.units[unit] = {name: value for name, (_, value) in properties}
            os.makedirs(f"{self.cgroups}/{unit}", exist_ok=True)
            with open(f"{self.cgroups}/{unit}/cgroup.procs", "w", encoding="ascii") as file:
                file.writelines(f"{pid}\n" for pid in self.units[unit]["PIDs"])
        elif method == "StopUnit":
            if self.units.pop(body[0], None) is None:
                return "NoSuchUnit"
            with suppress(FileNotFoundError):
                os.unlink(f"{self.cgroups}/{body[0]}/cgroup.procs")
                os.rmdir(f"{self.cgroups}/{body[0]}")
        elif method == "ResetFailedUnit":
            self.failed.discard(body[0])
        elif method == "SetUnitProperties":
            self.units[body[0]] |= {name: value for name, (_, value) in body[2]}
        return ""


@contextmanager
def fake_bus(scratch: str) -> Iterator[FakeBus]:
    """One that gocker finds; `scratch` has a short name."""
    bus = FakeBus(f"{scratch}/bus", f"{scratch}/cgroups")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={scratch}/bus")
            yield bus
    finally:
        bus.close()
