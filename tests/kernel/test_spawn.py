"""Births of first processes: new namespaces, joined ones, clocks, cgroups; and who is never returned to."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from gocker.kernel import caps, process, spawn
from gocker.kernel.spawn import spawn as make
from gocker.kernel.syscalls import prctl

DAY = 86400
KINDS = {
    "mnt": process.CLONE_NEWNS,
    "pid": process.CLONE_NEWPID,
    "uts": process.CLONE_NEWUTS,
    "ipc": process.CLONE_NEWIPC,
    "net": process.CLONE_NEWNET,
    "cgroup": process.CLONE_NEWCGROUP,
    "user": process.CLONE_NEWUSER,
    "time": process.CLONE_NEWTIME,
}
ALL_BUT_USER = sum(flag for kind, flag in KINDS.items() if kind not in ("user", "cgroup"))


def born(look: Callable[[], Any], flags: int = 0, **how: Any) -> Any:
    """What `look` returns in a process that `spawn` makes, as JSON; it is reaped."""
    read, write = os.pipe2(os.O_CLOEXEC)

    def enter() -> NoReturn:
        os.write(write, json.dumps(look()).encode())
        os._exit(7)

    try:
        pid, pidfd = make(enter, flags, **how)
        os.close(write)
        write = -1
        data = b""
        while part := os.read(read, 65536):
            data += part
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)
    assert ended
    assert (ended.si_pid, ended.si_code, ended.si_status) == (pid, os.CLD_EXITED, 7)
    return json.loads(data)


def spaces(pid: int | str = "self") -> dict[str, str]:
    """The namespaces of a process by kind."""
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in KINDS}


@contextmanager
def neighbour(*options: str) -> Iterator[int]:
    """A process in namespaces of its own, as unshare(1) makes them."""
    command = ["unshare", *options, "--kill-child", "sh", "-c", "echo up; exec sleep 600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        try:
            assert parent.stdout.readline() == "up\n"
            with open(f"/proc/{parent.pid}/task/{parent.pid}/children", encoding="ascii") as file:
                children = file.read().split()
            yield int(children[0]) if children else parent.pid
        finally:
            parent.kill()


# --- new namespaces


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("time", "cgroup")])
def test_a_new_namespace_is_new_and_the_others_are_kept(kind: str) -> None:
    ours, theirs = spaces(), born(spaces, KINDS[kind])
    assert {name for name in KINDS if ours[name] != theirs[name]} == {kind}


def test_all_at_once_with_the_time_namespace_by_way_of_a_helper() -> None:
    ours, theirs = spaces(), born(spaces, ALL_BUT_USER)
    assert {name for name in KINDS if ours[name] != theirs[name]} == set(KINDS) - {"user", "cgroup"}


def test_it_is_our_child_and_the_first_of_its_pid_namespace() -> None:
    assert born(lambda: [os.getpid(), os.getppid()], process.CLONE_NEWPID) == [1, 0]
    assert born(os.getppid) == os.getpid()
    assert born(os.getppid, process.CLONE_NEWTIME) == os.getpid()


def test_it_is_born_with_every_signal_blocked_and_ours_are_as_before() -> None:
    def blocked() -> str:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(line.split()[1] for line in file if line.startswith("SigBlk:"))

    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        for flags in (0, process.CLONE_NEWTIME):
            assert born(blocked, flags) == "fffffffffffbfeff"  # all but SIGKILL and SIGSTOP
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before | {signal.SIGUSR2}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def without_ptrace(look: Callable[[], Any]) -> Any:
    """What `look` returns in a process that has all of our capabilities but CAP_SYS_PTRACE, as JSON."""
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            kept = caps.permitted() - {"CAP_SYS_PTRACE"}
            caps.set_capabilities(kept, kept)
            prctl(process.PR_SET_DUMPABLE, 1)  # whatever other tests did to this process
            os.write(write, json.dumps(look()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as file:
        data = file.read()
    os.waitpid(pid, 0)
    return json.loads(data)


@pytest.mark.parametrize("flags", [0, process.CLONE_NEWPID, process.CLONE_NEWTIME])
def test_nobody_looks_into_it_from_the_moment_it_is_born(flags: int) -> None:
    """Who has the same rights but CAP_SYS_PTRACE may look into a process only while that is dumpable."""

    def wait() -> NoReturn:
        signal.pause()
        os._exit(0)

    def look() -> list[str]:
        seen = []
        plain, _ = process.clone(0)
        if plain == 0:
            wait()
        born, _ = make(wait, flags)
        for pid in (plain, born):
            try:
                seen.append(os.readlink(f"/proc/{pid}/exe"))
            except OSError as error:
                seen.append(errno.errorcode[error.errno or 0])
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return seen

    assert without_ptrace(look) == [os.path.realpath("/proc/self/exe"), "EACCES"]


# --- clocks


def test_clocks_are_shifted_by_what_was_asked() -> None:
    def clocks() -> list[float]:
        return [time.clock_gettime(time.CLOCK_MONOTONIC), time.clock_gettime(time.CLOCK_BOOTTIME)]

    before = clocks()
    offsets = (("monotonic", DAY, 0), ("boottime", 2 * DAY, 500_000_000))
    shown = born(clocks, process.CLONE_NEWTIME, offsets=offsets)
    assert [round((now - then) / DAY, 2) for then, now in zip(before, shown, strict=True)] == [1, 2]


def test_an_offset_that_the_kernel_refuses_is_its_errno_and_no_process_is_left() -> None:
    with pytest.raises(OSError, match="Numerical result out of range") as caught:
        born(lambda: None, process.CLONE_NEWTIME, offsets=(("boottime", -(10**9), 0),))
    assert caught.value.errno == errno.ERANGE


def test_a_clock_that_is_none_is_refused() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        born(lambda: None, process.CLONE_NEWTIME, offsets=(("realtime", 1, 0),))


# --- joining


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        (["--net"], ["net"]),
        (["--uts", "--ipc", "--mount"], ["uts", "ipc", "mnt"]),
        (["--pid", "--fork"], ["pid"]),
        (["--cgroup"], ["cgroup"]),
        (["--user", "--map-root-user", "--net"], ["user", "net"]),
        (["--time", "--fork"], ["time"]),
    ],
    ids=" ".join,
)
def test_a_namespace_is_joined_by_its_path(options: list[str], kinds: list[str]) -> None:
    with neighbour(*options) as pid:
        joins = tuple((f"/proc/{pid}/ns/{kind}", KINDS[kind]) for kind in kinds)
        theirs, ours, found = spaces(pid), spaces(), born(spaces, joins=joins)
    assert {kind: found[kind] for kind in kinds} == {kind: theirs[kind] for kind in kinds}
    others = set(KINDS) - set(kinds)
    assert {kind: found[kind] for kind in others} == {kind: ours[kind] for kind in others}


def test_who_joins_a_pid_namespace_is_in_it_and_still_our_child() -> None:
    with neighbour("--pid", "--fork", "--mount-proc") as pid:
        inside, parent = born(
            lambda: [os.getpid(), os.getppid()], joins=((f"/proc/{pid}/ns/pid", process.CLONE_NEWPID),)
        )
    assert inside > 1
    assert parent == 0  # we are outside


def test_new_and_joined_go_together() -> None:
    with neighbour("--net") as pid:
        joins = ((f"/proc/{pid}/ns/net", process.CLONE_NEWNET),)
        theirs, ours = spaces(pid), spaces()
        found = born(spaces, process.CLONE_NEWUTS | process.CLONE_NEWPID, joins=joins)
    assert found["net"] == theirs["net"]
    assert found["uts"] not in (ours["uts"], theirs["uts"])


@pytest.mark.parametrize("path", ["/proc/self/ns/uts", "/proc/self/status", "/dev/null"])
def test_what_is_no_namespace_of_the_kind_is_refused_by_name(path: str) -> None:
    with pytest.raises(OSError, match="not a namespace of this kind") as caught:
        born(lambda: None, joins=((path, process.CLONE_NEWNET),))
    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, path)


def test_a_fifo_in_place_of_a_namespace_is_refused_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a namespace of this kind"):
        born(lambda: None, joins=((path, process.CLONE_NEWNET),))


def test_what_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        born(lambda: None, joins=(("/proc/self/ns/nothing", process.CLONE_NEWNET),))
    assert caught.value.filename == "/proc/self/ns/nothing"


def test_a_join_that_the_kernel_refuses_is_its_errno() -> None:
    """Nobody may join the user namespace that he is in already."""
    with pytest.raises(OSError, match="Invalid argument"):
        born(lambda: None, joins=(("/proc/self/ns/user", process.CLONE_NEWUSER),))


def test_no_fd_is_left_open_whatever_happens() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    born(lambda: None)
    born(lambda: None, process.CLONE_NEWTIME)
    for join in (
        ("/proc/self/ns/uts", process.CLONE_NEWNET),
        ("/nothing", 1),
        ("/proc/self/ns/user", process.CLONE_NEWUSER),
    ):
        with pytest.raises(OSError, match=r"."):
            make(lambda: os._exit(0), 0, (("/proc/self/ns/net", process.CLONE_NEWNET), join))
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_what_the_helper_opened_goes_with_the_childs_exec() -> None:
    def lasting() -> list[int]:
        fds = [int(name) for name in os.listdir("/proc/self/fd")]
        return [fd for fd in fds if os.path.exists(f"/proc/self/fd/{fd}") and os.get_inheritable(fd)]

    joins = (("/proc/self/ns/net", process.CLONE_NEWNET),)
    assert born(lasting, process.CLONE_NEWTIME, joins=joins) == born(lasting)


def test_a_helper_that_dies_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    monkeypatch.setattr(spawn, "_join_and_clone", die)
    with pytest.raises(OSError, match="the helper that joins namespaces died"):
        make(lambda: os._exit(0), process.CLONE_NEWTIME)


# --- cgroups


@pytest.mark.guest
@pytest.mark.parametrize("flags", [0, process.CLONE_NEWTIME], ids=["direct", "by a helper"])
def test_it_is_born_in_a_cgroup_of_v2(flags: int) -> None:
    top = next(iter(v2_mounts()), None)
    if top is None:
        pytest.skip("no cgroup2 file system is mounted here")
    path = f"{top}/gocker-test-spawn-{os.getpid()}"
    os.mkdir(path)
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

        def own() -> str:
            with open("/proc/self/cgroup", encoding="utf-8") as file:
                return next(line.strip() for line in file if line.startswith("0::"))

        assert born(own, flags, cgroup_fd=fd).endswith(f"/gocker-test-spawn-{os.getpid()}")
        os.close(fd)
    finally:
        os.rmdir(path)


def v2_mounts() -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return [line.split(" ")[4] for line in file if " - cgroup2 " in line]


def test_a_cgroup_that_is_none_is_the_kernels_errno() -> None:
    fd = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            born(lambda: None, cgroup_fd=fd)
    finally:
        os.close(fd)


# --- a child never returns into our code


@pytest.mark.parametrize("flags", [0, process.CLONE_NEWTIME], ids=["direct", "by a helper"])
@pytest.mark.parametrize("how", ["returns", "raises", "exits"])
def test_a_child_that_comes_back_ends_there(flags: int, how: str) -> None:
    """Else two processes would go on with this test."""

    def enter() -> NoReturn:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        if how == "raises":
            raise RuntimeError
        if how == "exits":
            raise SystemExit(0)
        return None  # type: ignore[misc]

    before = os.getpid()
    _, pidfd = make(enter, flags)
    ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)
    assert ended
    assert ended.si_status == 125
    assert os.getpid() == before


# --- process.py


def test_has_ended_waits_and_reaps_nothing() -> None:
    child = subprocess.Popen(["sleep", "0.2"])
    pidfd = os.pidfd_open(child.pid)
    assert not process.has_ended(pidfd)
    begin = time.monotonic()
    assert process.has_ended(pidfd, 20.0)
    assert time.monotonic() - begin < 10
    assert child.wait() == 0
    os.close(pidfd)


def test_who_is_gone_cannot_be_signalled() -> None:
    child = subprocess.Popen(["sleep", "600"])
    pidfd = os.pidfd_open(child.pid)
    process.pidfd_send_signal(pidfd, signal.SIGTERM)
    assert child.wait() == -signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        process.pidfd_send_signal(pidfd, signal.SIGTERM)
    os.close(pidfd)


def test_the_start_time_tells_two_processes_apart_whatever_they_are_called() -> None:
    script = (
        "import os, sys; open('/proc/self/comm', 'w').write(') R 1 (x'); print(flush=True); sys.stdin.read()"
    )
    children = []
    for _ in range(2):
        child = subprocess.Popen(
            ["/usr/bin/python3", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert child.stdout
        child.stdout.readline()
        children.append(child)
        time.sleep(0.05)
    first, second = (process.start_time(child.pid) for child in children)
    assert process.start_time(1) <= process.start_time(os.getpid()) <= first < second
    assert process.start_time(children[0].pid) == first
    for child in children:
        child.communicate()


def test_a_process_that_is_gone_has_no_start_time() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    with pytest.raises((FileNotFoundError, ProcessLookupError)):
        process.start_time(child.pid)
