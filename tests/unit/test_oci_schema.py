"""What gocker writes and reads, held against the schemas of the specification."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ocibundle import full, linux, minimal, mount, process, read, read_all, refusal
from ocischema import load, problems

from gocker.errors import GockerError
from gocker.kernel import caps
from gocker.oci.default import default_config
from gocker.oci.features import features
from gocker.seccompprofile import parse_profile

FEATURES = features()
EVERYTHING = frozenset(caps.NAMES)


def enum(name: str) -> list[str]:
    """The values that the schema allows."""
    values: list[str] = load("defs-linux.json")["definitions"][name]["enum"]
    return values


@pytest.mark.parametrize("config", [minimal(), full(), default_config(), default_config((1000, 1000))])
def test_the_schema_takes_what_gocker_reads_and_writes(config: dict[str, Any]) -> None:
    assert problems(config) == []
    assert problems({**config, "ociVersion": 1}) == ["ociVersion: 1 is not of type 'string'"]


def test_the_default_config_is_read_without_a_warning() -> None:
    spec, warnings = read_all(default_config(), grantable=EVERYTHING)
    assert warnings == ()
    assert (spec.argv, spec.terminal, spec.no_new_privileges) == (("sh",), True, True)
    assert spec.capabilities.permitted == caps.DOCKER_DEFAULT
    assert spec.namespace("user").mode == "host"


def test_the_default_config_without_root_maps_one_id_and_keeps_the_network() -> None:
    spec, warnings = read_all(default_config((1000, 1001)), grantable=EVERYTHING)
    assert warnings == ()
    assert [(m.inside, m.outside, m.count) for m in (*spec.uid_map, *spec.gid_map)] == [
        (0, 1000, 1),
        (0, 1001, 1),
    ]
    assert spec.namespace("network").mode == "host"
    assert not any("gid=5" in found.options for found in spec.mounts)


def test_the_schema_takes_the_features() -> None:
    assert problems(FEATURES, "features-schema.json") == []
    assert json.loads(json.dumps(FEATURES)) == FEATURES


@pytest.mark.parametrize("name", ["ociVersionMin", "ociVersionMax"])
def test_the_versions_of_the_features_are_read(name: str) -> None:
    read(minimal(ociVersion=FEATURES[name]))


@pytest.mark.parametrize("option", sorted(set(FEATURES["mountOptions"]) - {"idmap", "ridmap"}))
def test_the_mount_options_of_the_features_are_read(option: str) -> None:
    read(mount(source="/srv", options=[option]))


def test_the_hooks_of_the_features_are_all_that_the_schema_has() -> None:
    assert set(FEATURES["hooks"]) == set(load("config-schema.json")["properties"]["hooks"]["properties"])
    read(minimal(hooks={kind: [{"path": "/x"}] for kind in FEATURES["hooks"]}))


@pytest.mark.parametrize("kind", enum("NamespaceType"))
def test_each_namespace_of_the_schema_is_in_the_features_and_read(kind: str) -> None:
    assert kind in FEATURES["linux"]["namespaces"]
    config = linux(*({kind} - {"mount"}))
    if kind == "user":
        ids = [{"containerID": 0, "hostID": 1, "size": 1}]
        config["linux"] |= {"uidMappings": ids, "gidMappings": ids}
    assert read(config).namespace(kind).mode == "private"


def test_the_memory_policies_of_the_features_are_all_that_the_schema_has() -> None:
    policy = FEATURES["linux"]["memoryPolicy"]
    assert set(policy["modes"]) == set(enum("MemoryPolicyMode"))
    assert set(policy["flags"]) == set(enum("MemoryPolicyFlag"))
    for mode in policy["modes"]:
        nodes = "" if mode in {"MPOL_DEFAULT", "MPOL_LOCAL"} else "0"
        read(linux(memoryPolicy={"mode": mode, "nodes": nodes, "flags": policy["flags"][:1]}))


@pytest.mark.parametrize("policy", enum("SchedulerPolicy"))
def test_each_scheduling_policy_of_the_schema_is_read_or_refused_by_name(policy: str) -> None:
    priority = 1 if policy in {"SCHED_FIFO", "SCHED_RR"} else 0
    config = process(scheduler={"policy": policy, "priority": priority, "flags": enum("SchedulerFlag")})
    if policy == "SCHED_ISO":
        assert "Linux has no SCHED_ISO" in refusal(config)
    else:
        assert read(config).scheduler


@pytest.mark.parametrize(
    ("listed", "name"),
    [("actions", "SeccompAction"), ("operators", "SeccompOperators"), ("archs", "SeccompArch")],
)
def test_the_seccomp_values_of_the_features_are_names_of_the_schema(listed: str, name: str) -> None:
    assert set(FEATURES["linux"]["seccomp"][listed]) <= set(enum(name))


@pytest.mark.parametrize("action", enum("SeccompAction"))
def test_the_features_name_the_seccomp_actions_that_are_read(action: str) -> None:
    listener = {"listenerPath": "/run/agent"} if action == "SCMP_ACT_NOTIFY" else {}
    rule = {"names": ["getcwd"], "action": action}
    taken = accepted({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule], **listener})
    assert taken == (action in FEATURES["linux"]["seccomp"]["actions"])


@pytest.mark.parametrize("flag", enum("SeccompFlag"))
def test_the_features_name_the_seccomp_flags_that_are_read(flag: str) -> None:
    taken = accepted({"defaultAction": "SCMP_ACT_ALLOW", "flags": [flag]})
    assert taken == (flag in FEATURES["linux"]["seccomp"]["knownFlags"])
    assert FEATURES["linux"]["seccomp"]["supportedFlags"] == FEATURES["linux"]["seccomp"]["knownFlags"]


def test_the_features_name_what_a_config_may_not_ask_for() -> None:
    assert not FEATURES["linux"]["intelRdt"]["enabled"]
    assert not FEATURES["linux"]["netDevices"]["enabled"]
    assert not FEATURES["linux"]["cgroup"]["systemdUser"]
    refusal(linux(intelRdt={}))
    refusal(linux(netDevices={"eth0": {}}))
    refusal(linux(cgroupsPath="a.slice:b:c"))  # without --systemd-cgroup


def accepted(profile: dict[str, Any]) -> bool:
    try:
        parse_profile(json.dumps(profile).encode(), "test", "x86_64")
    except GockerError:
        return False
    return True
