"""The mounts of a config.json."""

from __future__ import annotations

from typing import Any

import pytest
from ocibundle import linux, mapping, minimal, mount, read, read_all, refusal

from gocker.model import IdMap, Mount
from gocker.oci.mounts import OPTIONS, known_options
from gocker.rootplan import layer_steps
from gocker.steps.mounts import OpenSource

MAPS = [mapping(0, 1000, 10)]


def only(**members: Any) -> Mount:
    (found,) = read(mount(**members)).mounts
    return found


def refused(path: str, **members: Any) -> str:
    text = refusal(mount(**members))
    start = f"read config.json mounts[0].{path}: "
    assert text.startswith(start), text
    return text.removeprefix(start)


def test_mounts_keep_their_order() -> None:
    mounts = [{"destination": path, "type": "tmpfs"} for path in ("/b", "/a", "/b/c")]
    assert [found.target for found in read(minimal(mounts=mounts)).mounts] == ["/b", "/a", "/b/c"]


def test_a_file_system_has_its_own_options() -> None:
    assert only(source="tmpfs", options=["nosuid", "size=64m", "mode=1777"]) == Mount(
        kind="tmpfs", target="/mnt", source="tmpfs", options=("nosuid", "size=64m", "mode=1777")
    )


@pytest.mark.parametrize("option", ["bind", "rbind"])
def test_an_option_makes_a_bind_whatever_the_type(option: str) -> None:
    for fstype in ("none", "bind", "tmpfs", "cgroup"):
        found = only(type=fstype, source="/srv", options=[option, "ro"])
        assert found == Mount(kind="bind", target="/mnt", source="/srv", options=(option, "ro"))


def test_a_bind_by_its_type_alone_is_not_recursive() -> None:
    assert only(type="bind", source="/srv", options=["ro"]).options == ("bind", "ro")


def test_the_source_of_a_bind_may_be_relative_to_the_bundle() -> None:
    assert only(type="bind", source="data/./x").source == "/run/bundle/data/x"
    assert only(type="bind", source="/srv//x/../y").source == "/srv/x/../y"


def test_a_bind_needs_a_source() -> None:
    assert refused("source", type="bind").startswith("is missing")


@pytest.mark.parametrize("fstype", [None, "", "none"])
def test_a_mount_without_a_type_is_refused(fstype: str | None) -> None:
    assert refused("type", type=fstype) == "no type, and neither bind nor rbind in the options"


def test_both_cgroup_types_are_what_the_host_has() -> None:
    assert {only(type=fstype).kind for fstype in ("cgroup", "cgroup2")} == {"cgroup"}


def test_a_type_is_no_path() -> None:
    assert refused("type", type="../x") == '"../x" is not a file system'


def test_a_relative_destination_is_taken_from_the_root_with_a_warning() -> None:
    spec, warnings = read_all(mount(destination="a/b"))
    assert spec.mounts[0].target == "/a/b"
    assert warnings == ('mounts[0].destination: "a/b" is relative, taken from /',)


@pytest.mark.parametrize("target", ["/", "//", "/.", "."])
def test_the_root_may_be_covered(target: str) -> None:
    assert read_all(mount(destination=target))[0].mounts[0].target == "/"


def test_a_mount_needs_a_destination() -> None:
    assert refused("destination", destination=None) == "is missing"
    assert refused("destination", destination="") == "is empty"


@pytest.mark.parametrize("option", ["remount"])
def test_what_gocker_does_not_do_is_refused_by_name(option: str) -> None:
    assert refused("options[1]", options=["nosuid", option]).startswith(f"{option}: ")


def test_options_of_a_file_system_do_nothing_for_a_bind() -> None:
    spec, warnings = read_all(mount(type="bind", source="/srv", options=["ro", "size=1m"]))
    assert spec.mounts[0].options == ("bind", "ro")
    assert warnings == ('mounts[0].options: "size=1m" does nothing for a bind mount',)


@pytest.mark.parametrize("option", sorted(set(known_options()) - {"idmap", "ridmap"}))
def test_each_option_of_the_specification_is_taken(option: str) -> None:
    assert option in only(source="/srv", options=[option]).options


def test_the_options_that_are_not_followed_are_few() -> None:
    # iversion is passed on: it is for the file system to say whether it has it
    assert set(OPTIONS) - set(known_options()) == {"remount", "iversion"}


@pytest.mark.parametrize(("fstype", "options"), [("none", ["bind"]), ("bind", []), ("proc", [])])
def test_only_a_tmpfs_begins_with_what_is_there(fstype: str, options: list[str]) -> None:
    assert "tmpcopyup" in only(options=["tmpcopyup"]).options
    reason = refused(f"options[{len(options)}]", type=fstype, source="/srv", options=[*options, "tmpcopyup"])
    assert reason == "tmpcopyup is for a new tmpfs alone"


@pytest.mark.parametrize("options", [["bind"], ["bind", "idmap"], ["rbind", "ridmap"]])
def test_a_bind_may_have_its_ids_mapped(options: list[str]) -> None:
    found = only(source="/srv", options=options, uidMappings=MAPS, gidMappings=MAPS)
    assert found.uid_map == found.gid_map == (IdMap(inside=0, outside=1000, count=10),)


@pytest.mark.parametrize("namespace", [{"type": "user"}, {"type": "user", "path": "/proc/7/ns/user"}])
def test_idmap_alone_means_the_maps_of_the_container(namespace: dict[str, str]) -> None:
    config = linux(uidMappings=MAPS, gidMappings=MAPS)
    config["linux"]["namespaces"].append(namespace)
    config["mounts"] = [{"destination": "/mnt", "source": "/srv", "options": ["bind", "idmap"]}]
    assert read(config).mounts[0].uid_map == (IdMap(inside=0, outside=1000, count=10),)


def test_idmap_without_any_map_is_refused() -> None:
    assert refused("options", source="/srv", options=["bind", "idmap"]).startswith("idmap, and neither")


def test_ids_of_other_mounts_are_not_mapped() -> None:
    assert refused("uidMappings", uidMappings=MAPS, gidMappings=MAPS).endswith("not of tmpfs")


def test_one_map_of_the_two_is_refused() -> None:
    assert (
        refused("gidMappings", source="/srv", options=["bind"], uidMappings=MAPS)
        == "is missing beside uidMappings"
    )


@pytest.mark.parametrize(
    ("path", "members"),
    [
        ("destination", {"destination": 1}),
        ("type", {"type": ["tmpfs"]}),
        ("source", {"source": False}),
        ("options", {"options": "ro"}),
        ("options[0]", {"options": [1]}),
        ("uidMappings", {"uidMappings": {}}),
        ("uidMappings[0]", {"uidMappings": [0]}),
    ],
)
def test_a_member_of_the_wrong_type_is_refused(path: str, members: dict[str, Any]) -> None:
    assert " is not " in refused(path, **members)


def test_idmap_alone_means_the_maps_of_a_user_namespace_that_is_joined() -> None:
    config = minimal(linux={"namespaces": [{"type": "mount"}, {"type": "user", "path": "/proc/7/ns/user"}]})
    config["mounts"] = [{"destination": "/mnt", "source": "/srv", "options": ["bind", "idmap"]}]
    (step,) = [step for step in layer_steps(read(config), "/run/c1") if isinstance(step, OpenSource)]
    assert (step.userns, step.uid_map, step.map_all) == ("/proc/7/ns/user", (), False)
