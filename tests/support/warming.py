"""The compiled commands and a warm server of the test's own, on a copy of gocker that nobody changes meanwhile.

`GOCKER_TEST_WARM=1 pytest tests/e2e` runs all of a session's commands by such a server.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command import SLOWNESS

from gocker import __version__

TREE = Path(__file__).parents[2]
_FLAGS = [
    *("-std=gnu11", "-Os", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-nostdlib", "-static", "-s"),
    *("-fno-builtin", "-fno-pie", "-no-pie", "-fno-stack-protector", "-fno-asynchronous-unwind-tables"),
    *("-fno-tree-loop-distribute-patterns", "-Wl,--build-id=none", "-Wl,-z,noexecstack"),
]
_MODULES = {"gocker": "gocker.__main__", "gocker-oci": "gocker.ocicli.main"}


def compile_program(name: str, target: str) -> None:
    """Of core/native, for this machine; skip where nothing compiles."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler: apt-get install gcc")
    define = f'-DGOCKER_VERSION="{__version__}"'
    subprocess.run([compiler, *_FLAGS, define, "-o", target, str(TREE / f"core/native/{name}.c")], check=True)


def install(directory: str) -> str:
    """A copy of the package and the commands for it; the directory of the commands."""
    package, commands = f"{directory}/lib/gocker", f"{directory}/bin"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(TREE / "core", package, ignore=ignored)
    shutil.copytree(TREE / "plugins", f"{package}/plugins", ignore=ignored, dirs_exist_ok=True)
    os.makedirs(commands)
    compile_program("executor", f"{package}/native/executor")
    compile_program("client", f"{commands}/gocker")
    shutil.copy(f"{commands}/gocker", f"{commands}/gocker-oci")
    for name, module in _MODULES.items():
        path = f"{commands}/{name}-python"
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"#!{sys.executable}\nfrom {module} import main\nmain()\n")
        os.chmod(path, 0o755)
    return commands


@contextmanager
def warm(directory: str) -> Iterator[str]:
    """The directory of the commands, with their server running."""
    commands = install(directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{directory}/lib")
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        patch.setenv("GOCKER_TEST_BIN", commands)
        start(commands)
        try:
            yield commands
        finally:
            subprocess.run([f"{commands}/gocker", "warm", "stop"], check=True, stdout=subprocess.DEVNULL)


def start(commands: str, *options: str) -> None:
    """Start the server, and have the copy compiled first: what is written there later ends it."""
    subprocess.run([f"{commands}/gocker", "warm", "start", *options], check=True, stdout=subprocess.DEVNULL)


def server(commands: str) -> int:
    """The server's pid; 0 when there is none."""
    done = subprocess.run(
        [f"{commands}/gocker", "warm", "status"], check=False, capture_output=True, text=True
    )
    return int(done.stdout.partition("process ")[2].partition(",")[0]) if done.returncode == 0 else 0


def workers(pid: int) -> list[int]:
    """Those of a server, idle ones included."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def ready(commands: str) -> None:
    """Until the server has idle workers again, all that it keeps."""
    deadline = time.monotonic() + 10 * SLOWNESS
    while len(workers(server(commands))) < 4:
        assert time.monotonic() < deadline, "no workers"
        time.sleep(0.01)


def gone(pids: list[int], patience: float = 10) -> bool:
    """Whether none of them is left after a while."""
    deadline = time.monotonic() + patience * SLOWNESS
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
