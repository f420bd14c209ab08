"""The audit log under concurrent writers, SIGKILL, and a disk that is really full."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from auditing import Log

from gocker.auditlog import verify

PROCESSES, BATCHES, SIZE = 8, 50, 5

WRITER = """
import sys
from gocker.audit import AuditLog, Event
path, who, batches, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
log = AuditLog(path, {"command": [who]})
print("ready", flush=True)
for batch in range(batches):
    events = [Event.now("test.event", batch=batch, number=n, text="x" * 200 * n) for n in range(size)]
    log.write(events, container=who)
"""


def writer(path: str, who: str, batches: int, size: int = SIZE) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITER, path, who, str(batches), str(size)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def test_eight_writers_at_once_leave_whole_lines_one_chain_and_unmixed_batches(tmp_path: Path) -> None:
    log = Log(tmp_path)
    writers = [writer(log.path, f"w{i}", BATCHES) for i in range(PROCESSES)]
    for process in writers:
        process.communicate()
        assert process.returncode == 0
    assert verify([log.path], live=True).events == PROCESSES * BATCHES * SIZE
    seen: dict[str, list[tuple[int, int]]] = {}
    for event in log.events:
        seen.setdefault(event["container"], []).append((event["batch"], event["number"]))
    assert len(seen) == PROCESSES
    assert all(found == [(b, n) for b in range(BATCHES) for n in range(SIZE)] for found in seen.values())
    order = [(event["container"], event["batch"]) for event in log.events]
    assert all(len(set(order[i : i + SIZE])) == 1 for i in range(0, len(order), SIZE))


def test_a_reader_sees_a_whole_chain_at_any_moment(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.audit.prepare()
    writers = [writer(log.path, f"w{i}", BATCHES) for i in range(2)]
    counts = []
    while any(process.poll() is None for process in writers):
        counts.append(verify([log.path], live=True).events)
    for process in writers:
        process.communicate()
    assert counts == sorted(counts)
    assert verify([log.path], live=True).events == 2 * BATCHES * SIZE


def test_sigkill_at_any_moment_leaves_a_log_that_verifies_and_goes_on(tmp_path: Path) -> None:
    """Batches of 100 KB, of many pages each: the kernel may stop such a write(2) in its middle."""
    log = Log(tmp_path)
    random.seed(6)
    acknowledged = 0
    for i in range(15):
        process = writer(log.path, f"w{i}", 100_000, 32)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.uniform(0.001, 0.03))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        if os.path.exists(log.path):
            events = verify([log.path], live=True).events
            assert events >= acknowledged
            acknowledged = events
    log.write(3)
    assert verify([log.path], live=True).events >= acknowledged + 3
    assert acknowledged > 100  # the writers did write
    kinds = {event["event"] for event in log.events}
    assert kinds <= {"test.event", "audit.repaired", "controller.set"}


FULL_DISK = """
import json, os, sys
from gocker.audit import AuditLog, Event
from gocker.auditlog import verify
from gocker.errors import AuditError
directory = sys.argv[1]
path = directory + "/audit.jsonl"
log = AuditLog(path, {})
log.write([Event.now("first")] * 3)
errors = []
try:
    for _ in range(10_000):
        log.write([Event.now("filling", text="x" * 700)] * 5)
except AuditError as error:
    errors.append(str(error))
try:
    log.write([Event.now("again", text="x" * 9000)])
except AuditError as error:
    errors.append(str(error))
try:
    log.prepare()
except AuditError as error:
    errors.append(str(error))
whole = open(path, "rb").read().endswith(b"\\n")
events = verify([path], live=True).events
os.unlink(directory + "/ballast")
log.prepare()
log.write([Event.now("last")])
print(json.dumps([errors, whole, events, verify([path], live=True).events]))
"""


def test_a_full_disk_takes_no_half_line_and_the_log_goes_on_when_there_is_room(tmp_path: Path) -> None:
    script = f"""
        mount -t tmpfs -o size=256k tmpfs {tmp_path} &&
        head -c 131072 /dev/zero > {tmp_path}/ballast &&
        exec {sys.executable} -c "$CODE" {tmp_path}
    """
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    done = subprocess.run(
        command, env={**os.environ, "CODE": FULL_DISK}, capture_output=True, check=False, text=True
    )
    assert done.returncode == 0, done.stderr
    errors, whole, events, later = json.loads(done.stdout)
    assert len(errors) == 3
    for error in errors:
        assert error.startswith(
            f"write audit log {tmp_path}/audit.jsonl: ENOSPC: No space left on device (free"
        )
    assert whole
    assert events % 5 == 3  # whole batches only
    assert later == events + 1


def test_a_read_only_file_system_is_one_clear_error(tmp_path: Path) -> None:
    code = """
import sys
from gocker.audit import AuditLog, Event
from gocker.errors import AuditError
for call in ("prepare", "write"):
    try:
        log = AuditLog(sys.argv[1] + "/gocker/audit.jsonl", {})
        log.prepare() if call == "prepare" else log.write([Event.now("x")])
    except AuditError as error:
        print(error)
"""
    script = f'mount -t tmpfs -o ro tmpfs {tmp_path} && exec {sys.executable} -c "$CODE" {tmp_path}'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    done = subprocess.run(
        command, env={**os.environ, "CODE": code}, capture_output=True, check=True, text=True
    )
    expected = (
        f"write audit log {tmp_path}/gocker/audit.jsonl: EROFS: Read-only file system"
        " (mount it writable or name another file in GOCKER_AUDIT_LOG)"
    )
    assert done.stdout.splitlines() == [expected, expected]
