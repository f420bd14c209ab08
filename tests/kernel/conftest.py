"""What starts a first process is tried with both executors of the init phase."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from gocker.kernel import native
from gocker.launcher import AUTO, EXECUTOR, PYTHON
from gocker.plan import Step

BOTH = {
    "test_identity",
    "test_launch_steps",
    "test_process_fields",
    "test_rootfs",
    "test_seccomp",
    "test_seccomp_oci",
    "test_spec_mounts",
}
"""Modules with plans that are started. `auto`: a plan that the native one leaves to the Python one goes on all the same."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Twice, but where the session is for one of them."""
    module = metafunc.module.__name__.rpartition(".")[2]
    if module in BOTH and native.is_built() and not os.environ.get("GOCKER_TEST_EXECUTOR"):
        metafunc.parametrize("executor", [PYTHON, AUTO], indirect=True)


@pytest.fixture(autouse=True)
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The word for GOCKER_EXECUTOR, "" for what the session has. Steps that a test makes up are forgotten."""
    word = str(getattr(request, "param", ""))
    if word:
        monkeypatch.setenv(EXECUTOR, word)
    known = set(Step.known)
    yield word
    for op in [op for op in Step.known.keys() - known if op.startswith("test-")]:
        del Step.known[op]
