"""Brings to an end what a killed gocker began with a container that lasts, and puts it on the record."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import struct
import time

from gocker.audit import AuditLog
from gocker.auditevent import Event
from gocker.claim import Claim
from gocker.lasting import Lasting, is_frozen, lives, read_lasting
from gocker.recovery import owed_events, unwritten
from gocker.state import State
from gocker.steps import barrier
from gocker.steps.launch import PARK

_PATIENCE = 1.0  # seconds for a first process that was let go and comes to its program without its gocker
_NAP = 0.002
_UNREAD = 0x5411  # SIOCOUTQ, unix(7)
_QUESTION = b"?"  # anything but GO; steps/barrier takes it and waits on


def settle(claim: Claim, state: State, audit: AuditLog) -> None:
    """Find out whether a start that was cut off came about, and write what is owed; nothing is written twice.

    While that cannot be told it is left to the next call. Raise GockerError, OSError.
    """
    lasting = read_lasting(state, claim.id)
    started = _was_started(claim, lasting, state)
    if started is None:
        return
    events, names = unwritten(claim, owed_events(claim))
    if started:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(state.start_socket(claim.id))
        if "container.start" not in names:
            events.append(Event.now("container.start", "warning", pid=lasting.pid, recovered=True))
    audit.write(events, container=claim.id, plan=lasting.digest)
    claim.settle()


def _was_started(claim: Claim, lasting: Lasting, state: State) -> bool | None:
    """Whether a start has to be put on the record; None when that cannot be told yet."""
    path = state.start_socket(claim.id)
    if not os.path.exists(path):
        return False  # one that came about has removed it
    init = [step["op"] for step in json.loads(claim.plan)["phases"]["init"]]
    parked, last = init.index(PARK), len(init) - 1
    deadline = time.monotonic() + _PATIENCE
    while True:
        alive = lives(lasting)
        step = claim.look()  # after it: the dead go no further
        if step is not None and step >= last and not (alive and _is_gocker(lasting.pid)):
            return True
        if not alive:
            return False  # before its program
        if is_frozen(lasting):
            return None
        if step is None or step <= parked:
            waiting = _waits(path)
            if waiting is not None and (waiting or step is None):
                return not waiting
        if time.monotonic() > deadline:
            return True if step is not None and step >= last else None
        time.sleep(_NAP)


def _is_gocker(pid: int) -> bool:
    """Whether a process has not come to its program yet, by what it executes: it may end instead."""
    try:
        return os.path.samestat(os.stat(f"/proc/{pid}/exe"), os.stat("/proc/self/exe"))
    except OSError:
        return True  # it is on its way out: the next look tells


def _waits(path: str) -> bool | None:
    """Whether the first process still waits for its start; it takes a question from whoever connects.

    Not so one that was told to go, and had not come round to it before.
    """
    try:
        channel = barrier.connect(path, _PATIENCE)
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except (BlockingIOError, TimeoutError):
        return None
    with contextlib.closing(channel):
        poll = select.poll()
        poll.register(channel, 0)  # for POLLHUP
        deadline = time.monotonic() + _PATIENCE
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            channel.send(_QUESTION)
            while time.monotonic() < deadline:
                if poll.poll(0):
                    return False
                if struct.unpack("i", fcntl.ioctl(channel, _UNREAD, bytes(4)))[0] == 0:
                    return not poll.poll(0)
                time.sleep(_NAP)
            return None
    return False
