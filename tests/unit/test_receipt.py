"""The verdict and the report: what counts as what, with which exit status and which words."""

from __future__ import annotations

import errno
import json
import os
import signal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gocker.cli.explain import explain, hints, printable
from gocker.errors import ExecError, GockerError, LimitError, StepError
from gocker.limits import parse_limit
from gocker.model import ContainerSpec
from gocker.receipt import (
    KINDS,
    Report,
    Verdict,
    judge,
    make_report,
    report_from_json,
    signal_name,
    verdict_exit_code,
)

CORE = 0x80
LIMITS = {"memory": ("104857600", "104857600"), "pids": ("4096", "4096")}
PEAK = {"memory_peak_bytes": 104857600}


def exited(code: int) -> int:
    return code << 8


def decide(status: int | None, oom_kills: int = 0, **other: Any) -> Verdict:
    given_ = {"timed_out": False, "error": None, "limits": LIMITS, **other}
    return judge(
        status, oom_kills, given_.pop("timed_out"), given_.pop("error"), given_.pop("limits"), **given_
    )


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (exited(0), Verdict("ok", 0, None, "exit status 0")),
        (exited(3), Verdict("exit", 3, None, "exit status 3")),
        (exited(137), Verdict("exit", 137, None, "exit status 137")),
        (signal.SIGKILL, Verdict("signal", 137, "SIGKILL", "ended by SIGKILL")),
        (signal.SIGSEGV | CORE, Verdict("signal", 139, "SIGSEGV", "ended by SIGSEGV, core dumped")),
        (36, Verdict("signal", 164, "SIGRTMIN+2", "ended by SIGRTMIN+2")),
    ],
)
def test_without_a_kill_on_record_the_wait_status_decides(status: int, verdict: Verdict) -> None:
    assert decide(status) == verdict
    assert verdict_exit_code(verdict) == verdict.code


def test_sigkill_is_oom_only_with_proof_from_the_cgroup() -> None:
    assert decide(signal.SIGKILL, 0, usage=PEAK).kind == "signal"
    assert decide(signal.SIGKILL, 1, usage=PEAK).kind == "oom"


@pytest.mark.parametrize(
    ("usage", "detail"),
    [
        (
            {**PEAK, "memory_ooms": 1, "memory_limit_hits": 9},
            (
                "the kernel's OOM killer killed 2 processes at the container's own memory limit, met 1 time"
                " (peak 104857600, limit 104857600 bytes): ended by SIGKILL"
            ),
        ),
        (
            {**PEAK, "memory_limit_hits": 9},
            (
                "the kernel's OOM killer killed 2 processes at the container's own memory limit, met 9 times"
                " (peak 104857600, limit 104857600 bytes): ended by SIGKILL"
            ),
        ),
        (
            {"memory_ooms": 0, "memory_limit_hits": 9},
            (
                "the kernel's OOM killer killed 2 processes for want of memory outside the container, on the host"
                " or in a parent cgroup (limit 104857600 bytes): ended by SIGKILL"
            ),
        ),
        ({}, "the kernel's OOM killer killed 2 processes (limit 104857600 bytes): ended by SIGKILL"),
    ],
)
def test_an_oom_verdict_says_at_which_level(usage: dict[str, int], detail: str) -> None:
    assert decide(signal.SIGKILL, 2, usage=usage) == Verdict("oom", 137, "SIGKILL", detail)


def test_without_figures_none_are_made_up() -> None:
    verdict = decide(signal.SIGKILL, 1, limits={})
    assert verdict.detail == "the kernel's OOM killer killed 1 process: ended by SIGKILL"


@pytest.mark.parametrize("code", [1, 137])
def test_a_shell_whose_child_was_killed_ends_with_oom_and_its_own_status(code: int) -> None:
    verdict = decide(exited(code), 1)
    assert (verdict.kind, verdict.code, verdict.signal) == ("oom", code, None)


def test_a_program_that_got_over_an_oom_kill_is_ok_and_the_kill_is_told() -> None:
    verdict = decide(exited(0), 1)
    assert (verdict.kind, verdict.code) == ("ok", 0)
    assert verdict.detail.startswith("exit status 0; before that the kernel's OOM killer killed 1 process")


def test_another_signal_after_an_oom_kill_is_that_signal() -> None:
    verdict = decide(signal.SIGTERM, 1)
    assert (verdict.kind, verdict.code, verdict.signal) == ("signal", 143, "SIGTERM")
    assert "OOM killer" in verdict.detail


