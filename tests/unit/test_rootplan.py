"""The file-system steps of a spec, in order, without touching anything."""

from __future__ import annotations

from typing import Any

import pytest

from gocker.errors import UsageError
from gocker.model import ContainerSpec, IdMap, Mount, NamespaceRequest, Rootfs
from gocker.plan import Step
from gocker.rootplan import file_system_steps, layer_steps
from gocker.steps.cgroupfs import MountCgroups
from gocker.steps.idmap import MapLayers
from gocker.steps.masks import MASKED_PATHS, READONLY_PATHS
from gocker.steps.mounts import BindMount, MountEtc, MountFs, OpenSource, TmpfsMount
from gocker.steps.rootfs import BindRoot, OverlayRoot

PRIVATE = tuple(NamespaceRequest(kind=kind) for kind in ("mount", "pid", "ipc", "uts", "network", "cgroup"))
V1 = (("memory", "cgroup", ("memory",)),)
V2 = (("", "cgroup2", ()),)
MAP = (IdMap(inside=0, outside=100000, count=65536),)


def spec(**changes: Any) -> ContainerSpec:
    values: dict[str, Any] = {
        "id": "c",
        "name": "c",
        "argv": ("/bin/true",),
        "rootfs": Rootfs(lower="/image"),
        "namespaces": PRIVATE,
        "masked_paths": MASKED_PATHS,
        "readonly_paths": READONLY_PATHS,
    }
    return ContainerSpec(**{**values, **changes})


def without(*kinds: str) -> tuple[NamespaceRequest, ...]:
    return tuple(request for request in PRIVATE if request.kind not in kinds)


def plan(cgroups: tuple[tuple[str, str, tuple[str, ...]], ...] = (), **changes: Any) -> tuple[Step, ...]:
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
        "mount-fs /dev/pts",
        "mount-fs /dev/shm",
        "mount-fs /dev/mqueue",
        "attach-null",
        "mount-etc",
        "mask-paths",
        "readonly-paths",
        "pivot-root",
    ]


