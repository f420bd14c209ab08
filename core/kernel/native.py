"""The native executor from outside: its sealed memfd, and whose child the processes of a container become.

    launcher                        executor (host's namespaces)      first process
       | Parent.spawn(memfd, channel) -->|
       |---- BOOT, fds by SCM_RIGHTS --->|
       |                                 | clone3(CLONE_PARENT | CLONE_PIDFD) ->| parked on the channel
       |<--- pid, pidfd (SCM_RIGHTS) ----| _exit(0)
       |<=========================== the channel, as core/init.py draws it ====>|

Whoever spawns the executor needs two fds and nothing else: the program (`executor_fd`) and one end of the
channel. All else goes over the channel, from the launcher. The first process is the spawner's child.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import struct
from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, SCM_RIGHTS, SOL_SOCKET, socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from gocker.errors import KernelError
from gocker.kernel import process, stub

if TYPE_CHECKING:
    from resource import struct_rusage

    from gocker.kernel.spawn import Join, Offset

PATH = os.path.join(os.path.dirname(os.path.dirname(__file__)), "native", "executor")
"""Where setup.py puts the program when there is a compiler."""

# As executor.c has them.
_MAGIC = 0x316E6B67
_BOOT = struct.Struct("=IIQII")
_GO = struct.Struct("=4s3IQ")
_REPLY = struct.Struct("=ii")  # pid, errno
_FIXED, _MOST_FDS, _INLINE = 4, 250, 128 << 10

_FIRST_FREE = 10  # above the fds that a container's process starts with
_MACHINES = {"x86_64": b"\x3e\x00", "aarch64": b"\xb7\x00"}  # e_machine of elf(5)
_made = -1


class Parent(Protocol):
    """Who starts executors, and so is the parent of first processes: this process, or another in its place."""

    def spawn(self, executor: int, channel: int, number: int) -> int:
        """Start the program behind the fd `executor`, with `channel` as its fd `number` and argv[1] that number.

        Nothing else is asked of it: argv[0] is "gocker-executor", the environment is empty, no signal is
        blocked by whoever spawns, and what is not close-on-exec it inherits. Both fds stay the caller's.
        Return the executor's pid. Raise OSError.
        """

    def reap_executor(self, pid: int) -> None:
        """Take the exit of the executor `pid`, which has made the first process or failed: it ends at once."""

    def wait(self, pid: int) -> tuple[int, struct_rusage | None]:
        """Wait for the first process `pid` and reap it; (wait status, what it used). Raise ChildProcessError."""

    def peek(self, pidfd: int) -> int | None:
        """The wait status of the first process when it has ended, unreaped; None when it has not.

        Raise ChildProcessError when it is nobody's whom we know.
        """


class OwnChildren:
    """This process is the parent."""

    def spawn(self, executor: int, channel: int, number: int) -> int:
        """By posix_spawn(3), that is vfork: nothing of this process is copied, and other threads are safe."""
        return os.posix_spawn(
            f"/proc/self/fd/{executor}",
            ("gocker-executor", str(number)),
            {},
            file_actions=[(os.POSIX_SPAWN_DUP2, channel, number)],
        )

    def reap_executor(self, pid: int) -> None:
        """waitpid(2)."""
        os.waitpid(pid, 0)

    def wait(self, pid: int) -> tuple[int, struct_rusage | None]:
        """wait4(2)."""
        _, status, usage = os.wait4(pid, 0)
        return status, usage

    def peek(self, pidfd: int) -> int | None:
        """waitid(2) that leaves it to be waited for."""
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if ended is None:
            return None
        return ended.si_status << 8 if ended.si_code == os.CLD_EXITED else ended.si_status


parent: Callable[[], Parent] = OwnChildren
"""What makes the `parent` of a new Context. A worker that starts containers in another's place sets its own."""


