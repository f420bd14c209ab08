"""A little of the fuzzing in every run; `python tests/fuzz/fuzz.py --minutes 10` is all of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SECONDS = 20


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_that_is_read_gets_gocker_out_of_step() -> None:
    program = os.path.join(os.path.dirname(__file__), "fuzz.py")
    done = subprocess.run(
        [sys.executable, program, "--seed", "1", "--minutes", f"{SECONDS / 60}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gocker-oci create, delete" in done.stdout
