"""The file-system steps of a spec, in order, without touching anything."""

from __future__ import annotations

from typing import Any

import pytest
from mounting import all_mounts

from gocker.defaults import MASKED_PATHS, READONLY_PATHS
from gocker.errors import UsageError
from gocker.model import ContainerSpec, Device, IdMap, Mount, NamespaceRequest, Rootfs
from gocker.plan import Step
from gocker.rootplan import CgroupRows, file_system_steps, layer_steps
from gocker.steps.cgroupfs import MountCgroups
from gocker.steps.devices import MakeDevices
from gocker.steps.idmap import MapLayers
from gocker.steps.mounts import MountEtc, MountFs, OpenSource
from gocker.steps.rootfs import BindRoot, OverlayRoot, PivotRoot

PRIVATE = tuple(NamespaceRequest(kind=kind) for kind in ("mount", "pid", "ipc", "uts", "network", "cgroup"))
V1 = (("memory", "cgroup", ("memory",), "/cg/memory/gocker/c"),)
V2 = (("", "cgroup2", (), "/cg/gocker/c"),)
MAP = (IdMap(inside=0, outside=100000, count=65536),)
LINES = ((0, 100000, 65536),)
CGROUP_OPTIONS = ("nosuid", "nodev", "noexec")


def spec(**changes: Any) -> ContainerSpec:
    """As `gocker run` makes one; the mounts in `changes` come after the default ones."""
    values: dict[str, Any] = {
        "id": "c",
        "name": "c",
        "argv": ("/bin/true",),
        "rootfs": Rootfs(lower="/image"),
        "namespaces": PRIVATE,
        "etc": True,
        "masked_paths": MASKED_PATHS,
        "readonly_paths": READONLY_PATHS,
        **changes,
    }
    values["mounts"] = all_mounts(
        values["namespaces"],
        changes.get("mounts", ()),
        gid_map=changes.get("gid_map", ()),
        privileged=changes.get("privileged", False),
    )
    return ContainerSpec(**values)


def without(*kinds: str) -> tuple[NamespaceRequest, ...]:
    return tuple(request for request in PRIVATE if request.kind not in kinds)


def plan(cgroups: CgroupRows = (), **changes: Any) -> tuple[Step, ...]:
    return file_system_steps(spec(**changes), "/data/containers/c", cgroups)


def names(steps: tuple[Step, ...]) -> list[str]:
    return [f"{step.op} {getattr(step, 'target', '')}".strip() for step in steps]


def filesystem(steps: tuple[Step, ...], target: str) -> MountFs | None:
    found = [step for step in steps if isinstance(step, MountFs) and step.target == target]
    return found[0] if found else None


def test_a_plain_container_gets_these_steps_in_this_order() -> None:
    assert names(plan()) == [
        "propagation",
        "overlay-root",
        "mount-fs /proc",
        "mount-fs /sys",
        "mount-fs /dev",
        "make-devices",
        "attach-null",
        "mount-fs /dev/pts",
        "mount-fs /dev/shm",
        "mount-fs /dev/mqueue",
        "mount-etc",
        "mask-paths",
        "readonly-paths",
        "pivot-root",
    ]


def test_everything_at_once_keeps_the_order() -> None:
    mounts = (
        Mount(kind="tmpfs", target="/tmp"),
        Mount(kind="bind", source="/s", target="/etc"),
        Mount(kind="bind", source="/s", target="/deep/a"),
        Mount(kind="bind", source="/s", target="/deep/a/b", options=("rslave",)),
        Mount(kind="bind", source="/s", target="/etc/hosts"),
        Mount(kind="bind", source="/s", target="/last"),
    )
    steps = plan(V1, mounts=mounts, terminal=True, rootfs=Rootfs(lower="/image", readonly=True))
    assert names(steps) == [
        "open-source /deep/a/b",
        "propagation",
        "overlay-root",
        "mount-fs /proc",
        "mount-fs /sys",
        "mount-cgroups /sys/fs/cgroup",
        "mount-fs /dev",
        "make-devices",
        "mount-fs /dev/pts",
        "mount-fs /dev/shm",
        "mount-fs /dev/mqueue",
        "mount-fs /tmp",
        "bind-mount /etc",
        "bind-mount /deep/a",
        "bind-mount /deep/a/b",
        "mount-etc",
        "bind-mount /etc/hosts",
        "bind-mount /last",
        "open-console",
        "mask-paths",
        "readonly-paths",
        "root-readonly",
        "pivot-root",
    ]


def test_the_hosts_mount_table_is_left_alone() -> None:
    assert plan(rootfs=None, namespaces=without("mount")) == ()


