"""How the runners of other projects' suites judge what a test printed."""

from __future__ import annotations

import json
from pathlib import Path

import crun_tests
import libmount
import pytest
import suite


def ended(out: str, code: int = 0, err: str = "") -> suite.Ended:
    return suite.Ended(code, 0.1, out, err)


@pytest.mark.parametrize(
    ("out", "word"),
    [
        ("TAP version 13\nok 1 - a\nok 2 - b\n1..2\n", "pass"),
        ("ok 1 - a\nnot ok 2 - b\n1..2\n", "fail"),
        ("ok 1 - a\nnot ok 2 - b # TODO later\n1..2\n", "fail"),  # one less than planned
        ("ok 1 - a\n1..2\n", "fail"),
        ("ok 1 # SKIP no AppArmor\n1..1\n", "skip"),
        ("ok 1 - a # SKIP\nok 2 - b\n1..2\n", "pass"),
        ("ok 1 - a\n1..1\nok 1 - a\n1..1\n", "pass"),  # two documents
        ("", "pass"),  # a program that only exits
        ("TAP version 13\n1..0\n", "pass"),
        ('TAP version 13\n  ---\n  {\n    "error": "wrong\\nRefer to"\n  }\n  ...\n1..0\n', "fail"),
        ('ok 1 - refused\n  ---\n  {\n    "error": "exit status 1"\n  }\n1..1\n', "pass"),
    ],
)
def test_tap_is_judged_by_its_lines_its_plan_and_the_errors_of_an_empty_document(out: str, word: str) -> None:
    assert suite.judge_tap(ended(out))[0] == word


def test_a_program_that_fails_has_failed_whatever_it_printed() -> None:
    assert suite.judge_tap(ended("ok 1 - a\n1..1\n", 1, "no root\nexit status 1\n")) == ("fail", "no root")


@pytest.mark.parametrize(
    ("out", "word"),
    [
        ("1..1\nok 1 - pid # 0.031s\n", "pass"),
        ("1..1\nnot ok 1 - pid # 0.031s\n", "fail"),
        ("1..1\nok 1 - pid #SKIP requires cgroup v2 # 0.002s\n", "skip"),
        ("1..1\n", "fail"),
    ],
)
def test_a_test_of_crun_is_judged_by_its_one_line(out: str, word: str) -> None:
    assert crun_tests.judge(ended(out))[0] == word


def test_why_a_test_of_crun_failed_is_what_the_runtime_said() -> None:
    log = "# Command failed: crun run\n# Return code: 1\n# Output: no such file\n# Test 'x' failed with exception\n"
    assert crun_tests.judge(ended("not ok 1 - x\n", 0, log)) == ("fail", "no such file")


def test_only_what_should_pass_can_get_worse() -> None:
    assert suite.worse("pass", "timeout")
    assert suite.worse("pass", "skip")
    assert not suite.worse("fail", "timeout")
    assert not suite.worse("", "fail")


def test_a_recorded_column_leaves_the_others_and_the_notes(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"commit": "1", "tests": {"a": {"runc": "pass", "note": "why"}}}))
    suite.Expected(path).record("crun", {"a": suite.Outcome("fail", 1.0)})
    assert json.loads(path.read_text()) == {
        "commit": "1",
        "tests": {"a": {"runc": "pass", "note": "why", "crun": "fail"}},
    }


def test_what_stands_in_for_libmount_finds_the_mount_on_top(tmp_path: Path) -> None:
    lines = (
        "1 0 0:1 / /a rw,nodev - tmpfs none rw,size=1k\n2 1 0:2 / /a ro shared:1 - tmpfs none rw,size=2k\n"
    )
    (tmp_path / "mountinfo").write_text("x\n" + lines)
    table = libmount.Table(str(tmp_path / "mountinfo"))
    found = table.find_target("/a")
    assert found is not None
    assert (found.vfs_options, found.fs_options) == ("ro", "rw,size=2k")
    assert table.find_target("/b") is None
