"""The two executors of the init phase: the same plan comes to the same end, and fails in the same words."""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from launching import Ran, run, spec

from gocker.errors import GockerError, StepError, UsageError
from gocker.kernel import native
from gocker.kernel.process import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS
from gocker.launcher import EXECUTOR, NATIVE, PYTHON
from gocker.model import Capabilities, Rlimit
from gocker.plan import Context, Step
from gocker.steps import identity
from gocker.steps.capabilities import SetCapabilities
from gocker.steps.devices import AttachNull, MakeDevices
from gocker.steps.exec import InstallSeccomp
from gocker.steps.identity import Chdir
from gocker.steps.masks import MaskPaths, ReadonlyPaths
from gocker.steps.memorypolicy import SetMemoryPolicy
from gocker.steps.mounts import BindMount, MountEtc, MountFs
from gocker.steps.namespaces import LinkUp, SetHostname, Sysctl
from gocker.steps.personality import SetPersonality
from gocker.steps.program import FindProgram
from gocker.steps.rootfs import BindRoot, OverlayRoot, PivotRoot, Propagation
from gocker.steps.users import SetUser

pytestmark = pytest.mark.skipif(not native.is_built(), reason="needs a C compiler at the installation")

NAMESPACES = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWNET
Start = Callable[..., Ran]