def test_a_read_only_lower_gets_an_overlay_of_the_containers_own() -> None:
    (root,) = [step for step in plan() if isinstance(step, OverlayRoot)]
    assert root == OverlayRoot(
        lower=("/image",),
        upper="/data/containers/c/upper",
        work="/data/containers/c/work",
    )


def test_a_writable_root_is_bound() -> None:
    (root,) = [
        step for step in plan(rootfs=Rootfs(lower="/image", writable=True)) if isinstance(step, BindRoot)
    ]
    assert root == BindRoot(path="/image")


def test_device_files_of_the_root_work_where_the_spec_says_so() -> None:
    (root,) = [
        step for step in plan(rootfs=Rootfs(lower="/image", nodev=False)) if isinstance(step, OverlayRoot)
    ]
    assert not root.nodev
    bound = Rootfs(lower="/image", writable=True, nodev=False)
    assert BindRoot(path="/image", nodev=False) in plan(rootfs=bound)


def test_the_root_ends_with_the_propagation_that_was_asked_for() -> None:
    assert plan()[-1] == PivotRoot()
    assert plan(rootfs=Rootfs(lower="/image", propagation="rshared"))[-1] == PivotRoot(propagation="rshared")


def test_sys_falls_back_to_the_hosts_only_where_the_kernel_cannot_make_one() -> None:
    user = NamespaceRequest(kind="user")
    cases = {
        "": (
            plan(),
            plan(namespaces=without("network")),
            plan(namespaces=(*PRIVATE, user), uid_map=MAP, gid_map=MAP),
        ),
        "/sys": (plan(namespaces=(*without("network"), user), uid_map=MAP, gid_map=MAP),),
    }
    for expected, plans in cases.items():
        for steps in plans:
            sys = filesystem(steps, "/sys")
            assert sys
            assert sys.bind == expected


def test_cgroups_are_shown_read_only_and_only_in_a_cgroup_namespace() -> None:
    for rows in (V1, V2):
        assert MountCgroups(rows=rows, options=(*CGROUP_OPTIONS, "ro")) in plan(rows)
        shared = plan(rows, namespaces=without("cgroup"))
        assert not any("cgroup" in name for name in names(shared))
        assert MountCgroups(rows=rows, options=(*CGROUP_OPTIONS, "rw")) in plan(rows, privileged=True)


def test_a_cgroup_mount_without_a_cgroup_namespace_is_a_bind_of_the_own_cgroup() -> None:
    mounts = (Mount(kind="cgroup", target="/cg/", options=("ro",)),)
    for mode in ("host", "path"):
        requests = (*without("cgroup"), NamespaceRequest(kind="cgroup", mode=mode, path="/proc/1/ns/cgroup"))
        steps = plan(V1, mounts=mounts, namespaces=requests)
        assert MountCgroups(rows=V1, target="/cg", options=("ro",), bind=True) in steps


def test_without_cgroups_of_its_own_a_container_sees_none() -> None:
    assert "mount-cgroups /sys/fs/cgroup" in names(plan(V1))
    assert not any("cgroup" in name for name in names(plan()))


def test_no_masks_no_steps_for_them() -> None:
    steps = names(plan(masked_paths=(), readonly_paths=()))
    assert "mask-paths" not in steps
    assert "readonly-paths" not in steps


def test_mounts_are_made_in_the_order_of_the_list() -> None:
    mounts = tuple(Mount(kind="tmpfs", target=target) for target in ("/a/b/c", "/a", "/a/b"))
    bare = spec().replace(mounts=mounts)
    steps = file_system_steps(bare, "/data/containers/c")
    assert [step.target for step in steps if isinstance(step, MountFs)] == ["/a/b/c", "/a", "/a/b"]


def test_a_file_system_of_any_kind_is_mounted_with_its_options_and_its_device() -> None:
    mounts = (
        Mount(kind="ext4", source="/dev/loop7", target="/disk", options=("ro", "errors=remount-ro")),
        Mount(kind="mqueue", source="mqueue", target="/queues"),
    )
    steps = plan(mounts=mounts)
    assert filesystem(steps, "/disk") == MountFs(
        fstype="ext4",
        target="/disk",
        options=("ro", "errors=remount-ro"),
        source="/dev/loop7",
        follow=True,
    )
    assert filesystem(steps, "/queues") == MountFs(
        fstype="mqueue", target="/queues", source="mqueue", follow=True
    )


@pytest.mark.parametrize(
    ("target", "follow"),
    [
        ("/proc", False),
        ("/sys", False),
        ("/dev", False),
        ("/dev/x/y", False),
        ("/developer", True),
        ("/t", True),
    ],
)
def test_links_on_the_way_are_followed_only_out_of_the_system_directories(target: str, follow: bool) -> None:
    kind = "proc" if target == "/proc" else "tmpfs"
    bare = spec().replace(mounts=(Mount(kind=kind, target=target),))
    found = filesystem(file_system_steps(bare, "/c"), target)
    assert found
    assert found.follow is follow


