"""The attacks on cgroups, devices, sysctls and user namespaces, where cgroups are those of version 2 alone."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.attacks.attacks import ATTACKS
from tests.attacks.lab import Runtime
from tests.attacks.suite import Runner

GOCKER = os.path.join(os.path.dirname(sys.executable), "gocker-oci")
PATIENCE = float(os.environ.get("GOCKER_TEST_SLOWNESS", "1")) / 2  # a call of gocker takes 0.1 s outside


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """Compiles once; fails when something of an attack is left behind."""
    if not shutil.which("gcc"):
        pytest.skip("needs gcc: the hostile programs are compiled")
    runner = Runner(max(PATIENCE, 1))
    yield runner
    runner.close()
    assert runner.left == []


@pytest.fixture(scope="module")
def gocker_oci(runner: Runner) -> Runtime:
    """The installed command, which must run what is harmless."""
    runtime = Runtime("gocker-oci", GOCKER)
    assert runner.check(runtime) == ""
    return runtime


@pytest.mark.attacks
@pytest.mark.guest
@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.rule == "R15"])
def test_gocker_holds(runner: Runner, gocker_oci: Runtime, name: str) -> None:
    result = runner.run(ATTACKS[name], gocker_oci)
    assert result.status in {"held", "not-applicable"}, result.reason
