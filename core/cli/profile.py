"""`gocker run --profile`: a start as a Chrome trace, for Perfetto and chrome://tracing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gocker import __version__
from gocker.engine import Outcome
from gocker.plan import HOST, INIT, PARENT, Plan, Step

_LINES = {"gocker": 1, HOST: 2, PARENT: 3, INIT: 4}
"""What is drawn as a thread, from above: gocker's work, and the steps by phase."""
_LATER = (("ran", "ended", "the program runs"), ("ended", "removed", "removal"))


def chrome_trace(plan: Plan, outcome: Outcome, begun: int, made: int) -> str:
    """The JSON text. `begun` and `made` are the time.perf_counter_ns() around planning.

    Each step has the time that it took; those of a phase are laid out one after the other from the moment that
    the phase began. What lies between them, some microseconds of gocker's own, shows as a gap at the phase's
    end. Source: "Trace Event Format" of the Chromium project.
    """
    marks = dict(outcome.marks)
    slices = [_slice("gocker", "planning", begun, made)]
    slices += _waits(plan, marks, made)
    slices += _steps(plan, outcome.step_ns, marks)
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": f"gocker run {plan.name}"}}
    ]
    events += [
        {"ph": "M", "pid": 1, "tid": line, "name": "thread_name", "args": {"name": name}}
        for name, line in _LINES.items()
    ]
    events += sorted(slices, key=lambda event: float(event["ts"]))
    if outcome.error is not None:
        at = marks.get("ended", made)
        failed = {"name": "failed", "ph": "i", "s": "p", "pid": 1, "tid": 1, "ts": at / 1000}
        events.append({**failed, "args": {"error": str(outcome.error)}})
    for event in events:
        if "ts" in event:
            event["ts"] = round(event["ts"] - begun / 1000, 3)
    other = {"container": plan.container, "plan": plan.digest, "gocker": __version__}
    other["verdict"] = outcome.report.verdict.kind
    text = json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": other})
    return f"{text}\n"


def _slice(line: str, name: str, begin: int, end: int, **args: Any) -> dict[str, Any]:
    times = {"ts": begin / 1000, "dur": round((end - begin) / 1000, 3)}
    return {"name": name, "ph": "X", "pid": 1, "tid": _LINES[line], **times, "args": args}


def _waits(plan: Plan, marks: dict[str, int], made: int) -> Iterator[dict[str, Any]]:
    """What gocker itself does from the plan's end on."""
    ended = marks["ended"]
    yield _slice("gocker", "plan on disk, audit log, pipes", made, marks.get("begun", ended))
    if "begun" in marks:
        yield _slice("gocker", "host and parent phase", marks["begun"], marks.get("go", ended))
    if "go" in marks:
        yield _slice("gocker", "init phase: wait for the program", marks["go"], marks.get("ran", ended))
    for first, last, name in _LATER:
        if first in marks and last in marks:
            steps = {"steps": [step.describe() for step in plan.remove]} if last == "removed" else {}
            yield _slice("gocker", name, marks[first], marks[last], **steps)


def _steps(plan: Plan, times: tuple[int, ...], marks: dict[str, int]) -> Iterator[dict[str, Any]]:
    """The steps whose times are known: not those after which the first process speaks no more."""
    left = iter(times)
    at = marks.get("begun", 0)
    number = 0
    for phase, steps in ((HOST, plan.host), (PARENT, plan.parent), (INIT, plan.init)):
        if phase == INIT:
            at = marks.get("go", at)
        for step in steps:
            number += 1
            took = next(left, None)
            if took is None:
                return
            yield _slice(phase, step.op, at, at + took, step=number, describe=_line(step))
            at += took


def _line(step: Step) -> str:
    return step.describe().encode("utf-8", "backslashreplace").decode()
