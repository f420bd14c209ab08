"""State on disk: what a kill between any two system calls leaves is found, undone and removed."""

import errno
import fcntl
import os
import re
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gocker.state
from gocker.errors import StateError
from gocker.kernel.progress import Progress
from gocker.model import ID_PATTERN
from gocker.state import State, is_id, new_id

PLAN = b'{"version":1}' * 500


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(f"{tmp_path}/state")


def entries(state: State) -> list[str]:
    """All that is below the state directory, the two fixed directories apart."""
    found = []
    for directory in ("containers", "names"):
        for top, directories, files in os.walk(f"{state.root}/{directory}"):
            found += [os.path.relpath(f"{top}/{name}", state.root) for name in directories + files]
    return sorted(found)


def recover(state: State) -> dict[str, bytes]:
    """Release all that is abandoned; return the plans that were to be undone."""
    plans = {}
    for claim in state.abandoned():
        if not claim.busy:
            plans[claim.id] = claim.plan
        claim.release()
    return plans


def in_child(action: Callable[[], object], kill_at: int = 0) -> int:
    """Run `action` in a forked child, killed before its n-th call into the kernel; the wait status."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    calls = 0

    def count(_frame: object, event: str, function: object) -> None:
        nonlocal calls
        if event == "c_call" and getattr(function, "__module__", "") in {"posix", "fcntl"}:
            calls += 1
            if calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        sys.setprofile(count)
        action()
        sys.setprofile(None)
        code = 0
    finally:
        os._exit(code)


def before_call(name: str, then: Callable[[], object], action: Callable[[], object]) -> None:
    """Run `action`, and `then` just before its first call into the kernel of this name."""

    def watch(_frame: object, event: str, function: object) -> None:
        if event == "c_call" and getattr(function, "__name__", "") == name:
            sys.setprofile(None)
            then()

    sys.setprofile(watch)
    try:
        action()
    finally:
        sys.setprofile(None)


def sweep(prepare: Callable[[], object], action: Callable[[], object], check: Callable[[], None]) -> int:
    """Kill `action` at each of its calls in turn; return how many there were."""
    for kill_at in range(1, 1000):
        prepare()
        status = in_child(action, kill_at)
        check()
        if not os.WIFSIGNALED(status):
            assert status == 0
            return kill_at - 1
    raise AssertionError("the action never ended")


@given(st.one_of(st.text(max_size=130), st.from_regex(ID_PATTERN, fullmatch=True), st.text("aZ0_.+-/\n")))
def test_an_id_is_what_the_pattern_matches_in_full(text: str) -> None:
    assert is_id(text) == bool(re.fullmatch(ID_PATTERN, text))


def test_new_ids_are_hexadecimal_and_differ() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch("[0-9a-f]{12,64}", text) for text in ids)


def test_the_plan_is_on_disk_in_private_files_while_the_container_lives(state: State) -> None:
    claim = state.create("abc", "web", PLAN)
    top = Path(state.root)
    assert (top / "containers/abc/plan.json").read_bytes() == PLAN
    assert os.readlink(top / "names/web") == "abc"
    modes = {str(path.relative_to(top)): stat.S_IMODE(path.lstat().st_mode) for path in top.rglob("*")}
    modes.pop("names/web")
    assert modes == {
        "containers": 0o700,
        "names": 0o700,
        "containers/abc": 0o700,
        "containers/abc/lock": 0o600,
        "containers/abc/plan.json": 0o600,
    }
    assert stat.S_IMODE(top.stat().st_mode) == 0o700
    claim.release()
    assert entries(state) == []


def test_the_name_is_the_short_id_by_default(state: State) -> None:
    claim = state.create("0123456789abcdef", "", PLAN)
    assert claim.name == "0123456789ab"
    assert "names/0123456789ab" in entries(state)
    claim.release()


def test_the_lock_is_closed_when_the_payload_is_executed(state: State) -> None:
    before = set(os.listdir("/proc/self/fd"))
    claim = state.create("abc", "", PLAN)
    new = [
        int(fd) for fd in set(os.listdir("/proc/self/fd")) - before if os.path.exists(f"/proc/self/fd/{fd}")
    ]
    assert len(new) == 2  # the lock, and what the first process's progress is mapped from
    assert not any(map(os.get_inheritable, new))
    claim.release()
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("bad", ["", ".", "..", "../victim", "a/b", "a\n", "-a", "a" * 129, "ä", "a\0"])
def test_a_malformed_id_is_refused(state: State, bad: str) -> None:
    with pytest.raises(StateError, match="not a container id"):
        state.create(bad, "web", PLAN)
    assert not os.path.exists(state.root)


@pytest.mark.parametrize("bad", ["..", "../victim", "a/b", "a b", ".hidden"])
def test_a_malformed_name_is_refused(state: State, bad: str) -> None:
    with pytest.raises(StateError, match="not a name"):
        state.create("abc", bad, PLAN)
    assert not os.path.exists(state.root)


def test_an_id_in_use_is_refused_and_its_container_unharmed(state: State) -> None:
    claim = state.create("abc", "one", PLAN)
    before = entries(state)
    with pytest.raises(StateError, match="create container abc: this id is in use"):
        state.create("abc", "two", b"other")
    assert entries(state) == before
    claim.release()


def test_a_name_in_use_is_refused_and_the_error_says_who_has_it(state: State) -> None:
    claim = state.create("abc", "web", PLAN)
    before = entries(state)
    with pytest.raises(StateError, match="name container web: container abc has this name"):
        state.create("def", "web", PLAN)
    assert entries(state) == before
    claim.release()
    state.create("def", "web", PLAN).release()


def test_a_name_of_a_dead_container_is_free(state: State) -> None:
    assert in_child(lambda: state.create("abc", "web", PLAN)) == 0
    claim = state.create("def", "web", PLAN)
    assert recover(state) == {"abc": PLAN}
    assert os.readlink(f"{state.root}/names/web") == "def"
    claim.release()
    assert entries(state) == []


@pytest.mark.parametrize("text", ["gone", "../../etc", "no id"])
def test_a_name_that_leads_nowhere_is_free(state: State, text: str) -> None:
    state.create("abc", "web", PLAN).release()
    os.symlink(text, f"{state.root}/names/web")
    state.create("def", "web", PLAN).release()
    assert entries(state) == []


def test_what_lies_in_place_of_a_name_is_no_holder(state: State) -> None:
    state.create("abc", "web", PLAN).release()
    Path(f"{state.root}/names/web").touch()
    state.create("def", "web", PLAN).release()
    assert entries(state) == []


def test_an_id_that_is_being_made_is_in_use(state: State) -> None:
    state.create("abc", "", PLAN).release()
    os.mkdir(f"{state.root}/containers/.abc")
    with pytest.raises(StateError, match="this id is in use"):
        state.create("abc", "", PLAN)


def test_of_many_that_want_one_name_one_gets_it(state: State) -> None:
    read, write = os.pipe()

    def claim() -> None:
        os.read(read, 1)
        try:
            state.create(new_id(), "web", PLAN)
        except StateError as error:
            os._exit(7 if "has this name" in str(error) else 8)
        time.sleep(0.3)

    children = []
    for _ in range(8):
        pid = os.fork()
        if pid == 0:
            try:
                claim()
                os._exit(0)
            finally:
                os._exit(1)
        children.append(pid)
    os.write(write, b"x" * 8)
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)
    assert codes == [0, 7, 7, 7, 7, 7, 7, 7]
    assert len(recover(state)) == 1
    assert entries(state) == []
    os.close(read)
    os.close(write)


def test_a_living_container_is_not_abandoned(state: State) -> None:
    claim = state.create("abc", "", PLAN)
    assert recover(state) == {}
    assert in_child(lambda: recover(state) and os._exit(9)) == 0
    claim.release()


def test_a_container_whose_gocker_is_gone_is_abandoned_with_its_plan(state: State) -> None:
    assert in_child(lambda: state.create("abc", "web", PLAN)) == 0
    assert recover(state) == {"abc": PLAN}
    assert entries(state) == []


def test_a_parked_child_that_outlives_its_gocker_keeps_the_container(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gocker.statefiles.PATIENCE", 0.1)
    read, write = os.pipe()

    def create_and_leave_a_child() -> None:
        state.create("abc", "", PLAN)
        if os.fork() == 0:
            os.close(write)
            os.read(read, 1)  # ends when the test closes its end
            os._exit(0)

    assert in_child(create_and_leave_a_child) == 0
    busy = list(state.abandoned())
    assert [(claim.id, claim.busy) for claim in busy] == [("abc", True)]
    busy[0].release()
    assert recover(state) == {}
    monkeypatch.setattr("gocker.statefiles.PATIENCE", 5)
    os.close(write)
    assert recover(state) == {"abc": PLAN}  # waits until the child has ended
    os.close(read)


def test_nobody_waits_for_a_living_gocker(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    def look() -> None:
        for module in ("claim", "state"):
            monkeypatch.setattr(f"gocker.{module}.own", set())  # as a program of its own
        began = time.monotonic()
        assert list(state.abandoned()) == []
        assert time.monotonic() < began + 1

    claim = state.create("abc", "", PLAN)
    assert list(state.abandoned()) == []
    assert in_child(look) == 0  # after this process had a look of its own, which drops no lock
    claim.release()


def test_what_the_audit_log_is_owed_is_kept_with_the_plan_and_goes_with_it(state: State) -> None:
    assert in_child(lambda: state.create("abc", "web", PLAN).owe(b"[1]")) == 0
    found = []
    for claim in state.abandoned():
        found.append((claim.plan, claim.owed))
        claim.release()
    assert found == [(PLAN, b"[1]")]
    assert entries(state) == []


def test_of_what_is_owed_the_last_that_is_whole_counts(state: State) -> None:
    def owe() -> None:
        claim = state.create("abc", "web", PLAN)
        claim.owe(b"[1]")
        claim.owe(b"[1, 2]")
        os.lseek(claim.fd, 0, os.SEEK_END)
        os.write(claim.fd, b"\n[1, 2, 3")  # as a kill in the middle of the write leaves it

    assert in_child(owe) == 0
    for claim in state.abandoned():
        assert claim.owed == b"[1, 2]"
        claim.release()
    assert entries(state) == []


def test_how_far_the_first_process_got_is_kept(state: State) -> None:
    def begin() -> None:
        Progress(state.create("abc", "web", PLAN).fd).step = 7

    for action, step in ((lambda: state.create("abc", "web", PLAN), -1), (begin, 7)):
        assert in_child(action) == 0
        for claim in state.abandoned():
            assert claim.progress == step
            claim.release()
        assert entries(state) == []


def lasting(state: State, container: str = "abc") -> None:
    claim = state.create(container, container, PLAN)
    Progress(claim.fd).step = 7
    claim.describe(b"{}")
    claim.last()
    claim.close()


def test_what_is_owed_of_a_container_that_lasts_leaves_its_progress_as_it_was(state: State) -> None:
    lasting(state)
    claim = state.lasting("abc")
    assert (claim.progress, claim.owed) == (7, b"")
    claim.owe(b"[1]")
    claim.close()
    claim = state.lasting("abc")
    assert (claim.progress, claim.look(), claim.owed) == (7, 7, b"[1]")
    claim.settle()
    claim.close()
    claim = state.lasting("abc")
    assert (claim.progress, claim.owed) == (7, b"")
    claim.release()
    assert entries(state) == []


def test_those_of_which_something_is_owed_are_found_unless_they_are_in_use(state: State) -> None:
    assert list(state.indebted()) == []
    for container in ("abc", "def", "ghi"):
        lasting(state, container)
    for container in ("def", "ghi"):
        claim = state.lasting(container)
        claim.owe(b"[]")
        claim.close()
    user = os.open(f"{state.root}/containers/ghi/lock", os.O_RDWR)
    fcntl.flock(user, fcntl.LOCK_EX)
    found = []
    for claim in state.indebted():
        found.append(claim.id)
        claim.settle()
    assert found == ["def"]
    os.close(user)
    assert [claim.id for claim in state.indebted()] == ["ghi"]


def test_a_container_that_is_to_last_is_abandoned_before_and_one_that_lasted_after(state: State) -> None:
    def describe() -> None:
        state.create("abc", "web", PLAN).describe(b"{1}")

    def end() -> None:
        state.lasting("abc").end()

    assert in_child(describe) == 0
    for claim in state.abandoned():
        assert claim.known == b"{1}"
        claim.release()
    assert entries(state) == []
    lasting(state)
    assert recover(state) == {}
    assert in_child(end) == 0
    assert state.lasting_ids() == []
    for claim in state.abandoned():
        assert claim.known == b"{}"
        claim.last()
    assert state.lasting_ids() == ["abc"]
    state.lasting("abc").release()


def test_a_first_process_that_has_the_progress_mapped_does_not_hold_the_lock(state: State) -> None:
    """As one that was created and waits: it has closed all that it was given, and its gocker was killed."""
    ready, told = os.pipe()
    hold, never = os.pipe()

    def first() -> None:
        os.read(hold, 1)

    def gocker() -> None:
        claim = state.create("abc", "web", PLAN)
        progress = Progress(claim.fd)
        if os.fork() == 0:
            os.close(claim._lock)
            os.close(claim.fd)
            progress.step = 3
            os.write(told, b"x")
            os.close(never)
            first()
            os._exit(0)
        os.read(ready, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(gocker) == signal.SIGKILL
    begin = time.monotonic()
    assert recover(state) == {"abc": PLAN}
    assert time.monotonic() - begin < 2
    os.close(never)
    for fd in (ready, told, hold):
        os.close(fd)


def test_killed_at_any_call_of_owing_it_leaves_nothing_after_recovery(state: State) -> None:
    def owe() -> None:
        claim = state.create("abc", "web", PLAN)
        claim.owe(b"[1]")

    kills = 0
    while in_child(owe, kills + 1) == signal.SIGKILL:
        kills += 1
        for claim in state.abandoned():
            assert claim.owed in {b"", b"[1]"}
            claim.release()
        assert entries(state) == []
    assert kills > 10


def test_nothing_is_abandoned_where_nothing_was_made(state: State) -> None:
    assert recover(state) == {}
    assert not os.path.exists(state.root)


def test_what_is_not_released_stays_for_the_next_call(state: State) -> None:
    in_child(lambda: state.create("abc", "web", PLAN))
    for _ in range(2):
        assert [claim.id for claim in state.abandoned()] == ["abc"]
    assert recover(state) == {"abc": PLAN}


def test_two_recoveries_do_not_meet_in_one_container(state: State) -> None:
    in_child(lambda: state.create("abc", "web", PLAN))
    for claim in state.abandoned():
        assert in_child(lambda: recover(state) and os._exit(9)) == 0
        claim.release()
    assert entries(state) == []


def test_killed_at_any_call_of_create_it_leaves_nothing_after_recovery(state: State) -> None:
    def check() -> None:
        assert recover(state) in ({}, {"abc": PLAN})
        assert entries(state) == []
        state.create("abc", "web", PLAN).release()

    calls = sweep(lambda: None, lambda: state.create("abc", "web", PLAN), check)
    assert calls > 12


def test_killed_at_any_call_of_release_it_leaves_nothing_after_recovery(state: State) -> None:
    def check() -> None:
        assert recover(state) in ({}, {"abc": PLAN})
        assert entries(state) == []

    def create_and_release() -> None:
        profile = sys.getprofile()
        sys.setprofile(None)
        claim = state.create("abc", "web", PLAN)
        sys.setprofile(profile)
        claim.release()

    assert sweep(lambda: None, create_and_release, check) > 10


def test_killed_at_any_call_of_a_recovery_the_next_recovery_does_it(state: State) -> None:
    def prepare() -> None:
        assert in_child(lambda: state.create("abc", "web", PLAN)) == 0
        assert os.WIFSIGNALED(in_child(lambda: state.create("def", "", PLAN), 8))
        assert "containers/.def" in entries(state)

    def check() -> None:
        assert recover(state) in ({}, {"abc": PLAN})
        assert entries(state) == []

    assert sweep(prepare, lambda: recover(state), check) > 20


def test_a_recovery_never_takes_what_is_alive(state: State) -> None:
    def live() -> None:
        for _ in range(60):
            claim = state.create(new_id(), "", PLAN)
            os.stat(f"{state.root}/containers/{claim.id}/plan.json")
            claim.release()

    pids = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            try:
                live()
                os._exit(0)
            finally:
                os._exit(1)
        pids.append(pid)
    codes = []
    while pids:
        assert recover(state) == {}
        for pid in list(pids):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                pids.remove(pid)
                codes.append(status)
    assert codes == [0, 0, 0]
    assert entries(state) == []


def test_a_recovery_that_comes_as_the_container_is_released_leaves_its_successor_alone(state: State) -> None:
    claim = state.create("abc", "", PLAN)
    gocker.claim.own.clear()  # as if another process had made it
    successors = []

    def replace() -> None:
        claim.release()
        successors.append(state.create("abc", "web", b"successor"))

    before_call("flock", replace, lambda: recover(state))
    assert Path(f"{state.root}/containers/abc/plan.json").read_bytes() == b"successor"
    assert os.readlink(f"{state.root}/names/web") == "abc"
    successors[0].release()
    assert entries(state) == []


def test_a_name_that_is_taken_as_it_is_given_up_stays_with_who_takes_it(state: State) -> None:
    claim = state.create("abc", "web", PLAN)
    children = []

    def take() -> None:
        children.append(os.fork())
        if children == [0]:
            code = 1
            try:
                state.create("def", "web", PLAN)
                code = 0
            finally:
                os._exit(code)
        time.sleep(0.05)

    before_call("unlink", take, claim.release)
    assert os.waitpid(children[0], 0)[1] == 0
    assert os.readlink(f"{state.root}/names/web") == "def"
    assert recover(state) == {"def": PLAN}


def test_what_others_put_there_is_neither_followed_nor_removed(state: State, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "lock").touch()
    (victim / "plan.json").write_bytes(b"{}")
    state.create("abc", "", PLAN).release()
    os.symlink(victim, f"{state.root}/containers/link")
    os.mkdir(f"{state.root}/containers/foreign")
    Path(f"{state.root}/containers/foreign/file").touch()
    Path(f"{state.root}/containers/file").touch()
    assert recover(state) == {}
    assert sorted(os.listdir(victim)) == ["lock", "plan.json"]
    assert entries(state) == [
        "containers/file",
        "containers/foreign",
        "containers/foreign/file",
        "containers/link",
    ]


def test_an_unknown_file_in_a_container_s_directory_stays_and_is_an_error(state: State) -> None:
    claim = state.create("abc", "", PLAN)
    Path(f"{state.root}/containers/abc/notes").touch()
    with pytest.raises(StateError, match=r"remove state of abc in .*ENOTEMPTY"):
        claim.release()
    assert entries(state) == ["containers/abc", "containers/abc/notes"]


def test_releasing_twice_is_fine_and_leaves_a_successor_alone(state: State) -> None:
    claim = state.create("abc", "", PLAN)
    claim.release()
    second = state.create("abc", "", PLAN)
    claim.release()
    assert recover(state) == {}
    second.release()


def test_a_state_directory_that_was_removed_can_still_be_released(state: State) -> None:
    claim = state.create("abc", "", PLAN)
    for path in sorted(Path(state.root).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    Path(state.root).rmdir()
    claim.release()


def test_a_directory_that_others_may_write_is_refused(state: State) -> None:
    os.makedirs(f"{state.root}/containers")
    os.mkdir(f"{state.root}/names")
    os.chmod(f"{state.root}/containers", 0o777)
    with pytest.raises(StateError, match="others own it or may write to it"):
        state.create("abc", "", PLAN)
    with pytest.raises(StateError, match="others own it or may write to it"):
        list(state.abandoned())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a directory is given to another user")
def test_a_directory_of_another_user_is_refused(state: State) -> None:
    os.makedirs(f"{state.root}/containers", 0o700)
    os.chown(f"{state.root}/containers", 1000, 1000)
    with pytest.raises(StateError, match="others own it"):
        list(state.abandoned())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user is tried")
def test_without_privileges_the_error_says_who_can(state: State) -> None:
    def as_nobody() -> None:
        os.setuid(65534)
        for use in (lambda: state.create("abc", "", PLAN), lambda: list(state.abandoned())):
            with pytest.raises(StateError, match=r"EACCES: .* \(run gocker as root, or set GOCKER_STATE"):
                use()

    assert in_child(as_nobody) == 0


def test_a_symbolic_link_in_place_of_the_directory_is_refused(state: State, tmp_path: Path) -> None:
    os.mkdir(state.root)
    os.symlink(tmp_path, f"{state.root}/containers")
    with pytest.raises(StateError, match=r"ENOTDIR|ELOOP"):
        state.create("abc", "", PLAN)


def test_a_state_path_below_a_file_is_one_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    state = State(f"{tmp_path}/file/state")
    with pytest.raises(
        StateError, match=r"create state of abc in .*: ENOTDIR: .* \(give GOCKER_STATE"
    ) as caught:
        state.create("abc", "", PLAN)
    assert caught.value.errno == errno.ENOTDIR
    assert "\n" not in str(caught.value)


def test_a_plan_that_cannot_be_written_leaves_nothing(state: State) -> None:
    """A file size limit stands for a full disk: open succeeds, write fails."""

    def create() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(StateError, match="EFBIG"):
            state.create("abc", "web", PLAN)
        assert entries(state) == []

    assert in_child(create) == 0
    assert entries(state) == []
