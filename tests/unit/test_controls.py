"""What an update writes back, what it takes over from before, and how its options are read."""

from __future__ import annotations

from typing import Any

import pytest

from gocker.errors import LimitError, UsageError
from gocker.limits import parse_limit
from gocker.ocicli.events import read_duration
from gocker.ocicli.ps import rows_of
from gocker.ocicli.update import changes, with_flags
from gocker.updating import merge, plain_before, row_before


def test_of_one_limit_asked_for_twice_the_later_holds() -> None:
    old = [parse_limit("memory=1g"), parse_limit("pids=5")]
    merged = merge(old, [parse_limit("memory=2g"), parse_limit("memory.swap=3g")])
    assert [(one.label, one.value) for one in merged] == [
        ("memory", "2g"),
        ("pids", "5"),
        ("memory.swap", "3g"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4096", "4096"),
        ("50000 100000", "50000 100000"),
        ("", "\n"),
        ("oom_kill_disable 0\nunder_oom 0", "0"),
    ],
)
def test_a_file_of_one_value_gets_it_back(text: str, expected: str) -> None:
    assert plain_before(text) == expected


@pytest.mark.parametrize(
    ("row", "held", "expected"),
    [
        ("8:0 600", "8:16 5\n8:0 400", "8:0 400"),
        ("8:0 600", "8:16 5", "8:0 0"),
        ("8:0 rbps=600 wiops=5", "", "8:0 rbps=max wiops=max"),
        ("default 500", "default 100\n8:0 5", "default 100"),
    ],
)
def test_a_table_gets_its_line_back(row: str, held: str, expected: str) -> None:
    assert row_before(row, held) == expected


def test_options_become_resources() -> None:
    flags: dict[str, Any] = {
        "memory": "100m",
        "memory_swap": "-1",
        "cpu_quota": "-1",
        "cpuset_cpus": "0-1",
        "cpu_idle": None,
    }
    assert with_flags({"memory": {"reservation": 5}}, flags) == {
        "memory": {"reservation": 5, "limit": 100 << 20, "swap": -1},
        "cpu": {"quota": -1, "cpus": "0-1"},
    }


@pytest.mark.parametrize(
    "flags", [{"cpu_quota": "5x"}, {"pids_limit": ""}, {"memory": "-2"}, {"cpu_period": "²"}]
)
def test_an_option_that_is_no_number_is_refused(flags: dict[str, Any]) -> None:
    if flags == {"pids_limit": ""}:
        assert with_flags({}, flags) == {}
        return
    with pytest.raises(LimitError, match=r"set limit --(cpu-quota|memory|cpu-period)="):
        with_flags({}, flags)


def test_an_update_is_not_about_devices_nor_about_zeros() -> None:
    resources: dict[str, object] = {"devices": [{"allow": False}], "pids": {"limit": 0}, "cpu": {"shares": 0}}
    assert changes(resources) == {"cpu": {"shares": 0}}
    assert changes({"pids": {"limit": 5}}) == {"pids": {"limit": 5}}


def test_no_memory_limit_is_none_of_the_sum() -> None:
    assert changes({"memory": {"limit": -1}}) == {"memory": {"limit": -1, "swap": -1}}
    assert changes({"memory": {"limit": -1, "swap": 5}}) == {"memory": {"limit": -1, "swap": 5}}


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5), ("1m30s", 90), ("100ms", 0.1), ("1.5s", 1.5), ("2h", 7200), ("0s", 0)]
)
def test_a_duration_is_read_as_go_writes_it(text: str, seconds: float) -> None:
    assert read_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", "5d", "1..5s", "²s", "5s5"])
def test_other_text_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="set --interval"):
        read_duration(text)


LISTING = "UID   PID  PPID CMD\nroot    7     1 sleep 8\nroot    8     1 sh -c 7\n\nroot x y"


def test_a_listing_is_cut_to_the_containers_own() -> None:
    assert rows_of(LISTING, {7}) == ["UID   PID  PPID CMD", "root    7     1 sleep 8"]


def test_a_listing_without_ids_is_refused() -> None:
    with pytest.raises(UsageError, match="there is no column PID"):
        rows_of("COMMAND\nsleep", {7})