class Executor:
    """One executor: spawned, told to make the first process, and what that one is to do."""

    def __init__(self, channel: socket, theirs: int, number: int, whose: Parent) -> None:
        """`channel` is the launcher's end, `theirs` the other's fd, which becomes `number`. Raise OSError, KernelError."""
        program = executor_fd(number + 1)
        if program < 0:
            raise KernelError(
                "start executor", "", "it was not built", remedy="install gocker where there is a C compiler"
            )
        self._channel = channel
        self._parent = whose
        self._joins = 0
        self._pid = whose.spawn(program, theirs, number)

    def clone(
        self,
        flags: int,
        joins: tuple[Join, ...],
        offsets: tuple[Offset, ...],
        cgroup_fd: int,
        fds: tuple[int, ...],
    ) -> None:
        """Have it make the first process, as kernel.spawn does; `born` takes the answer.

        `fds` are stdin, stdout, stderr, a file of a Progress, and those that the program has registers for.
        Raise OSError.
        """
        opened: list[int] = []
        try:
            for path, flag in joins:
                opened.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
                process.require_kind(opened[-1], path, flag)
            lines = "".join(f"{clock} {seconds} {nanos}\n" for clock, seconds, nanos in offsets).encode()
            head = _BOOT.pack(_MAGIC, int(cgroup_fd >= 0), flags, len(joins), len(lines))
            kinds = struct.pack(f"={len(joins)}I", *(flag for _, flag in joins))
            sent = (*fds[:_FIXED], *((cgroup_fd,) if cgroup_fd >= 0 else ()), *opened, *fds[_FIXED:])
            self._send(head + kinds + lines, sent)
        finally:
            for fd in opened:
                os.close(fd)

    def _send(self, packet: bytes, fds: tuple[int, ...]) -> None:
        if len(fds) > _MOST_FDS:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        rights = [(SOL_SOCKET, SCM_RIGHTS, struct.pack(f"={len(fds)}i", *fds))] if fds else []
        with contextlib.suppress(
            BrokenPipeError, ConnectionResetError
        ):  # what is read next says that it has ended
            self._channel.sendmsg([packet], rights)

    def fileno(self) -> int:
        """What can be read when `born` need not wait."""
        return self._channel.fileno()

    def born(self) -> tuple[int, int]:
        """(pid, pidfd) of the first process. Raise OSError."""
        try:
            reply, control, _, _ = self._channel.recvmsg(_REPLY.size, CMSG_SPACE(4), MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            reply, control = b"", []
        self.reap(answered=True)
        if len(reply) != _REPLY.size:
            raise OSError(errno.EIO, "the executor died")
        pid, number = _REPLY.unpack(reply)
        if number:
            raise OSError(number, os.strerror(number))
        return pid, int.from_bytes(control[0][2][:4], "little")

    def go(self, pid: int, chunks: int, registers: tuple[int, ...], program: bytes) -> None:
        """Let the first process run `program`; `registers` are for the fds that `clone` was given. Raise OSError."""
        numbers = struct.pack(f"={len(registers)}I", *registers) + bytes(4 * (len(registers) % 2))
        if len(program) <= _INLINE:
            self._send(_GO.pack(b"go", pid, chunks, len(registers), 0) + numbers + program, ())
            return
        memory = os.memfd_create("gocker-program", os.MFD_CLOEXEC)
        try:
            rest = memoryview(program)
            while rest:
                rest = rest[os.write(memory, rest) :]
            self._send(_GO.pack(b"go", pid, chunks, len(registers), len(program)) + numbers, (memory,))
        finally:
            os.close(memory)

    def reap(self, *, answered: bool = False) -> None:
        """Take its exit, once. One that has not `answered` is no longer wanted, and need not be able to end by itself."""
        pid, self._pid = self._pid, 0
        if not pid:
            return
        if not answered and isinstance(self._parent, OwnChildren):
            os.kill(pid, signal.SIGKILL)  # it is nobody else's: it was not waited for
        self._parent.reap_executor(pid)


def executor_fd(lowest: int = 0) -> int:
    """A close-on-exec fd, at least `lowest`, of the sealed executor; -1 where it was not built.

    Made once in a process, mode 0111, as kernel.stub's. Raise KernelError.
    """
    global _made  # noqa: PLW0603 - one for the process, as the fd table is
    if not stub.is_sealed(_made) or _made < lowest:
        try:
            with open(PATH, "rb", buffering=0) as file:
                elf = file.read()
        except FileNotFoundError:
            return -1
        _made = stub.make(elf, max(lowest, _FIRST_FREE))
    return _made


def is_built() -> bool:
    """Whether there is an executor for this machine: nothing is made."""
    try:
        with open(PATH, "rb", buffering=0) as file:
            return file.read(20)[18:20] == _MACHINES.get(os.uname().machine)
    except OSError:
        return False
