"""`gocker-oci events`."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from typing import Any

from gocker.controls import usage_places
from gocker.errors import KernelError, StateError, UsageError
from gocker.kernel.cgroupfs import DirReader
from gocker.kernel.oomwatch import OomWatch
from gocker.lasting import STOPPED, Lasting, open_first, read_lasting, status_of
from gocker.oci.stats import stats
from gocker.state import State

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_HUGE = "/sys/kernel/mm/hugepages"


def command(root: str, *, arguments: tuple[str, ...], stats: bool, interval: str) -> int:
    """Print them until the container ends, or the figures once."""
    (container,) = arguments
    seconds = read_duration(interval)
    if seconds <= 0:
        raise UsageError("set --interval", interval, "not more than nothing")
    state = State(root)
    lasting = read_lasting(state, container)
    if status_of(lasting, state) == STOPPED:
        raise StateError("watch container", container, "container not running")
    if stats:
        _print("stats", lasting, data=_figures(lasting))
        return 0
    pidfd = open_first(lasting)
    try:
        with contextlib.closing(_watch(lasting)) as oom:
            _follow(lasting, pidfd, oom, seconds)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise KernelError.from_os("watch container", container, error) from error
    finally:
        os.close(pidfd)
    return 0


def _watch(lasting: Lasting) -> OomWatch | _Never:
    place = usage_places(lasting).get("memory")
    return OomWatch(*place) if place else _Never()


class _Never:
    """The watch of a container that is in no memory cgroup."""

    fd, events = -1, 0

    def take(self) -> bool:
        """It never strikes."""
        return False

    def close(self) -> None:
        """Nothing is open."""


def _follow(lasting: Lasting, pidfd: int, oom: OomWatch | _Never, seconds: float) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if oom.fd >= 0:
        poll.register(oom.fd, oom.events)
    due = time.monotonic() + seconds
    while True:
        ready = {fd for fd, _ in poll.poll(max(0.0, due - time.monotonic()) * 1000)}
        if oom.fd in ready and oom.take():
            _print("oom", lasting)
        if pidfd in ready:
            return
        if time.monotonic() >= due:
            _print("stats", lasting, data=_figures(lasting))
            due += seconds


def _print(kind: str, lasting: Lasting, **data: Any) -> None:
    print(json.dumps({"type": kind, "id": lasting.id, **data}, separators=(",", ":")))
    sys.stdout.flush()


def _figures(lasting: Lasting) -> dict[str, Any]:
    readers = {name: DirReader(*place) for name, place in usage_places(lasting).items()}
    network = ""
    with contextlib.suppress(OSError):  # it has just ended
        own = os.readlink("/proc/self/ns/net") == os.readlink(f"/proc/{lasting.pid}/ns/net")
        if not own:  # else the figures are the host's
            with open(f"/proc/{lasting.pid}/net/dev", encoding="ascii", errors="replace") as file:
                network = file.read()
    return stats(readers, _sizes(), network)


def _sizes() -> list[str]:
    """The sizes of huge pages here as the hugetlb controller names them: 64KB, 2MB, 1GB."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(_HUGE)):
            kilobytes = int(name.removeprefix("hugepages-").removesuffix("kB"))
            power = (kilobytes.bit_length() - 1) // 10
            found.append(f"{kilobytes >> 10 * power}{('KB', 'MB', 'GB', 'TB')[power]}")
    return found


def read_duration(text: str) -> float:
    """Seconds of `5s`, `1m30s`, `1.5s` or `100ms`, as Go writes durations. Raise UsageError."""
    seconds, rest = 0.0, text
    while rest:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(digits) :]
        unit = rest[: len(rest) - len(rest.lstrip("abcdefghijklmnopqrstuvwxyzµ"))]
        rest = rest[len(unit) :]
        whole = digits.replace(".", "", 1)
        if not (whole.isascii() and whole.isdigit()) or unit not in _UNITS:
            break
        seconds += float(digits) * _UNITS[unit]
    else:
        if text:
            return seconds
    raise UsageError("set --interval", text, "not a duration", remedy="such as 5s, 1m30s or 100ms")