@pytest.fixture(params=[PYTHON, NATIVE])
def each(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(EXECUTOR, request.param)
    return str(request.param)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a few things that are in the way."""
    top = tmp_path / "root"
    for name in ("etc", "proc", "sys", "dev", "tmp", "dir", "bin"):
        (top / name).mkdir(parents=True)
    (top / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\nbob:x:7:8::/home/bob:/bin/sh\nbroken\n")
    (top / "etc" / "group").write_text("users:x:8:bob\nwheel:x:9:root,bob\n")
    (top / "file").write_text("text")
    (top / "link").symlink_to("/dir")
    (top / "loop").symlink_to("loop")
    (top / "out").symlink_to("/proc")
    for name, text in (
        ("no-mode", "#!/bin/sh\n"),
        ("no-word", "#!   \n"),
        ("no-interpreter", "#!/nothing -x\n"),
        ("dos", "#!/bin/sh\r\n"),
        ("itself", "#!/proc/self/exe\n"),
        ("dir-interpreter", "#!/dir\n"),
        ("chain", "#!/bin/no-interpreter\n"),
    ):
        program = top / "bin" / name
        program.write_text(text)
        program.chmod(0o644 if name == "no-mode" else 0o755)
    os.mkfifo(top / "bin" / "fifo")
    return top


def inside(root: Path, *steps: Step, **changes: Any) -> tuple[Sequence[Step], Any]:
    """A container in `root` whose init phase has `steps` before and after the pivot."""
    return steps, spec("true", **changes)


def failing(steps: Sequence[Step], container: Any) -> tuple[str, str, int]:
    """What the start of a plan with these steps fails with."""
    with pytest.raises(GockerError) as caught:
        run(container, init=steps, flags=NAMESPACES, kinds=("pid",))
    error = caught.value
    return type(error).__name__, str(error), error.errno


def both(
    monkeypatch: pytest.MonkeyPatch, steps: Sequence[Step], container: Any = None
) -> tuple[str, str, int]:
    """The same under both, and that it is so."""
    container = container or spec("true")
    told = []
    for name in (PYTHON, NATIVE):
        monkeypatch.setenv(EXECUTOR, name)
        told.append(failing((*steps, *identity.last_steps(container, None)), container))
    assert told[0] == told[1]
    return told[0]


def rooted(root: Path, *steps: Step) -> tuple[Step, ...]:
    """`steps` with a root that is not pivoted into yet."""
    return (Propagation(), BindRoot(path=str(root)), *steps)


def pivoted(root: Path, *steps: Step) -> tuple[Step, ...]:
    """`steps` inside."""
    proc = MountFs(fstype="proc", target="/proc")
    return rooted(root, proc, PivotRoot(), *steps)


SIMPLE: list[tuple[Step, str]] = [
    (LinkUp(name="nothing"), "ENODEV"),
    (LinkUp(name="x" * 15), "ENODEV"),
    (SetHostname(name="h" * 65), "EINVAL"),
    (Sysctl(name="net.nothing.at_all", value="1"), "ENOENT"),
    (Sysctl(name="net.ipv4.ip_forward", value="perhaps"), "EINVAL"),
    (Chdir(path="/nothing/at/all", create=False), "ENOENT"),
    (Chdir(path="/etc/passwd", create=False), "ENOTDIR"),
    (Chdir(path="/proc/self/fd/3", create=False), "ELOOP"),
    (SetPersonality(persona=0xFFFFFFFE), ""),
    (SetMemoryPolicy(mode="MPOL_BIND", nodes="900"), ""),
    (SetCapabilities(effective=("CAP_CHOWN",), permitted=()), "sets contradict"),
    (SetCapabilities(permitted=("CAP_KILL",), ambient=("CAP_KILL",)), "sets contradict"),
    (FindProgram(name="nothing-like-it", path="/bin:/nothing"), "not found in PATH"),
    (FindProgram(name="/proc/self/exe"), "itself a link of /proc"),
    (FindProgram(name="/"), "it is a directory"),
    (FindProgram(name=""), "not found"),
    (InstallSeccomp(profile="p", digest="sha256:0", instructions=1, flags=0, program=b"\0" * 8), "EINVAL"),
    (OverlayRoot(lower=("/nothing",), upper="/nothing", work="/nothing"), "ENOENT"),
    (BindRoot(path="/nothing"), "ENOENT"),
]


@pytest.mark.parametrize(("step", "words"), SIMPLE, ids=[f"{step.op}-{words}" for step, words in SIMPLE])
def test_a_step_fails_in_the_same_words(monkeypatch: pytest.MonkeyPatch, step: Step, words: str) -> None:
    if step.op in {"personality", "memory-policy"}:
        try:
            both(monkeypatch, (step,))
        except pytest.fail.Exception:
            pytest.skip("this kernel has no objection")
        return
    assert words in both(monkeypatch, (step,))[1]


MOUNTS: list[tuple[Step, str]] = [
    (MountFs(fstype="nothing", target="/sys"), "ENODEV"),
    (MountFs(fstype="tmpfs", target="/tmp", options=("nothing=7",)), "Unknown parameter"),
    (MountFs(fstype="tmpfs", target="/tmp", options=("size=much",)), "Bad value"),
    (MountFs(fstype="tmpfs", target="/link", options=()), "ordinary directory"),
    (MountFs(fstype="tmpfs", target="/file", follow=True), "ENOTDIR"),
    (MountFs(fstype="tmpfs", target="/loop", follow=True), "ELOOP"),
    (MountFs(fstype="tmpfs", target="/dir/..", follow=True), "leads to the root itself"),
    (MountFs(fstype="tmpfs", target="/file/x", follow=True), ""),
    (MountFs(fstype="tmpfs", target="/dir/../../nothing/../..", follow=True), ""),
    (BindMount(source="/nothing", target="/dir"), "make it first"),
    (BindMount(source="/etc/passwd", target="/dir"), "a file onto a directory"),
    (BindMount(source="/etc", target="/file"), "ENOTDIR"),
    (BindMount(source="/etc", target="/loop/x"), "ELOOP"),
    (BindMount(source="/etc", target="/proc"), "only a procfs may be there"),
    (BindMount(source="/etc/passwd", target="/proc/uptime"), ""),
    (BindMount(source="/etc/passwd", target="/proc/version"), "must stay the container's own"),
    (BindMount(source="/etc", target="/proc/uptime"), "must stay the container's own"),
    (MountEtc(directory="/nothing"), "make it first"),
    (MakeDevices(nodes=(), others=(("/file", "c", 1, 3, 0o666, 0, 0),)), "not character device 1:3"),
    (MakeDevices(nodes=(), others=(("/file", "p", 0, 0, 0o666, 0, 0),)), "something else is there"),
    (MakeDevices(nodes=(), others=(("/file/x", "c", 1, 3, 0o666, 0, 0),)), "ENOTDIR"),
]


@pytest.mark.parametrize(
    ("step", "words"), MOUNTS, ids=[f"{step.op}-{number}" for number, (step, _) in enumerate(MOUNTS)]
)
def test_a_mount_fails_in_the_same_words(
    monkeypatch: pytest.MonkeyPatch, root: Path, step: Step, words: str
) -> None:
    proc = MountFs(fstype="proc", target="/proc")
    stop = Chdir(path="/this/is/the/end", create=False)
    assert words in both(monkeypatch, rooted(root, proc, step, stop))[1]


def test_a_mount_by_way_of_a_link_into_proc_is_refused_in_the_same_words(
    monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    steps = rooted(root, MountFs(fstype="proc", target="/proc"), BindMount(source="/etc", target="/out"))
    assert "must stay the container's own" in both(monkeypatch, steps)[1]


def test_a_directory_in_the_place_of_a_file_of_etc(
    monkeypatch: pytest.MonkeyPatch, root: Path, tmp_path: Path
) -> None:
    (root / "etc" / "hosts").mkdir()
    (tmp_path / "hosts").write_text("")
    steps = rooted(root, MountEtc(directory=str(tmp_path), names=("hosts",)))
    assert "the root file system has a directory there" in both(monkeypatch, steps)[1]


PROGRAMS = {
    "no-mode": "may not execute it",
    "no-word": "no interpreter after #!",
    "no-interpreter": "its interpreter '/nothing': ENOENT",
    "dos": "DOS line ends",
    "itself": "by its interpreter /proc/self/exe a link of /proc",
    "dir-interpreter": "its interpreter '/dir': EACCES: it is a directory",
    "chain": "its interpreter '/nothing'",
    "fifo": "not a regular file",
    "nothing": "not found in PATH",
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("by_path", [False, True])
def test_a_program_cannot_be_started_in_the_same_words(
    monkeypatch: pytest.MonkeyPatch,
    root: Path,
    name: str,
    by_path: bool,
) -> None:
    find = FindProgram(name=f"/bin/{name}" if by_path else name, path="/dir:/bin:relative")
    kind, text, _ = both(monkeypatch, pivoted(root, find))
    assert kind == "ExecError"
    assert PROGRAMS[name] in text or by_path


USERS = [("nobody", ()), ("bob:nobody", ()), ("bob", ("nobody",)), ("0:x", ("1",))]


@pytest.mark.parametrize(("user", "groups"), USERS)
def test_who_is_nobody_is_so_in_the_same_words(
    monkeypatch: pytest.MonkeyPatch, root: Path, user: str, groups: tuple[str, ...]
) -> None:
    step = SetUser(user=user, groups=groups)
    assert "not in the container's /etc/" in both(monkeypatch, pivoted(root, step))[1]


PASSWDS = {
    "link": "it is a symbolic link",
    "directory": "not a regular file",
    "huge": "larger than 10 MiB",
    "fifo": "not a regular file",
}


@pytest.mark.parametrize("what", PASSWDS)
def test_a_passwd_that_is_none_is_refused_in_the_same_words(
    monkeypatch: pytest.MonkeyPatch, root: Path, what: str
) -> None:
    passwd = root / "etc" / "passwd"
    passwd.unlink()
    if what == "link":
        passwd.symlink_to("/file")
    elif what == "directory":
        passwd.mkdir()
    elif what == "fifo":
        os.mkfifo(passwd)
    else:
        with open(passwd, "wb") as file:
            file.truncate((10 << 20) + 1)
    assert PASSWDS[what] in both(monkeypatch, pivoted(root, SetUser(user="bob")))[1]


def test_a_limit_that_is_too_high_is_refused_in_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    container = spec("true", rlimits=(Rlimit(name="nofile", soft=1 << 40, hard=1 << 40),))
    steps = identity.last_steps(container, None)
    told = []
    for name in (PYTHON, NATIVE):
        monkeypatch.setenv(EXECUTOR, name)
        with pytest.raises(GockerError) as caught:
            run(container, init=steps)
        told.append(str(caught.value))
    assert told[0] == told[1]


def test_too_many_words_are_refused_in_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    container = spec("true", "x" * (200 << 10))
    told = []
    for name in (PYTHON, NATIVE):
        monkeypatch.setenv(EXECUTOR, name)
        with pytest.raises(GockerError) as caught:
            run(container)
        told.append((type(caught.value).__name__, str(caught.value), caught.value.errno))
    assert told[0] == told[1]
    assert told[0][2] == errno.E2BIG


@pytest.mark.parametrize("user", ["", "bob", "bob:wheel", "7", "7:70", "70", "bob:9"])
@pytest.mark.parametrize("groups", [(), ("wheel", "123")])
def test_the_ids_are_the_same(
    monkeypatch: pytest.MonkeyPatch, root: Path, user: str, groups: tuple[str, ...]
) -> None:
    binds = [
        BindMount(source=path, target=path) for path in ("/usr", "/lib", "/lib64") if os.path.isdir(path)
    ]
    container = spec("/usr/bin/id", user=user, groups=groups, capabilities=Capabilities())
    told = []
    for name in (PYTHON, NATIVE):
        monkeypatch.setenv(EXECUTOR, name)
        steps = (*rooted(root, *binds, PivotRoot()), *identity.last_steps(container, None))
        ran = run(container, init=steps, flags=NAMESPACES)
        assert ran.code == 0
        told.append(ran.output)
    assert told[0] == told[1]


def test_home_is_the_users(each: str, root: Path) -> None:
    binds = [
        BindMount(source=path, target=path) for path in ("/usr", "/lib", "/lib64") if os.path.isdir(path)
    ]
    container = spec("/usr/bin/env", user="bob", capabilities=Capabilities())
    steps = (*rooted(root, *binds, PivotRoot()), *identity.last_steps(container, None))
    assert "HOME=/home/bob" in run(container, init=steps, flags=NAMESPACES).output.splitlines()


class Look(Step):
    """Executed by the launcher, while the first process waits."""

    op = "test-look-at-exe"
    at_host = True
    seen: ClassVar[list[str]] = []

    def describe(self) -> str:
        return "look"

    def execute(self, ctx: Context) -> None:
        self.seen.append(os.readlink(f"/proc/{ctx.pid}/exe"))


def test_what_proc_self_exe_names_is_a_sealed_memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    # SECURITY R1: of the first process, while it is parked, nothing of the host's can be reached.
    monkeypatch.setenv(EXECUTOR, NATIVE)
    fd = native.executor_fd()
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o111
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    container = spec("/bin/true")
    assert run(container, init=(Look(), *identity.last_steps(container, None))).code == 0
    assert [name.startswith("/memfd:gocker") for name in Look.seen] == [True]


def test_the_masks_and_the_read_only_paths_that_are_not_there_are_fine(each: str, root: Path) -> None:
    steps = pivoted(root)
    steps = (
        *steps[:-1],
        MakeDevices(),
        AttachNull(),
        MaskPaths(paths=("/proc/nothing", "/file", "/dir", "/tmp")),
    )
    steps += (
        ReadonlyPaths(paths=("/proc/sys", "/link", "/nothing")),
        PivotRoot(),
        FindProgram(name="/bin/no-interpreter"),
    )
    kind, text, _ = failing(steps, spec("true"))
    assert "its interpreter" in text
    assert kind == "ExecError"


def test_the_executor_as_a_payload_does_nothing() -> None:
    path = native.PATH
    for argv in (["x"], ["gocker-executor"], ["gocker-executor", "x"], ["gocker-executor", "3", "4"]):
        pid = os.posix_spawn(path, argv, {})
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 126


class Kills(native.OwnChildren):
    """A parent whose executors do not live."""

    def spawn(self, executor: int, channel: int, number: int) -> int:
        """Kill it at once."""
        pid = super().spawn(executor, channel, number)
        os.kill(pid, signal.SIGKILL)
        return pid


def test_a_killed_executor_is_a_failed_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXECUTOR, NATIVE)
    monkeypatch.setattr(native, "parent", Kills)  # as a worker sets its own
    with pytest.raises(StepError, match="EIO: the executor died"):
        run(spec("true"))


def test_an_executor_without_a_launcher_ends() -> None:
    read, write = os.pipe()
    os.close(write)
    try:
        pid = os.posix_spawn(
            native.PATH, ["gocker-executor", "3"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, read, 3)]
        )
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
    finally:
        os.close(read)


def test_a_word_that_is_no_executor_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXECUTOR, "both")
    with pytest.raises(UsageError, match="no such executor"):
        run(spec("true"))
