"""Modules that are loaded at their first use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gocker.lazy import defer

NAME = "gocker_test_deferred"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A module NAME that is not loaded; the list has a line for each time that its code ran."""
    ran: list[str] = []
    (tmp_path / f"{NAME}.py").write_text(
        "import sys\nsys.gocker_test_ran.append(__name__)\nvalue = 5\n\ndef answer():\n    return 42\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "gocker_test_ran", ran, raising=False)
    yield ran
    sys.modules.pop(NAME, None)


def test_an_import_alone_loads_nothing(module: list[str]) -> None:
    defer(NAME)
    importlib.import_module(NAME)
    importlib.import_module(NAME)
    assert module == []


def test_the_first_use_loads_it_once_and_for_all(module: list[str]) -> None:
    defer(NAME)
    held = importlib.import_module(NAME)
    assert (held.answer(), held.value) == (42, 5)
    assert importlib.import_module(NAME).answer() == 42
    assert module == [NAME]
    assert sys.modules[NAME] is not held
    assert sys.modules[NAME].__file__ is not None


def test_from_import_is_a_use(module: list[str]) -> None:
    defer(NAME)
    exec(f"from {NAME} import answer")
    assert module == [NAME]


def test_what_is_known_is_had_without_loading(module: list[str]) -> None:
    defer(NAME, answer=lambda: 43)
    held = importlib.import_module(NAME)
    assert held.answer() == 43
    assert module == []
    assert held.value == 5
    assert module == [NAME]


def test_one_that_is_loaded_already_stays_as_it_is(module: list[str]) -> None:
    loaded = importlib.import_module(NAME)
    defer(NAME, answer=lambda: 43)
    assert sys.modules[NAME] is loaded
    assert loaded.answer() == 42


def test_a_name_that_it_does_not_have_is_the_usual_error(module: list[str]) -> None:
    defer(NAME)
    held = importlib.import_module(NAME)
    with pytest.raises(AttributeError, match=f"module '{NAME}' has no attribute 'nothing'"):
        _ = held.nothing
    assert held.value == 5


def test_one_that_is_not_there_fails_at_its_first_use_each_time() -> None:
    defer("gocker_test_not_there")
    held = importlib.import_module("gocker_test_not_there")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError):
            _ = held.value
    assert "gocker_test_not_there" not in sys.modules
