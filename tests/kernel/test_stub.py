"""The exec stub as a process: what it execs, what it says, and what it is as PID 1."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import signal
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from firstprocess import Outcome, keep_only, launch, program

from gocker.kernel import caps, process, stub
from gocker.plan import Context, Step
from gocker.steps.capabilities import DropBounding
from gocker.steps.exec import CloseFds
from gocker.steps.identity import SetSid
from gocker.steps.users import SetUser

NEW_PID = process.CLONE_NEWPID


class RunStub(Step):
    """Exec the stub as it is told, past all checks."""

    op = "test-run-stub"

    path: str
    argv: tuple[str, ...]
    init: bool = False

    def execute(self, ctx: Context) -> None:
        stub.exec_stub(ctx.fds["stub"], stub.INIT if self.init else stub.EXEC, self.path, self.argv, ())


def run(path: str, *argv: str, init: bool = False, status: bool = True) -> Outcome:
    step = RunStub(path=path, argv=argv, init=init)
    return launch([CloseFds(), step] if status else [step], flags=NEW_PID if init else 0, status=status)


def shell(script: str, *, during: Callable[[int], None] | None = None) -> Outcome:
    return launch(program("sh", "-c", script, init=True), flags=NEW_PID, during=during)


BYTES = [
    "",
    " ",
    "a b",
    "new\nline",
    "tab\t",
    "caf\udce9",
    "\udcff\udcfe",
    "'\"$(x)",
    "\u20ac",
    "x" * 100_000,
]


@pytest.mark.parametrize("init", [False, True])
def test_arguments_reach_the_program_byte_for_byte(init: bool) -> None:
    outcome = launch(program("printf", "%s\\0", *BYTES, init=init), flags=NEW_PID)
    assert outcome.code == 0
    assert outcome.output == b"".join(os.fsencode(text) + b"\0" for text in BYTES)


def test_the_environment_is_what_was_given_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_HOST", "x")
    env = [("A", "1=2"), ("B", "caf\udce9"), ("EMPTY", "")]
    outcome = launch(program("env", "-0", env=env))
    assert outcome.output.split(b"\0")[1:] == [b"A=1=2", b"B=caf\xe9", b"EMPTY=", b""]


def test_end_of_file_says_that_the_program_runs() -> None:
    seen = []
    outcome = launch(program("sleep", "0.3"), during=lambda pid: seen.append(os.readlink(f"/proc/{pid}/exe")))
    assert (outcome.code, outcome.records) == (0, [])
    assert seen
    assert "gocker" not in seen[0]


@pytest.mark.parametrize("init", [False, True])
@pytest.mark.parametrize(
    ("path", "code", "number"),
    [("/no/such", 127, errno.ENOENT), ("/etc/passwd", 126, errno.EACCES), ("/", 126, errno.EACCES)],
)
def test_a_failed_exec_is_reported_with_its_errno(path: str, code: int, number: int, init: bool) -> None:
    outcome = run(path, path, init=init)
    assert (outcome.code, outcome.records) == (code, [(stub.EXEC_FAILED, number)])


@pytest.mark.parametrize("init", [False, True])
def test_a_program_that_is_none_is_reported(init: bool, tmp_path: Path) -> None:
    path = tmp_path / "noise"
    path.write_bytes(b"\x00\x01\x02")
    path.chmod(0o755)
    assert run(str(path), "noise", init=init).records == [(stub.EXEC_FAILED, errno.ENOEXEC)]


class Number(int):
    """Written as the test wants it."""

    text = ""

    def __str__(self) -> str:
        return self.text


class Lie(Step):
    """Exec the stub with another number for its socket."""

    op = "test-lie"

    text: str

    def execute(self, ctx: Context) -> None:
        number = Number()
        number.text = self.text
        stub.exec_stub(ctx.fds["stub"], stub.EXEC, "/bin/echo", ("echo", "ran"), (), number)


@pytest.mark.parametrize("text", ["", "x", "-1", "4294967299", "3x", "99"])
def test_where_the_socket_is_said_to_be_and_is_not_no_program_runs(text: str) -> None:
    outcome = launch([CloseFds(), Lie(text=text)])
    assert (outcome.code, outcome.output) == (125, b"")


def test_without_a_status_socket_no_program_runs() -> None:
    outcome = run("/bin/echo", "echo", "ran", status=False)
    assert (outcome.code, outcome.output) == (125, b"")


@pytest.mark.parametrize("init", [False, True])
def test_the_program_gets_three_fds_only(init: bool) -> None:
    spare = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(spare, True)
    try:
        outcome = launch(program("ls", "/proc/self/fd", init=init))
    finally:
        os.close(spare)
    assert outcome.lines[:3] == ["0", "1", "2"]
    assert len(outcome.lines) == 4  # and the one that ls reads the directory by


def test_proc_self_exe_as_the_program_is_the_stub_which_does_nothing() -> None:
    outcome = run("/proc/self/exe", "anything", "/bin/echo", "ran")
    assert (outcome.code, outcome.output) == (126, b"")


def test_a_script_whose_interpreter_is_proc_self_exe_ends(tmp_path: Path) -> None:
    script = tmp_path / "loop"
    script.write_text("#!/proc/self/exe\n")
    script.chmod(0o755)
    outcome = run(str(script), "loop")
    assert (outcome.code, outcome.output) == (126, b"")


def test_an_elf_file_whose_interpreter_is_proc_self_exe_reaches_the_stub_only(tmp_path: Path) -> None:
    data = Path("/bin/true").read_bytes()
    start = data.index(b"/lib", 0, 4096)
    length = data.index(b"\0", start) - start
    path = tmp_path / "true"
    path.write_bytes(data[:start] + b"/proc/self/exe".ljust(length, b"\0") + data[start + length :])
    path.chmod(0o755)
    outcome = run(str(path), "true", "/bin/echo", "ran")
    assert outcome.code != 0
    assert outcome.output == b""


def test_the_stub_cannot_be_written_by_root_through_proc() -> None:
    def attack(pid: int) -> None:
        path = f"/proc/{pid}/exe"
        assert "gocker" in os.readlink(path)
        fd = os.open(path, os.O_RDONLY)
        try:
            with pytest.raises(OSError) as caught:
                os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
            assert caught.value.errno in {errno.ETXTBSY, errno.EPERM}
            with pytest.raises(OSError):
                os.truncate(f"/proc/self/fd/{fd}", 0)
        finally:
            os.close(fd)

    assert shell("sleep 0.2", during=attack).code == 0


def test_init_says_that_the_program_runs_and_how_it_ended() -> None:
    outcome = shell("echo hello; exit 7")
    assert (outcome.code, outcome.output) == (7, b"hello\n")
    assert outcome.records == [(stub.STARTED, 0), (stub.ENDED, 7 << 8)]


def test_init_exits_with_128_and_the_signal_that_killed_the_program() -> None:
    outcome = shell("kill -KILL $$")
    assert outcome.code == 128 + signal.SIGKILL
    assert outcome.records[-1] == (stub.ENDED, signal.SIGKILL)


FORWARDED = [
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGALRM,
    signal.SIGRTMIN + 1,
]


@pytest.mark.parametrize("number", FORWARDED)
def test_init_forwards_signals_to_the_program(number: int) -> None:
    script = f"trap 'echo got; exit 9' {int(number)}; echo ready; while :; do sleep 0.01; done"

    def send(pid: int) -> None:
        deadline = time.monotonic() + 10
        while caught(only_child(pid)) >> (number - 1) & 1 == 0:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(pid, number)

    outcome = shell(script, during=send)
    assert (outcome.code, outcome.lines[-1]) == (9, "got")


def only_child(pid: int) -> int:
    (child,) = children(pid)
    return child


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def caught(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return int(line.split()[1], 16)
    raise AssertionError(pid)


def test_init_gives_the_program_default_signals_and_an_empty_mask() -> None:
    outcome = launch(program("cat", "/proc/self/status", init=True), flags=NEW_PID)
    assert int(outcome.field("SigBlk"), 16) == 0
    assert int(outcome.field("SigIgn"), 16) == 0


def test_init_reaps_orphans() -> None:
    def watch(pid: int) -> None:
        main = only_child(pid)
        deadline = time.monotonic() + 10
        while len(children(pid)) < 4:
            assert time.monotonic() < deadline, "no orphans came"
            time.sleep(0.005)
        while children(pid) != [main]:
            assert time.monotonic() < deadline, "orphans stay as zombies"
            time.sleep(0.005)

    script = "for i in 1 2 3; do sh -c 'sleep 0.3 & exit 0'; done; sleep 1"
    assert shell(script, during=watch).code == 0


def test_what_the_program_leaves_running_ends_with_init() -> None:
    left: list[int] = []

    def watch(pid: int) -> None:
        main = only_child(pid)
        deadline = time.monotonic() + 10
        while not left:
            assert time.monotonic() < deadline
            left.extend(c for c in children(main) if b"60" in Path(f"/proc/{c}/cmdline").read_bytes())

    assert shell("sleep 60 & sleep 0.5", during=watch).code == 0
    assert not any(os.path.exists(f"/proc/{pid}") for pid in left)


def test_init_holds_no_fd_of_the_program() -> None:
    seen: list[list[str]] = []
    shell("sleep 0.2", during=lambda pid: seen.append(sorted(os.listdir(f"/proc/{pid}/fd"))))
    assert seen == [["3"]]


def test_init_has_a_name_in_the_process_list() -> None:
    names: list[str] = []
    shell("sleep 0.1", during=lambda pid: names.append(Path(f"/proc/{pid}/comm").read_text()))
    assert names == ["gocker-init\n"]


def may_look_into(pid: int, who: list[Step]) -> bool:
    """Whether a process that took the steps `who` may read the memory of `pid`."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            for step in who:
                step.execute(Context(None))
            os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY))
            code = 0
        except PermissionError:
            code = 1
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in {0, 1}
    return code == 0


