"""What gocker asks of systemd over D-Bus: to start a scope, to change its properties, to stop it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

from jeepney import (
    DBusAddress,
    HeaderFields,
    MatchRule,
    Message,
    MessageType,
    message_bus,
    new_method_call,
)
from jeepney.io.blocking import DBusConnection, open_dbus_connection

from gocker.errors import HierarchyError

Property = tuple[str, str, Any]
"""Its name, the D-Bus signature of its value, and the value: of JSON types, an array is a tuple."""

PATIENCE = 30.0
"""Seconds for an answer, and for a job to end: systemd may be reloading."""
_AUTHENTICATE = 5.0  # seconds
_NAME, _INTERFACE = "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager"
_PATH = "/org/freedesktop/systemd1"
_MANAGER = DBusAddress(_PATH, bus_name=_NAME, interface=_INTERFACE)
_NO_SUCH_UNIT = f"{_NAME}.NoSuchUnit"
_UNIT_EXISTS = f"{_NAME}.UnitExists"


class UnitExistsError(HierarchyError):
    """There is such a unit already, and it is active."""


class Systemd:
    """A connection to the manager of the system, from `with` on. Every method raises HierarchyError."""

    _connection: DBusConnection

    def __enter__(self) -> Self:
        try:
            self._connection = open_dbus_connection("SYSTEM", auth_timeout=_AUTHENTICATE)
        except (OSError, RuntimeError, ValueError) as error:
            raise HierarchyError(
                "reach systemd",
                "on the system bus",
                getattr(error, "strerror", None) or str(error) or type(error).__name__,
                remedy="systemctl status dbus.socket; or leave --systemd-cgroup out",
            ) from error
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def start(self, unit: str, properties: Iterable[Property]) -> None:
        """Start a transient unit, and return when it has been; one of that name that has failed is forgotten first.

        Source: org.freedesktop.systemd1(5), StartTransientUnit.
        """
        body: tuple[Any, ...] = (
            unit,
            "fail",
            [(name, (kind, _value(value))) for name, kind, value in properties],
            [],
        )
        arguments = ("StartTransientUnit", "ssa(sv)a(sa(sv))", body)
        with self._jobs() as jobs:
            try:
                (job,) = self._call(*arguments)
            except _RefusedError as refusal:
                if refusal.name != _UNIT_EXISTS:
                    raise refusal.explained("start", unit) from refusal
                job = self._start_again(unit, arguments)
            self._await(jobs, job, "start", unit)

    def _start_again(self, unit: str, arguments: tuple[str, str, tuple[Any, ...]]) -> str:
        self._reset(unit)
        try:
            (job,) = self._call(*arguments)
        except _RefusedError as refusal:
            error = refusal.explained("start", unit)
            if refusal.name == _UNIT_EXISTS:
                error = UnitExistsError("start", unit, refusal.text, remedy="choose another id")
            raise error from refusal
        return str(job)

    def stop(self, unit: str) -> None:
        """Stop a unit, and return when it has been and nothing is known of it; fine when there is none."""
        with self._jobs() as jobs:
            try:
                (job,) = self._call("StopUnit", "ss", (unit, "replace"))
            except _RefusedError as refusal:
                if refusal.name != _NO_SUCH_UNIT:
                    raise refusal.explained("stop", unit) from refusal
            else:
                self._await(jobs, job, "stop", unit)
        self._reset(unit)

    def change(self, unit: str, properties: Iterable[Property]) -> None:
        """Set properties of a unit that is active, until it ends."""
        body = (unit, True, [(name, (kind, _value(value))) for name, kind, value in properties])
        try:
            self._call("SetUnitProperties", "sba(sv)", body)
        except _RefusedError as refusal:
            raise refusal.explained("change", unit) from refusal

    def _reset(self, unit: str) -> None:
        with suppress(_RefusedError):  # there is none that has failed
            self._call("ResetFailedUnit", "s", (unit,))

    @contextmanager
    def _jobs(self) -> Iterator[deque[Message]]:
        """A queue of the signals that tell of the end of a job."""
        rule = MatchRule(type="signal", interface=_INTERFACE, member="JobRemoved", path=_PATH)
        with self._connection.filter(rule, queue=deque()) as queue:
            try:
                self._send(message_bus.AddMatch(rule))
                self._call("Subscribe", "", ())
            except _RefusedError as refusal:
                raise refusal.explained("subscribe to", _NAME) from refusal
            yield queue

    def _await(self, jobs: deque[Message], job: str, verb: str, unit: str) -> None:
        try:
            while True:
                _, ended, _, result = self._connection.recv_until_filtered(jobs, timeout=PATIENCE).body
                if ended == job:
                    break
        except OSError as error:  # TimeoutError is one
            raise _broken(verb, unit, error) from error
        if result not in {"done", "skipped"}:
            raise HierarchyError(
                verb, unit, f"systemd's job ended as {result}", remedy=f"journalctl -u {unit} says why"
            )

    def _call(self, method: str, signature: str, body: tuple[Any, ...]) -> tuple[Any, ...]:
        return self._send(new_method_call(_MANAGER, method, signature or None, body))

    def _send(self, message: Message) -> tuple[Any, ...]:
        try:
            reply = self._connection.send_and_get_reply(message, timeout=PATIENCE)
        except OSError as error:
            raise _broken("ask systemd for", message.header.fields[HeaderFields.member], error) from error
        if reply.header.message_type is MessageType.error:
            text = reply.body[0] if reply.body and isinstance(reply.body[0], str) else ""
            raise _RefusedError(reply.header.fields[HeaderFields.error_name], text)
        body: tuple[Any, ...] = reply.body
        return body


class _RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text)
        self.name = name
        self.text = text

    def explained(self, verb: str, unit: str) -> HierarchyError:
        """The same for users."""
        return HierarchyError(verb, unit, f"systemd answers {self.name}: {self.text}".rstrip(": "))


def _broken(verb: str, unit: str, error: OSError) -> HierarchyError:
    reason = f"no answer within {PATIENCE:g} s" if isinstance(error, TimeoutError) else str(error)
    return HierarchyError(verb, unit, f"systemd: {reason}", remedy="systemctl status says how systemd is")


def _value(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
