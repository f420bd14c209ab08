"""The list of attacks, and running one of them against one runtime under a hard limit."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from . import host
from .lab import Lab, Runtime, Unclear, Verdict

HERE = os.path.dirname(os.path.abspath(__file__))
LIMIT = 45.0  # seconds for one attack, all its calls together


class Attack(NamedTuple):
    """One attack: `source` is the advisory that it is made from, or what it asks of a rule."""

    name: str
    rule: str
    source: str
    text: str
    function: Callable[[Lab], Verdict]


class Result(NamedTuple):
    """What became of one attack."""

    attack: str
    runtime: str
    status: str
    reason: str
    seconds: float


LISTED: dict[str, Attack] = {}


def attack(rule: str, source: str) -> Callable[[Callable[[Lab], Verdict]], Callable[[Lab], Verdict]]:
    """Add the function to the list, by its name; its docstring says what is tried."""

    def add(function: Callable[[Lab], Verdict]) -> Callable[[Lab], Verdict]:
        name = function.__name__
        if name in LISTED:
            raise ValueError(f"two attacks are called {name}")
        text = (function.__doc__ or "").strip().splitlines()[0].rstrip(".")
        LISTED[name] = Attack(name, rule, source, text, function)
        return function

    return add


def build_programs(directory: str) -> None:
    """Compile what runs inside; needs a C compiler that links statically."""
    for name, flags in (("inside", []), ("loader", ["-nostdlib", "-fno-stack-protector"])):
        subprocess.run(
            ["gcc", "-static", "-O1", *flags, "-o", f"{directory}/{name}", f"{HERE}/{name}.c"], check=True
        )
    # A program whose ELF interpreter is the file that runs while it is loaded.
    subprocess.run(
        [
            "gcc",
            "-nostdlib",
            "-fno-stack-protector",
            "-fPIE",
            "-pie",
            "-Wl,--dynamic-linker=/proc/self/exe",
            "-o",
            f"{directory}/selfinterp",
            f"{HERE}/loader.c",
        ],
        check=True,
    )


class Runner:
    """Runs attacks one at a time; close it to remove what it compiled."""

    def __init__(self, patience: float = 1.0) -> None:
        self.patience = patience
        self.directory = tempfile.mkdtemp(prefix="gattack-")
        self.programs = f"{self.directory}/programs"
        os.mkdir(self.programs)
        build_programs(self.programs)
        self.count = 0
        self.left: list[str] = []

    def close(self) -> None:
        """Remove all that is left; what could not be removed is in `left`."""
        for path, names, files in os.walk(self.directory, topdown=False):
            for name in files:
                os.unlink(f"{path}/{name}")
            for name in names:
                os.rmdir(f"{path}/{name}")
        os.rmdir(self.directory)

    def run(self, attack: Attack, runtime: Runtime) -> Result:
        """Run it on a host of its own. Never raises for what the runtime does."""
        started = time.monotonic()
        verdict = self._on_a_host(attack.function, runtime)
        return Result(
            attack.name, runtime.name, verdict.status, verdict.reason, round(time.monotonic() - started, 2)
        )

    def check(self, runtime: Runtime) -> str:
        """Why this runtime cannot be judged: it does not run what is harmless. Empty if it does."""
        verdict = self._on_a_host(_harmless, runtime)
        return "" if verdict.status == "held" else verdict.reason

    def _on_a_host(self, function: Callable[[Lab], Verdict], runtime: Runtime) -> Verdict:
        self.count += 1
        token = f"{host.CGROUP_PREFIX}{os.getpid()}-{self.count}"
        scratch = tempfile.mkdtemp(prefix="host-", dir=self.directory)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            _outer(scratch, writer, lambda: self._inner(function, runtime, token, writer))
        os.close(writer)
        try:
            answer = _read_all(reader, LIMIT * self.patience)
        finally:
            os.close(reader)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            self._clean(token, scratch)
        if answer is None:
            return Verdict("unclear", f"no verdict after {LIMIT * self.patience:.0f} s")
        if not answer:
            return Verdict("unclear", "the attack ended without a verdict")
        return Verdict(*json.loads(answer))

    def _clean(self, token: str, scratch: str) -> None:
        # The processes end with their pid namespace, a moment after its first one.
        self.left += host.remove_cgroups(token)
        end = time.monotonic() + 3
        while True:
            try:
                os.rmdir(scratch)
            except OSError:
                if time.monotonic() > end:
                    self.left.append(scratch)
                    return
                time.sleep(0.02)
            else:
                return

    def _inner(self, function: Callable[[Lab], Verdict], runtime: Runtime, token: str, writer: int) -> None:
        if runtime.is_crun:
            host.hide_v2_controllers()
        try:
            lab = Lab(runtime, self.programs, token, self.patience)
            verdict = function(lab)
            if verdict.status == "held" and lab.crashes:
                verdict = Verdict("broken", f"held, but it {lab.crashes[0]}")
        except Unclear as error:
            verdict = Verdict("unclear", str(error))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            verdict = Verdict(
                "unclear",
                f"{type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})",
            )
        os.write(writer, json.dumps(verdict).encode())


def _harmless(lab: Lab) -> Verdict:
    done = lab.run(lab.bundle(), "plain").must_run()
    if done.code != 0 or done.value("uid") != "0":
        raise Unclear(f"a harmless container ends with {done.code}: {done.refusal}")
    second = lab.bundle("second")
    second.run_inside("sleep", "20")
    lab.up(second, "second")
    lab.exec(["/bin/inside", "look"], "second").must_run()
    lab.call("kill", "second", "KILL").must_succeed()
    lab.wait(lambda: '"stopped"' in lab.call("state", "second").out)
    lab.call("delete", "second").must_succeed()
    return Verdict("held", "runs what is harmless")


def _outer(scratch: str, writer: int, work: Callable[[], None]) -> None:
    """In a child: new namespaces, then a first process that reaps, then the worker. Does not return."""
    code = 1
    try:
        host.die_with_parent()
        host.unshare(host.NEWNS | host.NEWPID | host.NEWUTS | host.NEWIPC | host.NEWNET)
        first = os.fork()
        if first == 0:
            host.die_with_parent()
            host.enter(scratch)
            worker = os.fork()
            if worker == 0:
                os.setsid()
                work()
                os._exit(0)
            os.close(writer)
            while os.wait()[0] != worker:
                pass
            os._exit(0)
        os.close(writer)
        os.waitpid(first, 0)
        code = 0
    except BaseException as error:  # whatever it is, it must not get into the parent's stack
        with suppress(OSError):
            os.write(writer, json.dumps(["unclear", f"no throwaway host: {error}"]).encode())
    finally:
        os._exit(code)


def _read_all(fd: int, seconds: float) -> bytes | None:
    end = time.monotonic() + seconds
    data = b""
    while True:
        left = end - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            return None
        piece = os.read(fd, 65536)
        if not piece:
            return data
        data += piece
