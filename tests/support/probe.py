"""Python in a container: the interpreter that runs the tests, bound from the host into the image `base`."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from command import Gocker, Ran

_PRELUDE = """
import ctypes, errno, json, os, platform, stat, sys
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *args):
    "The result of a system call, or -errno."
    number = name if isinstance(name, int) else NUMBERS[name][platform.machine() == "aarch64"]
    longs = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result = libc.syscall(ctypes.c_long(number), *longs)
    return result if result != -1 else -ctypes.get_errno()

NUMBERS = {  # x86-64, arm64
    "getpid": (39, 172), "keyctl": (250, 219), "add_key": (248, 217), "unshare": (272, 97), "setns": (308, 268),
    "mount": (165, 40), "umount2": (166, 39), "ptrace": (101, 117), "bpf": (321, 280), "perf_event_open": (298, 241),
    "init_module": (175, 105), "kexec_load": (246, 104), "open_by_handle_at": (304, 265), "socket": (41, 198),
    "userfaultfd": (323, 282), "personality": (135, 92), "clone": (56, 220), "clone3": (435, 435), "reboot": (169, 142),
    "pivot_root": (155, 41), "io_uring_setup": (425, 425), "syslog": (103, 116), "swapon": (167, 224),
    "move_mount": (429, 429), "open_tree": (428, 428), "fsopen": (430, 430), "process_vm_readv": (310, 270),
}

def attempt(action):
    "'ok', or the name of its errno."
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"

def name(result):
    "'ok' for what `call` returned, or the name of its errno."
    return errno.errorcode[-result] if result < 0 else "ok"
"""


def python_inside() -> tuple[str, ...]:
    """Options that bring the interpreter and its libraries."""
    options = ["-v", "/usr:/usr:ro"]
    if not sys.base_prefix.startswith("/usr"):
        options += ["-v", f"{sys.base_prefix}:{sys.base_prefix}:ro"]
    return tuple(options)


def python(source: str, *args: str) -> tuple[str, ...]:
    """The command that runs `source` inside, with what _PRELUDE defines."""
    return (os.path.realpath(sys.executable), "-ISBc", _PRELUDE + source, *args)


def probe(gocker: Gocker, source: str, *options: str, image: tuple[str, ...] = ("base",), **more: Any) -> Any:
    """What `source` prints as JSON, run by `gocker run OPTIONS base`."""
    ran: Ran = gocker("run", *python_inside(), *options, *image, *python(source), **more)
    assert ran.code == 0, ran
    return json.loads(ran.out)
