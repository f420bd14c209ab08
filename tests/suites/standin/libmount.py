"""The two calls of libmount that crun's tests make, for a Python without libmount: a mountinfo file is read."""

from __future__ import annotations

from typing import NamedTuple


class Filesystem(NamedTuple):
    """One line of proc_pid_mountinfo(5)."""

    target: str
    vfs_options: str
    fs_options: str


class Table:
    """The lines of a copy of /proc/PID/mountinfo; others in it are passed over."""

    def __init__(self, path: str) -> None:
        self._lines = []
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                head, dash, tail = line.partition(" - ")
                fields, rest = head.split(), tail.split()
                if dash and len(fields) > 5 and len(rest) > 1:
                    self._lines.append(Filesystem(fields[4], fields[5], rest[-1]))

    def find_target(self, target: str) -> Filesystem | None:
        """The mount on top there."""
        return next((line for line in reversed(self._lines) if line.target == target), None)