def test_devices_are_made_once_in_the_last_dev_that_is_no_bind_or_in_the_roots_own() -> None:
    fuse = Device(path="/dev/fuse", kind="c", major=10, minor=229, mode=0o600, uid=1, gid=2)
    made = MakeDevices(others=(("/dev/fuse", "c", 10, 229, 0o600, 1, 2),))
    steps = plan(devices=(fuse,))
    assert [step for step in steps if isinstance(step, MakeDevices)] == [made]
    bare = spec(devices=(fuse,)).replace(mounts=())
    without_dev = file_system_steps(bare, "/c")
    assert names(without_dev)[2:5] == ["mount-etc", "make-devices", "attach-null"]
    assert made in without_dev
    bound = plan(devices=(fuse,), mounts=(Mount(kind="bind", source="/dev", target="/dev"),))
    assert not any(isinstance(step, MakeDevices) for step in bound)


@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_stdin_is_never_the_hosts_null_device_whatever_dev_is(kind: str) -> None:
    mounts = (Mount(kind=kind, source="/dev", target="/dev"),)
    assert names(plan(mounts=mounts)).count("attach-null") == 1
    assert "attach-null" not in names(plan(mounts=mounts, interactive=True))


def test_without_etc_no_file_of_it_is_covered() -> None:
    steps = file_system_steps(spec(etc=False), "/c")
    assert "mount-etc" not in names(steps)
    mapped = spec(etc=False, namespaces=(*PRIVATE, NamespaceRequest(kind="user")), uid_map=MAP, gid_map=MAP)
    (layers,) = layer_steps(mapped, "/c")
    assert isinstance(layers, MapLayers)
    assert layers.etc == ()


def test_a_bound_etc_lies_below_the_containers_own_files() -> None:
    steps = names(plan(mounts=(Mount(kind="bind", source="/s", target="/etc"),)))
    assert steps.index("bind-mount /etc") < steps.index("mount-etc")


def test_a_bound_etc_file_replaces_the_containers_own() -> None:
    steps = plan(mounts=(Mount(kind="bind", source="/s", target="/etc/hosts"),))
    (etc,) = [step for step in steps if isinstance(step, MountEtc)]
    assert etc.names == ("hostname", "resolv.conf")


def test_etc_files_are_read_only_with_a_read_only_root() -> None:
    for readonly in (False, True):
        (etc,) = [s for s in plan(rootfs=Rootfs(lower="/i", readonly=readonly)) if isinstance(s, MountEtc)]
        assert etc.readonly is readonly
        assert etc.directory == "/data/containers/c/etc"


@pytest.mark.parametrize(
    ("target", "gone"),
    [
        ("/dev/shm", ["mount-fs /dev/shm"]),
        ("/dev/mqueue", ["mount-fs /dev/mqueue"]),
        ("/sys/fs/cgroup", ["mount-cgroups /sys/fs/cgroup"]),
        ("/sys", ["mount-fs /sys", "mount-cgroups /sys/fs/cgroup"]),
        (
            "/dev",
            [
                "mount-fs /dev",
                "make-devices",
                "mount-fs /dev/pts",
                "mount-fs /dev/shm",
                "mount-fs /dev/mqueue",
            ],
        ),
    ],
)
def test_a_users_mount_replaces_the_default_at_its_place(target: str, gone: list[str]) -> None:
    usual = names(plan(V1))
    steps = names(plan(V1, mounts=(Mount(kind="bind", source="/s", target=target),)))
    assert [name for name in usual if name not in steps] == gone
    assert f"bind-mount {target}" in steps


def test_a_bind_that_keeps_its_propagation_is_opened_first() -> None:
    mounts = (
        Mount(kind="bind", source="/s", target="/slave", options=("rslave",)),
        Mount(kind="bind", source="/s", target="/flat", options=("bind", "shared")),
        Mount(kind="bind", source="/s", target="/private", options=("rprivate",)),
        Mount(kind="bind", source="/s", target="/usual"),
    )
    steps = plan(mounts=mounts)
    assert steps[:2] == (
        OpenSource(source="/s", target="/slave", recursive=True),
        OpenSource(source="/s", target="/flat", recursive=False),
    )
    assert not any(isinstance(step, OpenSource) for step in steps[2:])


@pytest.mark.parametrize("target", ["/a//b/", "//a/b", "/a/./b", "/a/x/../b", "/../a/b"])
def test_targets_are_plain_paths(target: str) -> None:
    assert "mount-fs /a/b" in names(plan(mounts=(Mount(kind="tmpfs", target=target),)))
    early = plan(mounts=(Mount(kind="bind", source="/s", target=target, options=("rslave",)),))[0]
    assert early == OpenSource(source="/s", target="/a/b")


