"""Buildah, which runs the commands of a build by the runtime."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from enginehost import EngineHost, Place, Ran

pytestmark = pytest.mark.engines
CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
netns = "none"

[engine]
cgroup_manager = "cgroupfs"
"""
STORAGE = """
[storage]
driver = "overlay"
graphroot = "{scratch}/root"
runroot = "{scratch}/runroot"
"""
RunIn = Callable[..., Ran]


@pytest.fixture(scope="module")
def host(place: Place, image: str) -> Iterator[EngineHost]:
    with place("buildah", package="buildah", parents=("buildah", "gocker-oci")) as host:
        for name, text in (("containers.conf", CONF), ("storage.conf", STORAGE)):
            with open(f"{host.scratch}/{name}", "w", encoding="utf-8") as file:
                file.write(text.format(scratch=host.scratch))
        host.env["CONTAINERS_CONF"] = f"{host.scratch}/containers.conf"
        host.env["CONTAINERS_STORAGE_CONF"] = f"{host.scratch}/storage.conf"
        host.run("buildah", "from", "--name", "work", f"docker-archive:{image}")
        yield host
        host.run("buildah", "rm", "-a")


@pytest.fixture
def run_in(host: EngineHost) -> RunIn:
    """`run_in(OPTION..., "--", COMMAND...)`: buildah run in the working container."""

    def run(*args: str, code: int = 0) -> Ran:
        cut = args.index("--")
        options = ("--isolation", "oci", "--runtime", host.runtime, *args[:cut])
        return host.run("buildah", "run", *options, "work", *args[cut:], code=code)

    return run


def test_run_prints_and_exits_as_its_program_does(run_in: RunIn) -> None:
    ran = run_in("--", "sh", "-c", "echo out; echo err >&2")
    assert (ran.out, "err" in ran.err) == ("out\n", True)
    run_in("--", "sh", "-c", "exit 3", code=3)


def test_what_it_writes_stays_in_the_working_container(run_in: RunIn) -> None:
    run_in("--", "sh", "-c", "echo built > /product")
    assert run_in("--", "cat", "/product").out == "built\n"


def test_users_variables_and_volumes_reach_it(run_in: RunIn, host: EngineHost) -> None:
    volume = f"{host.scratch}/volume"
    os.mkdir(volume)
    script = "id -u; echo $A; echo kept > /data/file"
    ran = run_in(
        "--user", "1000", "--env", "A=b", "-v", f"{volume}:/data", "--", "sh", "-c", "id -u; echo $A"
    )
    assert ran.out == "1000\nb\n"
    run_in("-v", f"{volume}:/data", "--", "sh", "-c", script)
    with open(f"{volume}/file", encoding="utf-8") as file:
        assert file.read() == "kept\n"


def test_a_terminal_is_one_inside(host: EngineHost) -> None:
    options = ("--isolation", "oci", "--runtime", host.runtime, "-t")
    assert "/dev/" in host.on_terminal("buildah", "run", *options, "work", "--", "tty").out


def test_a_build_runs_its_commands(host: EngineHost, image: str) -> None:
    with open(f"{host.scratch}/Containerfile", "w", encoding="utf-8") as file:
        file.write(f"FROM docker-archive:{image}\nRUN echo made > /made\nRUN cat /made\n")
    ran = host.run(
        *("buildah", "build", "--isolation", "oci", "--runtime", host.runtime, "-f"),
        *(f"{host.scratch}/Containerfile", "-t", "made", host.scratch),
        timeout=120,
    )
    assert "made" in ran.out
    host.run("buildah", "rmi", "made")


@pytest.mark.usefixtures("hugepage_limits")
def test_an_annotation_reaches_an_installed_controller(run_in: RunIn, host: EngineHost) -> None:
    # buildah config --annotation is for the image: the runtime does not get it.
    if "--annotation" not in host.run(host.runtime, "--help").out:
        pytest.skip(
            "buildah gives its runtime no annotation, and this runtime takes none on its command line"
        )
    flag = ("--runtime-flag", "annotation=dev.gocker.limit.hugetlb.2MB=64m")
    script = "cat /sys/fs/cgroup/unified/hugetlb.2MB.max /sys/fs/cgroup/hugetlb.2MB.max 2> /dev/null"
    assert run_in(*flag, "--", "sh", "-c", f"{script}; true").out == f"{64 << 20}\n"
