"""What doctor tries: it says what came of it, and takes everything back when it fails half-way too."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import pytest
from planning import DEMO, place, registry

from gocker import doctor, trial
from gocker.api import Cgroup, CgroupController, CgroupReader, Resources
from gocker.doctor import LIMITED, MISSING, OK, kernel_version
from gocker.errors import GockerError, HierarchyError, KernelError, LimitError, PluginError
from gocker.hierarchy import Hierarchies, Place, read_host
from gocker.kernel import process
from gocker.model import Hierarchy
from gocker.plan import Context
from gocker.steps.launch import Clone
from gocker.trial import in_child


class Pids(CgroupController):
    """As ours, but for what each test gets wrong."""

    api_version = (1, 0)
    name = "pids"
    kernel_names = {Hierarchy.V1: "pids", Hierarchy.V2: "pids"}  # noqa: RUF012 - declared ClassVar
    value = "64"

    def parse(self, fields: Mapping[str, str]) -> Resources:
        return {"pids.limit": fields.get("", "64")}

    def set(self, group: Cgroup, resources: Resources) -> None:
        group.write("pids.max", self.value, limit="pids")


class Unbound(Pids):
    value = "many"


class Broken(Pids):
    def set(self, group: Cgroup, resources: Resources) -> None:
        raise ZeroDivisionError("a bug")


class Miscounts(Pids):
    def stats(self, group: CgroupReader) -> Mapping[str, int]:
        raise ZeroDivisionError("a bug in stats")


def pids() -> Place:
    found = read_host().find("pids")
    if found is None:
        pytest.skip("the pids controller is not mounted here")
    return found


def left_in(where: Place) -> list[str]:
    return [name for name in os.listdir(where.mountpoint) if "doctor" in name]


# --- processes


def test_a_child_says_what_came_of_it() -> None:
    assert in_child(lambda: f"é {os.getpid()}", process.CLONE_NEWPID) == "é 1"


def raising(error: BaseException) -> NoReturn:
    raise error


def test_an_os_error_comes_through_with_its_number() -> None:
    with pytest.raises(OSError, match="No space left on device") as caught:
        in_child(lambda: raising(OSError(errno.ENOSPC, "x")))
    assert caught.value.errno == errno.ENOSPC


def test_an_error_of_ours_comes_through_whole() -> None:
    with pytest.raises(GockerError) as caught:
        in_child(lambda: raising(LimitError("set", "memory", "no", remedy="less", errno=errno.EINVAL)))
    error = caught.value
    assert (error.operation, error.target, error.reason) == ("set", "memory", "no")
    assert (error.remedy, error.errno) == ("less", errno.EINVAL)


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), SystemExit(3), OSError("odd")])
def test_any_other_is_an_error_that_names_it(error: BaseException) -> None:
    with pytest.raises(GockerError, match=f"^try: {type(error).__name__}: {error}$"):
        in_child(lambda: raising(error))


@pytest.mark.parametrize(
    ("end", "how"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "was ended by SIGKILL"),
        (lambda: os._exit(9), "ended with exit status 9"),
    ],
)
def test_a_child_that_says_nothing_is_an_error_that_tells_its_end(end: object, how: str) -> None:
    def die() -> str:
        end()  # type: ignore[operator]
        return ""

    with pytest.raises(KernelError, match=f"the process {how}"):
        in_child(die)


def test_what_is_done_meanwhile_is_done_before_the_child_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "file"

    def write(pid: int) -> None:
        file.write_text("there")

    assert in_child(file.read_text, meanwhile=write) == "there"


def test_an_error_meanwhile_ends_the_child_and_comes_through() -> None:
    children: list[int] = []

    def fail(pid: int) -> None:
        children.append(pid)
        raise PermissionError(errno.EPERM, "no")

    with pytest.raises(PermissionError):
        in_child(lambda: "", meanwhile=fail)
    assert not os.path.exists(f"/proc/{children[0]}")


def test_a_clone_that_fails_leaves_no_fd() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        in_child(lambda: "", cgroup_fd=0)
    assert in_child(lambda: "") == ""
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_the_stub_is_heard() -> None:
    assert trial.try_stub() == "runs from a sealed memfd, says ENOENT"


# --- cgroups


@pytest.mark.guest
def test_a_controller_that_works_says_where() -> None:
    where = pids()
    assert trial.try_controller(Pids(), where, {}).startswith(f"{where.version.value} at {where.mountpoint}")
    assert left_in(where) == []


@pytest.mark.parametrize(
    ("plugin", "error"),
    [(Unbound(), LimitError), (Broken(), ZeroDivisionError), (Miscounts(), ZeroDivisionError)],
)
def test_one_that_does_not_leaves_nothing(plugin: CgroupController, error: type[Exception]) -> None:
    where = pids()
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(error):
        trial.try_controller(plugin, where, {})
    assert left_in(where) == []
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_place_that_is_no_cgroup_is_an_error_and_is_left_as_it_was(tmp_path: Path) -> None:
    fake = place("pids", Hierarchy.V1, str(tmp_path))
    with pytest.raises(LimitError, match=r"this kernel has no pids\.max"):
        trial.try_controller(Pids(), fake, {})
    assert os.listdir(tmp_path) == []


@pytest.mark.guest
def test_v2_takes_a_newborn_in() -> None:
    unified = read_host().v2
    if unified is None:
        pytest.skip("no cgroup2 file system is mounted here")
    assert trial.try_cgroup(unified).startswith("born in one")
    assert left_in(unified) == []


@pytest.mark.guest
def test_v2_hands_down_what_it_has() -> None:
    unified = read_host().v2
    if unified is None:
        pytest.skip("no cgroup2 file system is mounted here")
    names = tuple(Path(f"{unified.mountpoint}/cgroup.controllers").read_text(encoding="ascii").split())
    with trial.unchanged_delegation(unified):
        assert trial.try_delegation(unified, names[:1]).startswith(names[0])
        with pytest.raises(HierarchyError, match=r"enable controllers nosuch"):
            trial.try_delegation(unified, ("nosuch",))
    assert left_in(unified) == []


@pytest.mark.parametrize(
    ("before", "during", "in_use", "after"),
    [
        ("cpu", "cpu", False, "cpu"),
        ("cpu", "cpu io memory", False, "-io -memory"),
        ("", "cpu", False, "-cpu"),
        ("cpu", "cpu memory", True, "cpu memory"),
        ("cpu memory", "cpu", False, "cpu"),
    ],
)
def test_what_a_trial_enables_is_taken_back_unless_containers_have_come(
    tmp_path: Path, before: str, during: str, in_use: bool, after: str
) -> None:
    """On a plain file, whose beginning is overwritten."""
    control = tmp_path / "cgroup.subtree_control"
    control.write_text(before)
    with trial.unchanged_delegation(place("cgroup", Hierarchy.V2, str(tmp_path))):
        control.write_text(during)
        if in_use:
            (tmp_path / "gocker").mkdir()
    assert control.read_text()[: len(after)] == after


def test_without_v2_there_is_nothing_to_take_back() -> None:
    with trial.unchanged_delegation(None):
        pass


# --- whole containers


@pytest.mark.guest
def test_a_container_of_each_kind_runs_and_goes() -> None:
    plugins, where = registry(), read_host()
    for kinds, terminal in (((), False), ((), True), (("user",), False), (("time",), False)):
        said = trial.try_container(plugins, where, *kinds, terminal=terminal)
        assert said.partition(" ")[0].isdigit()
        assert " steps in " in said


def test_a_container_that_cannot_be_planned_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOCKER_ROOT", str(tmp_path))
    with pytest.raises(PluginError, match="uts: not installed"):
        trial.try_container(registry(without=["uts"]), read_host())
    assert os.listdir(tmp_path) == []


def test_a_container_that_fails_half_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cgroups are plain directories: the first limit fails, when much has been made."""
    monkeypatch.setenv("GOCKER_ROOT", f"{tmp_path}/data")
    os.makedirs(tmp_path / "data")
    os.makedirs(tmp_path / "cg")
    where = Hierarchies((place("cgroup", Hierarchy.V2, str(tmp_path / "cg")),))
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(GockerError, match=r"^step \d+/\d+ "):
        trial.try_container(registry(), where)
    assert os.listdir(tmp_path / "data") == []
    assert os.listdir(tmp_path / "cg") == []
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 1  # the stub is made once and kept


