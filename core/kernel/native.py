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

import os
from collections.abc import Callable
from resource import struct_rusage
from typing import Protocol


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
        raise NotImplementedError

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


def executor_fd(lowest: int = 0) -> int:
    """A close-on-exec fd, at least `lowest`, of the sealed executor; -1 where it was not built.

    Made once in a process, mode 0111, as kernel.stub's. Raise KernelError.
    """
    return -1
