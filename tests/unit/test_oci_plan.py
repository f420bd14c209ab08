"""A config.json becomes a plan by the same way as the options of `gocker run`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ocibundle import full, linux
from planning import HYBRID, V1, V2, host, plan, registry

from gocker.kernel import caps
from gocker.oci.default import default_config
from gocker.oci.spec import read_config
from gocker.ociresources import deal
from gocker.plan import Plan


def planned(config: dict[str, Any], where: str) -> Plan:
    plugins = registry()
    spec, warnings = read_config(
        json.dumps(config).encode(),
        container="c0ffee",
        bundle="/run/bundle",
        limits=lambda resources, _: deal(resources, plugins),
        grantable=frozenset(caps.NAMES),
    )
    assert warnings == ()
    return plan(spec, host(where), plugins).plan


@pytest.mark.parametrize("where", [V1, HYBRID, V2])
@pytest.mark.parametrize("config", [default_config(), default_config((1000, 1000))], ids=["root", "rootless"])
def test_the_default_config_can_be_planned(config: dict[str, Any], where: str) -> None:
    steps = [step.op for step in planned(config, where).init]
    assert steps.index("bind-root") < steps.index("pivot-root") < steps.index("exec")


@pytest.mark.parametrize("where", [V1, HYBRID, V2])
def test_a_config_with_every_field_can_be_planned(where: str) -> None:
    config = full()
    for name in ("apparmorProfile", "selinuxLabel"):  # whether they can be planned is this kernel's to say
        del config["process"][name]
    del config["linux"]["mountLabel"]
    whole = planned(config, where)
    ops = {step.op for phase in (whole.host, whole.parent, whole.init) for step in phase}
    assert {"scheduler", "memory-policy", "personality", "run-hook", "run-host-hook", "sysctl"} <= ops


@pytest.mark.parametrize("where", [V1, V2])
def test_a_limit_of_a_config_is_written_below_its_cgroups_path(where: str) -> None:
    config = linux(cgroupsPath="/pods/p1/c1", resources={"pids": {"limit": 9}})
    (line,) = [step.describe() for step in planned(config, where).host if getattr(step, "value", "") == "9"]
    assert line.endswith("/pods/p1/c1/pids.max")


def test_nothing_is_mounted_that_a_config_does_not_name() -> None:
    assert not [step for step in planned(linux(), V2).init if step.op.startswith("mount")]
