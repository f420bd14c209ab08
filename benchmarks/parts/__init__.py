"""The parts of the suite, in the order in which they run: each has `measure(bench)`, which returns its tables."""

from __future__ import annotations

from collections.abc import Callable

from bench import Bench
from result import Table

from parts import auditing, cold, docker, growth, inprocess, listing, podman, together, verbs, warm

PARTS: dict[str, Callable[[Bench], list[Table]]] = {
    "cold": cold.measure,
    "warm": warm.measure,
    "inprocess": inprocess.measure,
    "verbs": verbs.measure,
    "together": together.measure,
    "podman": podman.measure,
    "docker": docker.measure,
    "growth": growth.measure,
    "list": listing.measure,
    "audit": auditing.measure,
}
