"""docs/plugins.md is complete, and what it tells people to type works."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gocker.api
from gocker.api import API_VERSION, CgroupController
from gocker.plugin_index import Entry, Found, PluginIndex
from gocker.registry import CONTROLLERS, Registry

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCK = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
FILES = dict(BLOCK.findall(TEXT))


def public_names() -> Iterator[str]:
    """`Name` of each public thing that gocker.api defines, `Class.member` of each public member."""
    for node in ast.parse(inspect.getsource(gocker.api)).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        yield from assigned(node)
        for member in node.body if isinstance(node, ast.ClassDef) else ():
            names = [member.name] if isinstance(member, ast.FunctionDef) else assigned(member)
            yield from (f"{node.name}.{name}" for name in names)  # type: ignore[attr-defined]


def assigned(node: ast.stmt) -> Iterator[str]:
    targets = (
        node.targets
        if isinstance(node, ast.Assign)
        else [node.target]
        if isinstance(node, ast.AnnAssign)
        else []
    )
    yield from (target.id for target in targets if isinstance(target, ast.Name))


PUBLIC = sorted(name for name in public_names() if not re.search(r"(^|\.)_", name))


def test_the_list_of_public_names_is_not_empty_by_mistake() -> None:
    assert {
        "API_VERSION",
        "Resources",
        "counter",
        "Cgroup.write",
        "CgroupController.always",
        "Kernel",
    } <= set(PUBLIC)
    assert {name.partition(".")[0] for name in PUBLIC} == {
        name
        for name, value in vars(gocker.api).items()
        if getattr(value, "__module__", "") == "gocker.api" or name in {"API_VERSION", "Resources", "Scalar"}
    }


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_of_the_contract_is_documented(name: str) -> None:
    assert re.search(rf"`{re.escape(name)}[`(]", TEXT), f"{PAGE.name} does not say what `{name}` is"


def function(name: str) -> object:
    class_name, _, member = name.partition(".")
    return vars(vars(gocker.api)[class_name]).get(member) if member else vars(gocker.api)[name]


@pytest.mark.parametrize("name", [name for name in PUBLIC if inspect.isfunction(function(name))])
def test_a_method_is_documented_with_the_arguments_that_it_has(name: str) -> None:
    documented_function = function(name)
    assert callable(documented_function)
    arguments = ", ".join(
        re.findall(r"\((.*)\)`: ", line)[0] for line in TEXT.splitlines() if f"- `{name}(" in line
    )
    documented = [part.partition("=")[0] for part in arguments.split(", ") if part not in {"", "*"}]
    assert documented == [
        parameter for parameter in inspect.signature(documented_function).parameters if parameter != "self"
    ]


def test_nothing_is_documented_that_the_contract_does_not_have() -> None:
    documented = set(re.findall(r"^- `(\w+\.\w+)", TEXT, re.MULTILINE))
    assert documented == {name for name in PUBLIC if "." in name}


def test_the_page_is_about_this_version_of_the_contract() -> None:
    assert f"`gocker.api`, version {API_VERSION[0]}.{API_VERSION[1]}" in TEXT
    assert f"`API_VERSION` is `{API_VERSION}`" in TEXT


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The tutorial's files as a reader would type them."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / "gocker-cpucap"


def test_the_tutorial_has_the_three_files_of_a_package(package: Path) -> None:
    assert {path.name for path in package.iterdir()} == {
        "pyproject.toml",
        "gocker_cpucap.py",
        "test_cpucap.py",
    }


def test_the_tutorials_controller_is_one_that_the_registry_takes(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (name, value) = re.findall(r'^(\w+) = "(\w+:\w+)"$', FILES["gocker-cpucap/pyproject.toml"], re.MULTILINE)[
        0
    ]
    entry = Entry(CONTROLLERS, name, value, "gocker-cpucap", "0.1.0")
    registry = Registry(
        discover=lambda: Found((entry,)), index=PluginIndex(str(package / "cache"), path=[str(package)])
    )
    try:
        assert [(info.name, info.status, info.reason) for info in registry.infos()] == [("cpucap", "ok", "")]
        controller = registry.controller("cpucap")
        assert isinstance(controller, CgroupController)
        for row in controller.limits:  # what section 5 shows of `gocker plugins`
            shown = rf"^ +{re.escape(row.example)} +{' +'.join(map(re.escape, row.files.values()))}$"
            assert re.search(shown, TEXT, re.MULTILINE), row.key
    finally:
        sys.modules.pop("gocker_cpucap", None)


def test_the_tutorials_own_tests_pass(package: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_cpucap.py"],
        cwd=package,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_the_reasons_for_a_refusal_that_the_page_names_are_those_that_gocker_gives() -> None:
    source = ""
    for name in ("gocker.registry", "gocker.plugincheck"):
        module = importlib.util.find_spec(name)
        assert module
        assert module.origin
        source += Path(module.origin).read_text(encoding="utf-8")
    table = TEXT.partition("## When it is refused")[2].partition("\n\n## ")[0]
    reasons = re.findall(
        r"`([^`]+)`", "".join(line.split(" | ")[0] for line in table.splitlines() if " | " in line)
    )
    assert len(reasons) > 8
    for reason in reasons:
        words = [part for part in re.split(r"…|\b2\.0\b|\b1\.\d\b|gocker\.api\.\w+", reason) if len(part) > 3]
        for part in words:
            if not part[0].isupper():  # the name of an exception is not in the source
                assert part.strip() in source, f"no refusal says {part!r}"
