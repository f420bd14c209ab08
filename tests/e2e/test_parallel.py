"""Many runs at a time: none fails, none leaks, each is alone in its cgroup and whole in the audit log."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import SLOWNESS, Gocker

RUNS = 200 if SLOWNESS == 1 else 24
SHARED_RUNS = 40 if SLOWNESS == 1 else 12
BURST = 8
PATIENCE = 60 * SLOWNESS  # seconds for one burst

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200 if SLOWNESS > 1 else 120)]


class Run:
    """One `gocker run` and what came of it."""

    def __init__(self, number: int, process: subprocess.Popen[bytes]) -> None:
        self.number = number
        self.process = process

    def wait(self) -> None:
        out, err = self.process.communicate(timeout=PATIENCE)
        self.out, self.err, self.code = out.decode(), err.decode(), self.process.returncode
        paths = {line.split(":", 2)[2] for line in self.out.splitlines() if ":" in line}
        self.own = {path for path in paths if "/gocker/" in path}
        self.container = next(iter(self.own), "").rpartition("/")[2]


class Many:
    """All the runs, and the places they used."""

    def __init__(self, runs: list[Run], log: str, env: dict[str, str]) -> None:
        self.runs = runs
        self.log = log
        self.env = env


def in_bursts(gocker: Gocker, env: dict[str, str], count: int) -> Iterator[Run]:
    for start in range(0, count, BURST):
        burst = []
        for number in range(start, min(start + BURST, count)):
            script = f"cat /proc/self/cgroup; exit {number % 100}"
            args = ("run", "--cgroupns", "host", "--limit", "memory=64m", "base", "sh", "-c", script)
            burst.append(Run(number, gocker.start(*args, env=env)))
        for run in burst:
            run.wait()
            yield run


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Many:
    base = str(tmp_path_factory.mktemp("many"))
    env = {"GOCKER_STATE": f"{base}/state", "GOCKER_AUDIT_LOG": f"{base}/audit.jsonl"}
    gocker = Gocker(base)
    assert gocker("run", "base", "true", env=env).code == 0  # so that the image is here
    os.unlink(env["GOCKER_AUDIT_LOG"])
    os.unlink(env["GOCKER_AUDIT_LOG"] + ".head")
    return Many(list(in_bursts(gocker, env, RUNS)), env["GOCKER_AUDIT_LOG"], env)


@pytest.mark.guest
def test_none_of_many_parallel_runs_fails(many: Many) -> None:
    """That none leaves anything behind is what the fixture of every test sees to."""
    wrong = [(run.number, run.code, run.err) for run in many.runs if run.code != run.number % 100 or run.err]
    assert wrong == []


@pytest.mark.guest
def test_each_has_a_cgroup_of_its_own(many: Many) -> None:
    assert [run.out for run in many.runs if len(run.own) != 1] == []
    assert len({run.container for run in many.runs}) == RUNS


def test_nothing_is_left_of_any(many: Many) -> None:
    for directory in ("containers", "names"):
        assert os.listdir(f"{many.env['GOCKER_STATE']}/{directory}") == []
    for mountpoint in Path("/sys/fs/cgroup").iterdir():
        left = {path.name for path in mountpoint.glob("gocker/*")} if mountpoint.is_dir() else set()
        assert left.isdisjoint(run.container for run in many.runs)


def test_the_audit_log_has_every_event_of_each_in_order(many: Many) -> None:
    with open(many.log) as file:
        lines = [json.loads(line) for line in file]
    stories: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        stories.setdefault(line["container"], []).append(line)
    assert stories.keys() == {run.container for run in many.runs}
    shapes = {tuple(line["event"] for line in story) for story in stories.values()}
    assert len(shapes) == 1, shapes
    (shape,) = shapes
    counts = Counter(shape)
    assert [name for name in shape if name.startswith("container.")] == [
        "container.create",
        "container.start",
        "container.exit",
        "container.remove",
    ]
    assert (shape[0], shape[-1]) == ("container.create", "container.remove")
    assert counts["namespace.apply"] == 1
    assert counts["controller.set"] >= 2  # the memory limit, and that of processes
    assert counts["controller.remove"] >= 1
    codes = {run.container: run.code for run in many.runs}
    for container, story in stories.items():
        assert [line["timestamp"] for line in story] == sorted(line["timestamp"] for line in story)
        (exit_line,) = [line for line in story if line["event"] == "container.exit"]
        assert exit_line["report"]["verdict"]["code"] == codes[container]
        assert len({line["actor"]["pid"] for line in story}) == 1


@pytest.mark.guest
def test_the_chain_of_the_audit_log_is_whole(many: Many, gocker: Gocker) -> None:
    ran = gocker("audit", "verify", env=many.env)
    with open(many.log) as file:
        assert (ran.code, ran.out, ran.err) == (0, f"{len(file.readlines())} events, chain whole\n", "")


@pytest.mark.parametrize("damage", ["change", "cut", "drop"])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_line_that_is_changed_cut_or_dropped_is_named(
    many: Many, gocker: Gocker, tmp_path: Path, damage: str, place: str
) -> None:
    lines = Path(many.log).read_bytes().splitlines(keepends=True)
    index = {"first": 0, "middle": len(lines) // 2, "last": len(lines) - 1}[place]
    if damage == "change":
        lines[index] = lines[index].replace(b'"uid": 0', b'"uid": 1', 1)
    elif damage == "cut":
        lines[index] = lines[index][: len(lines[index]) // 2]
    else:
        del lines[index]
    log = tmp_path / "audit.jsonl"
    log.write_bytes(b"".join(lines))
    shutil.copy(f"{many.log}.head", f"{log}.head")
    ran = gocker("audit", "verify", env={**many.env, "GOCKER_AUDIT_LOG": str(log)})
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    named = f"event {index + 1} " if damage == "drop" and place != "last" else f"line {index + 1} "
    assert named in ran.err, ran.err


_IN_MOVED_TO, _IN_CREATE = 0x80, 0x100
_EVENT = struct.Struct("iIII")  # struct inotify_event; its name follows


class Watch:
    """What appears in some directories: inotify(7)."""

    def __init__(self, *directories: str) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        for directory in directories:
            assert libc.inotify_add_watch(self._fd, os.fsencode(directory), _IN_MOVED_TO | _IN_CREATE) > 0

    def names(self) -> list[str]:
        """In the order of appearance; ends the watch."""
        names = []
        try:
            while True:
                data = os.read(self._fd, 1 << 16)
                while data:
                    _, _, _, size = _EVENT.unpack_from(data)
                    names.append(data[_EVENT.size : _EVENT.size + size].rstrip(b"\0").decode())
                    data = data[_EVENT.size + size :]
        except BlockingIOError:
            return names
        finally:
            os.close(self._fd)


def test_of_many_first_runs_one_makes_the_image_and_all_use_it(gocker: Gocker, tmp_path: Path) -> None:
    env = {
        "GOCKER_ROOT": f"{tmp_path}/data",
        "GOCKER_STATE": f"{tmp_path}/state",
        "GOCKER_AUDIT_LOG": f"{tmp_path}/log/audit.jsonl",
    }
    folders = [f"{tmp_path}/data/images/{name}" for name in ("rootfs", "refs")]
    for folder in (f"{tmp_path}/data", f"{tmp_path}/data/images", *folders):
        os.mkdir(folder, 0o700)
    watch = Watch(*folders)
    runs = list(in_bursts(gocker, env, BURST))
    appeared = watch.names()
    assert [(run.code, run.err) for run in runs] == [(run.number, "") for run in runs]
    (image,) = os.listdir(folders[0])
    assert appeared == [f".{image}", image, ".base", "base"]
    assert gocker("audit", "verify", env=env).code == 0
    assert os.listdir(f"{tmp_path}/data/containers") == []


def hierarchies() -> list[Path]:
    """The top of each that is mounted in the usual place."""
    top = Path("/sys/fs/cgroup")
    return [
        path for path in (top, *top.iterdir()) if (path / "cgroup.procs").exists() and not path.is_symlink()
    ]


@pytest.mark.guest
def test_the_last_of_many_runs_takes_the_parent_that_they_share(gocker: Gocker, tmp_path: Path) -> None:
    """Each of its directories is made and removed by whoever is first and last in it, a killed one included."""
    env = {"GOCKER_STATE": f"{tmp_path}/state", "GOCKER_AUDIT_LOG": f"{tmp_path}/audit.jsonl"}
    name = f"shared-{os.getpid()}"
    options = ("run", "--cgroup-parent", f"/{name}/by/all", "--limit", "memory=64m", "base", "sh", "-c")
    doomed = gocker.start(*options, "echo up; exec sleep 1000", env=env)
    assert doomed.stdout
    assert doomed.stdout.readline() == b"up\n", doomed.communicate()
    waiting: list[Run] = []
    ended: list[Run] = []
    for number in range(SHARED_RUNS):
        waiting.append(Run(number, gocker.start(*options, f"exit {number}", env=env)))
        if number == SHARED_RUNS // 2:
            doomed.kill()
            doomed.communicate()
        if len(waiting) == BURST:
            ended.append(waiting.pop(0))
            ended[-1].wait()
    for run in waiting:
        run.wait()
    assert [(run.number, run.err) for run in [*ended, *waiting] if run.code != run.number] == []
    said = [line for run in [*ended, *waiting] for line in run.err.splitlines()]
    assert [line.rpartition(" of ")[2] for line in said] == ["a killed gocker was removed"]
    assert [path for path in hierarchies() if (path / name).exists()] == []


@pytest.mark.guest
def test_a_parent_that_the_operator_made_stays(gocker: Gocker) -> None:
    directories = [path / f"operators-{os.getpid()}" for path in hierarchies()]
    for directory in directories:
        directory.mkdir()
    try:
        for below in ("", "/new"):
            parent = f"/{directories[0].name}{below}"
            ran = gocker("run", "--cgroup-parent", parent, "--limit", "memory=64m", "base", "true")
            assert (ran.code, ran.err) == (0, "")
            for directory in directories:
                assert [path for path in directory.iterdir() if path.is_dir()] == []
    finally:
        for directory in directories:
            directory.rmdir()
