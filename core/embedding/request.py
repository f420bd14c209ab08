"""What a program asks for, checked and turned into the words of `gocker run`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from gocker.record import Record

PIPE, STDOUT, DEVNULL = -1, -2, -3
"""The numbers that subprocess has for them, so that its constants do as well."""

Text = str | bytes | os.PathLike[str] | os.PathLike[bytes]


class Request(Record):
    """One start as the attendant gets it."""

    args: tuple[str, ...]  # the command, for results and errors
    words: tuple[str, ...]  # of `gocker run`
    timeout: float | None = None  # seconds until the container is killed


def make_request(
    args: Sequence[Text],
    *,
    image: str | None,
    rootfs: Text | None,
    limits: Mapping[str, str | float] | None,
    env: Mapping[str, str] | None,
    cwd: Text | None,
    user: str | int | None,
    volumes: Sequence[Text],
    network: str | None,
    hostname: str | None,
    name: str | None,
    options: Sequence[str],
    timeout: float | None,
) -> Request:
    """Raise TypeError or ValueError for what can be seen without a look at the host."""
    command = _command(args)
    if image is not None and rootfs is not None:
        raise ValueError("image and rootfs exclude each other")
    words = [*_texts("options", options)]
    for label, value in (limits or {}).items():
        words.append(f"--limit={label}={_value(label, value)}")
    for variable, text in (env or {}).items():
        words.append(f"--env={_assignment(variable, text)}")
    words += [f"--volume={text}" for text in _texts("volumes", volumes)]
    rest = {"workdir": cwd, "user": user, "network": network, "hostname": hostname, "name": name}
    words += [f"--{option}={_text(value)}" for option, value in rest.items() if value is not None]
    if rootfs is not None:
        return Request(command, (*words, f"--rootfs={_text(rootfs)}", "--", *command), _seconds(timeout))
    return Request(command, (*words, "--", image or "base", *command), _seconds(timeout))


def _command(args: Sequence[Text]) -> tuple[str, ...]:
    if isinstance(args, str | bytes | os.PathLike):
        raise TypeError(f"args is a list of words, not {args!r}; a shell is ['sh', '-c', ...]")
    command = _texts("args", args)
    if not command:
        raise ValueError("args is empty: there is no program to run")
    return command


def _texts(what: str, values: Sequence[Text]) -> tuple[str, ...]:
    if isinstance(values, str | bytes | os.PathLike):
        raise TypeError(f"{what} is a list, not {values!r}")
    return tuple(_text(value) for value in values)


def _text(value: Text | int) -> str:
    text = str(value) if isinstance(value, int) else os.fsdecode(value)
    if "\0" in text:
        raise ValueError(f"embedded null byte in {text!r}")
    return text


def _value(label: str, value: str | float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise TypeError(f"limit {label} is text or a number, not {value!r}")
    return str(value)


def _assignment(name: str, value: str) -> str:
    if not name or "=" in name:
        raise ValueError(f"{name!r} is not the name of an environment variable")
    return f"{_text(name)}={_text(value)}"


def _seconds(timeout: float | None) -> float | None:
    if timeout is not None and not timeout > 0:  # true for nan
        raise ValueError(f"timeout is a number of seconds above 0, not {timeout!r}")
    return timeout


def stream_number(name: str, stream: Any) -> int | None:
    """PIPE, STDOUT, DEVNULL, or the fd of a file; None for none. Raise TypeError, ValueError."""
    if stream is None:
        return None
    number: int = stream if isinstance(stream, int) else stream.fileno()
    if isinstance(stream, bool) or number < DEVNULL or (number == STDOUT and name != "stderr"):
        raise ValueError(f"{name} is no stream: {stream!r}")
    return number
