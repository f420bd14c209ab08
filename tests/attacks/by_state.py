"""R11: names that are paths, state that others read or write, and process ids that are someone else's."""

from __future__ import annotations

import os
import re
from typing import Any

from .lab import Done, Lab, Unclear, Verdict, broken, held, is_alive, text_of
from .suite import attack

OTHER = "/lab/others"
FROM_CONTAINERS = "../../others/containers"  # for a runtime whose containers lie one directory deeper
NAMES = ("../others/victim", f"{FROM_CONTAINERS}/victim")


def on_each(lab: Lab, *words: str, after: tuple[str, ...] = (), timeout: float = 10) -> Done:
    """The same call by either path; the last one's outcome."""
    for name in NAMES:
        done = lab.call(*words, name, *after, timeout=timeout)
    return done


def victim(lab: Lab) -> int:
    """Someone else's container, with a state directory beside ours; returns its process."""
    bundle = lab.bundle("victim")
    bundle.run_inside("sleep", "60")
    lab.up(bundle, "victim", state=OTHER)
    own = lab.bundle("own")
    own.run_inside("sleep", "60")
    lab.create(own, "own").must_succeed()  # so that our own state directory is there
    return lab.pid_of("victim", state=OTHER)


def runs(pid: int) -> bool:
    """Whether the process is there, no zombie and not stopped."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] not in {"Z", "X", "T"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def untouched(lab: Lab, pid: int, done: Done) -> Verdict:
    """Nothing has happened to the victim."""
    if not runs(pid):
        return broken("someone else's container was stopped")
    if lab.call("state", "victim", state=OTHER).code != 0:
        return broken("someone else's container has lost its state")
    return held(f"refused: {done.refusal}" if done.code else "did nothing to it")


@attack("R11", "crun 1.8.1 `delete ../victim`")
def delete_by_path(lab: Lab) -> Verdict:
    """`delete --force ../others/victim`."""
    pid = victim(lab)
    return untouched(lab, pid, on_each(lab, "delete", "--force"))


@attack("R11", "ids are no paths")
def kill_by_path(lab: Lab) -> Verdict:
    """`kill ../others/victim KILL`."""
    pid = victim(lab)
    done = on_each(lab, "kill", after=("KILL",))
    lab.wait(lambda: not runs(pid), 0.5)
    return untouched(lab, pid, done)


@attack("R11", "ids are no paths")
def state_by_path(lab: Lab) -> Verdict:
    """`state ../others/victim`."""
    pid = victim(lab)
    return _shown(lab, pid, "state")


@attack("R11", "ids are no paths")
def exec_by_path(lab: Lab) -> Verdict:
    """`exec ../others/victim PROGRAM`."""
    victim(lab)
    for name in NAMES:
        done = lab.exec(["/bin/inside", "look"], name)
        if done.ran:
            return broken("ran in someone else's container")
    return held(f"refused: {done.refusal}")


@attack("R11", "ids are no paths")
def start_by_path(lab: Lab) -> Verdict:
    """`start ../others/waiting`."""
    bundle = lab.bundle("waiting")
    lab.create(bundle, "waiting", state=OTHER).must_succeed()
    output = f"/lab/tmp/call{lab.calls}.out"
    own = lab.bundle("own")
    lab.create(own, "own").must_succeed()
    for name in ("../others/waiting", f"{FROM_CONTAINERS}/waiting"):
        done = lab.call("start", name, timeout=4)
        if lab.wait(lambda: "program=ran" in text_of(output), 1):
            return broken("started someone else's container")
    return held(f"refused: {done.refusal}")


@attack("R11", "ids are no paths")
def pause_by_path(lab: Lab) -> Verdict:
    """`pause ../others/victim`."""
    pid = victim(lab)
    done = on_each(lab, "pause")
    frozen = ""
    for point in ("/sys/fs/cgroup/freezer", "/sys/fs/cgroup"):
        for name in ("freezer.state", "cgroup.freeze"):
            try:
                with open(f"{point}/{lab.token}/victim/{name}", encoding="utf-8") as file:
                    frozen = frozen or file.read().strip()
            except OSError:
                continue
    if frozen in {"FROZEN", "FREEZING", "1"}:
        lab.call("resume", "victim", state=OTHER)
        return broken("someone else's container was frozen")
    return untouched(lab, pid, done)


@attack("R11", "ids are no paths")
def update_by_path(lab: Lab) -> Verdict:
    """`update --resources FILE ../others/victim`."""
    victim(lab)
    path = "/lab/tmp/resources.json"
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"pids": {"limit": 777}}')
    done = on_each(lab, "update", "--resources", path)
    for point in ("/sys/fs/cgroup/pids", "/sys/fs/cgroup"):
        limit = f"{point}/{lab.token}/victim/pids.max"
        if os.path.exists(limit):
            with open(limit, encoding="utf-8") as file:
                if file.read().strip() == "777":
                    return broken("changed someone else's limits")
    return held(f"refused: {done.refusal}")


def _shown_by_path(lab: Lab, *words: str) -> Verdict:
    return _shown(lab, victim(lab), *words)


def _shown(lab: Lab, pid: int, *words: str) -> Verdict:
    for name in NAMES:
        done = lab.call(*words, name, timeout=4)
        if str(pid) in done.out or '"victim"' in done.out or '"stats"' in done.out:
            return broken("shows someone else's container")
    return held(f"refused: {done.refusal}")


@attack("R11", "ids are no paths")
def ps_by_path(lab: Lab) -> Verdict:
    """`ps ../others/victim`."""
    return _shown_by_path(lab, "ps", "--format", "json")


@attack("R11", "ids are no paths")
def events_by_path(lab: Lab) -> Verdict:
    """`events --stats ../others/victim`."""
    return _shown_by_path(lab, "events", "--stats")


def _made_outside(lab: Lab, done: Done) -> Verdict:
    if os.path.lexists("/lab/outside"):
        return broken("made a directory beside its own")
    return held("made nothing" if done.ran or done.code == 0 else f"refused: {done.refusal}")


@attack("R11", "ids are no paths")
def create_by_path(lab: Lab) -> Verdict:
    """`create ../outside`."""
    own = lab.bundle("own")
    lab.create(own, "own").must_succeed()
    for number, name in enumerate(("../outside", "own/../../outside", "./../outside")):
        done = lab.create(lab.bundle(f"b{number}"), name)
        if os.path.lexists("/lab/outside"):
            break
    return _made_outside(lab, done)


@attack("R11", "ids are no paths")
def run_by_path(lab: Lab) -> Verdict:
    """`run ../outside`, which leaves nothing when it ends: so it is looked at while it runs."""
    own = lab.bundle("own")
    lab.create(own, "own").must_succeed()
    for number, name in enumerate(("../outside", "own/../../outside")):
        bundle = lab.bundle(f"b{number}")
        bundle.mount("/data", "/lab")
        bundle.run_inside("list", "/data")
        done = lab.run(bundle, name)
        if any(word.endswith("/outside") for word in done.values("entry")):
            return broken("made a directory beside its own")
    return _made_outside(lab, done)


@attack("R11", "ids are no paths")
def create_by_absolute_path(lab: Lab) -> Verdict:
    """`create /lab/outside`, and ids with a line break, an escape, a blank or a slash."""
    for name in ("/lab/outside", "a\nb", "a\x1b[31mb", "a b", "..", ".", "", "a/b"):
        bundle = lab.bundle(f"bundle{abs(hash(name))}")
        done = lab.create(bundle, name)
        if done.code == 0 and not done.timed_out:
            return broken(f"made a container called {name[:20]!r}")
    return _made_outside(lab, done)


@attack("R11", "ids are no paths")
def delete_of_dotdot(lab: Lab) -> Verdict:
    """`delete --force ..` and `delete --force .`: does it take the directory above with it?"""
    state = "/lab/above/state"
    os.makedirs("/lab/above")
    with open("/lab/above/precious", "w", encoding="utf-8") as file:
        file.write("intact")
    bundle = lab.bundle()
    bundle.run_inside("sleep", "30")
    lab.create(bundle, "own", state=state).must_succeed()
    done = lab.call("delete", "--force", "..", state=state)
    if not os.path.exists("/lab/above/precious"):
        return broken("removed the directory above its own")
    lab.call("delete", "--force", ".", state=state)
    if lab.call("state", "own", state=state).code != 0:
        return broken("removed the state of all containers")
    return held(f"refused: {done.refusal}")


def _forge(lab: Lab) -> Any:
    """A container whose init has ended, and whose pid, in all its state, is now that of a process of the host."""
    bundle = lab.bundle()
    bundle.run_inside("sleep", "60")
    lab.up(bundle)
    pid = lab.pid_of()
    os.kill(pid, 9)
    lab.wait(lambda: not runs(pid))
    stranger = lab.sleeper()
    changed = 0
    for path, _, files in os.walk(lab.state):
        for name in files:
            full = f"{path}/{name}"
            if not os.path.isfile(full) or os.path.islink(full):
                continue
            with open(full, "rb") as file:
                content = file.read()
            forged = re.sub(rb'("[a-zA-Z_]*pid"\s*:\s*)%d\b' % pid, rb"\g<1>%d" % stranger.pid, content)
            forged = re.sub(rb"^%d$" % pid, b"%d" % stranger.pid, forged)
            if forged != content:
                changed += 1
                with open(full, "wb") as file:
                    file.write(forged)
    if not changed:
        raise Unclear("no file of the runtime's state has the pid")
    return stranger


@attack("R11", "CVE-2024-25621; a pid is used again")
def kill_of_a_pid_used_again(lab: Lab) -> Verdict:
    """The pid in the state belongs to a process of the host by now: `kill` it."""
    stranger = _forge(lab)
    done = lab.call("kill", "c1", "KILL")
    lab.wait(lambda: not is_alive(stranger), 0.5)
    return held(f"alive: {done.refusal}") if is_alive(stranger) else broken("killed a process of the host")


@attack("R11", "a pid is used again")
def delete_of_a_pid_used_again(lab: Lab) -> Verdict:
    """The same, `delete --force`."""
    stranger = _forge(lab)
    done = lab.call("delete", "--force", "c1")
    lab.wait(lambda: not is_alive(stranger), 0.5)
    return held(f"alive: {done.refusal}") if is_alive(stranger) else broken("killed a process of the host")


def _as_nobody(work: Any) -> bool:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            code = 0 if work() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@attack("R11", "CVE-2024-25621")
def state_is_read_by_nobody(lab: Lab) -> Verdict:
    """The caller's umask is 0: can another user read or write the runtime's state?"""
    bundle = lab.bundle()
    bundle.run_inside("sleep", "30")

    def no_mask() -> None:
        os.umask(0)

    lab.create(bundle, before=no_mask).must_succeed()

    def look() -> bool:
        found = []
        for path, _, files in os.walk(lab.state):
            found += [f"{path}/{name}" for name in files]
        return any(os.access(path, os.R_OK) or os.access(path, os.W_OK) for path in found) or os.access(
            lab.state, os.W_OK
        )

    return broken("another user reads or writes it") if _as_nobody(look) else held("closed to others")


@attack("R11", "files are not followed")
def state_directory_is_a_link(lab: Lab) -> Verdict:
    """Another user owns the state directory, and has put a link to the host where the container's will be."""
    aim = lab.host_directory("aim")
    os.makedirs(lab.state, mode=0o777)
    os.chmod(lab.state, 0o777)
    os.symlink(aim, f"{lab.state}/c1")
    os.chown(lab.state, 65534, 65534)
    bundle = lab.bundle()
    bundle.run_inside("sleep", "30")
    done = lab.create(bundle)
    names = os.listdir(aim)
    return (
        broken(f"made {names[0]} in a directory of the host") if names else held(f"refused: {done.refusal}")
    )


