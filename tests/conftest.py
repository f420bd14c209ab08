"""What every test gets: places of its own for gocker, a look at what it leaves behind, the command."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest
import traces
import warming
from command import WARM, Gocker

EXECUTOR = os.environ.get("GOCKER_TEST_EXECUTOR", "")
"""Who runs the init phases of this test run; "" is the default, as with GOCKER_EXECUTOR."""
ROOT_TIERS = {"kernel", "e2e", "fault", "guest"}


def pytest_configure() -> None:
    """A shell without job control starts what runs in its background with these ignored, and that is inherited."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The folder decides the tier: all but unit and contract tests touch the real kernel."""
    for item in items:
        tier = item.path.relative_to(item.config.rootpath).parts[1]
        if tier in ROOT_TIERS:
            item.add_marker("kernel")
        if tier == "guest":
            item.add_marker("guest")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this host cannot run, and say why."""
    if item.get_closest_marker("kernel") and os.geteuid() != 0:
        pytest.skip("needs root: cgroups and namespaces are made")
    if item.path.parent.name == "guest" and item.path.stem.endswith("_v2") and not pure_v2():
        pytest.skip("needs a pure cgroup v2 host: tests/guest/run boots one")


def pure_v2() -> bool:
    """Whether cgroup2, writable, is all that is mounted on /sys/fs/cgroup."""
    return os.access("/sys/fs/cgroup/cgroup.subtree_control", os.W_OK)


@pytest.fixture(scope="session", autouse=True)
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[traces.Host]:
    """GOCKER_ROOT, GOCKER_STATE and GOCKER_AUDIT_LOG for the session: the image `base` is made once."""
    base = tmp_path_factory.mktemp("gocker", numbered=False)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GOCKER_") and "TEST" not in name]:
            patch.delenv(name)
        patch.setenv("GOCKER_ROOT", f"{base}/data")
        patch.setenv("GOCKER_STATE", f"{base}/state")
        patch.setenv("GOCKER_AUDIT_LOG", f"{base}/audit.jsonl")
        if EXECUTOR:
            patch.setenv("GOCKER_EXECUTOR", EXECUTOR)
        host = traces.Host(str(tmp_path_factory.getbasetemp()), f"{base}/data", f"{base}/state")
        cgroups, before = host.containers(), host.namespaces()
        with warming.warm(f"{base}/warm") if WARM else contextlib.nullcontext():
            yield host
        left = host.without_others([*host.holders(before), *sorted(host.containers() - cgroups)])
        assert not left, f"left behind by some test: {left}"


@pytest.fixture(autouse=True)
def leave_no_trace(places: traces.Host) -> Iterator[None]:
    """Fail a test that leaves a cgroup, mount, network link, child process or container's files."""
    before = places.look()
    yield
    left = places.leaks(before)
    assert not left, f"left behind: {left}"


@pytest.fixture
def gocker(places: traces.Host, tmp_path_factory: pytest.TempPathFactory) -> Gocker:
    """The installed command, with the session's places."""
    return Gocker(str(tmp_path_factory.mktemp("command")))
