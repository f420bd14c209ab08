"""benchmarks/run.py: one small part from end to end, and how its bars are judged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "benchmarks/run.py"
GOCKER = Path(sys.executable).with_name("gocker")


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.skipif(not GOCKER.exists(), reason="needs gocker beside this Python")
@pytest.mark.skipif(not shutil.which("busybox"), reason="needs busybox")
def test_one_part_prints_a_table_and_writes_json_and_a_plot(tmp_path: Path) -> None:
    files = [f"--json={tmp_path}/found.json", f"--svg={tmp_path}/found.svg"]
    command = [sys.executable, str(RUN), "--quick", "--only=audit", f"--gocker={GOCKER}", *files]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    found = json.loads((tmp_path / "found.json").read_text())
    (row,) = found["tables"]["audit.container"]["rows"]
    assert row["samples"] == 20
    assert 0 < row["min"] <= row["quartile1"] <= row["median"] <= row["quartile3"] <= row["max"]
    judged = {bar["table"]: bar for bar in found["bars"]}
    assert judged["audit.container"]["measured"] == row["median"]
    assert ran.returncode == int(judged["audit.container"]["met"] is False), ran.stderr
    assert judged["cold"]["met"] is None
    assert found["skipped"]["cold"] == "not asked for"
    assert {"kernel", "cpus", "busy"} <= found["host"].keys()
    assert "audit.container: " in ran.stdout
    assert (tmp_path / "found.svg").read_text().startswith("<svg")
