"""What `gocker run` imports, and when: the start-up budget as a list (docs/adr/0008-start-up.md).

Each module costs a start 0.1 ms, some of them 1 to 60. When one joins and a test here fails: import it
where it is needed, or while the first process sets itself up (engine._Run._load). Only when neither is
possible does it go on the list, with what benchmarks/run.py says of it.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import importing
import pytest

CORE = Path(importing.__file__).parents[2] / "core"

GOCKER_BUDGET = 93
"""gocker's own modules when the first process is let go.

One more than before the native executor, which takes back more than it costs: kernel.caller, kernel.native and lowering
joined, idmap and images left.
"""

ALLOWED = frozenset(
    """
    __future__ _collections _ctypes _functools _json _operator _sha2 _sha256 _socket _sre _struct _typing
    collections collections.abc contextlib copyreg ctypes ctypes._endian enum errno fcntl functools gc itertools
    json json.decoder json.encoder json.scanner keyword operator re re._casefix re._compiler re._constants re._parser
    reprlib select signal struct types typing typing.io typing.re warnings
    """.split()
)
"""Of others, when the first process is let go, beyond what a bare interpreter has."""

MEANWHILE = frozenset(
    """
    gocker.receipt resource structlog structlog._base structlog._log_levels structlog.exceptions structlog.typing
    """.split()
)
"""What is imported after that and before the program runs; nothing at all after its end."""

ONLY_OTHER_COMMANDS = frozenset(
    f"gocker.{name}"
    for name in """
    auditlog baseimage cli.audit cli.doctor cli.explain cli.group cli.options cli.plan cli.plugins cli.why doctor elf filetree hostprograms
    imagestore receipt recovery seccompcompile seccompprofile steps.scope systemd testing
    """.split()
)


class Imports(NamedTuple):
    """What tests/support/importing.py says of one run."""

    bare: set[str]  # what the interpreter starts with
    at: dict[str, set[str]]  # point -> modules beyond those
    by: dict[str, str]  # module -> what imported it

    def name(self, modules: set[str]) -> list[str]:
        return [f"{module}, imported by {self.by.get(module, '?')}" for module in sorted(modules)]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has a root file system, a plug-in index, and a compiled seccomp filter, as from the second run on."""
    directory = tmp_path_factory.mktemp("imports")
    (directory / "rootfs").mkdir()
    call(directory, "index")
    imports(directory, "go", "/bin/true")
    return directory


def call(scratch: Path, *arguments: str) -> None:
    """Run the program, with a state of its own: what `go` leaves there would be recovered by the next."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    env["GOCKER_ROOT"] = f"{scratch}/data"
    env["GOCKER_STATE"] = f"{scratch}/state-{len(os.listdir(scratch))}"
    env["GOCKER_AUDIT_LOG"] = f"{scratch}/audit.jsonl"
    # -P: no folder of the program on sys.path, which the index depends on
    command = [sys.executable, "-P", importing.__file__, *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def imports(scratch: Path, until: str, *program: str) -> Imports:
    file = scratch / f"{until}.json"
    options = ("--limit", "memory=100m", "--rootfs", str(scratch / "rootfs"))
    call(scratch, until, str(file), *options, *program)
    found = json.loads(file.read_text())
    at = {point: set(modules) for point, modules in found["at"].items()}
    return Imports(set(found["bare"]), at, found["by"])


def ours(modules: set[str]) -> set[str]:
    return {module for module in modules if module.partition(".")[0] == "gocker"}


@pytest.fixture(scope="module")
def at_go(scratch: Path) -> Imports:
    return imports(scratch, "go", "/bin/true")


def test_no_heavy_module_joins_what_a_start_imports(at_go: Imports) -> None:
    others = at_go.at["go"] - ours(at_go.at["go"])
    assert at_go.name(others - ALLOWED) == []


def test_the_list_of_what_a_start_imports_names_what_it_does_import(at_go: Imports) -> None:
    by_version = {"warnings", "_sha2", "_sha256", "typing.io", "typing.re"}
    assert ALLOWED - by_version - at_go.at["go"] - at_go.bare == set()


def test_a_start_keeps_to_its_number_of_modules(at_go: Imports) -> None:
    assert len(ours(at_go.at["go"])) <= GOCKER_BUDGET


def test_a_start_imports_nothing_of_other_commands(at_go: Imports) -> None:
    assert at_go.name(at_go.at["go"] & ONLY_OTHER_COMMANDS) == []


def test_a_start_imports_no_controller_that_it_is_not_in(at_go: Imports) -> None:
    points = metadata.distribution("gocker").entry_points.select(group="gocker.controllers")
    standing = {"memory", "pids", "cpuacct", "blkio", "devices"}
    others = {point.module for point in points if point.name not in standing}
    assert len(others) >= 8
    assert at_go.name(at_go.at["go"] & others) == []


def test_the_names_of_what_a_start_must_not_import_are_right() -> None:
    paths = {name: name.removeprefix("gocker.").replace(".", "/") for name in ONLY_OTHER_COMMANDS}
    assert [
        name
        for name, path in paths.items()
        if not list(CORE.glob(f"{path}.py")) + list(CORE.glob(f"{path}/__init__.py"))
    ] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a container is made")
def test_nothing_but_the_log_and_the_report_is_imported_after_go(scratch: Path) -> None:
    (scratch / "rootfs/bin").mkdir()
    shutil.copy("/bin/busybox", scratch / "rootfs/bin")
    seen = imports(scratch, "end", "/bin/busybox", "true")
    assert seen.name(seen.at["exec"] - seen.at["go"] - MEANWHILE) == []
    assert seen.name(seen.at["end"] - seen.at["exec"]) == []
    assert seen.at["child"] == set(), "the first process has imported something"


STEPS = [*(CORE / "steps").glob("*.py"), *(CORE / "kernel").glob("*.py"), CORE / "init.py"]
BEFORE_THE_CLONE = {
    "steps/devicefilter.py": {"gocker.kernel.devicefilter"},
    "steps/identity.py": {
        f"gocker.steps.{name}"
        for name in ("labels", "limits", "memorypolicy", "personality", "preserve", "scheduling")
    },
    "steps/scope.py": {"gocker.systemd"},
}
"""What may be imported in a function: of a step of the host phase, or where steps are planned."""


@pytest.mark.parametrize("file", STEPS, ids=lambda file: str(file.relative_to(CORE)))
def test_no_step_imports_while_it_is_executed(file: Path) -> None:
    tree = ast.parse(file.read_text())
    late = {
        inner.module if isinstance(inner, ast.ImportFrom) else inner.names[0].name
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef)
        for inner in ast.walk(outer)
        if isinstance(inner, ast.ImportFrom | ast.Import)
    }
    assert late == BEFORE_THE_CLONE.get(str(file.relative_to(CORE)), set())


PLAN = """
import sys
import gocker.engine
from gocker.model import Hierarchy
from gocker.plan import PHASES
from gocker.recorder import GroupRecorder
seen = []
for version in (Hierarchy.V1, Hierarchy.V2):
    phases = {phase: [] for phase in PHASES}
    GroupRecorder("devices", version, "/cg/gocker/id", "/cg", {}, phases).allow_devices(("c 1:3 rwm",))
    seen.append(set(sys.modules))
print(*(seen[1] - seen[0]))
"""


def test_a_plan_for_v2_imports_the_device_filter_and_nothing_else() -> None:
    """So that the step need not, and that a start on v1 does without: on the other version the budget is the same."""
    done = subprocess.run([sys.executable, "-c", PLAN], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["gocker.kernel.devicefilter"]
