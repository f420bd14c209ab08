"""`gocker doctor`: true on this host, right about broken ones, gone without a trace."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from command import SLOWNESS, Gocker

STATUSES = {"ok", "limited", "missing"}
LIBSECCOMP = ("/usr/lib/x86_64-linux-gnu/libseccomp.so.2", "/usr/lib/aarch64-linux-gnu/libseccomp.so.2")
# Nobody may write what coverage measures, which its start-up file complains about.
UNMEASURED = ("env", "-u", "COVERAGE_PROCESS_CONFIG", "-u", "COVERAGE_PROCESS_START")
NOBODY = (*UNMEASURED, "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")

Checks = dict[str, dict[str, Any]]


@pytest.fixture
def fresh(tmp_path: Path) -> dict[str, str]:
    """Directories that are not there yet."""
    return {
        "GOCKER_ROOT": f"{tmp_path}/var/data",
        "GOCKER_STATE": f"{tmp_path}/run/state",
        "GOCKER_AUDIT_LOG": f"{tmp_path}/log/audit.jsonl",
    }


def examine(gocker: Gocker, *under: str, env: Mapping[str, str] | None = None) -> tuple[int, Checks]:
    """(exit status, checks by name); `under` is a command that runs gocker in its turn."""
    ran = gocker("doctor", "--format", "json", under=under, env=env, timeout=60)
    assert "Traceback" not in ran.err
    checks = {check["name"]: check for check in json.loads(ran.out)}
    for check in checks.values():
        assert list(check) == ["name", "status", "detail", "remedy"]
        assert check["status"] in STATUSES
        assert check["detail"]
        assert "\n" not in check["detail"]
        assert check["status"] == "ok" or check["remedy"], f"{check} has no remedy"
        assert check["status"] != "ok" or not check["remedy"]
    assert ran.code == int(any(check["status"] == "missing" for check in checks.values()))
    return ran.code, checks


def mounts(script: str) -> tuple[str, ...]:
    """Runs what follows in a mount namespace of its own that `script` has changed."""
    return ("unshare", "-m", "sh", "-c", f'{script} && exec "$0" "$@"')


def names(checks: Checks, status: str) -> set[str]:
    return {name for name, check in checks.items() if check["status"] == status}


# --- this host


@pytest.mark.guest
def test_where_gocker_runs_nothing_is_missing_and_each_controller_is_where_it_is_mounted(
    gocker: Gocker,
) -> None:
    assert gocker.run("base", "true").code == 0
    code, checks = examine(gocker)
    assert code == 0
    assert names(checks, "missing") == set()
    for name in ("container", "container -t", "container --userns", "container --timens", "image base"):
        assert checks[name]["status"] == "ok", checks[name]
    for kind in ("mount", "pid", "uts", "ipc", "network", "cgroup", "user", "time"):
        assert checks[f"{kind} namespace"]["status"] == "ok"
    for row in json.loads(gocker("plugins", "--format", "json").out):
        if row["group"] == "gocker.controllers" and row["mount"]:
            detail = checks[f"controller {row['name']}"]["detail"]
            assert re.match(rf"{row['hierarchy']} at {re.escape(row['mount'])}(, \d+ counters)?$", detail)


def test_for_people_it_is_a_line_for_each_check_and_a_last_one(gocker: Gocker) -> None:
    _, checks = examine(gocker)
    ran = gocker("doctor", timeout=60)
    *lines, last = ran.out.splitlines()
    assert [line[4:].split("  ")[0] for line in lines if "remedy: " not in line] == list(checks)
    assert {line[:2] for line in lines} <= {"ok", "--", "NO", "  "}
    missing, limited = (len(names(checks, status)) for status in ("missing", "limited"))
    assert last == f"gocker run works here: {len(checks)} checks, {missing} missing, {limited} limited"


# --- no trace


def everything(base: Path) -> list[str]:
    """All files below `base`, the cgroups that doctor makes, and what cgroup2 hands down."""
    found = [os.path.join(path, name) for path, dirs, files in os.walk(base) for name in (*dirs, *files)]
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        lines = [line.split(" ") for line in file if " - cgroup" in line]
    for mountpoint in {fields[4] for fields in lines}:
        found += [f"{mountpoint}/{name}" for name in os.listdir(mountpoint) if "doctor" in name]
        delegation = f"{mountpoint}/cgroup.subtree_control"
        if os.path.exists(delegation):
            found.append(Path(delegation).read_text(encoding="utf-8"))
    return sorted(found)


@pytest.mark.guest
def test_it_leaves_no_trace(gocker: Gocker, fresh: dict[str, str], tmp_path: Path) -> None:
    before = everything(tmp_path)
    examine(gocker, env=fresh)
    assert everything(tmp_path) == before


def test_it_leaves_what_is_there_as_it_is(gocker: Gocker, fresh: dict[str, str], tmp_path: Path) -> None:
    assert gocker("run", "base", "true", env=fresh).code == 0
    log = Path(fresh["GOCKER_AUDIT_LOG"])
    before, events = everything(tmp_path), log.read_bytes()
    examine(gocker, env=fresh)
    assert everything(tmp_path) == before
    assert log.read_bytes() == events


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_leaves_no_trace_when_it_is_stopped(
    gocker: Gocker, fresh: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    before = everything(tmp_path)
    process = gocker.start("doctor", env=fresh)
    deadline = time.monotonic() + 20 * SLOWNESS
    while not list(tmp_path.glob("gocker-doctor-*")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
    process.send_signal(number)
    out, err = process.communicate(timeout=20 * SLOWNESS)
    assert (process.returncode, out, err.strip()) == (128 + number, b"", b"")
    assert everything(tmp_path) == before


# --- without privileges


def require_access(path: str, *under: str) -> None:
    done = subprocess.run([*under, path, "-c", "import gocker"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(
            f"nobody may not run {path}: the environment lies in a directory that is closed to others"
        )


def test_nobody_learns_what_is_missing(gocker: Gocker, fresh: dict[str, str]) -> None:
    require_access(sys.executable, *NOBODY)
    code, checks = examine(gocker, *NOBODY, env=fresh)
    assert code == 1
    assert checks["privileges"] == {
        "name": "privileges",
        "status": "missing",
        "detail": "uid 65534, CapEff 0x0",
        "remedy": "run gocker as root: sudo gocker run ...",
    }
    for name in ("mount namespace", "file system proc", "data directory"):
        assert (checks[name]["status"], checks[name]["remedy"]) == ("missing", "run it as root")
    for name in ("exec stub", "seccomp", "kernel", "gocker"):
        assert checks[name]["status"] == "ok"


def test_root_of_a_user_namespace_is_told_so(gocker: Gocker) -> None:
    code, checks = examine(gocker, "unshare", "-r")
    assert code == 1
    assert checks["privileges"]["status"] == "limited"
    assert checks["user namespace"]["remedy"] == "run it as the host's root"
    assert checks["mount namespace"]["status"] == "ok"
    assert checks["container"]["status"] == "missing"


def test_root_without_capabilities_is_told_so(gocker: Gocker) -> None:
    code, checks = examine(gocker, "setpriv", "--bounding-set", "-sys_admin")
    assert code == 1
    assert checks["privileges"]["status"] == "missing"
    assert checks["privileges"]["detail"].startswith("uid 0, CapEff 0x")
    assert checks["privileges"]["remedy"] == "inside docker: run it with --privileged"


# --- broken hosts


def test_read_only_cgroups_are_named_one_by_one(gocker: Gocker) -> None:
    script = "for d in $(findmnt -rno TARGET -t cgroup,cgroup2); do mount -o remount,bind,ro $d || exit; done"
    code, checks = examine(gocker, *mounts(script))
    assert code == 1
    for name in ("memory", "pids", "cpuset"):
        check = checks[f"controller {name}"]
        assert check["status"] == "limited"
        assert "is mounted read-only" in check["detail"]
        assert check["remedy"].startswith("mount -o remount,rw /sys/fs/cgroup")
    assert checks["container"]["detail"].startswith("filter devices gocker-doctor")


def test_without_cgroups_no_run_works(gocker: Gocker) -> None:
    code, checks = examine(gocker, *mounts("umount -R /sys/fs/cgroup"))
    assert code == 1
    assert (checks["cgroups"]["status"], checks["cgroups"]["detail"]) == ("missing", "none mounted")
    assert checks["cgroups"]["remedy"].startswith("mount -t cgroup2 none /sys/fs/cgroup")


def test_without_proc_it_says_what_to_mount(gocker: Gocker) -> None:
    code, checks = examine(gocker, *mounts("mount -t tmpfs none /proc"))
    assert code == 1
    assert checks["proc"]["remedy"] == "mount -t proc proc /proc"


def test_without_libseccomp_it_names_the_package(gocker: Gocker) -> None:
    script = " && ".join(
        f"mount --bind /dev/null {os.path.realpath(path)}" for path in LIBSECCOMP if os.path.exists(path)
    )
    if not script:
        pytest.skip("libseccomp is not where Debian has it")
    code, checks = examine(gocker, *mounts(script))
    assert code == 1
    assert names(checks, "missing") == {"container"}
    for name in ("seccomp", "container"):
        assert "libseccomp.so.2" in checks[name]["detail"]
        assert checks[name]["remedy"].startswith("apt-get install libseccomp2")


def test_without_executable_memfds_it_names_the_sysctl(gocker: Gocker) -> None:
    if not os.path.exists("/proc/sys/vm/memfd_noexec"):
        pytest.skip("this kernel has no vm.memfd_noexec: Linux 6.3")
    script = 'echo 2 > /proc/sys/vm/memfd_noexec && exec "$0" "$@"'
    code, checks = examine(gocker, "unshare", "-pf", "--mount-proc", "--kill-child", "sh", "-c", script)
    assert code == 1
    assert names(checks, "missing") == {"exec stub", "container"}
    assert checks["exec stub"]["remedy"] == "allow executable memfds: sysctl vm.memfd_noexec=1"


def test_data_on_an_overlay_has_no_layers_and_no_id_maps(gocker: Gocker, tmp_path: Path) -> None:
    for name in ("lower", "upper", "work", "top"):
        (tmp_path / name).mkdir()
    script = (
        f"cd {shlex.quote(str(tmp_path))} &&"
        " mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none top"
    )
    code, checks = examine(gocker, *mounts(script), env={"GOCKER_ROOT": f"{tmp_path}/top/data"})
    assert code == 1
    assert checks["overlay"]["status"] == "limited"
    assert "GOCKER_ROOT on ext4" in checks["overlay"]["remedy"]
    assert checks["idmapped mount"]["status"] == "limited"
    assert "--userns private" in checks["idmapped mount"]["remedy"]
    assert checks["data directory"]["status"] == "ok"
    assert os.listdir(tmp_path / "upper") == []


def test_data_that_cannot_be_written_is_named_with_the_variable(gocker: Gocker, tmp_path: Path) -> None:
    path = shlex.quote(str(tmp_path))
    script = f"mount --bind {path} {path} && mount -o remount,bind,ro {path}"
    code, checks = examine(gocker, *mounts(script), env={"GOCKER_ROOT": f"{tmp_path}/data"})
    assert code == 1
    for name in ("data directory", "overlay", "idmapped mount", "container"):
        assert "EROFS" in checks[name]["detail"]
        assert checks[name]["remedy"] == "set GOCKER_ROOT to a directory that can be written"


@pytest.mark.parametrize(
    ("variable", "name"),
    [("GOCKER_ROOT", "data"), ("GOCKER_STATE", "state"), ("GOCKER_AUDIT_LOG", "audit log")],
)
def test_a_relative_place_is_named(gocker: Gocker, variable: str, name: str) -> None:
    code, checks = examine(gocker, env={variable: "here"})
    assert code == 1
    assert checks[f"{name} directory"]["detail"] == f"read {variable}=here: not an absolute path"


@pytest.mark.parametrize(
    ("variable", "name", "inside"),
    [("GOCKER_ROOT", "data", "images"), ("GOCKER_STATE", "state", "containers")],
)
def test_a_place_that_others_can_write_is_named(
    gocker: Gocker, tmp_path: Path, variable: str, name: str, inside: str
) -> None:
    place = tmp_path / "place" / inside
    place.mkdir(parents=True)
    place.chmod(0o777)
    code, checks = examine(gocker, env={variable: f"{tmp_path}/place"})
    assert code == 1
    check = checks[f"{name} directory"]
    assert check["detail"] == f"use {place}: others own it or may write to it"
    assert check["remedy"] == f"chown 0 {place} && chmod 0700 {place}"


def test_a_kind_of_namespace_of_which_no_more_may_be_made_is_named_with_the_sysctl(gocker: Gocker) -> None:
    script = 'echo 0 > /proc/sys/user/max_uts_namespaces && exec "$0" "$@"'
    _, checks = examine(gocker, "unshare", "-r", "sh", "-c", script)
    assert checks["uts namespace"]["detail"].startswith("ENOSPC")
    assert "raise sysctl user.max_uts_namespaces" in checks["uts namespace"]["remedy"]


def test_a_kernel_without_the_calls_is_told_from_what_hides_them(gocker: Gocker, tmp_path: Path) -> None:
    """Docker's own filter answers ENOSYS to clone3: so does this one, and openat2 is not there either."""
    profile = tmp_path / "profile.json"
    rules = [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
    code = (
        "import os, sys\n"
        "from gocker.kernel.ids import set_no_new_privileges\n"
        "from gocker.kernel.seccomp import install_filter\n"
        "from gocker.seccomp import seccomp_filter\n"
        f"found = seccomp_filter({str(profile)!r}, (), '')\n"
        "install_filter(found.program, found.flags)\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    status, checks = examine(gocker, sys.executable, "-c", code)
    assert status == 1
    check = checks["mount namespace"]
    assert check["detail"].startswith("ENOSYS")
    assert "inside docker: run it with --privileged" in check["remedy"]