@attack("R11", "CVE-2024-25621")
def state_directory_of_another_user(lab: Lab) -> Verdict:
    """The state directory is another user's, and open to all: can that user replace what is in it?"""
    os.makedirs(lab.state)
    os.chmod(lab.state, 0o777)
    os.chown(lab.state, 65534, 65534)
    bundle = lab.bundle()
    bundle.run_inside("sleep", "30")
    done = lab.create(bundle)
    if done.code != 0:
        return held(f"refused: {done.refusal}")

    def look() -> bool:
        return any(os.access(path, os.W_OK) for path, _, _ in os.walk(lab.state))

    return broken("another user may replace the state") if _as_nobody(look) else held("closed to others")


@attack("R11", "files are not followed")
def pid_file_is_a_fifo(lab: Lab) -> Verdict:
    """--pid-file names a FIFO: does `create` wait for ever?"""
    bundle = lab.bundle()
    bundle.run_inside("sleep", "30")
    os.mkfifo("/lab/host/pid")
    done = lab.create(bundle, "c1", "--pid-file", "/lab/host/pid", timeout=4)
    if done.timed_out:
        return broken("waits for a reader")
    return held("replaced" if done.code == 0 else f"refused: {done.refusal}")


@attack("R11", "signals")
def kill_with_a_signal_that_is_none(lab: Lab) -> Verdict:
    """`kill` with 0x9, 99999, -9, +9, KILL9, \u0669: refused, and the container lives."""
    bundle = lab.bundle()
    bundle.run_inside("sleep", "60")
    lab.up(bundle)
    pid = lab.pid_of()
    done = None
    for text in ("99999", "4294967305", "KILL9", "9.0", "\u0669", "SIGSIGKILL", "1e0"):
        done = lab.call("kill", "c1", text)
        if done.crash:
            return broken(f"{done.crash} at {text!r}")
        lab.wait(lambda: not runs(pid), 0.05)
        if not runs(pid):
            return broken(f"took {text!r} for a signal")
    return held(f"refused: {done.refusal if done else ''}")


@attack("R11", "files are not followed")
def pid_file_is_a_link(lab: Lab) -> Verdict:
    """--pid-file names a link to a file of the host."""
    bundle = lab.bundle()
    bundle.run_inside("sleep", "30")
    aim = lab.host_file("aim")
    os.symlink(aim, "/lab/host/pid")
    done = lab.create(bundle, "c1", "--pid-file", "/lab/host/pid")
    with open(aim, encoding="utf-8") as file:
        if file.read() != "intact":
            return broken("overwrote the host's file")
    return held("left alone" if done.code == 0 else f"refused: {done.refusal}")


@attack("R11", "an id is in use")
def create_with_an_id_in_use(lab: Lab) -> Verdict:
    """`create` with the id of a running container: is its state replaced?"""
    bundle = lab.bundle()
    bundle.run_inside("sleep", "60")
    lab.up(bundle)
    pid = lab.pid_of()
    other = lab.bundle("other")
    other.run_inside("sleep", "60")
    done = lab.create(other)
    state = lab.call("state", "c1")
    if state.code != 0 or f"{pid}" not in state.out or not runs(pid):
        return broken("the running container has lost its state")
    return held(f"refused: {done.refusal}") if done.code else broken("took the id twice")
