"""The signals that reach gocker while a container runs: kept for the program instead of acting on gocker."""

from __future__ import annotations

import os
import select
import signal
from typing import Protocol

from gocker.kernel import caller
from gocker.kernel.sigmask import (
    ALL,
    BLOCK,
    SETMASK,
    SIGINFO_SIZE,
    change_mask,
    mask_of,
    parse_siginfo,
    signal_fd,
)
from gocker.record import Record

ENDING = (int(signal.SIGHUP), int(signal.SIGINT), int(signal.SIGQUIT), int(signal.SIGTERM))
"""Those that ask for an end."""
GONE = 0
"""In place of a signal's number: whoever this process works for has ended."""
_LEFT_ALONE = (
    (signal.SIGKILL, signal.SIGSTOP),
    (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),  # job control of gocker's own shell
    (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGURG),  # about gocker's own children and files
    (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL),  # about gocker's own code
    (signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS),
    (32, 33),  # the C library's, nptl(7)
)
_KEPT = ALL & ~mask_of(number for numbers in _LEFT_ALONE for number in numbers)


class Arrival(Record):
    """One signal that came."""

    number: int
    pid: int | None  # of the sender, None when it was the kernel: a key, a hang-up
    uid: int | None


_GONE = Arrival(GONE, None, None)


class Arrivals(Protocol):
    """Where signals for the program come from: `Signals`, or a program that gocker runs in."""

    fd: int

    def take(self) -> list[Arrival]:
        """All that came, in order, those that `ending` passed over first."""

    def ending(self) -> Arrival | None:
        """One that asks for an end and takes it; the others are left to `take`."""


class Signals:
    """While open, blocks the signals and reads them from `fd`, which polls readable when one came."""

    def __init__(self) -> None:
        mask = _KEPT
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            mask &= ~mask_of((signal.SIGHUP,))  # nohup(1): the caller's will; blocked, it would be read here
        self._old = change_mask(BLOCK, mask)
        self.fd = self._source = signal_fd(mask)
        self._both = _watch(self._source, caller.channel()) if caller.is_other() else None
        self._gone = False
        if self._both is not None:
            self.fd = self._both.fileno()
        self._waiting: list[Arrival] = []

    def take(self) -> list[Arrival]:
        """All that came, in order, those that `ending` passed over first."""
        arrivals, self._waiting = self._waiting, []
        if self._both is not None and not self._gone and _has_hung_up(caller.channel()):
            self._gone = True
            self._both.unregister(caller.channel())  # else it would poll readable for ever
            arrivals.append(_GONE)
        while True:
            try:
                data = os.read(self._source, 64 * SIGINFO_SIZE)
            except BlockingIOError:
                return arrivals
            for number, code, pid, uid in parse_siginfo(data):
                sent = code <= 0 and code != caller.PASSED_ON  # SI_USER, SI_QUEUE, SI_TKILL: sigaction(2)
                arrivals.append(Arrival(number, pid if sent else None, uid if sent else None))

    def ending(self) -> Arrival | None:
        """One that asks for an end and takes it; the others are left to `take`."""
        self._waiting = self.take()
        for index, arrival in enumerate(self._waiting):
            if arrival.number in ENDING:
                return self._waiting.pop(index)
        return _GONE if self._gone else None

    def close(self) -> None:
        """Let signals act again; what came for a program that has ended is dropped."""
        self.take()
        os.close(self._source)
        if self._both is not None:
            self._both.close()
        change_mask(SETMASK, self._old)


def _watch(source: int, channel: int) -> select.epoll:
    """What polls readable when `source` does, and when the other end of the socket `channel` is closed."""
    both = select.epoll()
    both.register(source, select.EPOLLIN)
    both.register(channel, select.EPOLLHUP)
    return both


def _has_hung_up(channel: int) -> bool:
    poll = select.poll()
    poll.register(channel, 0)
    return bool(poll.poll(0))
