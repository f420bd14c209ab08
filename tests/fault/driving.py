"""What both drivers (drive.py, ocidrive.py) go by: a fork as the command, a look at what is left, the loop over jobs.

A driver is a subreaper: whatever outlives a killed gocker becomes its child and can be seen.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from gocker import registry
from gocker.auditevent import Chain, make_logger
from gocker.auditlog import verify
from gocker.errors import GockerError
from gocker.kernel import syscalls

Job = dict[str, Any]
SLOWNESS = float(os.environ.get("GOCKER_TEST_SLOWNESS", "1"))  # as in tests/support/command.py
PATIENCE = 5.0 * SLOWNESS  # seconds for what is dying to be gone
_PR_SET_CHILD_SUBREAPER = 36


def as_command(run: Callable[[], object], scratch: str, output: str) -> NoReturn:
    """In a fork: `run` as a whole process, with its output in files and the places of the job."""
    status = 99
    try:
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        for target, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{output}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), target)
        os.environ.update(GOCKER_STATE=f"{scratch}/state", GOCKER_AUDIT_LOG=f"{scratch}/log/audit.jsonl")
        run()
    except SystemExit as leave:
        status = leave.code if isinstance(leave.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def children_of(pid: int) -> list[int]:
    return list(map(int, read(f"/proc/{pid}/task/{pid}/children").split()))


def outliving(patience: float = PATIENCE) -> list[str]:
    """The processes that are left once those which die by themselves have had the time to."""
    deadline = time.monotonic() + patience
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return []
        if time.monotonic() > deadline:
            return [f"process {pid} {read(f'/proc/{pid}/comm').strip()}" for pid in children_of(os.getpid())]
        time.sleep(0.001)


def end_survivors() -> None:
    """So that one broken job does not break the next."""
    while children := children_of(os.getpid()):
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        outliving(0.1)


def left_behind(
    container: str, scratch: str, state: str, cgroups: Iterable[str], *, data: bool = False
) -> list[str]:
    """Everything of the container that is still there; with `data` its layers too. `state` is below `scratch`."""
    left = outliving()
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        lines = file.read().splitlines()
    left += [f"mount {line.split()[4]}" for line in lines if scratch in line or container in line]
    for line in lines:
        mountpoint, kind = line.split()[4], line.partition(" - ")[2].split()[0]
        if kind in {"cgroup", "cgroup2"}:
            paths = [f"{mountpoint}/{cgroup}" for cgroup in cgroups]
            left += [f"cgroup {path}" for path in paths if os.path.exists(path)]
    path = f"{os.environ['GOCKER_ROOT']}/containers/{container}"
    left += [f"files {path}"] if data and os.path.lexists(path) else []
    for directory in ("containers", "names"):
        if os.path.isdir(f"{scratch}/{state}/{directory}"):
            left += [f"state {directory}/{name}" for name in os.listdir(f"{scratch}/{state}/{directory}")]
    return left


def events(scratch: str) -> list[dict[str, Any]]:
    lines = read(f"{scratch}/log/audit.jsonl").splitlines()
    return [json.loads(line) for line in lines]


def chain(scratch: str) -> str:
    """ "" when the audit log is whole."""
    try:
        verify([f"{scratch}/log/audit.jsonl"], live=True)
    except GockerError as error:
        return str(error)
    return ""


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def warm_up() -> None:
    make_logger(Chain(), {})
    registry.Registry()


def main(run_job: Callable[[Job, str], Job], first: str) -> None:
    """Answer each job of stdin; `first` names the file with what the first call said, for one that goes wrong."""
    base = sys.argv[1]
    os.environ["GOCKER_ROOT"] = f"{base}/data"
    syscalls.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    warm_up()
    for number, line in enumerate(sys.stdin):
        scratch = f"{base}/{number}"
        try:
            answer = run_job(json.loads(line), scratch)
        except Exception:
            answer = {"broken": traceback.format_exc() + read(f"{scratch}/{first}")}
        shutil.rmtree(scratch, ignore_errors=True)
        print(json.dumps(answer), flush=True)