@pytest.mark.parametrize(
    ("end", "how"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "it was ended by SIGKILL"),
        (lambda: os._exit(0), "it ended with exit status 0"),
        (lambda: time.sleep(600), "it has not ended after 0 s"),
    ],
)
def test_a_trial_program_that_ends_otherwise_is_an_error(
    monkeypatch: pytest.MonkeyPatch, end: Callable[[], None], how: str
) -> None:
    def enter() -> NoReturn:
        end()
        raise AssertionError

    monkeypatch.setattr(trial, "_PATIENCE", 5.0 if "not" not in how else 0.05)
    ctx, step = Context(None), Clone(kinds=(), flags=0)
    ctx.enter = enter
    step.execute(ctx)
    try:
        with pytest.raises(KernelError, match=f"^run /program: {how}"):
            trial._await_end(ctx)
    finally:
        step.undo(ctx)


# --- doctor's own


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.18.44-fc", (6, 18)),
        ("5.4.0-208-generic", (5, 4)),
        ("6.1-rc3", (6, 1)),
        ("7", (7, 0)),
        ("x.y", (0, 0)),
    ],
)
def test_the_version_of_a_kernel_is_read_from_its_release(release: str, version: tuple[int, int]) -> None:
    assert kernel_version(release) == version


@pytest.mark.parametrize(
    ("release", "status"),
    [("5.11.22", MISSING), ("4.19.0-27-amd64", MISSING), ("5.12.0", OK), ("6.1.0-49", OK)],
)
def test_a_kernel_that_is_too_old_is_missing(release: str, status: str) -> None:
    check = doctor._kernel(os.uname_result(("Linux", "host", release, "#1", "x86_64")))
    assert (check.status, check.detail) == (status, f"Linux {release} on x86_64")
    assert check.remedy == ("" if status == OK else "Linux 5.12 or newer")


