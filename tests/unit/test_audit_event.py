"""The actor, what of its command line is kept, and how structlog is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gocker.audit import current_actor, load_structlog, mask_environment
from gocker.auditevent import rfc3339
from gocker.digest import find_sha256, sha256
from gocker.errors import AuditError


def run(code: str) -> Any:
    """What `code` prints as JSON, in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, check=True, text=True
    )
    return json.loads(done.stdout)


# --- actor --------------------------------------------------------------------------------------------


def test_the_actor_is_user_login_process_and_command() -> None:
    actor = current_actor(["gocker", "run", "-e", "A=b", "base"])
    assert list(actor) == ["uid", "loginuid", "pid", "command"]
    assert (actor["uid"], actor["pid"]) == (os.getuid(), os.getpid())
    assert actor["command"] == ["gocker", "run", "-e", "A=***", "base"]


@pytest.mark.parametrize(
    ("text", "login"),
    [("1000", 1000), ("0\n", None), ("0", 0), ("4294967295", None), ("", None), ("x", None)],
)
def test_loginuid_is_null_when_nobody_logged_in(tmp_path: Path, text: str, login: int | None) -> None:
    (tmp_path / "loginuid").write_text(text)
    assert current_actor([], str(tmp_path / "loginuid"))["loginuid"] == login


def test_loginuid_is_null_on_a_kernel_without_it(tmp_path: Path) -> None:
    assert current_actor([], str(tmp_path / "nothing"))["loginuid"] is None


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        (["-e", "A=b"], ["-e", "A=***"]),
        (["-eA=b"], ["-eA=***"]),
        (["--env", "A=b"], ["--env", "A=***"]),
        (["--env=A=b"], ["--env=A=***"]),
        (["-ite", "A=b"], ["-ite", "A=***"]),
        (["-iteA=b"], ["-iteA=***"]),
        (["-e", "A=b=c d\n"], ["-e", "A=***"]),
        (["-e", "A="], ["-e", "A=***"]),
        (["-e", "=x"], ["-e", "=***"]),
        (["-e=A=b"], ["-e=***"]),
        (["-e", "HOME"], ["-e", "HOME"]),
        (["-e"], ["-e"]),
        (["--env"], ["--env"]),
        (["-e", "--", "A=b"], ["-e", "--", "A=b"]),  # -- is the value here
        (["-e", "-e=x"], ["-e", "-e=***"]),
        (["--", "-e", "A=b"], ["--", "-e", "A=b"]),
        (["--env-file", "A=b"], ["--env-file", "A=b"]),
        (["--environment=A=b"], ["--environment=A=b"]),
        (["-m", "100m", "--limit", "memory=100m"], ["-m", "100m", "--limit", "memory=100m"]),
        (["-v/e=x:/y", "-we=1", "-"], ["-v/e=x:/y", "-we=1", "-"]),
        (["", "A=b", "e=1"], ["", "A=b", "e=1"]),
        (["base", "env", "-e", "A=b"], ["base", "env", "-e", "A=***"]),
    ],
)
def test_values_of_environment_variables_are_masked(given_: list[str], kept: list[str]) -> None:
    assert mask_environment(["gocker", *given_]) == ["gocker", *kept]


SPELLINGS = ["-e {}", "-e{}", "--env {}", "--env={}", "-ite {}", "-ie{}"]


@given(
    st.lists(st.sampled_from(["-i", "-t", "--rm", "--name", "web", "-m", "100m", "base", "--init"])),
    st.sampled_from(SPELLINGS),
    st.text(min_size=1).filter(lambda value: "secret" not in value),
)
def test_no_spelling_lets_a_value_through(before: list[str], spelling: str, value: str) -> None:
    words = [word.replace("{}", f"NAME=secret{value}") for word in spelling.split(" ")]
    kept = mask_environment([*before, *words])
    assert kept[: len(before)] == before
    assert "secret" not in "".join(kept)
    assert kept[-1].endswith("NAME=***")


# --- time, digest -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [(0, "1970-01-01T00:00:00.000000Z"), (1_769_860_800_000_001_999, "2026-01-31T12:00:00.000001Z")],
)
def test_timestamps_are_rfc3339_in_utc_with_microseconds(time_ns: int, text: str) -> None:
    assert rfc3339(time_ns) == text


def test_sha256_needs_no_openssl() -> None:
    assert sha256(b"abc").hexdigest() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    code = "import sys, json; old = set(sys.modules); import gocker.audit; print(json.dumps([*sys.modules.keys() - old]))"
    assert "gocker.digest" in run(code)
    assert "_hashlib" not in run(code)


def test_sha256_falls_back_on_hashlib(monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    for name in ("_sha2", "_sha256"):
        monkeypatch.setitem(sys.modules, name, None)
    assert find_sha256() is hashlib.sha256


# --- structlog ----------------------------------------------------------------------------------------

WRITE = """
    import json, sys
    from gocker.audit import AuditLog, Event
    import tempfile
    directory = tempfile.TemporaryDirectory()
    old = set(sys.modules)
    early = "structlog" in old
    AuditLog(directory.name + "/log", {}).write([Event.now("a")])
"""


def test_structlog_is_loaded_by_the_first_write_without_what_makes_it_slow() -> None:
    modules = run(f"{WRITE}\n    print(json.dumps([early, *sys.modules.keys() - old]))")
    assert modules[0] is False
    assert "structlog._base" in modules
    heavy = {"asyncio", "rich", "dataclasses", "structlog.dev", "structlog.stdlib", "twisted", "colorama"}
    assert heavy.isdisjoint(modules[1:])


def test_whoever_else_uses_structlog_finds_it_complete() -> None:
    found = run(f"""{WRITE}
    import structlog
    from structlog import get_logger
    from structlog.stdlib import BoundLogger
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    get_logger().info("hello", a=1)
    AuditLog(directory.name + "/log", {{}}).write([Event.now("b")])
    print(json.dumps([
        type(structlog).__name__,
        structlog is sys.modules["structlog"],
        structlog.stdlib.BoundLogger is BoundLogger,
        issubclass(BoundLogger, structlog.BoundLoggerBase),
        structlog.BoundLoggerBase is sys.modules["structlog._base"].BoundLoggerBase,
        structlog.__version__.count(".") > 0,
        hasattr(structlog, "nonsense"),
    ]))""")
    assert found == ["module", True, True, True, True, True, False]


def test_a_structlog_that_is_loaded_already_is_taken() -> None:
    found = run("""
    import json, structlog
    from gocker.audit import load_structlog
    print(json.dumps([load_structlog() is structlog, "get_logger" in vars(structlog)]))""")
    assert found == [True, True]


def test_a_missing_structlog_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "structlog", raising=False)
    monkeypatch.setattr(sys, "meta_path", [])
    with pytest.raises(AuditError, match=r"load structlog: it is not installed \(pip install structlog\)"):
        load_structlog()
