"""The memory by which an fd is handed over: what one process writes there, the other reads."""

from __future__ import annotations

import os
import threading
import time

from gocker.kernel.handover import Handover


def test_a_number_and_a_text_go_over_and_the_giver_waits_until_they_are_taken() -> None:
    ours = Handover.new(b"x" * 100_000)
    theirs = Handover(os.dup(ours.fd))
    assert theirs.number == -1
    given: list[bool] = []
    giver = threading.Thread(target=lambda: given.append(ours.give(0)))
    giver.start()
    while theirs.number < 0:
        time.sleep(0.001)
    assert (theirs.number, theirs.text()) == (0, b"x" * 100_000)
    assert given == []
    theirs.take()
    giver.join(10)
    assert given == [True]
    ours.close()
    theirs.close()


def test_who_is_never_answered_does_not_wait_for_ever() -> None:
    ours = Handover.new(b"")
    assert ours.give(7, most=1000) is False
    assert (ours.number, ours.text()) == (7, b"")
    ours.close()