@pytest.mark.parametrize(
    ("timeout", "detail"),
    [
        (1.5, "still running at the timeout of 1.5 s: ended by SIGKILL"),
        (None, "still running at the timeout: ended by SIGKILL"),
    ],
)
def test_a_program_that_gocker_killed_at_the_timeout_timed_out(timeout: float | None, detail: str) -> None:
    verdict = decide(signal.SIGKILL, 1, timed_out=True, timeout=timeout)
    assert verdict == Verdict("timeout", 137, "SIGKILL", detail)


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (ExecError("exec", "/bin/nope", "ENOENT: no", errno=errno.ENOENT), "exec-failed", 127),
        (ExecError("exec", "/etc/passwd", "EACCES: no", errno=errno.EACCES), "exec-failed", 126),
        (StepError(17, 42, "mount proc on /proc", "EPERM: no"), "setup-failed", 125),
        (LimitError("set limit", "memory=1", "too small"), "setup-failed", 125),
    ],
)
def test_a_program_that_never_ran_has_the_error_as_its_detail(
    error: GockerError, kind: str, code: int
) -> None:
    for status in (None, exited(0)):  # the child that failed has a status, too
        assert decide(status, error=error) == Verdict(kind, code, None, str(error))


def test_no_status_and_no_error_is_a_failed_setup() -> None:
    assert decide(None) == Verdict("setup-failed", 125, None, "the program was never started")


def test_a_verdict_without_a_code_is_gockers_failure() -> None:
    assert verdict_exit_code(Verdict("setup-failed", None)) == 125


@given(
    st.integers(0, 255).map(exited)
    | st.sampled_from([number | core for number in range(1, 65) for core in (0, CORE)]),
    st.integers(0, 3),
    st.booleans(),
)
def test_every_wait_status_has_one_verdict_and_dockers_exit_code(
    status: int, kills: int, timed_out: bool
) -> None:
    verdict = decide(status, kills, timed_out=timed_out)
    ended = os.waitstatus_to_exitcode(status)
    assert verdict.kind in KINDS
    assert verdict_exit_code(verdict) == (ended if ended >= 0 else 128 - ended)
    assert (verdict.signal is not None) == (ended < 0)
    assert verdict.kind != "oom" or kills > 0


@pytest.mark.parametrize(
    ("number", "name"), [(9, "SIGKILL"), (15, "SIGTERM"), (34, "SIGRTMIN"), (40, "SIGRTMIN+6")]
)
def test_signals_are_named(number: int, name: str) -> None:
    assert signal_name(number) == name


# --- report -------------------------------------------------------------------------------------------

SPEC = ContainerSpec(
    id="3f2a9c00d1e2beef",
    name="web",
    argv=("sh", "-c", "echo a b"),
    limits=tuple(map(parse_limit, ["memory=100m", "cpuset=0-1?"])),
)


def report(verdict: Verdict, **changes: Any) -> Report:
    arguments: dict[str, Any] = {
        "started_ns": 1_769_860_800_000_000_000,
        "finished_ns": 1_769_860_801_500_000_000,
        "usage": {**PEAK, "pids_peak": 3, "cpu_user_us": 1_250_000, "oom_kills": 0},
        "effective": LIMITS,
        "unbound": {"cpuset": "no such controller"},
        **changes,
    }
    return make_report(SPEC, "sha256:00", verdict=verdict, **arguments)


def test_the_report_is_the_documented_json() -> None:
    data = report(Verdict("ok", 0, None, "exit status 0")).to_json()
    assert json.loads(json.dumps(data)) == data
    assert data == {
        "container": "3f2a9c00d1e2beef",
        "name": "web",
        "command": ["sh", "-c", "echo a b"],
        "plan": "sha256:00",
        "started": "2026-01-31T12:00:00.000000Z",
        "finished": "2026-01-31T12:00:01.500000Z",
        "verdict": {"kind": "ok", "code": 0, "signal": None, "detail": "exit status 0"},
        "usage": {
            "wall_us": 1_500_000,
            "cpu_user_us": 1_250_000,
            "cpu_system_us": None,
            "memory_peak_bytes": 104857600,
            "pids_peak": 3,
            "io_read_bytes": None,
            "io_write_bytes": None,
            "oom_kills": 0,
        },
        "limits": {
            "memory": {"asked": "100m", "effective": 104857600},
            "pids": {"asked": "4096", "effective": 4096},
            "cpuset": {"asked": "0-1", "effective": None, "reason": "no such controller"},
        },
    }


def test_wall_time_may_come_from_a_better_clock() -> None:
    assert report(Verdict("ok", 0), usage={"wall_us": 7}).usage["wall_us"] == 7


def test_a_limit_that_is_no_number_stays_text() -> None:
    limits = report(
        Verdict("ok", 0), effective={"cpuset": ("0-1", "0-1"), "pids": ("max", "max")}, unbound=None
    ).limits
    assert limits == {
        "cpuset": {"asked": "0-1", "effective": "0-1"},
        "pids": {"asked": "max", "effective": "max"},
    }


def test_a_report_comes_back_from_its_json() -> None:
    original = report(Verdict("oom", 137, "SIGKILL", "x"))
    assert report_from_json(json.loads(json.dumps(original.to_json()))) == original


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": None},
        {"verdict": {"kind": "ok"}},
        {"command": None},
        {"usage": 5},
        {"limits": []},
        {"limits": {"memory": 1}},
        {"name": ...},
    ],
)
def test_other_json_is_no_report(change: dict[str, Any]) -> None:
    data = {**report(Verdict("ok", 0)).to_json(), **change}
    with pytest.raises(ValueError, match="not a report"):
        report_from_json({name: value for name, value in data.items() if value is not ...})


