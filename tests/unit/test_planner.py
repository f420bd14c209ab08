"""The whole plan of a start, on each kind of host; the golden texts are in plans/."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from planning import (
    DEMO,
    DIRECTORY,
    HYBRID,
    LATE,
    MEMORY_ON_V2,
    PRIVATE,
    SECCOMP,
    V1,
    V2,
    host,
    namespaces,
    plan,
    registry,
    spec,
)

from gocker.cli.plan import plan_lines
from gocker.errors import PluginError, UsageError
from gocker.kernel import process
from gocker.model import IdMap, Rootfs
from gocker.plan import Step, plan_from_json
from gocker.planner import build_plan
from gocker.plugin_index import Entry
from gocker.registry import NAMESPACES
from gocker.steps.host import MakeDirectory, WriteHostFile
from gocker.steps.launch import AttachConsole, BecomeRoot, Clone, UnshareCgroup, WriteKernelFile
from gocker.steps.namespaces import SetHostname, Sysctl

GOLDEN = Path(__file__).parent / "plans"
LIMITS = ("memory=100m", "cpuset=0-1", "cpushare=512", "pids=64")
REWRITE = "GOCKER_TEST_REWRITE"  # =1: write the golden texts anew; then look at the difference
MAP = (IdMap(inside=0, outside=100000, count=65536),)


def steps(kind: type[Step], container: Any, where: str = V2) -> list[Any]:
    """The steps of one kind, in order."""
    return [step for _, _, step in plan(container, host(where)).plan.numbered() if isinstance(step, kind)]


def ops(container: Any, phase: str, where: str = V2) -> list[str]:
    found = dict(plan(container, host(where)).plan.phases())
    return [step.op for step in found[phase]]


@pytest.mark.parametrize("where", [V1, HYBRID, MEMORY_ON_V2, V2])
def test_one_spec_becomes_this_plan_on(where: str) -> None:
    limits = LIMITS if where != MEMORY_ON_V2 else tuple(limit for limit in LIMITS if "cpuset" not in limit)
    *lines, digest = plan_lines(plan(spec(*limits), host(where)).plan)
    text = "\n".join(lines) + "\n"
    golden = GOLDEN / f"{where}.txt"
    if os.environ.get(REWRITE):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8"), (
        f"right, if it is what you wanted: {REWRITE}=1 pytest ..."
    )
    assert digest.startswith("# sha256:")


@pytest.mark.parametrize("where", [V1, HYBRID, MEMORY_ON_V2, V2])
def test_a_plan_is_the_same_each_time_and_so_is_its_digest(where: str) -> None:
    first, second = (plan(spec("memory=100m"), host(where)).plan for _ in range(2))
    assert first.canonical == second.canonical
    assert first.digest == second.digest
    assert first.digest != plan(spec("memory=101m"), host(where)).plan.digest


@pytest.mark.parametrize("where", [V1, HYBRID, MEMORY_ON_V2, V2])
def test_what_another_gocker_reads_from_disk_undoes_the_same_steps(where: str) -> None:
    container = spec("memory=100m", namespaces=namespaces(*PRIVATE, "user"), uid_map=MAP, gid_map=MAP)
    made = plan(container, host(where)).plan
    read = plan_from_json(json.loads(made.canonical))
    assert (read.container, read.name) == ("c0ffee", "web")
    assert (read.host, read.parent, read.remove) == (made.host, made.parent, made.remove)


def test_secrets_are_not_in_the_plan() -> None:
    made = plan(spec(env=(("PATH", "/bin"), ("TOKEN", "hunter2"))), host(V2)).plan
    assert b"TOKEN" in made.canonical
    assert b"hunter2" not in made.canonical
    assert "hunter2" not in "\n".join(plan_lines(made))


# --- the container's own files


def test_its_directory_comes_first_and_takes_all_in_it_along() -> None:
    first, *others = steps(MakeDirectory, spec())
    assert (first.path, first.private) == (DIRECTORY, True)
    assert [step.path for step in others] == [f"{DIRECTORY}/{name}" for name in ("upper", "work", "etc")]


def test_a_writable_rootfs_needs_no_layers() -> None:
    made = steps(MakeDirectory, spec(rootfs=Rootfs(lower="/srv/root", writable=True)))
    assert [step.path for step in made] == [DIRECTORY, f"{DIRECTORY}/etc"]


def test_a_shared_mount_namespace_has_no_files_of_its_own() -> None:
    container = spec(rootfs=None, namespaces=namespaces("uts", "pid", mount="host"))
    assert steps(MakeDirectory, container) == []
    assert steps(WriteHostFile, container) == []
    assert "pivot-root" not in ops(container, "init")


def test_hosts_name_the_container_and_nobody_is_asked_for_names() -> None:
    files = {step.path.rpartition("/")[2]: step.text for step in steps(WriteHostFile, spec(hostname="web"))}
    assert files["hosts"].splitlines()[-1] == "127.0.1.1\tweb"
    assert files["hostname"] == "web\n"
    assert files["resolv.conf"] == ""


def test_without_a_hostname_hosts_names_nobody() -> None:
    files = {step.path.rpartition("/")[2]: step.text for step in steps(WriteHostFile, spec(hostname=""))}
    assert "127.0.1.1" not in files["hosts"]
    assert files["hostname"] == "\n"


def test_on_the_hosts_network_names_are_asked_as_the_host_does() -> None:
    container = spec(namespaces=namespaces("mount", "pid", network="host"))
    files = {step.path.rpartition("/")[2]: step.text for step in steps(WriteHostFile, container)}
    try:
        expected = Path("/etc/resolv.conf").read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        expected = ""
    assert files["resolv.conf"] == expected


# --- the clone


def test_private_namespaces_come_with_the_clone_but_for_the_cgroup_one() -> None:
    (clone,) = steps(Clone, spec())
    assert set(clone.kinds) == set(PRIVATE) - {"cgroup"}
    assert clone.flags & process.CLONE_NEWPID
    assert not clone.flags & (process.CLONE_NEWCGROUP | process.CLONE_NEWUSER | process.CLONE_NEWTIME)


def test_the_cgroup_namespace_is_made_inside_once_it_is_in_its_cgroup() -> None:
    made = ops(spec("memory=100m"), "init", V1)
    assert made.index("unshare-cgroup") > max(index for index, op in enumerate(made) if op == "join-cgroup")
    assert not steps(UnshareCgroup, spec(namespaces=namespaces("mount", "pid", cgroup="host")))


def test_a_namespace_by_path_is_joined_and_not_made() -> None:
    (clone,) = steps(Clone, spec(namespaces=namespaces("mount", "pid", network="/proc/7/ns/net")))
    assert clone.joins == (("network", "/proc/7/ns/net", process.CLONE_NEWNET),)
    assert not clone.flags & process.CLONE_NEWNET


def test_the_hosts_own_namespace_is_neither_made_nor_joined() -> None:
    (clone,) = steps(
        Clone, spec(namespaces=namespaces("mount", "pid", network="host", uts="host"), hostname="")
    )
    assert clone.joins == ()
    assert set(clone.kinds) == {"mount", "pid"}


def test_joins_are_in_the_order_of_their_handlers_but_user_comes_last() -> None:
    paths = {kind: f"/proc/7/ns/{kind}" for kind in ("uts", "user", "ipc")}
    (clone,) = steps(Clone, spec(namespaces=namespaces("mount", "pid", **paths), hostname=""))
    assert [kind for kind, _, _ in clone.joins] == ["ipc", "uts", "user"]


@pytest.mark.parametrize(("where", "born"), [(V1, ""), (HYBRID, "unified/"), (V2, "")])
def test_it_is_born_in_its_v2_cgroup_where_there_is_one(where: str, born: str) -> None:
    (clone,) = steps(Clone, spec(), where)
    assert clone.cgroup == (f"/sys/fs/cgroup/{born}gocker/c0ffee" if where != V1 else "")


def test_clock_offsets_go_to_the_clone() -> None:
    container = spec(namespaces=namespaces("mount", "pid", "time"), time_offsets=(("boottime", 86400, 0),))
    (clone,) = steps(Clone, container)
    assert clone.offsets == (("boottime", 86400, 0),)
    assert clone.flags & process.CLONE_NEWTIME


# --- a user namespace


def test_maps_are_written_before_anything_is_done_inside_and_root_is_taken_on_first() -> None:
    container = spec(namespaces=namespaces(*PRIVATE, "user"), uid_map=MAP, gid_map=MAP)
    written = [step for step in steps(WriteKernelFile, container) if step.path.endswith("_map")]
    assert [step.path for step in written] == ["/proc/{pid}/gid_map", "/proc/{pid}/uid_map"]
    assert ops(container, "init")[0] == "become-root"
    assert "map-layers" in ops(container, "host")


@pytest.mark.parametrize("mode", ["host", "/proc/7/ns/user"])
def test_one_that_is_not_new_gets_no_maps(mode: str) -> None:
    container = spec(namespaces=namespaces("mount", "pid", user=mode))
    assert [step for step in steps(WriteKernelFile, container) if "map" in step.path] == []
    assert len(steps(BecomeRoot, container)) == (mode != "host")  # gocker's own id is not mapped in another's


def test_v1_cgroups_are_joined_even_before_root_is_taken_on() -> None:
    container = spec("memory=100m", namespaces=namespaces(*PRIVATE, "user"), uid_map=MAP, gid_map=MAP)
    made = ops(container, "init", V1)
    assert made[: made.index("become-root")] == ["join-cgroup"] * made.index("become-root")
    assert "join-cgroup" not in made[made.index("become-root") :]


# --- the init phase


def test_the_console_is_attached_after_the_last_mount_and_before_privileges_go() -> None:
    made = ops(spec(terminal=True), "init")
    assert made.index("pivot-root") < made.index("attach-console") < made.index("bounding-set")
    assert steps(AttachConsole, spec()) == []


def test_privileges_go_in_the_order_that_is_safe() -> None:
    made = ops(spec(), "init")
    order = ["undumpable", "setsid", "session-keyring", "pivot-root", "bounding-set", "set-user"]
    order += ["set-capabilities", "no-new-privileges", "close-fds", "seccomp", "exec"]
    assert [op for op in made if op in order] == order
    assert made[-2:] == ["seccomp", "exec"]


def test_the_hostname_is_set_in_a_uts_namespace_of_its_own_alone() -> None:
    assert [step.name for step in steps(SetHostname, spec(hostname="web"))] == ["web"]
    assert steps(SetHostname, spec(hostname="", namespaces=namespaces("mount", "pid", uts="host"))) == []


# --- sysctls


def test_a_sysctl_is_written_before_proc_becomes_read_only() -> None:
    container = spec(sysctls=(("net.ipv4.ip_forward", "1"), ("kernel.shmmax", "5")))
    made = ops(container, "init")
    assert made.count("sysctl") == 2
    assert max(index for index, op in enumerate(made) if op == "sysctl") < made.index("readonly-paths")
    assert [step.name for step in steps(Sysctl, container)] == ["net.ipv4.ip_forward", "kernel.shmmax"]


def test_a_sysctl_with_slashes_belongs_to_the_same_namespace() -> None:
    assert len(steps(Sysctl, spec(sysctls=(("net/ipv4/ip_forward", "1"),)))) == 1


@pytest.mark.parametrize("name", ["vm.overcommit_memory", "kernel.panic", "fs.file-max", "network.x", "net"])
def test_a_sysctl_of_the_host_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=rf"^set sysctl {name}=1: it is not per namespace"):
        plan(spec(sysctls=((name, "1"),)), host(V2))


@pytest.mark.parametrize("mode", ["host", "/proc/7/ns/net"])
def test_a_sysctl_of_a_namespace_that_is_shared_is_refused(mode: str) -> None:
    container = spec(sysctls=(("net.x", "1"),), namespaces=namespaces("mount", "pid", network=mode))
    with pytest.raises(UsageError, match="the network namespace is not the container's own"):
        plan(container, host(V2))


# --- plug-ins


def test_a_strangers_namespace_has_its_say_in_each_phase() -> None:
    container = spec(namespaces=namespaces("mount", "pid", "late"))
    made = plan(container, host(V2), registry(LATE)).plan
    found = {
        phase: [
            text for step in members if (text := step.describe()).endswith("/late") or "late.born" in text
        ]
        for phase, members in made.phases()
    }
    assert found == {
        "host": ["printf 'host' > /proc/late"],
        "parent": ["printf 'child of None' > /proc/{pid}/late"],
        "init": ["sysctl -w late.born=1"],
        "remove": ["printf 'gone' > /proc/late"],
    }


def test_a_strangers_namespace_that_is_joined_is_not_set_up() -> None:
    container = spec(namespaces=namespaces("mount", "pid", late="/proc/7/ns/late"))
    made = plan(container, host(V2), registry(LATE)).plan
    text = [step.describe() for _, _, step in made.numbered()]
    assert not [line for line in text if "late.born" in line or "child of" in line]
    assert "printf 'gone' > /proc/late" in text


def test_a_namespace_that_no_plug_in_makes_is_an_error() -> None:
    with pytest.raises(PluginError, match="find namespace plug-in uts: not installed"):
        plan(spec(), host(V2), registry(without=["uts"]))


def test_plug_ins_that_are_refused_are_named_and_harm_no_plan_that_needs_none_of_them() -> None:
    twin = Entry(NAMESPACES, "ipc", "planning:Late", "gocker-twin", "2.0")
    container = spec(namespaces=namespaces("mount", "pid"), hostname="")
    planned = plan(container, host(V2), registry(twin, DEMO))
    assert {info.distribution for info in planned.refused} == {"gocker", "gocker-twin"}
    with pytest.raises(PluginError, match="2 distributions have a plug-in of the name ipc"):
        plan(spec(), host(V2), registry(twin))


def test_unconfined_has_no_filter() -> None:
    made = build_plan(spec(), registry(), host(V2), DIRECTORY, None).plan
    assert SECCOMP not in made.init
    assert made.init[-1].op == "exec"
