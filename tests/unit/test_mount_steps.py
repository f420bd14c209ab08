"""Mount options, sysctl names, and how the file-system steps say themselves."""

from __future__ import annotations

import pytest

from gocker.errors import UsageError
from gocker.kernel import mount
from gocker.plan import Step, step_from_json
from gocker.steps.cgroupfs import MountCgroups
from gocker.steps.console import OpenConsole
from gocker.steps.devices import MakeDevices
from gocker.steps.idmap import MapLayers
from gocker.steps.masks import MaskPaths, ReadonlyPaths
from gocker.steps.mounts import BindMount, MountEtc, MountFs, OpenSource
from gocker.steps.namespaces import LinkUp, SetDomainname, SetHostname, Sysctl, sysctl_parts
from gocker.steps.options import ATTRIBUTES, RECURSIVE, MountOptions, sort_options
from gocker.steps.rootfs import BindRoot, OverlayRoot, PivotRoot, Propagation, RemountRootReadonly


def test_words_become_attributes_and_the_rest_is_the_file_systems() -> None:
    assert sort_options(("nosuid", "size=1m", "noexec", "ro", "mode=700")) == MountOptions(
        attributes=mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC | mount.MOUNT_ATTR_RDONLY,
        data=("size=1m", "mode=700"),
    )


@pytest.mark.parametrize(
    ("words", "attributes", "clear"),
    [
        (("ro", "rw"), 0, mount.MOUNT_ATTR_RDONLY),
        (("rw", "ro"), mount.MOUNT_ATTR_RDONLY, 0),
        (("nosuid", "suid"), 0, mount.MOUNT_ATTR_NOSUID),
        (("noatime",), mount.MOUNT_ATTR_NOATIME, mount.MOUNT_ATTR_ATIME),
        (("noatime", "strictatime"), mount.MOUNT_ATTR_STRICTATIME, mount.MOUNT_ATTR_ATIME),
        (("noatime", "relatime"), 0, mount.MOUNT_ATTR_ATIME),
        (("noatime", "atime"), 0, mount.MOUNT_ATTR_ATIME),
        (("nosymfollow", "symfollow"), 0, mount.MOUNT_ATTR_NOSYMFOLLOW),
        (("diratime", "nodiratime"), mount.MOUNT_ATTR_NODIRATIME, 0),
    ],
)
def test_the_later_of_two_words_wins(words: tuple[str, ...], attributes: int, clear: int) -> None:
    options = sort_options(words)
    assert (options.attributes, options.clear) == (attributes, clear)
    assert (options.deep_attributes, options.deep_clear) == (0, 0)
    deep = sort_options(tuple(f"r{word}" for word in words))
    assert (deep.deep_attributes, deep.deep_clear) == (attributes, clear)
    assert (deep.attributes, deep.clear) == (0, 0)


def test_a_word_says_nothing_of_the_mounts_below_and_one_with_r_says_the_same_of_all() -> None:
    options = sort_options(("ro", "rnosuid", "rw", "rnoexec", "rexec"))
    assert (options.attributes, options.clear) == (0, mount.MOUNT_ATTR_RDONLY)
    assert options.deep_attributes == mount.MOUNT_ATTR_NOSUID
    assert options.deep_clear == mount.MOUNT_ATTR_NOEXEC


def test_the_words_with_r_are_those_of_the_oci() -> None:
    assert set(RECURSIVE) == {
        *("rro", "rrw", "rnosuid", "rsuid", "rnodev", "rdev", "rnoexec", "rexec", "rnodiratime", "rdiratime"),
        *("rrelatime", "rnorelatime", "rnoatime", "ratime", "rstrictatime", "rnostrictatime"),
        *("rsymfollow", "rnosymfollow"),
    }
    assert not ATTRIBUTES.keys() & RECURSIVE.keys()


@pytest.mark.parametrize(
    ("words", "kind"), [((), ""), (("idmap",), "idmap"), (("idmap", "ridmap"), "ridmap")]
)
def test_mapped_ids_are_a_word_of_their_own(words: tuple[str, ...], kind: str) -> None:
    assert sort_options(words).idmap == kind
    assert sort_options(words).data == ()


def test_words_that_change_nothing_are_left_out() -> None:
    assert sort_options(("defaults", "async", "loud", "nolazytime")) == MountOptions()


def test_binds_are_recursive_unless_told_otherwise() -> None:
    assert sort_options(()).recursive
    assert sort_options(("rbind",)).recursive
    assert not sort_options(("bind",)).recursive


def test_propagation_words_are_kinds_of_mount_2() -> None:
    assert sort_options(("rslave",)).propagation == mount.MS_SLAVE | mount.MS_REC
    assert sort_options(("shared",)).propagation == mount.MS_SHARED
    assert sort_options(("nosuid",)).propagation == 0


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/100.forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("net/ipv4/conf/eth0.100/forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("kernel.msgmax", "kernel/msgmax"),
    ],
)
def test_sysctl_names_of_either_spelling_become_one_path(name: str, path: str) -> None:
    assert "/".join(sysctl_parts(name)) == path


@pytest.mark.parametrize(
    "name",
    [
        "",
        "kernel",
        "/",
        ".",
        "..",
        "net..ipv4",
        "net.",
        ".net",
        "/kernel/core_pattern",
        "net/../kernel/core_pattern",
        "net/./ipv4",
        "kernel.domainname/../core_pattern",
        "net.//.core_pattern",
        "net.ipv4./../../../kernel.core_pattern",
        "net.ipv4\0.x",
    ],
)
def test_sysctl_names_that_could_leave_their_place_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not the name of a sysctl"):
        sysctl_parts(name)


