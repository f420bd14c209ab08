"""A whole config.json: what is around process and linux."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ocibundle import full, linux, minimal, process, read, read_all, refusal

from gocker.errors import LimitError
from gocker.limits import LimitRequest
from gocker.model import ContainerSpec, Hook


def test_a_container_has_its_id_for_a_name_and_no_extras() -> None:
    spec = read(minimal())
    assert (spec.id, spec.name, spec.bundle) == ("c0ffee", "c0ffee", "/run/bundle")
    assert (spec.etc, spec.privileged, spec.mounts, spec.cgroup_path, spec.image) == (
        False,
        False,
        (),
        "",
        "",
    )
    assert spec.session_keyring


@pytest.mark.parametrize("version", ["1.0.0", "1.3.0", "1.0.2-dev", "1.1.0+x.1", "1.99.0-rc.1+dev"])
def test_a_config_of_version_1_is_read(version: str) -> None:
    read(minimal(ociVersion=version))


@pytest.mark.parametrize("version", ["0.1.0", "2.0.0", "11.0.0"])
def test_a_config_of_another_major_version_is_refused(version: str) -> None:
    assert "is not of version 1" in refusal(minimal(ociVersion=version))


@pytest.mark.parametrize(
    "version", ["", "1", "1.0", "1.0.0.0", "v1.0.0", "1.00.0", "1.0.0-", "1.0.٠", "1.x.0", "1.0.0\n", 1, None]
)
def test_what_is_no_version_is_refused(version: Any) -> None:
    assert refusal(minimal(ociVersion=version)).startswith("read config.json ociVersion: ")


@pytest.mark.parametrize(
    ("path", "lower"),
    [
        ("rootfs", "/run/bundle/rootfs"),
        ("/srv/./r//x", "/srv/r/x"),
        ("../r", "/run/bundle/../r"),
        (".", "/run/bundle"),
    ],
)
def test_the_root_may_be_relative_to_the_bundle(path: str, lower: str) -> None:
    rootfs = read(minimal(root={"path": path})).rootfs
    assert rootfs
    assert (rootfs.lower, rootfs.writable, rootfs.readonly, rootfs.nodev) == (lower, True, False, False)


def test_the_root_may_be_read_only() -> None:
    rootfs = read(minimal(root={"path": "r", "readonly": True})).rootfs
    assert rootfs
    assert rootfs.readonly


@pytest.mark.parametrize(
    ("root", "path"),
    [(None, "root"), ({}, "root.path"), ({"path": ""}, "root.path"), ({"path": 1}, "root.path"), ("r", "root"),
     ({"path": "r", "readonly": 1}, "root.readonly")],
)  # fmt: skip
def test_a_bad_root_is_refused(root: Any, path: str) -> None:
    assert refusal(minimal(root=root)).startswith(f"read config.json {path}: ")


def test_names_are_set_in_a_uts_namespace_of_its_own() -> None:
    config = linux("uts") | {"hostname": "box", "domainname": "example.test"}
    spec = read(config)
    assert (spec.hostname, spec.domainname) == ("box", "example.test")


@pytest.mark.parametrize("name", ["hostname", "domainname"])
def test_a_name_does_not_rename_the_host(name: str) -> None:
    assert f"{name}: there is no UTS namespace, it would be the host's" in refusal(minimal(**{name: "box"}))
    assert read(minimal(**{name: ""})) == read(minimal())


def test_a_name_does_not_rename_those_that_were_there_before() -> None:
    config = linux() | {"hostname": "box"}
    config["linux"]["namespaces"].append({"type": "uts", "path": "/proc/7/ns/uts"})
    spec, warnings = read_all(config)
    assert spec.hostname == ""
    assert warnings == ("hostname: not set, since the UTS namespace that is joined has one",)


def test_hooks_are_read_kind_by_kind() -> None:
    hooks = {
        "poststop": [
            {"path": "/b", "env": []},
            {"path": "/c", "args": ["c", "1"], "env": ["A=1"], "timeout": 3},
        ],
        "prestart": [{"path": "/a", "env": []}],
    }
    assert read(minimal(hooks=hooks)).hooks == (
        Hook(kind="prestart", path="/a"),
        Hook(kind="poststop", path="/b"),
        Hook(kind="poststop", path="/c", args=("c", "1"), env=("A=1",), timeout=3),
    )


@pytest.mark.parametrize(
    ("hook", "path", "reason"),
    [
        ({}, ".path", "is missing"),
        ({"path": "bin/x"}, ".path", '"bin/x" is not an absolute path'),
        ({"path": "/x", "timeout": 0}, ".timeout", "0 is not a number of seconds"),
        ({"path": "/x", "timeout": -1}, ".timeout", "-1 is not a number of seconds"),
        ({"path": "/x", "timeout": 1.5}, ".timeout", "1.5 is not a number of seconds"),
        ({"path": "/x", "timeout": 2**62}, ".timeout", f"{2**62} is not a number of seconds"),
        ({"path": "/x", "env": ["A"]}, ".env[0]", '"A" is not NAME=VALUE'),
        ({"path": "/x", "args": "x"}, ".args", '"x" is not a list'),
        ("x", "", '"x" is not an object'),
    ],
)
@pytest.mark.parametrize(
    "kind", ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
)
def test_a_bad_hook_is_refused(kind: str, hook: Any, path: str, reason: str) -> None:
    text = refusal(minimal(hooks={kind: [hook]}))
    assert text.startswith(f"read config.json hooks.{kind}[0]{path}: {reason}")


def test_limits_come_from_the_resources_and_the_annotations() -> None:
    seen: list[object] = []

    def limits(resources: Mapping[str, object], annotations: Mapping[str, str]) -> tuple[LimitRequest, ...]:
        seen.extend((resources, annotations))
        return (LimitRequest(name="pids", key="", value="9"),)

    annotations = {"dev.gocker.limit.x": "1", "com.example": ""}
    config = linux(resources={"pids": {"limit": 9}}) | {"annotations": annotations}
    spec = read(config, limits=limits)
    assert seen == [{"pids": {"limit": 9}}, annotations]
    assert spec.limits == (LimitRequest(name="pids", key="", value="9"),)
    assert spec.labels == tuple(annotations.items())


def test_an_error_of_a_controller_is_its_own() -> None:
    def limits(resources: Mapping[str, object], annotations: Mapping[str, str]) -> tuple[LimitRequest, ...]:
        raise LimitError("set limit", "pids=9", "no")

    with pytest.raises(LimitError, match="set limit pids=9: no"):
        read(minimal(), limits=limits)


@pytest.mark.parametrize(
    ("annotations", "path"),
    [
        ({"a.b": 1}, 'annotations["a.b"]'),
        ({"": "x"}, "annotations"),
        ({"a": None}, "annotations.a"),
        (["a"], "annotations"),
    ],
)
def test_a_bad_annotation_is_refused(annotations: Any, path: str) -> None:
    assert refusal(minimal(annotations=annotations)).startswith(f"read config.json {path}: ")


def test_a_virtual_machine_is_refused_by_name() -> None:
    assert refusal(minimal(vm={})).startswith("read config.json vm: gocker does not start virtual machines")


@pytest.mark.parametrize("name", ["windows", "solaris", "zos", "freebsd"])
def test_the_section_of_another_platform_is_ignored_with_a_warning(name: str) -> None:
    assert read_all(minimal(**{name: {"x": 1}})) == (
        read(minimal()),
        (f"{name}: for another platform, ignored",),
    )


def test_unknown_properties_are_ignored_with_a_warning_wherever_they_are() -> None:
    config = full()
    plain = read(config)
    places = objects(config, "")
    for _, value in places:
        value["com.example new"] = {"x": [1, None]}
    spec, warnings = read_all(config)
    assert spec == plain.replace(seccomp_profile=spec.seccomp_profile)
    expected = {path for path, _ in places if not path.startswith(("linux.resources", "linux.seccomp"))}
    assert {
        text.partition('["com.example new"]: unknown property, ignored')[0] for text in warnings
    } == expected


def objects(value: Any, path: str) -> list[tuple[str, dict[str, Any]]]:
    """All objects with fixed members, each once though lists share them, with their paths."""
    if isinstance(value, list):
        return [found for index, item in enumerate(value) for found in objects(item, f"{path}[{index}]")]
    if not isinstance(value, dict):
        return []
    inner = [found for name, item in value.items() for found in objects(item, f"{path}.{name}".lstrip("."))]
    free = path in {"annotations", "linux.sysctl", "linux.timeOffsets"}
    return [*inner, *([] if free else [(path, value)])]


def test_members_are_named_as_the_specification_spells_them() -> None:
    spec, warnings = read_all(process(Terminal=True))
    assert not spec.terminal
    assert warnings == ("process.Terminal: unknown property, ignored",)


def test_a_value_in_an_error_is_short_and_printable() -> None:
    text = refusal(process(cwd="\x1b[2J\n" + "x" * 10_000))
    assert text.isprintable()
    assert len(text) < 200


def test_a_full_config_is_all_over_the_spec() -> None:
    spec, warnings = read_all(full(), for_exec=True)
    assert warnings == ()
    changed = {name for name, default in ContainerSpec.fields.items() if getattr(spec, name) != default}
    assert changed >= set(
        """
        id name argv rootfs hostname domainname env cwd user groups namespaces uid_map gid_map time_offsets
        cgroup_path mounts devices capabilities seccomp seccomp_profile masked_paths readonly_paths rlimits sysctls
        oom_score_adj umask scheduler io_priority cpu_affinity memory_policy personality apparmor_profile
        selinux_label mount_label hooks terminal console_size interactive labels bundle
        """.split()
    )
