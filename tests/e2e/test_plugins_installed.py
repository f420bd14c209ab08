"""Third-party plug-ins as people meet them: installed by pip beside gocker, used, uninstalled."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from gocker.hierarchy import read_host

TREE = Path(__file__).parents[2]
BROKEN = ("gocker-raises", "gocker-clash", "gocker-future")
HUGE = "hugepages-2048kB"


def copy_installed(names: tuple[str, ...], target: Path) -> None:
    """Copy distributions, and what they require, from the tests' own environment: no network is needed."""
    todo, seen = list(names), set()
    while todo:
        dist = importlib.metadata.distribution(todo.pop())
        if dist.name in seen:
            continue
        seen.add(dist.name)
        for file in dist.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(file.locate()), target / file)
        wanted = [Requirement(text) for text in dist.requires or ()]
        todo += [want.name for want in wanted if want.marker is None or want.marker.evaluate({"extra": ""})]


def pip(*args: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *args],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"pip {args}\n{done.stdout}{done.stderr}"


class Installation:
    """A fresh virtual environment that pip installed gocker's wheel into."""

    def __init__(self, directory: Path, wheels: Path) -> None:
        self.wheels = wheels
        self.bin = directory / "bin"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
        (site,) = directory.glob("lib/python*/site-packages")
        copy_installed(("click", "structlog", "stevedore", "jeepney", "pytest"), site)
        self.pip("install", wheels / next(name for name in os.listdir(wheels) if name.startswith("gocker-")))

    def pip(self, *args: str | Path) -> None:
        """pip on this environment, without the network."""
        verb, *rest = args
        offline: list[str | Path] = ["--no-index", "--find-links", self.wheels] if verb == "install" else []
        pip("--python", self.bin / "python", verb, *offline, *rest)

    @contextmanager
    def having(self, *names: str) -> Iterator[None]:
        """With these distributions installed."""
        self.pip("install", *names)
        try:
            yield
        finally:
            self.pip("uninstall", "--yes", *names)

    def start(self, *args: str, **variables: str) -> subprocess.Popen[str]:
        """The gocker in here, with pipes."""
        inherited = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.Popen(
            [self.bin / "gocker", *args],
            env={**inherited, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def gocker(self, *args: str, **variables: str) -> tuple[int, str, str]:
        """(exit status, standard output, standard error)."""
        process = self.start(*args, **variables)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def plugins(self, root: Path | None = None) -> dict[tuple[str, str], dict[str, Any]]:
        """(name, distribution) to the row of `gocker plugins`; `root` is its GOCKER_ROOT."""
        variables = {"GOCKER_ROOT": str(root)} if root else {}
        code, out, err = self.gocker("plugins", "--format", "json", **variables)
        assert code == 0, err
        assert err == ""
        return {(row["name"], row["distribution"]): row for row in json.loads(out)}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of gocker, of each third-party distribution, and of the one that docs/plugins.md builds.

    Built from copies, since a build leaves files behind.
    """
    base = tmp_path_factory.mktemp("wheels")
    sources = [
        TREE / "contrib" / "gocker-hugetlb",
        *(TREE / "tests" / "plugins_fixture" / name for name in BROKEN),
    ]
    for source in sources:
        shutil.copytree(source, base / source.name, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    copies = [base / source.name for source in sources]
    page = (TREE / "docs" / "plugins.md").read_text(encoding="utf-8")
    for name, text in re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', page, re.MULTILINE | re.DOTALL):
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text(text, encoding="utf-8")
    copies.append(base / "gocker-cpucap")
    target = base / "made"
    target.mkdir()
    wheel = os.environ.get("GOCKER_WHEEL")
    if wheel:
        shutil.copy(wheel, target)
    else:
        gocker = base / "gocker"
        for name in ("core", "plugins"):
            shutil.copytree(TREE / name, gocker / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(TREE / name, gocker)
        copies.append(gocker)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", target, *copies)
    return target


@pytest.fixture(scope="module")
def installation(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("installation"), wheels)


def test_a_fresh_installation_has_the_built_in_plug_ins_and_all_are_ok(installation: Installation) -> None:
    rows = installation.plugins()
    assert {name for name, _ in rows} >= {"memory", "cpuset", "cpushare", "pids", "uts", "mount", "user"}
    assert {(row["distribution"], row["status"], row["reason"]) for row in rows.values()} == {
        ("gocker", "ok", "")
    }


def test_an_installed_plug_in_is_listed_and_gone_once_uninstalled(installation: Installation) -> None:
    before = installation.plugins()
    with installation.having("gocker-hugetlb"):
        after = installation.plugins()
    row = after.pop(("hugetlb", "gocker-hugetlb"))
    assert after == before
    assert (row["group"], row["version"], row["status"]) == ("gocker.controllers", "0.1.0", "ok")
    limits = {limit["key"]: limit for limit in row["limits"]}
    if os.path.isdir(f"/sys/kernel/mm/hugepages/{HUGE}"):
        assert limits["hugetlb.2MB"]["example"] == "hugetlb.2MB=64m"
        assert limits["hugetlb.2MB"]["files"] == {
            "v1": "hugetlb.2MB.limit_in_bytes",
            "v2": "hugetlb.2MB.max",
        }
    place = read_host().find("hugetlb")
    assert row["mount"] == (place.mountpoint if place else None)
    assert row["hierarchy"] == (place.version.value if place else None)
    assert installation.plugins() == before


def test_the_index_of_entry_points_notices_pip(installation: Installation, tmp_path: Path) -> None:
    index = tmp_path / "cache" / "entry-points"
    time.sleep(2.1)  # until then the installation is too fresh to be indexed
    before = installation.plugins(tmp_path)
    assert len(list(index.iterdir())) == 1
    assert installation.plugins(tmp_path) == before  # this one from the index
    with installation.having("gocker-hugetlb"):
        assert ("hugetlb", "gocker-hugetlb") in installation.plugins(tmp_path)
        time.sleep(2.1)
        assert ("hugetlb", "gocker-hugetlb") in installation.plugins(tmp_path)
        assert len(list(index.iterdir())) == 2
        assert ("hugetlb", "gocker-hugetlb") in installation.plugins(tmp_path)
    assert installation.plugins(tmp_path) == before


def test_the_table_fits_into_a_hundred_columns(installation: Installation) -> None:
    with installation.having("gocker-hugetlb", *BROKEN):
        code, out, _ = installation.gocker("plugins")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    assert re.search(r"^memory +refused +gocker 0\.1\.0$", out, re.MULTILINE)
    assert re.search(r"^memory +refused +gocker-clash 2\.0$", out, re.MULTILINE)
    assert re.search(r"^    memory=100m", out, re.MULTILINE) is None
    assert re.search(r"^cpushare +ok +gocker 0\.1\.0 ", out, re.MULTILINE)
    assert re.search(r"^    cpushare=512 +cpu\.shares +cpu\.weight$", out, re.MULTILINE)
    assert out.endswith("4 refused\n")


def test_broken_distributions_are_refused_by_name_version_and_reason(installation: Installation) -> None:
    before = installation.plugins()
    with installation.having(*BROKEN):
        rows = installation.plugins()
    raises, clash, future = (
        rows["raises", "gocker-raises"],
        rows["memory", "gocker-clash"],
        rows["future", "gocker-future"],
    )
    assert raises["version"] == "0.3"
    assert raises["reason"].startswith("AssertionError: the library that it wraps is not there, at ")
    assert raises["reason"].endswith("/gocker_raises.py:5")
    assert clash["version"] == "2.0"
    assert clash["reason"] == rows["memory", "gocker"]["reason"]
    assert clash["reason"] == (
        "2 distributions have a plug-in of the name memory: gocker 0.1.0, gocker-clash 2.0; none is used"
    )
    assert future["version"] == "7.1"
    assert future["reason"] == "written for plug-in API 99.0, this gocker has 1.1"
    refused = {key for key, row in rows.items() if row["status"] == "refused"}
    assert refused == {
        ("raises", "gocker-raises"),
        ("memory", "gocker-clash"),
        ("memory", "gocker"),
        ("future", "gocker-future"),
    }
    assert {key: row for key, row in rows.items() if key not in refused} == {
        key: row for key, row in before.items() if key not in refused
    }


def test_broken_distributions_do_not_harm_a_run_that_does_not_need_them(installation: Installation) -> None:
    with installation.having("gocker-raises", "gocker-future"):
        code, out, err = installation.gocker("run", "--limit", "memory=100m", "base", "echo", "unharmed")
        assert (code, out, err) == (0, "unharmed\n", "")
        code, out, err = installation.gocker("run", "--limit", "raises=1", "base", "true")
        assert (code, out) == (125, "")
        assert "load controller plug-in raises of gocker-raises 0.3: AssertionError" in err
        code, out, err = installation.gocker("run", "--limit", "future=1", "base", "true")
        assert (code, out) == (125, "")
        assert "future of gocker-future 7.1: written for plug-in API 99.0, this gocker has 1.1" in err


def test_a_clash_over_memory_stops_who_needs_memory_and_nobody_else(installation: Installation) -> None:
    with installation.having("gocker-clash"):
        code, out, err = installation.gocker("run", "base", "echo", "unharmed")
        assert (code, out) == (0, "unharmed\n"), err
        code, out, err = installation.gocker("run", "--limit", "memory=100m", "base", "true")
        assert (code, out) == (125, "")
        assert "memory of gocker 0.1.0 and memory of gocker-clash 2.0" in err


def test_a_plug_in_that_is_not_installed_is_named_with_the_command_that_may_help(
    installation: Installation,
) -> None:
    code, out, err = installation.gocker("run", "--limit", "hugetlb.2MB=64m", "base", "true")
    assert (code, out) == (125, "")
    assert "hugetlb: not installed; installed: blkio, " in err
    assert "pip install gocker-hugetlb" in err


@pytest.fixture
def hugetlb(installation: Installation) -> Iterator[str]:
    """gocker-hugetlb installed; the mount of its controller."""
    place = read_host().find("hugetlb")
    if place is None or place.readonly:
        pytest.skip("needs the hugetlb controller in a writable cgroup hierarchy")
    if not os.path.isdir(f"/sys/kernel/mm/hugepages/{HUGE}"):
        pytest.skip("needs a kernel with huge pages of 2 MiB")
    with installation.having("gocker-hugetlb"):
        yield place.mountpoint


@pytest.fixture
def huge_file() -> str:
    place = read_host().find("hugetlb")
    v1 = place is not None and place.version.value == "v1"
    return "hugetlb.2MB.limit_in_bytes" if v1 else "hugetlb.2MB.max"


def test_a_third_party_limit_binds_in_the_kernel(
    installation: Installation, hugetlb: str, huge_file: str, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    process = installation.start(
        *("run", "-i", "--report", str(report), "--limit", "hugetlb.2MB=64m"),
        *("--cidfile", f"{tmp_path}/id", "base", "sh", "-c", "echo ready; read line; echo $line"),
    )
    assert process.stdout
    first = process.stdout.readline()
    try:
        assert first == "ready\n"
        container = (tmp_path / "id").read_text().strip()
        (file,) = Path(hugetlb).glob(f"**/{container}/{huge_file}")
        assert file.read_text() == "67108864\n"
    finally:
        out, err = process.communicate("done\n", timeout=30)
    assert (process.returncode, out) == (0, "done\n"), err
    assert json.loads(report.read_text())["limits"]["hugetlb.2MB"] == {
        "asked": "64m",
        "effective": 67108864,
    }
    assert not list(Path(hugetlb).glob(f"**/{container}"))
    code, out, err = installation.gocker("audit", "show", "--container", container, "--format", "json")
    assert code == 0, err
    events = [json.loads(line) for line in out.splitlines()]
    assert [
        event["event"]
        for event in events
        if event.get("limit") == "hugetlb.2MB" and event["level"] != "error"
    ] == ["controller.set"]


def test_a_third_party_limit_is_undone_when_the_start_fails(
    installation: Installation, hugetlb: str, tmp_path: Path
) -> None:
    code, _, err = installation.gocker(
        "run", "--limit", "hugetlb.2MB=64m", "--cidfile", f"{tmp_path}/id", "base", "/no/such/program"
    )
    assert code == 127, err
    assert not list(Path(hugetlb).glob("gocker/*"))  # and the fixture looks at the rest of the host


@pytest.mark.parametrize(
    ("text", "reason"),
    [("1k", "less than one page of 2MB"), ("64q", "unknown unit 'q'"), ("-1", "not a size")],
)
def test_a_third_party_limit_that_makes_no_sense_is_one_clear_error(
    installation: Installation, hugetlb: str, text: str, reason: str
) -> None:
    code, out, err = installation.gocker("run", "--limit", f"hugetlb.2MB={text}", "base", "true")
    assert (code, out) == (125, "")
    assert err.startswith(f"gocker: set limit hugetlb.2MB={text}: {reason}")
    assert err.count("\n") == 1


def test_the_plug_ins_own_tests_pass_beside_an_installed_gocker(
    installation: Installation, tmp_path: Path
) -> None:
    shutil.copytree(TREE / "contrib" / "gocker-hugetlb" / "tests", tmp_path / "tests")
    with installation.having("gocker-hugetlb"):
        done = subprocess.run(
            [installation.bin / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_the_package_of_the_tutorial_does_what_the_tutorial_says(
    installation: Installation, tmp_path: Path
) -> None:
    place = read_host().find("cpu")
    if place is None or place.readonly:
        pytest.skip("needs the cpu controller in a writable cgroup hierarchy")
    v1 = place.version.value == "v1"
    loop = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"
    with installation.having("gocker-cpucap"):
        assert installation.plugins()["cpucap", "gocker-cpucap"]["mount"] == place.mountpoint
        asked = ("--limit", "cpucap=50", "--limit", "cpucap.burst=20")
        code, out, err = installation.gocker("plan", *asked, "base", "true")
        assert code == 0, err
        assert ("cpu.cfs_quota_us" if v1 else "cpu.max") in out
        code, _, err = installation.gocker(
            "run", *asked, "--report", f"{tmp_path}/report", "base", "sh", "-c", loop
        )
        assert code == 0, err
    report = json.loads((tmp_path / "report").read_text())
    assert report["limits"]["cpucap"] == {"asked": "50", "effective": 50000 if v1 else "50000 100000"}
    assert report["limits"]["cpucap.burst"] == {"asked": "20", "effective": 20000}
    assert report["usage"]["cpucap_throttled_us"] > 0