# --- in plain words -----------------------------------------------------------------------------------


def test_a_report_reads_well() -> None:
    verdict = decide(signal.SIGKILL, 1, usage={**PEAK, "memory_ooms": 1})
    text = explain(report(verdict, usage={**PEAK, "memory_ooms": 1, "cpu_user_us": 1_250_000}))
    assert text == (
        "web (3f2a9c00d1e2) ran out of memory\n"
        "\n"
        "  verdict            oom, exit status 137\n"
        "  what happened      the kernel's OOM killer killed 1 process at the container's own memory limit, met"
        " 1 time (peak 104857600, limit 104857600 bytes): ended by SIGKILL\n"
        "  command            sh -c 'echo a b'\n"
        "  started            2026-01-31T12:00:00.000000Z\n"
        "  finished           2026-01-31T12:00:01.500000Z\n"
        "  wall               1.500 s\n"
        "  cpu user           1.250 s\n"
        "  memory peak        104857600 bytes (100m)\n"
        "  memory ooms        1\n"
        "  limit memory       104857600 bytes (100m), asked 100m\n"
        "  limit pids         4096, asked 4096\n"
        "  limit cpuset       asked 0-1, does not bind: no such controller\n"
        "  try                raise --limit memory above 100m, or let the program use less"
    )


@pytest.mark.parametrize(
    ("verdict", "headline"),
    [
        (Verdict("ok", 0), "ended well"),
        (Verdict("exit", 3), "ended by itself with exit status 3"),
        (Verdict("signal", 143, "SIGTERM"), "was ended by SIGTERM"),
        (Verdict("timeout", 137, "SIGKILL"), "did not end in time"),
        (Verdict("exec-failed", 127), "never ran: its command could not be started"),
        (Verdict("setup-failed", 125), "never ran: gocker could not set it up"),
        (Verdict("unknown", None), "came to an end that nobody saw"),
        (Verdict("of-the-future", 1), "of-the-future"),
    ],
)
def test_the_first_line_says_what_became_of_it(verdict: Verdict, headline: str) -> None:
    assert explain(report(verdict)).splitlines()[0] == f"web (3f2a9c00d1e2) {headline}"


def test_an_unknown_end_has_no_exit_status() -> None:
    verdict = explain(report(Verdict("unknown", None))).splitlines()[2]
    assert verdict == "  verdict            unknown"


@pytest.mark.parametrize(
    ("verdict", "changes", "hint"),
    [
        (Verdict("oom", 137, "SIGKILL"), {"usage": {"memory_ooms": 0}}, "free memory on the host"),
        (Verdict("oom", 137, "SIGKILL"), {"effective": {}}, "free memory on the host"),
        (Verdict("oom", 137), {}, "raise --limit memory above 100m"),
        (Verdict("exit", 1), {"usage": {"pids_refused": 4}}, "fork was refused 4 times by the limit pids"),
        (Verdict("exit", 126), {}, "a shell inside ends with 126"),
        (Verdict("exit", 127), {}, "a shell inside ends with 127"),
        (Verdict("exit", 137), {}, "137 is what a shell gives"),
        (Verdict("signal", 137, "SIGKILL"), {}, "no OOM kill was counted: somebody sent the signal"),
        (Verdict("timeout", 137, "SIGKILL"), {}, "raise --timeout"),
        (Verdict("exec-failed", 127), {}, "look at the spelling"),
    ],
)
def test_a_failure_comes_with_something_to_try(verdict: Verdict, changes: dict[str, Any], hint: str) -> None:
    assert hints(report(verdict, **changes))[0].startswith(hint)


@pytest.mark.parametrize("verdict", [Verdict("ok", 0), Verdict("exit", 1), Verdict("setup-failed", 125)])
def test_nothing_to_try_is_made_up(verdict: Verdict) -> None:
    assert hints(report(verdict)) == []


def test_a_container_cannot_write_to_the_readers_terminal() -> None:
    assert printable("a\x1b[2J\n\udcff\u202eé") == "a\\x1b[2J\\n\\udcff\\u202eé"
    evil = Report(**{**vars(report(Verdict("ok", 0))), "command": ("\x1b]0;x\x07",)})
    assert "\x1b" not in explain(evil)


def test_small_and_uneven_sizes_are_shown_as_they_are() -> None:
    text = explain(
        report(
            Verdict("ok", 0),
            usage={"io_read_bytes": 12, "io_write_bytes": 1536, "other": 5, "huge_bytes": 1 << 60},
        )
    )
    assert "io read            12 bytes\n" in text
    assert "io write           1536 bytes (1.5k)\n" in text
    assert "other              5\n" in text
    assert "huge               1152921504606846976 bytes (1048576t)\n" in text
