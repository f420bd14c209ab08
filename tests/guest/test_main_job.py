"""The main job on whichever cgroup version the host has: the limit, the verdict, the receipt."""

from __future__ import annotations

import json

import pytest
from command import SLOWNESS, Gocker, Ran
from running import running, version

from gocker.hierarchy import read_host
from gocker.model import Hierarchy

pytestmark = pytest.mark.guest

LIMIT = 104857600
GREEDY = "head -c 200m /dev/zero | tail"


def events(gocker: Gocker, ran: Ran) -> list[dict[str, object]]:
    """What the audit log has of this run."""
    shown = gocker("audit", "show", "--container", ran.report["container"], "--format", "json")
    assert shown.code == 0, shown
    return [json.loads(line) for line in shown.out.splitlines()]


def test_the_kernels_file_says_100m_while_it_runs_and_goes_with_it(gocker: Gocker) -> None:
    name = "memory.max" if version("memory") is Hierarchy.V2 else "memory.limit_in_bytes"
    with running(gocker, "--limit", "memory=100m") as container:
        assert container.file("memory", name) == str(LIMIT)
        container.end()
        assert container.file("memory", name) is None


def test_a_program_that_takes_200_mb_is_killed_and_the_verdict_is_oom(gocker: Gocker) -> None:
    ran = gocker.run("--limit", "memory=100m", "base", "sh", "-c", GREEDY)
    assert (ran.code, ran.report["verdict"]["kind"]) == (137, "oom"), ran
    detail = ran.report["verdict"]["detail"]
    assert detail.startswith("the kernel's OOM killer killed ")  # one, seldom the shell too
    assert f"(peak {ran.report['usage']['memory_peak_bytes']}, limit {LIMIT} bytes)" in detail
    if version("memory") is Hierarchy.V2:  # v1 may not say at which level
        assert "at the container's own memory limit, met " in detail
    assert ran.report["limits"]["memory"] == {"asked": "100m", "effective": LIMIT}
    assert 0.95 * LIMIT <= ran.report["usage"]["memory_peak_bytes"] <= LIMIT
    assert ran.report["usage"]["oom_kills"] >= 1
    log = events(gocker, ran)
    assert [event["event"] for event in log if event["level"] == "warning"] == ["container.oom"]
    (end,) = (event for event in log if event["event"] == "container.exit")
    assert end["report"] == ran.report
    why = gocker("why", ran.report["container"])
    assert (why.code, "oom" in why.out) == (0, True), why


def test_without_swap_asked_for_none_is_taken_beside_the_limit(gocker: Gocker) -> None:
    ran = gocker.run("--limit", "memory=100m", "base", "true")
    effective = ran.report["limits"]["memory.swap"]["effective"]
    assert effective == (0 if version("memory") is Hierarchy.V2 else LIMIT)


@pytest.mark.parametrize("init", [(), ("--init",)], ids=["program is pid 1", "program below --init"])
def test_a_program_that_is_itself_killed_for_want_of_memory_has_the_verdict_oom(
    gocker: Gocker, init: tuple[str, ...]
) -> None:
    ran = gocker.run(*init, "--limit", "memory=20m", "base", "sh", "-c", "exec tail < /dev/zero")
    verdict = ran.report["verdict"]
    assert (ran.code, verdict["kind"], verdict["signal"]) == (137, "oom", "SIGKILL"), ran


def test_a_program_that_kills_itself_has_the_verdict_signal(gocker: Gocker) -> None:
    # PID 1 of a namespace ignores its own SIGKILL (pid_namespaces(7)), so the program must not be it.
    ran = gocker.run("--init", "--limit", "memory=100m", "base", "sh", "-c", "kill -9 $$")
    verdict = ran.report["verdict"]
    assert (ran.code, verdict["kind"], verdict["signal"]) == (137, "signal", "SIGKILL"), ran
    assert ran.report["usage"]["oom_kills"] == 0
    assert "container.oom" not in {event["event"] for event in events(gocker, ran)}


def test_a_loss_that_the_program_gets_over_is_not_its_end(gocker: Gocker) -> None:
    ran = gocker.run("--limit", "memory=20m", "base", "sh", "-c", "tail < /dev/zero; echo still here")
    assert (ran.code, ran.out, ran.report["verdict"]["kind"]) == (0, "still here\n", "ok"), ran
    assert "before that the kernel's OOM killer killed 1 process" in ran.report["verdict"]["detail"]


def test_the_peak_in_the_report_is_the_kernels(gocker: Gocker) -> None:
    v2 = version("memory") is Hierarchy.V2
    with running(gocker, "--limit", "memory=100m") as container:
        container.sh("head -c 60m /dev/zero | tail -c 50m | wc -c")
        kernels = int(container.file("memory", "memory.peak" if v2 else "memory.max_usage_in_bytes") or 0)
        reported = container.end().report["usage"]["memory_peak_bytes"]
    assert kernels > 50 << 20
    assert kernels <= reported <= 1.05 * kernels


def test_a_program_that_overstays_its_timeout_is_killed_with_all_its_children(gocker: Gocker) -> None:
    script = "sleep 1000 & sleep 1000 & trap '' TERM; echo up; wait"
    ran = gocker.run("--timeout", str(0.05 * SLOWNESS + 0.5), "base", "sh", "-c", script)
    verdict = ran.report["verdict"]
    assert (ran.code, ran.out, verdict["kind"], verdict["signal"]) == (137, "up\n", "timeout", "SIGKILL"), ran


def test_the_receipt_has_every_figure(gocker: Gocker, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("disk")
    # Directly to the disk, since v1 does not know whose pages it writes back later.
    write, read = (
        "dd if=/dev/zero of=/data/file bs=1M count=8 oflag=direct",
        "dd if=/data/file of=/dev/null bs=1M iflag=direct",
    )
    script = f"{write} && {read}"
    ran = gocker.run("--limit", "memory=100m", "-v", f"{directory}:/data", "base", "sh", "-c", script)
    assert ran.code == 0, ran
    usage = ran.report["usage"]
    assert usage["wall_us"] > 0
    assert usage["cpu_user_us"] + usage["cpu_system_us"] > 1000
    assert usage["memory_peak_bytes"] > 1 << 20
    if read_host().mode == "v2" or usage["io_write_bytes"] is not None:  # v1 may count nothing
        assert usage["io_write_bytes"] >= 8 << 20
        assert usage["io_read_bytes"] >= 8 << 20
    assert usage["pids_peak"] is None or 2 <= usage["pids_peak"] < 8
    assert (usage["oom_kills"], usage["pids_refused"]) == (0, 0)
