"""The device filter in force: what a process in the cgroup can make and open, on v1 and v2."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gocker.errors import KernelError, LimitError
from gocker.hierarchy import read_host
from gocker.model import Hierarchy
from gocker.plan import Context
from gocker.plugins.devices import RULES, Devices
from gocker.steps.devicefilter import FilterDevices

pytestmark = pytest.mark.guest

TRY = """
import os, stat, sys
directory, name, kind, major, minor = sys.argv[1:]
os.mknod(f"{directory}/{name}", (stat.S_IFBLK if kind == "b" else stat.S_IFCHR) | 0o600, os.makedev(int(major), int(minor)))
os.close(os.open(f"{directory}/{name}", os.O_RDWR | os.O_NONBLOCK))
"""


@pytest.fixture(params=["v1", "v2"])
def cgroup(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """(directory, version) of a cgroup of our own where devices can be filtered."""
    version = Hierarchy(request.param)
    place = read_host().place_of({version: Devices.kernel_names[version]})
    if place is None:
        pytest.skip(f"no {version.value} hierarchy here can filter devices")
    path = place.directory(f"/gocker-test-{os.getpid()}")
    os.mkdir(path)
    yield path, version.value
    os.rmdir(path)


def attempt(path: str, directory: os.PathLike[str], kind: str, major: int, minor: int) -> str:
    """Make and open a device from inside; "" or the last line of the traceback."""

    def join() -> None:
        with open(f"{path}/cgroup.procs", "w") as file:
            file.write("0")

    words = [
        sys.executable,
        "-ISc",
        TRY,
        str(directory),
        f"{kind}{major}.{minor}",
        kind,
        str(major),
        str(minor),
    ]
    done = subprocess.run(words, preexec_fn=join, capture_output=True, text=True, check=False)
    return done.stderr.rstrip().rpartition("\n")[2]


def test_a_container_opens_its_own_devices_and_no_other(
    cgroup: tuple[str, str], tmp_path: os.PathLike[str]
) -> None:
    path, version = cgroup
    assert "Errno" not in attempt(path, tmp_path, "c", 1, 11), "even without a filter this host refuses kmsg"
    os.unlink(f"{tmp_path}/c1.11")
    FilterDevices(path=path, version=version, rules=RULES).execute(Context(None))
    for minor in (3, 5, 7, 8, 9):
        assert attempt(path, tmp_path, "c", 1, minor) == ""
    for device in (("c", 1, 11), ("b", 7, 0), ("c", 10, 229)):
        assert attempt(path, tmp_path, *device).startswith("PermissionError: [Errno 1]"), device
    # Only the open was refused: the nodes are there.
    assert stat.S_ISBLK(os.stat(f"{tmp_path}/b7.0").st_mode)


def test_what_no_rule_makes_cannot_be_made(cgroup: tuple[str, str], tmp_path: os.PathLike[str]) -> None:
    path, version = cgroup
    FilterDevices(path=path, version=version, rules=("c 1:3 r", "c 1:5 rwm")).execute(Context(None))
    assert attempt(path, tmp_path, "c", 1, 3).startswith("PermissionError: [Errno 1]")
    assert not os.path.exists(f"{tmp_path}/c1.3")
    assert attempt(path, tmp_path, "c", 1, 5) == ""


def test_a_rule_that_the_kernel_does_not_understand_stops_the_start(cgroup: tuple[str, str]) -> None:
    path, version = cgroup
    with pytest.raises(Exception) as caught:
        FilterDevices(path=path, version=version, rules=("x 1:3 rwm",)).execute(Context(None))
    assert getattr(caught.value, "errno", 0) == errno.EINVAL or "x 1:3" in str(caught.value)


def test_a_cgroup_that_still_allows_more_is_an_error(tmp_path: os.PathLike[str]) -> None:
    for name in ("devices.deny", "devices.allow"):
        open(f"{tmp_path}/{name}", "w").close()
    with open(f"{tmp_path}/devices.list", "w") as file:
        file.write("a *:* rwm\n")
    with pytest.raises(LimitError, match=r"the kernel allows a \*:\* rwm as well"):
        FilterDevices(path=str(tmp_path), version="v1", rules=RULES).execute(Context(None))


def test_what_is_no_cgroup_takes_no_filter(tmp_path: os.PathLike[str]) -> None:
    with pytest.raises(KernelError, match="filter devices"):
        FilterDevices(path=str(tmp_path), version="v2", rules=RULES).execute(Context(None))


def test_the_last_rule_about_a_device_decides(cgroup: tuple[str, str], tmp_path: os.PathLike[str]) -> None:
    path, version = cgroup
    rules = (
        "a *:* rwm",
        "deny c 1:* rwm",
        "deny c 1:5 rwm",
        "deny a *:* rwm",
        "c 1:3 rwm",
        "c 1:5 rwm",
        "deny c 1:5 w",
    )
    FilterDevices(path=path, version=version, rules=rules).execute(Context(None))
    assert attempt(path, tmp_path, "c", 1, 3) == ""
    for minor in (5, 7):
        assert attempt(path, tmp_path, "c", 1, minor).startswith("PermissionError: [Errno 1]")


def test_all_devices_but_some(cgroup: tuple[str, str], tmp_path: os.PathLike[str]) -> None:
    path, version = cgroup
    FilterDevices(path=path, version=version, rules=("a *:* rwm", "deny c 1:7 w")).execute(Context(None))
    assert attempt(path, tmp_path, "c", 1, 3) == ""
    assert attempt(path, tmp_path, "c", 1, 11) == ""
    assert attempt(path, tmp_path, "c", 1, 7).startswith("PermissionError: [Errno 1]")


def test_a_device_taken_out_of_a_wildcard_is_denied_or_the_run_fails(
    cgroup: tuple[str, str], tmp_path: os.PathLike[str]
) -> None:
    path, version = cgroup
    step = FilterDevices(path=path, version=version, rules=("c 1:* rwm", "deny c 1:7 rwm"))
    if version == "v1":
        with pytest.raises(
            LimitError, match=r"deny c 1:7 rwm: cgroup v1 cannot take it out of allow c 1:\* rwm"
        ):
            step.execute(Context(None))
        return
    step.execute(Context(None))
    assert attempt(path, tmp_path, "c", 1, 3) == ""
    assert attempt(path, tmp_path, "c", 1, 7).startswith("PermissionError: [Errno 1]")