@pytest.mark.parametrize(
    ("mounts", "reason"),
    [
        ((Mount(kind="tmpfs", target="relative"),), "not an absolute path"),
        ((Mount(kind="tmpfs", target="/a\0b"),), "not an absolute path"),
        ((Mount(kind="tmpfs", target=""),), "not an absolute path"),
        ((Mount(kind="tmpfs", target="/proc"),), "/proc must stay"),
        ((Mount(kind="tmpfs", target="/x/../proc/sys"),), "/proc must stay"),
        ((Mount(kind="proc", target="/proc/1"),), "/proc must stay"),
        ((Mount(kind="cgroup", target="/proc"),), "/proc must stay"),
        (
            (Mount(kind="bind", source="/s", target="/v", options=("size=1m",)),),
            "bind mount has no option size=1m",
        ),
    ],
)
def test_mounts_that_make_no_sense_are_refused(mounts: tuple[Mount, ...], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        plan(V1, mounts=mounts)


def test_only_a_user_namespace_or_mapped_ids_need_host_steps() -> None:
    assert layer_steps(spec(), "/c") == ()
    assert layer_steps(spec(rootfs=None), "/c") == ()
    plain = Mount(kind="bind", source="/s", target="/b", options=("rslave",))
    assert layer_steps(spec(mounts=(plain,)), "/c") == ()


@pytest.mark.parametrize(("words", "everywhere"), [((), False), (("idmap",), False), (("ridmap",), True)])
def test_a_bind_with_mapped_ids_is_opened_on_the_host(words: tuple[str, ...], everywhere: bool) -> None:
    own = (IdMap(inside=0, outside=7, count=1),)
    mount = Mount(
        kind="bind", source="/s", target="/b/", options=(*words, "rslave"), uid_map=own, gid_map=own
    )
    container = spec(mounts=(mount,))
    opened = OpenSource(
        source="/s", target="/b", uid_map=((0, 7, 1),), gid_map=((0, 7, 1),), map_all=everywhere
    )
    assert layer_steps(container, "/c") == (opened,)
    assert not any(isinstance(step, OpenSource) for step in file_system_steps(container, "/c"))


def test_the_word_alone_maps_the_ids_of_a_bind_as_the_containers_own() -> None:
    mount = Mount(kind="bind", source="/s", target="/b", options=("ridmap", "bind"))
    user = (*PRIVATE, NamespaceRequest(kind="user"))
    container = spec(mounts=(mount,), namespaces=user, uid_map=MAP, gid_map=MAP)
    _, opened = layer_steps(container, "/c")
    assert opened == OpenSource(
        source="/s", target="/b", recursive=False, uid_map=LINES, gid_map=LINES, map_all=True
    )


def test_a_user_namespace_has_its_layers_and_sources_opened_on_the_host() -> None:
    mounts = (
        Mount(kind="bind", source="/s", target="/b", options=("rslave",)),
        Mount(kind="tmpfs", target="/t"),
        Mount(kind="bind", source="/f", target="/flat", options=("bind",)),
    )
    user = (*PRIVATE, NamespaceRequest(kind="user"))
    mapped = spec(mounts=mounts, namespaces=user, uid_map=MAP, gid_map=MAP)
    assert layer_steps(mapped, "/c") == (
        MapLayers(
            lower="/image",
            container="/c",
            overlay=True,
            etc=("hosts", "hostname", "resolv.conf"),
            uid_map=LINES,
            gid_map=LINES,
        ),
        OpenSource(source="/s", target="/b", recursive=True),
        OpenSource(source="/f", target="/flat", recursive=False),
    )
    inside = file_system_steps(mapped, "/c")
    assert not any(isinstance(step, OpenSource) for step in inside)
    (root,) = [step for step in inside if isinstance(step, OverlayRoot)]
    assert root.userxattr


def test_a_joined_user_namespace_gives_its_own_maps() -> None:
    joined = NamespaceRequest(kind="user", mode="path", path="/proc/9/ns/user")
    writable = Rootfs(lower="/image", writable=True)
    (layers,) = layer_steps(spec(namespaces=(*PRIVATE, joined), rootfs=writable), "/c")
    assert isinstance(layers, MapLayers)
    assert (layers.userns, layers.uid_map, layers.overlay) == ("/proc/9/ns/user", (), False)


def test_the_hosts_cgroups_are_covered_where_the_hosts_sys_has_to_do() -> None:
    user = (*without("network"), NamespaceRequest(kind="user"))
    cover = filesystem(plan(namespaces=user, uid_map=MAP, gid_map=MAP), "/sys/fs/cgroup")
    assert cover
    assert (cover.fstype, "ro" in cover.options) == ("tmpfs", True)
    assert filesystem(plan(), "/sys/fs/cgroup") is None
