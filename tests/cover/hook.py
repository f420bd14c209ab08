"""Counts the lines that a container's first process runs: executed at start-up by a .pth file, in tests only.

That process is cloned by a raw system call, changes its root and ends in a raw exec, so coverage has no
moment and no path to save its data. The hook wraps `gocker.kernel.syscalls.call`: in the child of a
clone3 it opens a file while the host's paths still lead there, and fills it before exec and `os._exit`.
"""

from __future__ import annotations

import fcntl
import importlib.abc
import importlib.machinery
import os
import posix
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

MODULE = "gocker.kernel.syscalls"
HIGH_FD = 900  # above all that gocker moves about, below the usual limit of 1024


def instrument(module: ModuleType) -> None:
    """Wrap `call` of the module that makes all of gocker's system calls."""
    make: Callable[..., Any] = module.__dict__["call"]
    child: Child | None = None

    def call(name: str, *args: Any) -> Any:
        nonlocal child
        if child and name in {"execve", "execveat", "seccomp"}:
            child.save()
        if child and name == "close_range" and child.spared(*args):
            return 0
        result = make(name, *args)
        if child and name == "seccomp":
            child.filtered = True
        if name in {"clone", "clone3"} and result == 0:
            child = begin()
        return result

    module.__dict__["call"] = call


class Child:
    """This process, just cloned; its data goes to a file of its own."""

    def __init__(self, collector: Any, path: str) -> None:
        self.collector = collector
        self.collector.covdata = self.data = CoverageData(no_disk=True)
        low = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.file = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, HIGH_FD)
        os.close(low)
        self.filtered = False  # a seccomp filter may kill for any system call, so after it nothing is saved

    def spared(self, first: int, last: int, flags: int) -> bool:
        """Close that range without the file, when it is in it; close_range(2)."""
        if flags or not first <= self.file <= last:
            return False
        os.closerange(first, self.file)
        os.closerange(self.file + 1, os.sysconf("SC_OPEN_MAX"))
        return True

    def save(self) -> None:
        """Write all that was counted so far."""
        if self.filtered:
            return
        try:
            self.collector.flush_data()
            dump = self.data.dumps()
        except Exception as error:  # collect.py shows it: there is no other way out of here
            dump = repr(error).encode()
        os.ftruncate(self.file, 0)
        os.pwrite(self.file, dump, 0)

    def leave(self, status: int) -> None:
        """In place of `os._exit`; not coverage's, which saves to a path."""
        self.save()
        posix._exit(status)


def begin() -> Child | None:
    """Measure this new process apart from its parent; None when nothing is measured, or cannot be.

    A process that was born in a container's mount namespace has no way to the directory.
    """
    os.__dict__["_exit"] = posix._exit
    measuring = Coverage.current()
    if measuring is None or measuring._collector is None:
        return None
    # Not measuring.get_data(): that writes to the parent's file.
    directory = os.path.dirname(os.path.abspath(measuring.config.data_file))
    try:
        child = Child(measuring._collector, f"{directory}/child-{os.urandom(8).hex()}.dump")
    except OSError:
        return None
    os.__dict__["_exit"] = child.leave
    return child


class Finder(importlib.abc.MetaPathFinder):
    """Instruments MODULE when it is imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The ordinary spec, with a loader that instruments."""
        if fullname != MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            instrument(module)

        spec.loader.__dict__["exec_module"] = exec_module
        return spec


if __name__ == "__main__":
    with open(sys.argv[1], "w", encoding="utf-8") as pth:  # FILE.pth in site-packages
        pth.write(
            f"import sys; exec(compile(open({__file__!r}).read(), {__file__!r}, 'exec'), {{'__name__': 'hook'}})\n"
        )
elif os.environ.get("COVERAGE_RUN"):
    import sqlite3.dump  # used by `dumps`; the child cannot import it any more  # noqa: F401

    from coverage import Coverage, CoverageData

    sys.meta_path.insert(0, Finder())
