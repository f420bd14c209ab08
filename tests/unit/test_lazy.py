"""Modules that are loaded at their first use."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def test_a_function_is_taken_out_without_loading_and_loads_when_called(module: list[str]) -> None:
    defer(NAME, "answer")
    space: dict[str, Any] = {}
    exec(f"from {NAME} import answer", space)
    assert module == []
    assert (space["answer"](), space["answer"]()) == (42, 42)
    assert module == [NAME]


def test_what_click_is_given_is_as_good_as_the_real_thing() -> None:
    program = """
import sys
from gocker.lazy import defer_for_click
defer_for_click()
import click
stand_ins = [name for name, module in sys.modules.items() if type(module).__name__ == "_Deferred"]
import datetime, gettext, platform, threading
system, local, moment, say = platform.system(), threading.local, datetime.datetime, gettext.gettext
assert click.DateTime().convert("2026-01-31", None, None) == moment(2026, 1, 31)
for name in stand_ins:
    sys.modules.pop(name)
import datetime, gettext, platform, threading
assert system == platform.system()
assert local is threading.local
assert moment is datetime.datetime
assert say("word") == gettext.gettext("word")
print(*sorted(stand_ins))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    deferred = {"datetime", "gettext", "inspect", "platform", "threading"}
    assert set(done.stdout.split()) <= deferred  # fewer where a debugger or coverage has loaded some


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
