"""The linux section of a config.json."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ocibundle import linux, mapping, minimal, read, read_all, refusal

from gocker.model import Device, IdMap, MemoryPolicy, NamespaceRequest

MAPS = [mapping(0, 1000, 10)]
FUSE = {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}


def refused(path: str, *kinds: str, **members: Any) -> str:
    text = refusal(linux(*kinds, **members))
    start = f"read config.json linux.{path}: "
    assert text.startswith(start), text
    return text.removeprefix(start)


def namespaces(*items: Any) -> dict[str, Any]:
    return minimal(linux={"namespaces": [{"type": "mount"}, *items]})


def test_a_namespace_is_new_joined_or_that_of_the_host() -> None:
    spec = read(namespaces({"type": "pid", "path": ""}, {"type": "network", "path": "/run/netns/x"}))
    assert spec.namespaces == (
        NamespaceRequest(kind="mount", mode="private"),
        NamespaceRequest(kind="pid", mode="private"),
        NamespaceRequest(kind="network", mode="path", path="/run/netns/x"),
    )
    assert spec.namespace("ipc").mode == "host"


@pytest.mark.parametrize(
    ("item", "path", "reason"),
    [
        ({"type": "pid"}, "[2].type", '"pid" is there twice'),
        ({"type": "tea"}, "[2].type", '"tea" is not known'),
        ({"path": "/x"}, "[2].type", "is missing"),
        ({"type": "ipc", "path": "x"}, "[2].path", '"x" is not an absolute path'),
        ({"type": "ipc", "path": 7}, "[2].path", "7 is not a text"),
        ("ipc", "[2]", '"ipc" is not an object'),
    ],
)
def test_a_bad_namespace_is_refused(item: Any, path: str, reason: str) -> None:
    text = refusal(namespaces({"type": "pid"}, item))
    assert text.startswith(f"read config.json linux.namespaces{path}: {reason}")


@pytest.mark.parametrize(
    "config", [minimal(linux=None), minimal(linux={}), minimal(linux={"namespaces": []})]
)
def test_a_root_needs_a_mount_namespace(config: dict[str, Any]) -> None:
    assert "linux.namespaces: there is no mount namespace" in refusal(config)


def test_a_mount_namespace_may_be_joined() -> None:
    spec = read(minimal(linux={"namespaces": [{"type": "mount", "path": "/proc/7/ns/mnt"}]}))
    assert spec.namespaces == (NamespaceRequest(kind="mount", mode="path", path="/proc/7/ns/mnt"),)


def test_a_user_namespace_has_maps() -> None:
    spec = read(linux("user", uidMappings=MAPS, gidMappings=[mapping(0, 5, 1), mapping(1, 6, 2**32 - 7)]))
    assert spec.uid_map == (IdMap(inside=0, outside=1000, count=10),)
    assert spec.gid_map[1] == IdMap(inside=1, outside=6, count=2**32 - 7)


def test_a_user_namespace_without_maps_is_refused() -> None:
    assert refused("uidMappings", "user").startswith("is missing")


@pytest.mark.parametrize(
    ("there", "missing"), [("uidMappings", "gidMappings"), ("gidMappings", "uidMappings")]
)
def test_one_map_of_the_two_is_refused(there: str, missing: str) -> None:
    assert refused(missing, "user", **{there: MAPS}) == f"is missing beside {there}"


def test_maps_without_a_user_namespace_are_refused() -> None:
    assert refused("uidMappings", uidMappings=MAPS, gidMappings=MAPS).startswith("there is no user namespace")


def test_a_joined_user_namespace_has_maps_of_its_own() -> None:
    config = linux(uidMappings=MAPS, gidMappings=MAPS)
    config["linux"]["namespaces"].append({"type": "user", "path": "/proc/7/ns/user"})
    assert (read(config).uid_map, read(config).gid_map) == ((), ())


@pytest.mark.parametrize(
    ("maps", "path", "reason"),
    [
        ([mapping(0, 0, 0)], "[0].size", "0 is not a number of ids"),
        ([mapping(0, 1, 2**32 - 1)], "[0].size", "4294967295 is not"),
        ([mapping(2**32 - 1, 0, 1)], "[0].containerID", "4294967295 is not an id"),
        ([mapping(0, -1, 1)], "[0].hostID", "-1 is not an id"),
        ([{"containerID": 0, "hostID": 0}], "[0].size", "is missing"),
        ([mapping(0, 0, 10), mapping(9, 100, 1)], "", "id 9 in the container is mapped twice"),
        ([mapping(0, 50, 10), mapping(20, 45, 6)], "", "id 50 on the host is mapped twice"),
        ([mapping(n, n, 1) for n in range(341)], "", "has 341 entries, the kernel takes 340"),
    ],
)
def test_a_bad_map_is_refused(maps: Any, path: str, reason: str) -> None:
    assert refused(f"uidMappings{path}", "user", uidMappings=maps, gidMappings=MAPS).startswith(reason)


def test_as_many_lines_as_the_kernel_takes_are_read() -> None:
    maps = [mapping(n, n + 1000, 1) for n in range(340)]
    assert len(read(linux("user", uidMappings=maps, gidMappings=maps)).uid_map) == 340


def test_the_full_map_is_read() -> None:
    full = [mapping(0, 0, 2**32 - 1)]
    assert read(linux("user", uidMappings=full, gidMappings=full)).uid_map[0].count == 2**32 - 1


def test_time_offsets_are_read() -> None:
    offsets = {"boottime": {"secs": -7}, "monotonic": {"nanosecs": 999_999_999}}
    assert read(linux("time", timeOffsets=offsets)).time_offsets == (
        ("boottime", -7, 0),
        ("monotonic", 0, 999_999_999),
    )


@pytest.mark.parametrize(
    ("kinds", "offsets", "path"),
    [
        ((), {"boottime": {"secs": 1}}, ""),
        (("time",), {"realtime": {"secs": 1}}, ".realtime"),
        (("time",), {"boottime": {"nanosecs": 1_000_000_000}}, ".boottime.nanosecs"),
        (("time",), {"boottime": {"secs": 2**63}}, ".boottime.secs"),
        (("time",), {"boottime": 5}, ".boottime"),
    ],
)
def test_a_bad_time_offset_is_refused(kinds: tuple[str, ...], offsets: Any, path: str) -> None:
    refused(f"timeOffsets{path}", *kinds, timeOffsets=offsets)


def test_a_device_is_read() -> None:
    (device,) = read(linux(devices=[FUSE])).devices
    assert device == Device(path="/dev/fuse", kind="c", major=10, minor=229, mode=0o666)


def test_the_type_bits_in_a_file_mode_are_left_out() -> None:
    (device,) = read(linux(devices=[{**FUSE, "fileMode": 0o20640}])).devices
    assert device.mode == 0o640


def test_a_fifo_has_no_numbers() -> None:
    (device,) = read(linux(devices=[{"path": "/run/fifo", "type": "p", "major": 0}])).devices
    assert (device.kind, device.major, device.minor) == ("p", 0, 0)


@pytest.mark.parametrize(
    ("change", "name", "reason"),
    [
        ({"type": "x"}, "type", '"x" is not known'),
        ({"path": "dev/fuse"}, "path", '"dev/fuse" is not an absolute path'),
        ({"path": None}, "path", "is missing"),
        ({"major": None}, "major", "is missing"),
        ({"minor": None}, "minor", "is missing"),
        ({"major": 4096}, "major", "4096 is not a major number (0 to 4095)"),
        ({"minor": -1}, "minor", "-1 is not a minor number (0 to 1048575)"),
        ({"fileMode": 0o200000}, "fileMode", "65536 is not a file mode"),
        ({"uid": 2**32 - 1}, "uid", "4294967295 is not an id"),
        ({"gid": "0"}, "gid", '"0" is not an id'),
    ],
)
def test_a_bad_device_is_refused(change: dict[str, Any], name: str, reason: str) -> None:
    assert refused(f"devices[0].{name}", devices=[{**FUSE, **change}]).startswith(reason)


@pytest.mark.parametrize(
    ("path", "whole"),
    [
        (None, ""),
        ("", ""),
        ("/a/b", "/a/b"),
        ("//a/./b/", "/a/b"),
        ("a/b", "/gocker/a/b"),
        ("/a:b:c", "/a:b:c"),
        (f"/{'n' * 255}", f"/{'n' * 255}"),
        ("/user.slice/x:y", "/user.slice/x:y"),
    ],
)
def test_a_cgroup_path_is_normalised(path: str | None, whole: str) -> None:
    assert read(linux(cgroupsPath=path)).cgroup_path == whole


@pytest.mark.parametrize(
    "path",
    ["..", "/..", "/a/../../b", "a/..", "../gocker/x", "/a\nb", "/a\x7f", f"/{'n' * 256}", f"/{'é' * 128}"],
)
def test_a_cgroup_path_does_not_leave_its_place(path: str) -> None:
    assert refused("cgroupsPath", cgroupsPath=path).endswith("in it is not the name of a cgroup")


@pytest.mark.parametrize("path", ["/", "//", "/.", "/gocker", "/gocker/", "."])
def test_a_cgroup_that_holds_other_containers_is_refused(path: str) -> None:
    assert "has other containers in it" in refused("cgroupsPath", cgroupsPath=path)


@pytest.mark.parametrize("path", ["system.slice:gocker:c1", ":gocker:c1"])
def test_a_path_for_systemd_is_refused_where_it_does_not_make_the_cgroup(path: str) -> None:
    reason = refused("cgroupsPath", cgroupsPath=path)
    assert reason.startswith(f'"{path}" is for systemd, which is not to make the cgroup')
    assert "--cgroup-manager cgroupfs" in reason


@pytest.mark.parametrize("path", ["/a/b", None])
def test_other_paths_are_refused_where_systemd_makes_the_cgroup(path: str | None) -> None:
    text = refusal(linux(cgroupsPath=path), systemd_cgroup=True)
    assert text.startswith("read config.json linux.cgroupsPath: ")
    assert "is not slice:prefix:name" in text


def test_sysctls_are_read() -> None:
    pairs = {"net.ipv4.ip_forward": "1", "kernel/shmmax": "0"}
    assert read(linux(sysctl=pairs)).sysctls == tuple(pairs.items())


@pytest.mark.parametrize(
    ("pairs", "path"),
    [
        ({"net.ipv4.ip_forward": 1}, ".net.ipv4.ip_forward"),
        ({"net.ipv4.ip_forward": None}, ""),
        ({"forward": "1"}, ""),
        ({"net/../../kernel/x": "1"}, ""),
        (["a=b"], ""),
    ],
)
def test_a_bad_sysctl_is_refused(pairs: Any, path: str) -> None:
    assert refusal(linux(sysctl=pairs)).startswith("read config.json linux.sysctl")


def test_paths_to_mask_and_to_protect_are_read() -> None:
    spec = read(linux(maskedPaths=["/proc/kcore", "/proc//kcore"], readonlyPaths=["/proc/sys/"]))
    assert (spec.masked_paths, spec.readonly_paths) == (("/proc/kcore",), ("/proc/sys",))


@pytest.mark.parametrize("name", ["maskedPaths", "readonlyPaths"])
def test_a_relative_path_is_neither_masked_nor_protected(name: str) -> None:
    assert refused(f"{name}[1]", **{name: ["/a", "b"]}) == '"b" is not an absolute path'


def test_seccomp_is_kept_as_it_is() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}],
    }
    spec = read(linux(seccomp=profile))
    assert json.loads(spec.seccomp_profile) == profile
    assert spec.seccomp == "linux.seccomp"


def test_without_seccomp_there_is_no_filter() -> None:
    spec = read(linux())
    assert (spec.seccomp, spec.seccomp_profile) == ("unconfined", "")
    assert refused("seccomp", seccomp=[]) == "[] is not an object"


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("private", "private"),
        ("rslave", "slave"),
        ("shared", "shared"),
        ("runbindable", "unbindable"),
        ("", ""),
    ],
)
def test_the_propagation_of_the_root_is_read(word: str, kept: str) -> None:
    rootfs = read(linux(rootfsPropagation=word)).rootfs
    assert rootfs
    assert rootfs.propagation == kept


def test_another_propagation_is_refused() -> None:
    assert refused("rootfsPropagation", rootfsPropagation="rprivat").startswith('"rprivat" is not known')


@pytest.mark.parametrize(("domain", "number"), [("LINUX", 0), ("LINUX32", 8)])
def test_a_personality_is_read(domain: str, number: int) -> None:
    assert read(linux(personality={"domain": domain, "flags": []})).personality == number


@pytest.mark.parametrize(
    ("personality", "path"),
    [
        ({}, "domain"),
        ({"domain": "BSD"}, "domain"),
        ({"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}, "flags[0]"),
    ],
)
def test_a_bad_personality_is_refused(personality: Any, path: str) -> None:
    refused(f"personality.{path}", personality=personality)


def test_a_memory_policy_is_read() -> None:
    policy = {"mode": "MPOL_INTERLEAVE", "nodes": "0-1, 3", "flags": ["MPOL_F_RELATIVE_NODES"]}
    assert read(linux(memoryPolicy=policy)).memory_policy == MemoryPolicy(
        mode="MPOL_INTERLEAVE", nodes="0-1,3", flags=("MPOL_F_RELATIVE_NODES",)
    )
    assert read(linux(memoryPolicy={"mode": "MPOL_PREFERRED"})).memory_policy


@pytest.mark.parametrize(
    ("policy", "path"),
    [
        ({}, "mode"),
        ({"mode": "MPOL_RANDOM"}, "mode"),
        ({"mode": "MPOL_BIND"}, "nodes"),
        ({"mode": "MPOL_LOCAL", "nodes": "0"}, "nodes"),
        ({"mode": "MPOL_BIND", "nodes": "x"}, "nodes"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_SOFT"]}, "flags[0]"),
    ],
)
def test_a_bad_memory_policy_is_refused(policy: Any, path: str) -> None:
    refused(f"memoryPolicy.{path}", memoryPolicy=policy)


def test_what_gocker_does_not_have_is_refused_by_name() -> None:
    assert refused("intelRdt", intelRdt={}).startswith("gocker has no Intel RDT")
    assert refused("netDevices", netDevices={"eth0": {}}).startswith("gocker does not move network devices")
    assert read_all(linux(intelRdt=None, netDevices={})) == (read(linux()), ())


def test_the_label_of_mounts_is_read() -> None:
    assert read(linux(mountLabel="system_u:object_r:x_t:s0")).mount_label == "system_u:object_r:x_t:s0"


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({}, "is missing: invalid memory policy mode"),
        ({"mode": "INTERLEAVE"}, "invalid memory policy mode"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["badflag"]}, "invalid memory policy flag"),
        ({"mode": "MPOL_BIND", "nodes": "x"}, "invalid memory policy node"),
    ],
)
def test_a_memory_policy_that_is_none_is_told_in_runc_s_words(policy: dict[str, Any], words: str) -> None:
    assert words in refusal(linux(memoryPolicy=policy))