def test_everything_at_once_keeps_the_order() -> None:
    mounts = (
        Mount(kind="bind", source="/s", target="/deep/a/b", options=("rslave",)),
        Mount(kind="tmpfs", target="/tmp"),
        Mount(kind="bind", source="/s", target="/deep/a"),
    )
    steps = plan(V1, mounts=mounts, terminal=True, rootfs=Rootfs(lower="/image", readonly=True))
    assert names(steps) == [
        "open-source /deep/a/b",
        "propagation",
        "overlay-root",
        "mount-fs /proc",
        "mount-fs /sys",
        "mount-cgroups",
        "mount-fs /dev",
        "make-devices",
        "mount-fs /dev/pts",
        "mount-fs /dev/shm",
        "mount-fs /dev/mqueue",
        "tmpfs-mount /tmp",
        "mount-etc",
        "bind-mount /deep/a",
        "bind-mount /deep/a/b",
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


def test_the_terminals_group_is_named_only_where_it_is_mapped() -> None:
    user = (*PRIVATE, NamespaceRequest(kind="user"))

    def options(**changes: Any) -> tuple[str, ...]:
        pts = filesystem(plan(**changes), "/dev/pts")
        assert pts
        return pts.options

    assert "gid=5" in options()
    assert "gid=5" in options(namespaces=user, uid_map=MAP, gid_map=MAP)
    one = (IdMap(inside=0, outside=1000, count=1),)
    assert "gid=5" not in options(namespaces=user, uid_map=one, gid_map=one)
    assert {"newinstance", "ptmxmode=0666", "mode=0620", "nosuid", "noexec"} <= set(options())


def test_shm_has_the_size_that_was_asked_for() -> None:
    shm = filesystem(plan(shm_size=1234), "/dev/shm")
    assert shm
    assert "size=1234" in shm.options
    assert "mode=1777" in shm.options


def test_the_hosts_ipc_brings_the_hosts_shm() -> None:
    steps = plan(namespaces=without("ipc"))
    assert filesystem(steps, "/dev/shm") is None
    assert BindMount(source="/dev/shm", target="/dev/shm", options=("nosuid", "nodev", "noexec")) in steps


def test_sys_is_read_only_unless_privileged() -> None:
    for privileged, word in ((False, "ro"), (True, "rw")):
        sys = filesystem(plan(privileged=privileged), "/sys")
        assert sys
        assert word in sys.options


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
    assert MountCgroups(rows=V1, readonly=True) in plan(V1)
    v2 = filesystem(plan(V2), "/sys/fs/cgroup")
    assert v2
    assert (v2.fstype, "ro" in v2.options) == ("cgroup2", True)
    for rows in (V1, V2):
        shared = plan(rows, namespaces=without("cgroup"))
        assert not any("cgroup" in name for name in names(shared))
    assert MountCgroups(rows=V1, readonly=False) in plan(V1, privileged=True)


def test_no_masks_no_steps_for_them() -> None:
    steps = names(plan(masked_paths=(), readonly_paths=()))
    assert "mask-paths" not in steps
    assert "readonly-paths" not in steps


def test_parents_are_mounted_before_what_lies_in_them() -> None:
    mounts = tuple(Mount(kind="tmpfs", target=target) for target in ("/a/b/c", "/a", "/a/b"))
    assert [step.target for step in plan(mounts=mounts) if isinstance(step, TmpfsMount)] == [
        "/a",
        "/a/b",
        "/a/b/c",
    ]


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
        ("/sys/fs/cgroup", ["mount-cgroups"]),
        ("/sys", ["mount-fs /sys", "mount-cgroups"]),
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


def test_tmpfs_mounts_are_hardened_unless_a_word_says_otherwise() -> None:
    def options(*words: str) -> tuple[str, ...]:
        (step,) = [
            s
            for s in plan(mounts=(Mount(kind="tmpfs", target="/t", options=words),))
            if isinstance(s, TmpfsMount)
        ]
        return step.options

    assert options() == ("nosuid", "nodev", "noexec")
    assert options("exec", "size=1m") == ("nosuid", "nodev", "exec", "size=1m")


def test_read_only_mounts_are_read_only_whatever_their_options_say() -> None:
    mounts = (
        Mount(kind="bind", source="/s", target="/b", options=("rw",), readonly=True),
        Mount(kind="tmpfs", target="/t", readonly=True),
    )
    for step in plan(mounts=mounts):
        if isinstance(step, BindMount | TmpfsMount):
            assert step.options[-1] == "ro"


@pytest.mark.parametrize("target", ["/a//b/", "//a/b", "/a/./b", "/a/x/../b", "/../a/b"])
def test_targets_are_plain_paths(target: str) -> None:
    assert "tmpfs-mount /a/b" in names(plan(mounts=(Mount(kind="tmpfs", target=target),)))


@pytest.mark.parametrize(
    ("mounts", "reason"),
    [
        ((Mount(kind="tmpfs", target="relative"),), "not an absolute path"),
        ((Mount(kind="tmpfs", target="/a\0b"),), "not an absolute path"),
        ((Mount(kind="tmpfs", target="/"),), "the root itself"),
        ((Mount(kind="tmpfs", target="//"),), "the root itself"),
        ((Mount(kind="tmpfs", target="/a/.."),), "the root itself"),
        ((Mount(kind="tmpfs", target="/proc"),), "/proc must stay"),
        ((Mount(kind="bind", source="/s", target="/x/../proc/sys"),), "/proc must stay"),
        ((Mount(kind="tmpfs", target="/dev/pts"),), "terminals"),
        ((Mount(kind="volume", target="/v"),), "not a kind of mount"),
        ((Mount(kind="bind", source="/s", target="/v", options=("size=1m",)),), "bind has no option size=1m"),
        ((Mount(kind="tmpfs", target="/v", options=("colour=red",)),), "tmpfs has no option colour=red"),
        ((Mount(kind="tmpfs", target="/v"), Mount(kind="bind", source="/s", target="/v/")), "twice"),
    ],
)
def test_mounts_that_make_no_sense_are_refused(mounts: tuple[Mount, ...], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        plan(mounts=mounts)


def test_dev_cannot_be_replaced_when_there_is_a_terminal() -> None:
    mounts = (Mount(kind="bind", source="/dev", target="/dev"),)
    with pytest.raises(UsageError, match="terminals"):
        plan(mounts=mounts, terminal=True)


def test_only_a_user_namespace_needs_host_steps() -> None:
    assert layer_steps(spec(), "/c") == ()
    assert layer_steps(spec(rootfs=None), "/c") == ()


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
            uid_map=((0, 100000, 65536),),
            gid_map=((0, 100000, 65536),),
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
