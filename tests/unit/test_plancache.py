"""Plans made from the last one like them are the plans that are made the long way."""

from __future__ import annotations

from typing import Any

import pytest
from planning import DEMO, HYBRID, LATE, PRIVATE, SECCOMP, V1, V2, host, namespaces, registry, spec

from gocker import plancache
from gocker.api import NamespaceContext
from gocker.hierarchy import Hierarchies
from gocker.model import ContainerSpec
from gocker.plancache import PlanCache
from gocker.planner import Planned, build_plan
from gocker.registry import Registry

IDS = ("440f5713f818c5ad", "0123456789abcdef", "feedfacecafebeef", "aaaaaaaaaaaaaaaa")


def container(identity: str, *limits: str, **changes: Any) -> ContainerSpec:
    """One whose name, hostname and environment follow from its id, as of `gocker run`."""
    short = identity[:12]
    values = {"id": identity, "name": short, "hostname": short} | changes
    return spec(*limits, **{"env": (("PATH", "/bin"), ("HOSTNAME", short)), **values})


def folder(identity: str) -> str:
    return f"/var/lib/gocker/containers/{identity}"


class Counting:
    """A PlanCache that tells how many plans were made the long way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.long = 0
        self.cache = PlanCache()
        self.registry = registry(DEMO, LATE)

        def counted(*arguments: Any) -> Planned:
            self.long += 1
            return build_plan(*arguments)

        monkeypatch.setattr(plancache, "build_plan", counted)

    def plan(self, one: ContainerSpec, where: Hierarchies, plugins: Registry | None = None) -> Planned:
        return self.cache.plan(one, plugins or self.registry, where, folder(one.id), SECCOMP)

    def long_way(self, one: ContainerSpec, where: Hierarchies) -> Planned:
        return build_plan(one, self.registry, where, folder(one.id), SECCOMP)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


@pytest.mark.parametrize("where", [V1, HYBRID, V2])
@pytest.mark.parametrize("limits", [(), ("memory=100m", "cpuset=0-1", "pids=64", "cpu=1.5")])
def test_from_the_third_on_a_plan_is_the_first_with_another_id(
    counting: Counting, where: str, limits: tuple[str, ...]
) -> None:
    here = host(where)
    for identity in IDS:
        one = container(identity, *limits)
        made, expected = counting.plan(one, here), counting.long_way(one, here)
        assert made == expected
        assert made.plan.canonical == expected.plan.canonical
        assert made.plan.lines == expected.plan.lines
        assert made.plan.digest == expected.plan.digest
        assert IDS[0][:12] not in repr(made) or identity == IDS[0]
    assert counting.long == 2


def test_steps_without_the_id_are_the_same_objects(counting: Counting) -> None:
    here = host(HYBRID)
    plans = [counting.plan(container(identity, "memory=100m"), here).plan for identity in IDS]
    shared = {*map(id, plans[2].init)} & {*map(id, plans[3].init)}
    assert len(shared) > len(plans[3].init) // 2


@pytest.mark.parametrize(
    "changes",
    [
        {"argv": ("other",)},
        {"hostname": "web"},
        {"name": "web"},
        {"namespaces": namespaces(*PRIVATE, uts="host"), "hostname": ""},
        {"env": (("PATH", "/sbin"),)},
        {"masked_paths": ("/proc/acpi",)},
    ],
)
def test_another_spec_is_planned_anew(counting: Counting, changes: dict[str, Any]) -> None:
    here = host(HYBRID)
    for identity in IDS[:3]:
        counting.plan(container(identity), here)
    other = container(IDS[3], **changes)
    assert counting.plan(other, here) == counting.long_way(other, here)
    assert counting.long == 3


def test_another_host_is_planned_anew(counting: Counting) -> None:
    for identity in IDS[:3]:
        counting.plan(container(identity), host(HYBRID))
    other = container(IDS[3])
    assert counting.plan(other, host(V2)) == counting.long_way(other, host(V2))


def test_other_plug_ins_are_asked_anew(counting: Counting) -> None:
    for identity in IDS[:3]:
        counting.plan(container(identity), host(HYBRID))
    counting.plan(container(IDS[3]), host(HYBRID), registry())
    assert counting.long == 3


def test_a_strangers_namespace_is_planned_each_time(counting: Counting) -> None:
    kinds = namespaces(*PRIVATE, "late")
    for identity in IDS:
        counting.plan(container(identity, namespaces=kinds), host(HYBRID))
    assert counting.long == len(IDS)


def test_with_the_hosts_network_the_resolver_is_read_each_time(counting: Counting) -> None:
    for identity in IDS:
        counting.plan(container(identity, namespaces=namespaces(*PRIVATE, network="host")), host(HYBRID))
    assert counting.long == len(IDS)


@pytest.mark.parametrize("identity", ["web", "0" * 15, "440f5713f818c5aD", "440f5713f818c5ad0"])
def test_an_id_that_somebody_chose_may_be_in_other_texts(counting: Counting, identity: str) -> None:
    for _ in range(3):
        counting.plan(container(identity), host(HYBRID))
    assert counting.long == 3


def test_a_plan_that_does_more_with_the_id_than_to_name_it_is_not_reused(
    counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = type(counting.registry.namespace("uts"))

    def apply(self: Any, ctx: NamespaceContext) -> None:
        ctx.kernel.sethostname(f"host-{int(ctx.spec.id, 16) % 1000}")

    monkeypatch.setattr(handler, "apply", apply)
    for identity in IDS:
        one = container(identity)
        assert counting.plan(one, host(HYBRID)) == counting.long_way(one, host(HYBRID))
    assert counting.long == len(IDS)


def test_no_more_than_sixteen_plans_are_kept(counting: Counting) -> None:
    for number in range(20):
        counting.plan(container(f"{number:016x}", argv=(str(number),)), host(HYBRID))
    assert len(counting.cache._kept) == 16
