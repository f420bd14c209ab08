"""The plan of one more process in a container: what it joins, what proves it, and the same last steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from planning import namespaces, registry, spec

from gocker.execplan import plan_exec
from gocker.lasting import Group, Lasting
from gocker.model import IdMap
from gocker.plan import Plan
from gocker.steps import identity

ROOT = (IdMap(inside=0, outside=100000, count=65536),)
KINDS = ("mount", "uts", "ipc", "pid", "network", "cgroup")


@pytest.fixture
def cgroup(tmp_path: Path) -> str:
    """A directory that stands for a cgroup of v1."""
    (tmp_path / "c1").mkdir()
    return f"{tmp_path}/c1"


def lasting(cgroup: str) -> Lasting:
    return Lasting(
        id="c0ffee",
        argv=("sh",),
        hooks=(),
        bundle="/run/bundle",
        rootfs="/",
        pid=4711,
        started=1,
        boot="boot",
        begun=1,
        owner=0,
        annotations=(),
        groups=(Group(controllers=("pids",), path=cgroup, version="v1"),),
        config="{}",
        digest="",
    )


def planned(cgroup: str, *, user: bool = False) -> Plan:
    kinds = (*KINDS, "user") if user else KINDS
    maps = {"uid_map": ROOT, "gid_map": ROOT} if user else {}
    container = spec(seccomp="unconfined", namespaces=namespaces(*kinds), **maps)
    return plan_exec(container, lasting(cgroup), registry(), "/nowhere")


def test_the_first_process_is_proved_before_and_after_the_clone(cgroup: str) -> None:
    assert [step.op for step in planned(cgroup).parent][:3] == ["require-process", "clone", "require-process"]


def test_every_namespace_of_the_container_is_joined(cgroup: str) -> None:
    clone = planned(cgroup, user=True).parent[1]
    assert sorted(kind for kind, _, _ in clone.joins) == sorted((*KINDS, "user"))  # type: ignore[attr-defined]
    assert clone.joins[-1][0] == "user"  # type: ignore[attr-defined]


def test_it_begins_as_the_first_process_does(cgroup: str) -> None:
    init = planned(cgroup).init
    first = identity.first_steps(spec())
    begin = init.index(first[0])
    assert init[begin : begin + len(first)] == first


def test_in_a_user_namespace_it_is_root_there_before_that(cgroup: str) -> None:
    steps = [step.op for step in planned(cgroup, user=True).init]
    assert steps.index("become-root") < steps.index("undumpable")
    assert "become-root" not in [step.op for step in planned(cgroup).init]


def test_privileges_go_in_the_order_of_the_rule(cgroup: str) -> None:
    order = ["undumpable", "setsid", "session-keyring", "bounding-set", "set-user"]
    order += ["set-capabilities", "no-new-privileges", "let-go", "close-fds", "exec"]
    steps = [step.op for step in planned(cgroup).init]
    assert [op for op in steps if op in order] == order


def test_it_is_in_the_cgroups_of_the_container(cgroup: str) -> None:
    plan = planned(cgroup)
    assert [step.path for step in (*plan.host, plan.init[0])] == [cgroup] * 2  # type: ignore[attr-defined]
