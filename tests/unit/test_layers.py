"""Who may import whom: the layers of pyproject.toml, and what each third-party module is fenced into."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]
PUBLIC = {"gocker.api", "gocker.errors", "gocker.limits", "gocker.model"}
FENCED = {  # module: the files that may import it
    "ctypes": "core/kernel/*.py",  # a wrong argument type is a memory error, so all of them are in one place
    "stevedore": "core/registry.py",  # costs 47 ms
    "structlog": "core/audit*.py",  # costs 62 ms
    "click": "core/*cli/*.py",  # the engine has no command line
}


def imports(source: str) -> Iterator[str]:
    """The modules that a source imports, anywhere in it; `from gocker import x` is `gocker.x`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield from (
                (f"gocker.{alias.name}" for alias in node.names)
                if node.module == "gocker"
                else [node.module or ""]
            )


def sources(pattern: str) -> dict[str, str]:
    return {str(path.relative_to(TREE)): path.read_text(encoding="utf-8") for path in TREE.glob(pattern)}


def test_imports_are_seen_wherever_they_are() -> None:
    source = "import a.b, c\nfrom gocker import kernel\ndef f():\n    from gocker.state import State\n"
    assert sorted(imports(source)) == ["a.b", "c", "gocker.kernel", "gocker.state"]


def test_higher_layers_import_lower_ones_only(tmp_path: Path) -> None:
    program = os.path.join(os.path.dirname(sys.executable), "lint-imports")
    config = str(TREE / "pyproject.toml")
    done = subprocess.run(
        [program, "--config", config, "--no-cache"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_plug_in_imports_the_public_contract_only() -> None:
    seen = {
        (path, name)
        for path, source in sources("plugins/**/*.py").items()
        for name in imports(source)
        if name.split(".")[0] == "gocker"
        and name not in PUBLIC
        and not name.startswith(f"gocker.plugins.{path.split('/')[1]}")
    }
    assert not seen


def test_the_core_finds_plug_ins_by_entry_points_alone() -> None:
    assert not [
        (path, name)
        for path, source in sources("core/**/*.py").items()
        for name in imports(source)
        if name.startswith("gocker.plugins")
    ]


@pytest.mark.parametrize(("module", "allowed"), FENCED.items())
def test_a_costly_or_dangerous_module_stays_in_its_place(module: str, allowed: str) -> None:
    users = {
        path
        for folder in ("core", "plugins")
        for path, source in sources(f"{folder}/**/*.py").items()
        if any(name.split(".")[0] == module for name in imports(source))
    }
    assert users <= set(sources(allowed))
