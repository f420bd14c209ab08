"""The steps around the clone, against the kernel: the clone and its undoing, kernel files, root, console."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import Iterator
from typing import NoReturn

import pytest
from firstprocess import launch, program

from gocker.errors import KernelError, StateError
from gocker.kernel import mount, process, stub
from gocker.plan import Context, Step, step_from_json
from gocker.steps.console import OpenConsole
from gocker.steps.launch import (
    CONSOLE,
    AttachConsole,
    BecomeRoot,
    Clone,
    UnshareCgroup,
    WriteKernelFile,
)
from gocker.steps.mounts import MountFs


def wait_for_ever() -> NoReturn:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    while True:
        signal.pause()


@pytest.fixture
def ctx() -> Iterator[Context]:
    """A context whose child waits for a signal; it is taken down after the test."""
    made = Context(None)
    made.enter = wait_for_ever
    yield made
    Clone(kinds=(), flags=0).undo(made)


class TestClone:
    def test_it_leaves_the_pid_and_a_pidfd_of_a_new_process(self, ctx: Context) -> None:
        Clone(kinds=("uts",), flags=process.CLONE_NEWUTS).execute(ctx)
        with open(f"/proc/self/fdinfo/{ctx.pidfd}", encoding="ascii") as file:
            assert re.search(rf"^Pid:\s+{ctx.pid}$", file.read(), re.MULTILINE)
        assert os.readlink(f"/proc/{ctx.pid}/ns/uts") != os.readlink("/proc/self/ns/uts")

    def test_a_join_is_made_by_its_path(self, ctx: Context) -> None:
        with subprocess.Popen(["unshare", "--net", "sleep", "600"]) as other:
            try:
                while os.readlink(f"/proc/{other.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
                    assert other.poll() is None
                path = f"/proc/{other.pid}/ns/net"
                Clone(kinds=(), flags=0, joins=(("network", path, process.CLONE_NEWNET),)).execute(ctx)
                assert os.readlink(f"/proc/{ctx.pid}/ns/net") == os.readlink(path)
            finally:
                other.kill()

    def test_undo_kills_and_reaps_and_can_be_repeated(self, ctx: Context) -> None:
        step = Clone(kinds=(), flags=0)
        step.execute(ctx)
        pid = ctx.pid
        step.undo(ctx)
        assert not os.path.exists(f"/proc/{pid}")
        assert ctx.pidfd == -1
        step.undo(ctx)

    def test_undo_of_one_that_has_ended_and_was_reaped_closes_the_pidfd(self, ctx: Context) -> None:
        step = Clone(kinds=(), flags=0)
        step.execute(ctx)
        process.pidfd_send_signal(ctx.pidfd, signal.SIGKILL)
        os.waitpid(ctx.pid, 0)
        pidfd = ctx.pidfd
        step.undo(ctx)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(pidfd)

    def test_undo_by_another_gocker_has_no_process_to_kill(self) -> None:
        step = step_from_json(Clone(kinds=("pid",), flags=process.CLONE_NEWPID).to_json())
        step.undo(Context(None))

    def test_a_context_that_only_undoes_makes_none(self) -> None:
        ctx = Context(None)
        before = set(os.listdir("/proc/self/fd"))
        Clone(kinds=(), flags=0).execute(ctx)  # the child ends at once: there is nowhere to go on
        ended = os.waitid(os.P_PIDFD, ctx.pidfd, os.WEXITED)
        assert ended
        assert ended.si_status == 125
        Clone(kinds=(), flags=0).undo(ctx)
        assert set(os.listdir("/proc/self/fd")) == before
        with pytest.raises(StateError):
            ctx.enter()

    def test_a_cgroup_that_is_not_there_is_named_and_nothing_is_made(self, ctx: Context) -> None:
        with pytest.raises(FileNotFoundError) as caught:
            Clone(kinds=(), flags=0, cgroup="/sys/fs/cgroup/gocker-nothing").execute(ctx)
        assert caught.value.filename == "/sys/fs/cgroup/gocker-nothing"
        assert (ctx.pid, ctx.pidfd) == (0, -1)

    def test_a_directory_that_is_no_cgroup_is_refused_and_no_fd_is_left(self, ctx: Context) -> None:
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="Bad file descriptor"):
            Clone(kinds=(), flags=0, cgroup="/").execute(ctx)
        assert set(os.listdir("/proc/self/fd")) == before

    def test_it_says_what_is_new_what_is_joined_where_and_when(self) -> None:
        step = Clone(
            kinds=("uts", "time"),
            flags=0,
            joins=(("network", "/proc/7/ns/net", process.CLONE_NEWNET),),
            offsets=(("boottime", 86400, 5),),
            cgroup="/sys/fs/cgroup/gocker/c",
        )
        assert step.describe() == (
            "nsenter --network=/proc/7/ns/net unshare --fork --uts --time --boottime 86400.000000005"
            "  # born in /sys/fs/cgroup/gocker/c"
        )
        ctx = Context(None)
        ctx.pid = 42
        namespaces = {"uts": "new", "time": "new", "network": "/proc/7/ns/net"}
        assert step.audit(ctx) == {"namespaces": namespaces, "pid": 42}


class TestWriteKernelFile:
    def test_the_childs_pid_takes_its_place_in_the_path(self, ctx: Context) -> None:
        Clone(kinds=(), flags=0).execute(ctx)
        WriteKernelFile(path="/proc/{pid}/oom_score_adj", data="321").execute(ctx)
        with open(f"/proc/{ctx.pid}/oom_score_adj", encoding="ascii") as file:
            assert file.read() == "321\n"

    def test_a_map_is_written_in_one_go(self, ctx: Context) -> None:
        Clone(kinds=("user",), flags=process.CLONE_NEWUSER).execute(ctx)
        WriteKernelFile(path="/proc/{pid}/uid_map", data="0 100000 10\n10 0 1\n").execute(ctx)
        with open(f"/proc/{ctx.pid}/uid_map", encoding="ascii") as file:
            assert [line.split() for line in file] == [["0", "100000", "10"], ["10", "0", "1"]]

    @pytest.mark.parametrize("path", ["/proc/self/cwd", "/proc/self/exe", "/proc/self/fd/0"])
    def test_a_link_is_not_followed(self, path: str) -> None:
        with pytest.raises(OSError, match="Too many levels of symbolic links"):
            WriteKernelFile(path=path, data="x").execute(Context(None))

    def test_what_lies_on_another_file_system_is_not_written(self, tmp_path: os.PathLike[str]) -> None:
        victim = os.path.join(tmp_path, "victim")
        with open(victim, "w", encoding="ascii") as file:
            file.write("kept")
        for path in (victim, f"/proc/../{victim}", f"/sys/../{victim}", "/sys/../proc/self/comm"):
            with pytest.raises(KernelError, match="not on the kernel's own file system") as caught:
                WriteKernelFile(path=path, data="x").execute(Context(None))
            assert caught.value.errno == errno.EXDEV
        with open(victim, encoding="ascii") as file:
            assert file.read() == "kept"

    def test_a_file_of_sys_is_one_of_the_kernels_too(self) -> None:
        path = "/sys/kernel/mm/transparent_hugepage/enabled"
        if not os.access(path, os.W_OK):
            pytest.skip(f"{path} cannot be written here")
        with open(path, encoding="ascii") as file:
            now = re.findall(r"\[(\w+)\]", file.read())[0]
        WriteKernelFile(path=path, data=now).execute(Context(None))

    def test_a_file_mounted_over_the_kernels_is_not_written(self, tmp_path: os.PathLike[str]) -> None:
        """In a container around gocker, /proc may hold mounts of somebody's making."""
        outcome = launch(
            (Over(source=str(tmp_path)), WriteKernelFile(path="/proc/self/oom_score_adj", data="0")),
            flags=process.CLONE_NEWNS,
        )
        assert outcome.failed["op"] == "write-kernel-file"
        assert "not on the kernel's own file system" in outcome.failed["reason"]

    def test_it_says_the_shell_command(self) -> None:
        step = WriteKernelFile(path="/proc/{pid}/uid_map", data="0 1 1\n")
        assert step.describe() == r"printf '0 1 1\n' > /proc/{pid}/uid_map"


