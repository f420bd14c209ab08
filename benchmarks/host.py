"""The machine that is measured, and how busy it is."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

from peers import version


def describe() -> dict[str, Any]:
    """Kernel, processors, cgroups, and how much of the CPUs' time others take right now."""
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": _processor(),
        "cpus": os.cpu_count(),
        "cgroups": "v1 and v2" if Path("/sys/fs/cgroup/memory").is_dir() else "v2",
        "busy": busy_share(),
    }


def versions() -> dict[str, str]:
    """Of this Python and of the peers that are there."""
    found = {name: version(name) for name in ("runc", "crun", "bwrap", "podman", "docker")}
    return {"python": platform.python_version(), **{name: said for name, said in found.items() if said}}


def busy_share() -> float:
    """0 to 1; /proc/stat, proc_stat(5)."""

    def look() -> tuple[int, int]:
        times = [int(word) for word in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
        return sum(times), times[3] + times[4]  # all; idle and waiting for disks

    before = look()
    time.sleep(2)
    all_of_it, idle = (new - old for old, new in zip(before, look(), strict=True))
    return 1 - idle / all_of_it


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