@pytest.mark.parametrize(
    ("error", "detail", "remedy"),
    [
        (OSError(errno.EIO, "odd"), "EIO: odd", "the usual"),
        (OSError("odd"), "OSError: odd", "the usual"),
        (
            OSError(errno.ENOSYS, "no"),
            "ENOSYS: no",
            "the usual; something around gocker may hide the system call: ",
        ),
        (OSError(errno.EPERM, "no"), "EPERM: no", "something around gocker forbids it, such as a container"),
        (GockerError("do", "it", "no"), "do it: no", "the usual"),
        (GockerError("do", "it", "no", remedy="its own"), "do it: no", "its own"),
        (GockerError("do", "it", "no", errno=errno.EPERM), "do it: no", "something around gocker forbids it"),
        (ZeroDivisionError("x"), "ZeroDivisionError: x", "the usual"),
    ],
    ids=repr,
)
def test_what_fails_is_said_with_the_remedy_that_fits(error: Exception, detail: str, remedy: str) -> None:
    check = doctor._tried("thing", LIMITED, lambda: raising(error), "the usual")
    assert (check.name, check.status, check.detail) == ("thing", LIMITED, detail)
    assert check.remedy.startswith(remedy)


def test_what_works_has_no_remedy() -> None:
    check = doctor._tried("thing", MISSING, lambda: "fine", "the usual")
    assert (check.status, check.detail, check.remedy) == (OK, "fine", "")


def test_a_plug_in_for_the_version_that_is_not_here_is_said_so() -> None:
    where = Hierarchies((place("misc", Hierarchy.V1), place("cgroup", Hierarchy.V2)))
    check = doctor._controller("controller demo", registry(DEMO).controller("demo"), where, {})
    assert (check.status, check.detail) == (LIMITED, "not for the version of cgroups that has it here")


def test_a_refused_plug_in_is_a_check_of_its_own() -> None:
    where = Hierarchies((place("cgroup", Hierarchy.V2, readonly=True),))
    checks = {
        check.name: check
        for check in doctor._cgroups(where, registry(DEMO.replace(value="planning:Nothing")))
    }
    assert checks["plug-in demo"].status == LIMITED
    assert checks["plug-in demo"].detail.startswith("refused: AttributeError")
    assert checks["plug-in demo"].remedy == "pip uninstall gocker-demo"
    assert "clone into cgroup" not in checks  # nothing can be made there
