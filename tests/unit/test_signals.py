"""Signals that are kept from acting on this process, and read instead."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator

import pytest

from gocker.kernel.sigmask import SETMASK, change_mask, mask_of
from gocker.signals import Signals


@pytest.fixture
def signals() -> Iterator[Signals]:
    kept = Signals()
    yield kept
    kept.close()


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def numbers(signals: Signals) -> list[int]:
    return [arrival.number for arrival in signals.take()]


@pytest.mark.parametrize(
    "number",
    [
        *(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM),
        *(signal.SIGRTMIN, signal.SIGRTMIN + 3, signal.SIGRTMAX, signal.SIGWINCH, signal.SIGCONT),
    ],
)
def test_each_is_kept_and_read(signals: Signals, number: int) -> None:
    assert not select.select([signals.fd], [], [], 0)[0]
    send(number)
    assert select.select([signals.fd], [], [], 5)[0] == [signals.fd]
    assert numbers(signals) == [number]
    assert numbers(signals) == []


@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCHLD])
def test_those_about_gocker_itself_are_left_alone(signals: Signals, number: int) -> None:
    assert number not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_the_sender_is_known(signals: Signals) -> None:
    send(signal.SIGUSR1)
    [arrival] = signals.take()
    assert (arrival.pid, arrival.uid) == (os.getpid(), os.getuid())


def test_the_kernel_is_no_sender(signals: Signals) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    assert select.select([signals.fd], [], [], 5)[0]
    [arrival] = signals.take()
    assert (arrival.number, arrival.pid, arrival.uid) == (signal.SIGALRM, None, None)


def test_a_real_time_signal_that_is_sent_twice_comes_twice(signals: Signals) -> None:
    send(signal.SIGRTMIN + 1, signal.SIGRTMIN + 1)
    assert numbers(signals) == [signal.SIGRTMIN + 1] * 2


def test_one_that_asks_for_an_end_is_picked_out_and_the_others_wait(signals: Signals) -> None:
    send(signal.SIGUSR1)
    assert signals.ending() is None
    send(signal.SIGTERM, signal.SIGUSR2)
    arrival = signals.ending()
    assert arrival is not None
    assert arrival.number == signal.SIGTERM
    assert sorted(numbers(signals)) == [signal.SIGUSR1, signal.SIGUSR2]


def test_after_the_end_all_is_as_it_was_and_what_came_is_dropped() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    signals = Signals()
    send(signal.SIGTERM)  # would end this process
    signals.close()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    assert signal.sigpending() == set()


def test_a_hang_up_that_the_caller_ignores_stays_ignored() -> None:
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup(1)
    signals = Signals()
    try:
        send(signal.SIGHUP)
        assert numbers(signals) == []
    finally:
        signals.close()
        signal.signal(signal.SIGHUP, old)


def test_an_interrupt_that_the_caller_ignores_is_read_all_the_same() -> None:
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)  # what a script's `&` does
    signals = Signals()
    try:
        send(signal.SIGINT)
        assert numbers(signals) == [signal.SIGINT]
    finally:
        signals.close()
        signal.signal(signal.SIGINT, old)


def test_a_mask_is_changed_and_the_old_one_is_returned() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    old = change_mask(SETMASK, mask_of((signal.SIGUSR1, signal.SIGRTMAX)))
    try:
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == {signal.SIGUSR1, signal.SIGRTMAX}
    finally:
        change_mask(SETMASK, old)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
