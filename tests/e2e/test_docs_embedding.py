"""docs/embedding.md: every example does what the page shows, whatever carries the attendants."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from pathlib import Path

import pytest

from gocker.embedding import carrier

PAGE = Path(__file__).parents[2] / "docs" / "embedding.md"


@pytest.fixture(params=["python", "auto"])
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("GOCKER_EXECUTOR", request.param)
    yield
    carrier.stop()


def test_the_examples_show_what_happens(executor: None) -> None:
    failures, tried = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.REPORT_NDIFF)
    assert failures == 0
    assert tried > 15