class Over(Step):
    """Mounts a file over one in /proc."""

    op = "test-over"

    source: str

    def execute(self, ctx: Context) -> None:
        mount.set_propagation(b"/", mount.MS_PRIVATE | mount.MS_REC)
        path = f"{self.source}/file"
        with open(path, "w", encoding="ascii"):
            pass
        tree = mount.clone_tree(mount.AT_FDCWD, os.fsencode(path))
        target = os.open(f"/proc/{os.getpid()}/oom_score_adj", os.O_PATH | os.O_CLOEXEC)
        mount.attach(tree, target)


class TestBecomeRoot:
    def test_who_has_no_mapped_id_is_root_after_it(self) -> None:
        def write_maps(pid: int) -> None:
            for kind in ("gid", "uid"):
                WriteKernelFile(path=f"/proc/{pid}/{kind}_map", data="0 100000 65536\n").execute(
                    Context(None)
                )

        outcome = launch(
            (BecomeRoot(), *program("sh", "-c", "id -u; id -g; id -G; cat /proc/self/status")),
            flags=process.CLONE_NEWUSER,
            prepare=write_maps,
        )
        assert outcome.lines[:3] == ["0", "0", "0"], outcome
        assert outcome.field("Uid").split() == ["0"] * 4
        assert outcome.field("Groups") == ""

    def test_without_a_map_the_kernel_refuses(self) -> None:
        outcome = launch((BecomeRoot(), *program("true")), flags=process.CLONE_NEWUSER)
        assert outcome.failed["op"] == "become-root"
        assert outcome.failed["errno"] in {"EINVAL", "EPERM"}


