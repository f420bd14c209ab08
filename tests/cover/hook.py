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
from contextlib import suppress
from types import ModuleType
from typing import Any

MODULE = "gocker.kernel.syscalls"
HIGH_FD = 900  # above all that gocker moves about, below the usual limit of 1024


def instrument(module: ModuleType) -> None:
    """Wrap `call` of the module that makes all of gocker's system calls."""
    make: Callable[..., Any] = module.__dict__["call"]
    save: Callable[[], None] | None = None

    def call(name: str, *args: Any) -> Any:
        nonlocal save
        if save and name in {"execve", "execveat"}:
            save()
        result = make(name, *args)
        if name in {"clone", "clone3"} and result == 0:
            save = child()
        return result

    module.__dict__["call"] = call


def child() -> Callable[[], None] | None:
    """What saves this new process's data; None when nothing is measured."""
    from coverage import Coverage, CoverageData

    measuring = Coverage.current()
    if measuring is None or measuring._collector is None:
        return None
    collector, data = measuring._collector, CoverageData(no_disk=True)
    directory = os.path.dirname(os.path.abspath(measuring.get_data().data_filename()))
    name = f"{directory}/child-{os.urandom(8).hex()}.dump"
    low = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    file = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, HIGH_FD)
    os.close(low)
    collector.covdata = data

    def save() -> None:
        try:
            collector.flush_data()
            dump = data.dumps()
        except Exception as error:  # shown by collect.py: there is no other way out of here
            dump = repr(error).encode()
        with suppress(OSError):  # a seccomp profile under test may forbid it
            os.ftruncate(file, 0)
            os.pwrite(file, dump, 0)

    def leave(status: int) -> None:
        save()
        posix._exit(status)  # not coverage's, which saves to the path of its file

    os.__dict__["_exit"] = leave
    return save


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

    sys.meta_path.insert(0, Finder())