@pytest.mark.parametrize("user", ["0:0", "65534:65534"])
def test_the_program_cannot_look_into_its_own_init(user: str) -> None:
    keep = caps.DOCKER_DEFAULT
    who: list[Step] = [DropBounding(keep=keep), SetUser(user=user), keep_only(keep)]
    seen: list[tuple[bool, bool]] = []

    def look(pid: int) -> None:
        seen.append((may_look_into(pid, who), may_look_into(only_child(pid), who)))

    launch([*who, *program("sleep", "0.3", init=True)], flags=NEW_PID, during=look)
    assert seen == [(False, True)]


def test_init_makes_the_program_the_foreground_of_its_terminal() -> None:
    master, slave = pty.openpty()
    script = (
        "read -r _ _ _ _ group session _ foreground _ < /proc/self/stat; "
        '[ "$group" = "$foreground" ] && [ "$group" != "$session" ] && echo foreground'
    )
    steps = [SetSid(), *program("sh", "-c", script, init=True)]
    try:
        outcome = launch(
            [steps[0], TakeTerminal(), *steps[1:]],
            stdin=slave,
        )
    finally:
        os.close(master)
        os.close(slave)
    assert outcome.lines == ["foreground"]


class TakeTerminal(Step):
    """Make fd 0 the controlling terminal."""

    op = "test-take-terminal"

    def execute(self, ctx: Context) -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_a_hangup_of_the_terminal_reaches_the_program() -> None:
    master, slave = pty.openpty()
    script = "trap 'echo hung up >&2; exit 5' HUP; while :; do sleep 0.01; done"

    def hang_up(pid: int) -> None:
        deadline = time.monotonic() + 10
        while caught(only_child(pid)) & 1 == 0:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.close(slave)
        os.close(master)

    steps = [SetSid(), TakeTerminal(), *program("sh", "-c", script, init=True)]
    outcome = launch(steps, stdin=slave, during=hang_up)
    assert outcome.code == 5
