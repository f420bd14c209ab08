"""Every attack against gocker's OCI command line holds; every one breaks the control runtime; the page lists all."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]
sys.path.insert(0, str(TREE))

from tests.attacks import table  # noqa: E402
from tests.attacks.__main__ import WEAK  # noqa: E402
from tests.attacks.attacks import ATTACKS  # noqa: E402
from tests.attacks.lab import Lab, Runtime, Verdict, held  # noqa: E402
from tests.attacks.suite import Result, Runner  # noqa: E402

GOCKER = os.environ.get("GOCKER_TEST_OCI") or os.path.join(os.path.dirname(sys.executable), "gocker-oci")
RULES = {f"R{number}" for number in range(1, 16)} - {"R6"}  # no image is unpacked by an OCI runtime
SPOILED = [
    "/etc/gattack",
    "/usr/gattack",
    "/dev/gattack",
    "/sys/fs/cgroup/gattack",
    "/run/gattack",
    "/tmp/gattack",
]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces and mounts are made")


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """Compiles once; fails when something of an attack is left behind."""
    if not shutil.which("gcc"):
        pytest.skip("needs gcc: the hostile programs are compiled")
    runner = Runner(float(os.environ.get("GATTACK_PATIENCE", "1")))
    yield runner
    runner.close()
    assert runner.left == []


@pytest.fixture(scope="module")
def gocker_oci(runner: Runner) -> Runtime:
    """The installed command, which must run what is harmless."""
    if not os.path.exists(GOCKER):
        pytest.skip(f"needs gocker-oci: {GOCKER} is not there")
    runtime = Runtime("gocker-oci", GOCKER)
    assert runner.check(runtime) == ""
    return runtime


@pytest.mark.attacks
@pytest.mark.kernel
@needs_root
@pytest.mark.parametrize("name", ATTACKS)
def test_gocker_holds(runner: Runner, gocker_oci: Runtime, name: str) -> None:
    result = runner.run(ATTACKS[name], gocker_oci)
    assert result.status in {"held", "not-applicable"}, f"{result.status}: {result.reason}"


@pytest.mark.attacks
@pytest.mark.kernel
@needs_root
@pytest.mark.parametrize("name", ATTACKS)
def test_the_control_runtime_is_broken(runner: Runner, name: str) -> None:
    result = runner.run(ATTACKS[name], WEAK)
    assert result.status == "broken", result.reason


@pytest.mark.attacks
@pytest.mark.kernel
@pytest.mark.slow
@needs_root
@pytest.mark.timeout(600)
@pytest.mark.parametrize("program", ["runc", "crun"])
def test_others_are_recorded(
    runner: Runner, program: str, record_property: Callable[[str, object], None], tmp_path: Path
) -> None:
    path = shutil.which(program)
    if not path:
        pytest.skip(f"needs {program}")
    runtime = Runtime(program, path)
    assert runner.check(runtime) == ""
    results = [runner.run(attack, runtime) for attack in ATTACKS.values()]
    record_property(program, table.summary(results))
    (tmp_path / "results.json").write_text(table.as_json(results), encoding="utf-8")
    assert {result.status for result in results} <= {"broken", "held", "not-applicable", "unclear"}


def spoil(lab: Lab) -> Verdict:
    """Write wherever root can."""
    done = []
    for path in SPOILED:
        try:
            with open(path, "w", encoding="utf-8") as file:
                file.write("spoiled")
            done.append(path)
        except OSError:
            continue
    socket.sethostname("spoiled")
    return held(" ".join(done))


@pytest.mark.kernel
@needs_root
def test_a_throwaway_host_keeps_what_is_done_to_it(runner: Runner) -> None:
    name = os.uname().nodename
    attack = next(iter(ATTACKS.values()))._replace(function=spoil)
    result = runner.run(attack, WEAK)
    assert result.status == "held", result.reason
    assert {"/etc/gattack", "/dev/gattack"} <= {*result.reason.split()}
    assert [path for path in SPOILED if os.path.exists(path)] == []
    assert os.uname().nodename == name


@pytest.mark.kernel
@needs_root
def test_nobody_outlives_an_attack(runner: Runner) -> None:
    attack = next(iter(ATTACKS.values()))._replace(function=linger)
    assert runner.run(attack, WEAK).status == "held"
    with os.popen("ps -eo args") as file:
        assert "sleep 4711" not in file.read()


def linger(lab: Lab) -> Verdict:
    """Leave a process of another session behind."""
    subprocess.Popen(["sleep", "4711"], start_new_session=True)
    return held("left one")


def test_the_page_lists_every_attack() -> None:
    text = (TREE / "docs" / "security.md").read_text(encoding="utf-8")
    section = text.partition(table.BEGIN)[2].partition(table.END)[0]
    assert re.findall(r"^\| `(\w+)` ", section, re.MULTILINE) == list(ATTACKS)


def test_there_are_attacks_on_every_rule() -> None:
    assert len(ATTACKS) >= 60
    assert {attack.rule for attack in ATTACKS.values()} == RULES


def test_an_attack_says_what_it_tries() -> None:
    assert [attack.name for attack in ATTACKS.values() if not attack.text or not attack.source] == []


def test_the_table_has_a_row_an_attack_and_a_column_a_runtime() -> None:
    first, second = list(ATTACKS)[:2]
    results = [
        Result(first, "one", "held", "", 0.1),
        Result(second, "one", "broken", "", 0.1),
        Result(first, "two", "held", "", 0.1),
    ]
    lines = table.as_markdown(results).splitlines()
    assert lines[0].endswith("| one | two |")
    assert lines[2].startswith(f"| `{first}` | ")
    assert lines[2].endswith("| held | held |")
    assert lines[3].endswith("| broken |  |")
    assert lines[-1].endswith("| 1 of 2 broken | 0 of 1 broken |")
    assert json.loads(table.as_json(results))[1]["status"] == "broken"