V1 = (("memory", "cgroup", ("memory",), "/m/g/c"), ("pids", "cgroup", ("pids",), "/p/g/c"))
STEPS: list[tuple[Step, str]] = [
    (Propagation(), "mount --make-rprivate /"),
    (
        OverlayRoot(lower=("/top", "/low"), upper="/u", work="/w"),
        "mount -t overlay -o lowerdir=/top:/low,upperdir=/u,workdir=/w,nodev,volatile overlay /",
    ),
    (BindRoot(path="/rootfs"), "mount --bind -o nodev /rootfs /"),
    (BindRoot(path="/rootfs", nodev=False), "mount --bind /rootfs /"),
    (RemountRootReadonly(), "mount -o remount,bind,ro /"),
    (PivotRoot(), "pivot_root . . && umount -l ."),
    (PivotRoot(propagation="rslave"), "pivot_root . . && umount -l . && mount --make-rslave /"),
    (
        MountFs(fstype="proc", target="/proc", options=("nosuid", "nodev")),
        "mount -t proc -o nosuid,nodev proc /proc",
    ),
    (
        OverlayRoot(lower=("/l",), upper="/u", work="/w", userxattr=True, nodev=False, volatile=False),
        "mount -t overlay -o lowerdir=/l,upperdir=/u,workdir=/w,userxattr overlay /",
    ),
    (
        MapLayers(lower="/l", container="/c", uid_map=((0, 100000, 65536),), gid_map=((0, 100000, 65536),)),
        "mount --bind -o X-mount.idmap=0:100000:65536 /l /c",
    ),
    (MountFs(fstype="mqueue", target="/dev/mqueue"), "mount -t mqueue mqueue /dev/mqueue"),
    (BindMount(source="/a", target="/b", options=("ro",)), "mount --rbind -o ro /a /b"),
    (BindMount(source="/a", target="/b", options=("bind",)), "mount --bind /a /b"),
    (BindMount(source="/a", target="/b", options=("rbind", "rro")), "mount --rbind -o rro /a /b"),
    (
        MountFs(fstype="tmpfs", target="/t", options=("size=1m",), follow=True),
        "mount -t tmpfs -o size=1m tmpfs /t",
    ),
    (MountFs(fstype="ext4", target="/d", source="/dev/loop7"), "mount -t ext4 /dev/loop7 /d"),
    (OpenSource(source="/a", target="/b"), "open_tree -R /a  # for /b"),
    (
        OpenSource(source="/a", target="/b", recursive=False, uid_map=((0, 7, 1),), gid_map=((0, 7, 1),)),
        "open_tree /a  # for /b, mapped 0:7:1",
    ),
    (MountEtc(directory="/c/etc", names=("hosts", "hostname")), "mount --bind /c/etc/{hosts,hostname} /etc/"),
    (
        MountCgroups(rows=V1, options=("ro",)),
        "mount -t cgroup -o ro cgroup /sys/fs/cgroup/{memory,pids}",
    ),
    (
        MountCgroups(rows=(("", "cgroup2", (), "/g/c"),), target="/cg"),
        "mount -t cgroup2 cgroup2 /cg",
    ),
    (
        MountCgroups(rows=V1, options=("ro",), bind=True),
        "mount --bind -o ro /m/g/c /p/g/c /sys/fs/cgroup/{memory,pids}",
    ),
    (
        MakeDevices(nodes=("null", "tty")),
        "mknod -m 666 /dev/{null,tty} c && ln -s -t /dev fd stdin stdout stderr ptmx core",
    ),
    (
        MakeDevices(
            nodes=("null",), others=(("/dev/a", "b", 7, 1, 0o640, 5, 6), ("/dev/q", "p", 0, 0, 0o600, 0, 0))
        ),
        "mknod -m 666 /dev/{null} c && ln -s -t /dev fd stdin stdout stderr ptmx core && mknod -m 640 /dev/a b 7 1 && mknod -m 600 /dev/q p",
    ),
    (MaskPaths(paths=("/proc/keys", "/sys/firmware")), "mask /proc/keys /sys/firmware"),
    (ReadonlyPaths(paths=("/proc/sys",)), "mount --bind -o ro /proc/sys"),
    (OpenConsole(), "open /dev/pts/ptmx && mount --bind /dev/pts/0 /dev/console"),
    (SetHostname(name="h"), "hostname h"),
    (SetDomainname(name="d"), "domainname d"),
    (LinkUp(name="lo"), "ip link set lo up"),
    (Sysctl(name="net.ipv4.ip_forward", value="1"), "sysctl -w net.ipv4.ip_forward=1"),
]


@pytest.mark.parametrize(("step", "line"), STEPS, ids=[step.op for step, _ in STEPS])
def test_a_step_says_itself_in_a_line_close_to_the_shell(step: Step, line: str) -> None:
    assert step.describe() == line


@pytest.mark.parametrize("step", [step for step, _ in STEPS], ids=[step.op for step, _ in STEPS])
def test_a_step_is_read_back_from_its_json(step: Step) -> None:
    assert step_from_json(step.to_json()) == step