class TestUnshareCgroup:
    def test_the_root_of_the_new_one_is_where_it_was(self) -> None:
        outcome = launch((UnshareCgroup(), *program("cat", "/proc/self/cgroup")))
        assert {line.split(":")[2] for line in outcome.lines} == {"/"}
        assert UnshareCgroup().describe() == "unshare --cgroup"


class TestAttachConsole:
    def test_the_slave_is_0_1_2_and_the_terminal_of_the_session_and_the_master_is_sent(
        self, tmp_path: os.PathLike[str]
    ) -> None:
        received: list[int] = []
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid, pidfd = process.clone(process.CLONE_NEWNS)
        if pid == 0:
            _be_on_a_console(theirs.fileno(), os.fspath(tmp_path))
        theirs.close()
        try:
            packet, control, _, _ = ours.recvmsg(100, socket.CMSG_SPACE(4))
            assert packet == CONSOLE, packet
            ((_, kind, data),) = control
            assert kind == socket.SCM_RIGHTS
            received = list(struct.unpack("=i", data[:4]))
            (master,) = received
            assert mount.file_system_magic(master) == mount.DEVPTS_MAGIC
            fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", 33, 77, 0, 0))
            os.write(master, b"go\n")
            text = b""
            while b"end" not in text:
                text += os.read(master, 4096)
        finally:
            for fd in received:
                os.close(fd)
            ours.close()
            process.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(pidfd)
        lines = text.replace(b"\r", b"").split(b"\n")
        assert lines[0] == b"go"  # echoed
        assert lines[1:5] == [b"33 77", b"1", b"1", b"1"], lines

    def test_it_says_the_shell_command(self) -> None:
        assert AttachConsole().describe() == "exec <>/dev/console >&0 2>&0"


def _be_on_a_console(channel: int, root: str) -> NoReturn:
    """Run the steps of `-t` in a /dev of our own; print the size of the window, and what is a terminal."""
    try:
        high = fcntl.fcntl(channel, fcntl.F_DUPFD_CLOEXEC, 20)
        os.dup2(high, stub.STATUS_FD)
        mount.set_propagation(b"/", mount.MS_PRIVATE | mount.MS_REC)
        os.setsid()
        ctx = Context(None)
        ctx.channel = socket.socket(fileno=high)
        mount.attach_at(mount.new_mount("tmpfs"), os.fsencode(root))
        ctx.root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for step in (
            MountFs(fstype="tmpfs", target="/dev", options=("nosuid",)),
            MountFs(
                fstype="devpts", target="/dev/pts", options=("newinstance", "ptmxmode=0666", "mode=0620")
            ),
            OpenConsole(),
            AttachConsole(),
        ):
            step.execute(ctx)
        os.read(0, 10)
        rows, columns, _, _ = struct.unpack("4H", fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))
        own = os.open("/dev/tty", os.O_RDWR)  # the terminal of the session
        answers = [os.isatty(fd) and os.path.samestat(os.fstat(fd), os.fstat(0)) for fd in (0, 1, 2)]
        text = f"{rows} {columns}\n" + "".join(f"{int(answer)}\n" for answer in answers)
        os.write(own, f"{text}end\n".encode())
        signal.pause()
    except BaseException as error:
        os.write(stub.STATUS_FD, repr(error).encode())
    finally:
        os._exit(1)
