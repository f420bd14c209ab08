"""A program: runs `gocker run` and writes what it had imported when, as JSON.

    importing.py index               writes the plug-in index, however young what is installed
    importing.py go FILE ARG...      `gocker run ARG...` until the first process is let go, without making one
    importing.py end FILE ARG...     all of it

FILE gets {"bare": [module, ...], "at": {point: [module, ...]}, "by": {module: what imported it}}; bare are
those that the interpreter starts with, and left out of the others. "at" also has `child`: what the first process
looked for.
"""

import os
import sys
from fcntl import F_DUPFD_CLOEXEC, fcntl

BARE = frozenset(sys.modules)
by: dict[str, str] = {}
at: dict[str, list[str]] = {}


class Watch:
    """First of sys.meta_path: sees each module that is looked for, and finds none."""

    pid = os.getpid()
    child = fcntl(os.memfd_create("imports"), F_DUPFD_CLOEXEC, 100)  # above those that init gives away

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> None:
        if os.getpid() != cls.pid:
            os.write(cls.child, f"{name}\n".encode())
        frame = sys._getframe(1)
        while frame.f_back is not None and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        by.setdefault(name, frame.f_globals.get("__name__", "?"))


def look(point: str) -> None:
    """Note what is loaded; the stand-ins of gocker.lazy are not."""
    loaded = [name for name, module in sys.modules.items() if type(module).__name__ != "_Deferred"]
    at[point] = sorted(set(loaded) - BARE)


def write_index() -> None:
    import time

    from gocker.plugin_index import PluginIndex, default_directory
    from gocker.registry import Registry

    index = PluginIndex(default_directory(), now=lambda: time.time_ns() + 3600 * 10**9)
    Registry(index=index).standing_controllers()
    if index.problem:
        sys.exit(index.problem)


def write(file: str) -> None:
    import json

    with open(file, "w", encoding="ascii") as out:
        json.dump({"bare": sorted(BARE), "at": at, "by": by}, out)


def run(until: str, file: str, *arguments: str) -> None:
    sys.meta_path.insert(0, Watch)
    from gocker.launcher import Launcher

    start, await_program, leave, pid = Launcher.start, Launcher.await_program, os._exit, os.getpid()

    def started(self: Launcher, stdio: tuple[int, int, int]) -> None:
        if until == "end":
            start(self, stdio)
        look("go")
        if until == "go":
            write(file)
            leave(0)

    def awaited(self: Launcher, *args: object) -> None:
        await_program(self, *args)  # type: ignore[arg-type]
        look("exec")

    def left(status: int) -> None:
        if os.getpid() == pid:
            look("end")
            at["child"] = os.pread(Watch.child, 1 << 16, 0).decode().split()
            write(file)
        leave(status)

    Launcher.start = started  # type: ignore[method-assign]
    Launcher.await_program = awaited  # type: ignore[method-assign,assignment]
    os._exit = left  # type: ignore[assignment]
    sys.argv = ["gocker", "run", *arguments]
    from gocker.__main__ import main

    main()


if __name__ == "__main__":
    if sys.argv[1] == "index":
        write_index()
    else:
        run(*sys.argv[1:])
