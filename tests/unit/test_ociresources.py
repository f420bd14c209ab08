"""linux.resources and annotations, dealt out to the installed controllers as the requests of `--limit`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planning import V1, V2, host, plan, registry, spec

from gocker.errors import GockerError, LimitError, PluginError
from gocker.ociresources import deal, deal_all, deal_annotations
from gocker.plugin_index import Entry
from gocker.registry import CONTROLLERS
from gocker.steps.cgroup import WriteLimit
from gocker.steps.devicefilter import FilterDevices

HUGETLB = Path(__file__).parents[2] / "contrib" / "gocker-hugetlb"

SPEC_EXAMPLES: dict[str, Any] = {
    "devices": [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "r"},
    ],
    "memory": {"limit": 536870912, "reservation": 536870912, "swap": 536870912, "kernel": -1, "kernelTCP": -1,
               "swappiness": 0, "disableOOMKiller": False},
    "cpu": {"shares": 1024, "quota": 1000000, "burst": 1000000, "period": 500000, "realtimeRuntime": 950000,
            "realtimePeriod": 1000000, "cpus": "2-3", "mems": "0-7", "idle": 0},
    "blockIO": {
        "weight": 10,
        "leafWeight": 10,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 500, "leafWeight": 300},
                         {"major": 8, "minor": 16, "weight": 500}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 300}],
    },
    "network": {"classID": 1048577,
                "priorities": [{"name": "eth0", "priority": 500}, {"name": "eth1", "priority": 1000}]},
    "pids": {"limit": 32771},
    "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaHandles": 3}},
    "unified": {"io.max": "259:0 rbps=2097152 wiops=120\n253:0 rbps=2097152 wiops=120",
                "hugetlb.1GB.max": "1073741824"},
}  # fmt: skip
"""The examples of the OCI runtime spec 1.3, config-linux, but for hugepageLimits."""


def dealt(resources: dict[str, Any], *entries: Entry) -> dict[str, str]:
    return {request.label: request.value for request in deal(resources, registry(*entries))}


def test_the_examples_of_the_spec_are_dealt_out_whole() -> None:
    assert dealt(SPEC_EXAMPLES) == {
        "devices.rules": "deny a *:* rwm,c 10:229 rw,b 8:0 r",
        "memory": "536870912",
        "memory.reservation": "536870912",
        "memory.swap": "536870912",
        "memory.swappiness": "0",
        "cpushare": "1024",
        "cpu.quota": "1000000",
        "cpu.burst": "1000000",
        "cpu.period": "500000",
        "cpu.rt_runtime": "950000",
        "cpu.rt_period": "1000000",
        "cpu.idle": "0",
        "cpuset": "2-3",
        "cpuset.mems": "0-7",
        "blkio.weight": "10",
        "blkio.leaf_weight": "10",
        "blkio.weight_device": "8:0:500,8:16:500",
        "blkio.leaf_weight_device": "8:0:300",
        "blkio.read_bps": "8:0:600",
        "blkio.write_iops": "8:16:300",
        "net_cls": "1048577",
        "net_prio": "eth0:500,eth1:1000",
        "pids": "32771",
        "rdma.hca_handles": "mlx5_1:3,mlx4_0:3",
        "rdma.hca_objects": "mlx5_1:10000",
        "unified.io.max": "259:0 rbps=2097152 wiops=120\n253:0 rbps=2097152 wiops=120",
        "unified.hugetlb.1GB.max": "1073741824",
    }


def test_cpu_is_three_controllers_and_each_gets_its_part_only() -> None:
    assert dealt({"cpu": {"shares": 512, "quota": 5000, "cpus": "0"}}) == {
        "cpushare": "512",
        "cpu.quota": "5000",
        "cpuset": "0",
    }


@pytest.mark.parametrize(
    "resources", [{}, {"memory": None}, {"memory": {}}, {"memory": {"limit": None}}, {"hugepageLimits": []}]
)
def test_what_is_not_there_asks_for_nothing(resources: dict[str, Any]) -> None:
    assert dealt(resources) == {}


def test_what_docker_writes_where_nobody_asked_is_no_limit() -> None:
    assert (
        dealt({"memory": {"disableOOMKiller": False}, "cpu": {"shares": 0}, "blockIO": {"weight": 0}}) == {}
    )


@pytest.mark.parametrize(
    ("resources", "path"),
    [
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}, "hugepageLimits"),
        ({"memory": {"limt": 1 << 30}}, r"memory\.limt"),
        ({"cpu": {"cores": {"max": 1}}}, r"cpu\.cores\.max"),
        ({"memory": 5}, "memory"),
        ({"gpu": "all"}, "gpu"),
    ],
)
def test_an_unclaimed_path_is_an_error_that_names_what_is_installed(
    resources: dict[str, Any], path: str
) -> None:
    with pytest.raises(PluginError, match=rf"{path}: .*installed: blkio, cpu, cpuacct, .*unified"):
        dealt(resources)


def test_hugetlb_claims_its_path_when_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HUGETLB))
    entry = Entry(CONTROLLERS, "hugetlb", "gocker_hugetlb:Hugetlb", "gocker-hugetlb", "0.1.0")
    try:
        limits = [{"pageSize": "2MB", "limit": 209715200}]
        assert dealt({"hugepageLimits": limits}, entry) == {"hugetlb.2MB": "209715200"}
        with pytest.raises(LimitError, match=r"hugepageLimits"):
            dealt({"hugepageLimits": [{"limit": 1}]}, entry)
    finally:
        sys.modules.pop("gocker_hugetlb", None)


def test_two_that_claim_one_path_are_both_named() -> None:
    rival = Entry(CONTROLLERS, "rival", "test_ociresources_rival:Rival", "gocker-rival", "3.0")
    code = (
        "from gocker.plugins.pids import Pids\n"
        "class Rival(Pids):\n    name = 'rival'\n    limits = ()\n    oci_paths = ('pids.limit',)\n"
    )
    module = type(sys)("test_ociresources_rival")
    exec(code, vars(module))
    sys.modules[module.__name__] = module
    vars(module)["Rival"].__module__ = module.__name__
    try:
        with pytest.raises(
            PluginError, match=r"pids\.limit: claimed by pids of .* and rival of gocker-rival"
        ):
            dealt({"pids": {"limit": 5}}, rival)
        assert dealt({"memory": {"limit": 1 << 30}}, rival) == {"memory": str(1 << 30)}
    finally:
        del sys.modules[module.__name__]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 1 << 40) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [*SPEC_EXAMPLES, *SPEC_EXAMPLES["cpu"], "limit", "major", "minor", "rate", "allow", "access"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(resources=st.dictionaries(st.sampled_from([*SPEC_EXAMPLES, "x"]), JSON, max_size=4))
def test_no_json_is_a_traceback(resources: dict[str, Any]) -> None:
    try:
        requests = deal(resources, REGISTRY)
        plan(spec(limits=requests), host(V2), REGISTRY)
    except GockerError:
        return


REGISTRY = registry()


def test_annotations_reach_any_controller() -> None:
    asked = deal_annotations(
        {"dev.gocker.limit.memory.swap": "1g?", "org.example": "x", "dev.gocker.limit.hugetlb.2MB": "64m"}
    )
    assert [(request.label, request.value, request.best_effort) for request in asked] == [
        ("memory.swap", "1g", True),
        ("hugetlb.2MB", "64m", False),
    ]


def test_resources_and_annotations_must_not_contradict_each_other() -> None:
    asked = deal_all({"pids": {"limit": 5}}, {"dev.gocker.limit.pids": "6"}, registry())
    with pytest.raises(LimitError, match="pids: asked twice, as 5 and as 6"):
        plan(spec(limits=asked), host(V2))
    same = deal_all({"pids": {"limit": 5}}, {"dev.gocker.limit.pids": "5"}, registry())
    assert plan(spec(limits=same), host(V2)).plan.total


@pytest.mark.parametrize("name", ["", ".x", "Memory", "memory."])
def test_an_annotation_that_is_no_limit_is_refused(name: str) -> None:
    with pytest.raises(LimitError):
        deal_annotations({f"dev.gocker.limit.{name}": "1"})


def test_what_is_dealt_becomes_the_steps_that_limits_become() -> None:
    resources = {
        "memory": {"limit": 1 << 30},
        "devices": [{"allow": True, "type": "c", "major": 10, "access": "r"}],
    }
    dealt_out = plan(spec(limits=deal(resources, registry())), host(V1))
    steps = [step for _, _, step in dealt_out.plan.numbered()]
    limits = [step for step in steps if isinstance(step, WriteLimit) and step.limit == "memory"]
    (devices,) = [step for step in steps if isinstance(step, FilterDevices)]
    assert [(step.file, step.value) for step in limits] == [("memory.limit_in_bytes", str(1 << 30))]
    assert devices.rules[0] == "c 10:* r"
    assert devices.limits == (("devices.rules", "c 10:* r"),)
    assert devices.required
