"""What is installed is what the tree holds, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import Distribution, distribution, entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]
FOLDERS = {"gocker": TREE / "core", "gocker/plugins": TREE / "plugins"}
REINSTALL = (
    "reinstall: ./test does, or pip install --no-build-isolation --no-deps -e . in your own environment"
)


@pytest.fixture(scope="module")
def installed() -> Path:
    """The folder of the installed package."""
    spec = find_spec("gocker")
    assert spec
    assert spec.origin
    return Path(spec.origin).parent


def tree_files(pattern: str) -> set[str]:
    """Paths below site-packages that the tree's files have when installed; programs that build others stay out."""
    return {
        f"{package}/{path.relative_to(folder)}"
        for package, folder in FOLDERS.items()
        for path in folder.rglob(pattern)
        if path.suffix != ".py" or (path.parent / "__init__.py").exists()
    }


def installed_files(installed: Path, pattern: str) -> set[str]:
    return {str(path.relative_to(installed.parent)) for path in installed.rglob(pattern)}


@pytest.mark.parametrize("pattern", ["*.py", "py.typed", "*.json"])
def test_every_file_of_the_tree_is_installed_and_no_other(installed: Path, pattern: str) -> None:
    assert installed_files(installed, pattern) == tree_files(pattern), REINSTALL


def test_what_is_installed_is_what_the_tree_says(installed: Path) -> None:
    old = {
        name
        for name in tree_files("*.py") & installed_files(installed, "*.py")
        if (installed.parent / name).read_bytes() != source(name).read_bytes()
    }
    assert not old, REINSTALL


def source(name: str) -> Path:
    package = max((package for package in FOLDERS if name.startswith(f"{package}/")), key=len)
    return FOLDERS[package] / name.removeprefix(f"{package}/")


def test_type_checkers_use_the_annotations(installed: Path) -> None:
    assert (installed / "py.typed").is_file()


def test_one_top_level_package_is_installed(installed: Path) -> None:
    top = {file.parts[0] for file in distribution("gocker").files or [] if ".." not in file.parts}
    top = {name for name in top if not name.endswith((".dist-info", ".pth"))}
    assert top <= {"gocker"}
    look = "from importlib.util import find_spec; print(find_spec('core'), find_spec('plugins'))"
    # Not here, where other tests have put the tree on sys.path.
    assert subprocess.check_output([sys.executable, "-I", "-c", look], cwd="/", text=True) == "None None\n"


def test_each_built_in_plug_in_is_the_class_that_its_entry_point_names() -> None:
    points = [
        point for group in ("controllers", "namespaces") for point in entry_points(group=f"gocker.{group}")
    ]
    ours = [point for point in points if distribution_name(point.dist) == "gocker"]
    assert {point.name for point in ours} == {path.parent.name for path in TREE.glob("plugins/*/__init__.py")}
    assert [point.name for point in ours] == [point.load().name for point in ours]


def distribution_name(dist: Distribution | None) -> str:
    return dist.name if dist else ""


def test_the_version_is_said_once_in_code_and_once_in_the_metadata() -> None:
    text = (TREE / "core" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'__version__ = "(.+)"', text)
    assert match
    assert match[1] == distribution("gocker").version


def test_the_licence_is_installed_too() -> None:
    licences = [file for file in distribution("gocker").files or [] if file.name == "LICENSE"]
    assert licences
