"""A thousand containers on disk: copies of the state of one that has stopped."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bundle import write_bundle
from peers import COLD
from timing import SpawnServer

MODEL = f"model-{os.getpid()}"


def leave_stopped(program: str, under: Sequence[str], root: Path, rootfs: Path) -> Path:
    """A container MODEL of the runtime `program` below `root`, stopped; return its state directory."""
    bundle = write_bundle(
        root.with_name(f"{root.name}-bundle"), rootfs, ("/bin/sleep", "10000"), seccomp=True
    )
    pid_file = bundle / "pid"
    starter = SpawnServer(under)
    try:
        head = [program, "--root", str(root)]
        starter.run([*head, "create", "-b", str(bundle), "--pid-file", str(pid_file), MODEL], COLD)
        starter.run([*head, "start", MODEL], COLD)
        starter.run([*head, "kill", MODEL, "KILL"], COLD)
        starter.reap(int(pid_file.read_text()))
    finally:
        starter.close()
    (found,) = (path for path in root.rglob(MODEL) if path.is_dir())
    return found


def multiply(model: Path, target: Path, count: int) -> None:
    """Make so many of it in `target`, with ids of one length."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in range(count):
        identity = f"copy{number:05}"
        copy = target / identity
        shutil.copytree(model, copy, ignore=shutil.ignore_patterns("*.fifo", "notify*", "*.sock"))
        copy.chmod(0o700)
        for path in copy.iterdir():
            if path.is_file() and path.name != "lock":
                text = path.read_bytes()
                path.write_bytes(text.replace(f'"{MODEL}"'.encode(), f'"{identity}"'.encode()))


def take_away(program: str, under: Sequence[str], root: Path) -> None:
    """MODEL, whose cgroups are there yet."""
    subprocess.run([*under, program, "--root", str(root), "delete", MODEL], check=True)
