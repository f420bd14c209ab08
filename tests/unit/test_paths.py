"""Where data, state and the audit log lie."""

import os
from collections.abc import Callable

import pytest

from gocker import paths
from gocker.errors import UsageError


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOCKER_ROOT", "GOCKER_STATE", "GOCKER_AUDIT_LOG", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_the_defaults_are_the_system_directories() -> None:
    assert paths.data_root() == "/var/lib/gocker"
    assert paths.state_root() == "/run/gocker"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root logs to /var/log")
def test_root_logs_to_var_log() -> None:
    assert paths.audit_log() == "/var/log/gocker/audit.jsonl"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user is tried")
@pytest.mark.parametrize(
    ("state_home", "log"),
    [("", "/home/me/.local/state/gocker/audit.jsonl"), ("/state", "/state/gocker/audit.jsonl")],
)
def test_others_log_to_their_own_state_directory(
    state_home: str, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_STATE_HOME", state_home)
    os.seteuid(65534)
    try:
        assert paths.audit_log() == log
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("variable", "resolve"),
    [
        ("GOCKER_ROOT", paths.data_root),
        ("GOCKER_STATE", paths.state_root),
        ("GOCKER_AUDIT_LOG", paths.audit_log),
    ],
)
def test_each_variable_overrides_its_path(
    variable: str, resolve: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "/some where/else//")
    assert resolve() == "/some where/else"


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOCKER_STATE", "")
    assert paths.state_root() == "/run/gocker"


def test_a_relative_path_is_refused_by_the_name_of_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOCKER_ROOT", "data")
    with pytest.raises(UsageError, match="GOCKER_ROOT=data: not an absolute path"):
        paths.data_root()
