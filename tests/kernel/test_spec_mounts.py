"""Mounts, devices and propagation that a container spec may ask for and `gocker run` does not."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from inside import Failed, Sandbox, run
from mounting import mounts_of

from gocker.errors import GockerError
from gocker.model import Device, IdMap, Mount, NamespaceRequest, Rootfs
from gocker.plan import Context, Step
from gocker.rootplan import CgroupRows, file_system_steps, layer_steps
from gocker.steps.devices import NODES
from gocker.steps.launch import UnshareCgroup
from gocker.steps.mounts import OpenSource
from gocker.steps.namespaces import Sysctl

IDS = (IdMap(inside=0, outside=5000, count=100),)
USER = (IdMap(inside=0, outside=100000, count=65536),)
BELIEFS = (
    *("cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps", "uptime"),
    *("sys/crypto/fips_enabled", "sys/kernel/ns_last_pid"),
)
V1 = os.path.isdir("/sys/fs/cgroup/memory")


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with tempfile.TemporaryDirectory(prefix="gocker-root-", dir="/dev/shm") as base:
        os.chmod(base, 0o755)
        yield Sandbox(base)


@pytest.fixture
def source(box: Sandbox) -> Iterator[str]:
    """A host directory with a file, and a tmpfs mounted below it that has one too; both mounts are shared."""
    top = f"{box.base}/source"
    os.mkdir(top)
    subprocess.run(["mount", "--bind", top, top], check=True)
    subprocess.run(["mount", "--make-shared", top], check=True)
    os.mkdir(f"{top}/sub")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=777", "none", f"{top}/sub"], check=True)
    subprocess.run(["mount", "--make-shared", f"{top}/sub"], check=True)
    for path in (f"{top}/file", f"{top}/sub/file"):
        with open(path, "w") as file:
            file.write("from the host\n")
    yield top
    subprocess.run(["umount", "--recursive", top], check=True)


def inside(box: Sandbox, script: str, *before: Step, cgroups: CgroupRows = (), **changes: Any) -> str:
    """What `script` says after all steps of the spec, those on the host too."""
    return started(box, script, box.spec(**changes), *before, cgroups=cgroups)


def started(box: Sandbox, script: str, spec: Any, *before: Step, cgroups: CgroupRows = ()) -> str:
    ctx = Context(spec)
    maps = (spec.uid_map, spec.gid_map) if spec.uid_map else None
    try:
        for step in layer_steps(spec, box.container):
            step.execute(ctx)
        steps = (*before, *file_system_steps(spec, box.container, cgroups))
        without = tuple(kind for kind in ("network", "ipc") if spec.namespace(kind).mode == "host")
        return run(steps, script, without=without, maps=maps, ctx=ctx)
    finally:
        for fd in ctx.fds.values():
            os.close(fd)


def bind(source: str, target: str, *options: str, **maps: tuple[IdMap, ...]) -> Mount:
    return Mount(kind="bind", source=source, target=target, options=options, **maps)


def user(box: Sandbox, *without: str) -> dict[str, Any]:
    """The changes of a spec that make a user namespace."""
    requests = tuple(r for r in box.spec().namespaces if r.kind not in without)
    return {"namespaces": (*requests, NamespaceRequest(kind="user")), "uid_map": USER, "gid_map": USER}


def peers(text: str, target: str) -> set[str]:
    """`shared`, `master`: how the mount at `target` propagates, by mountinfo."""
    (fields,) = [line.split() for line in text.splitlines() if line.split()[4:5] == [target]]
    return {field.partition(":")[0] for field in fields[6 : fields.index("-")]}


class TestMappedIds:
    SCRIPT = "stat -c %u:%g /data/file /data/sub/file"

    @pytest.mark.parametrize(
        ("options", "below"), [((), "0:0"), (("idmap",), "0:0"), (("ridmap",), "5000:5000")]
    )
    def test_the_ids_of_a_bind_are_mapped_at_its_top_or_below_too(
        self, box: Sandbox, source: str, options: tuple[str, ...], below: str
    ) -> None:
        mount = bind(source, "/data", *options, uid_map=IDS, gid_map=IDS)
        assert inside(box, self.SCRIPT, mounts=(mount,)).split() == ["5000:5000", below]
        status = os.stat(f"{source}/file")
        assert (status.st_uid, status.st_gid) == (0, 0)

    def test_ids_that_are_not_mapped_belong_to_nobody(self, box: Sandbox, source: str) -> None:
        os.chown(f"{source}/file", 100, 99)
        mount = bind(source, "/data", "bind", uid_map=IDS, gid_map=IDS)
        assert inside(box, "stat -c %u:%g /data/file", mounts=(mount,)) == "65534:5099\n"

    def test_in_a_user_namespace_root_inside_owns_what_root_owns(self, box: Sandbox, source: str) -> None:
        script = f"{self.SCRIPT}; echo x > /data/new"
        mount = bind(source, "/data", "ridmap")
        assert inside(box, script, mounts=(mount,), **user(box)).split() == ["0:0", "0:0"]
        assert os.stat(f"{source}/new").st_uid == 0

    def test_a_file_system_that_cannot_is_named(self) -> None:
        ctx = Context(None)
        step = OpenSource(source="/proc", target="/data", uid_map=((0, 1, 1),), gid_map=((0, 1, 1),))
        with pytest.raises(GockerError, match="map the ids of /proc: EINVAL"):
            step.execute(ctx)
        for fd in ctx.fds.values():
            os.close(fd)


class TestProc:
    def test_only_a_procfs_may_be_bound_there(self, box: Sandbox, source: str) -> None:
        for other in (source, f"{source}/file", "/sys", "/proc/uptime", "/proc/sys"):
            spec = box.spec().replace(mounts=(bind(other, "/proc"),))
            with pytest.raises(Failed, match="mount on /proc: only a procfs may be there") as caught:
                started(box, "true", spec)
            assert caught.value.op == "bind-mount"
            box.renew()

    def test_the_hosts_procfs_is_masked_as_the_own_would_be(self, box: Sandbox) -> None:
        mounts = tuple(m for m in box.spec().mounts if m.target != "/proc")
        spec = box.spec().replace(mounts=(bind("/proc", "/proc"), *mounts))
        script = "cat /proc/keys; cat /proc/1/comm; echo 1 > /proc/sys/net/ipv4/ip_forward; ls /proc/scsi"
        before = Sysctl(name="net.ipv4.ip_forward", value="0")  # has made the own one, which is not used
        with open("/proc/1/comm") as file:
            first = file.read()
        output = started(box, script, spec, before)
        assert output.splitlines()[0] == first.strip()
        assert "ip_forward: Read-only file system" in output

    @pytest.mark.parametrize("path", BELIEFS)
    def test_a_file_that_describes_the_machine_may_be_bound(
        self, box: Sandbox, source: str, path: str
    ) -> None:
        if not os.path.exists(f"/proc/{path}"):
            pytest.skip(f"this kernel has no /proc/{path}")
        mount = bind(f"{source}/file", f"/proc/{path}", "ro")
        script = f"cat /proc/{path}; echo x > /proc/{path}"
        output = inside(box, script, mounts=(mount,))
        assert output.startswith("from the host\n")
        assert "Read-only file system" in output

    @pytest.mark.parametrize(
        "path", ["version", "keys", "self/environ", "1/status", "net/dev", "sys", "sys/kernel/core_pattern", "new"]
    )  # fmt: skip
    def test_nothing_else_in_it_may(self, box: Sandbox, source: str, path: str) -> None:
        with pytest.raises(Failed, match=r"it is in /proc, which must stay the container's own"):
            inside(box, "true", mounts=(bind(f"{source}/file", f"/proc/{path}"),))

    def test_a_directory_is_not_bound_on_such_a_file(self, box: Sandbox, source: str) -> None:
        with pytest.raises(Failed, match="it is in /proc"):
            inside(box, "true", mounts=(bind(source, "/proc/uptime"),))


def device(path: str, kind: str, major: int = 0, minor: int = 0, **values: int) -> Device:
    return Device(path=path, kind=kind, major=major, minor=minor, **values)


class TestDevices:
    def test_each_kind_has_its_numbers_its_mode_and_its_owner(self, box: Sandbox) -> None:
        devices = (
            device("/dev/disk/by-name/one", "b", 7, 5, mode=0o640, uid=5, gid=6),
            device("/dev/char", "c", 10, 229, mode=0o4711 & 0o777),
            device("/dev/unbuffered", "u", 1, 9, mode=0o604),
            device("/dev/pipe", "p", mode=0o622, uid=7),
            device("/nodes/deep/null", "c", 1, 3),
        )
        output = inside(
            box,
            f"stat -c '%n %F %t:%T %a %u:%g' {' '.join(one.path for one in devices)}",
            devices=devices,
        )
        assert output.splitlines() == [
            "/dev/disk/by-name/one block special file 7:5 640 5:6",
            "/dev/char character special file a:e5 711 0:0",
            "/dev/unbuffered character special file 1:9 604 0:0",
            "/dev/pipe fifo 0:0 622 7:0",
            "/nodes/deep/null character special file 1:3 666 0:0",
        ]

    def test_one_that_is_there_is_left_as_it_is(self, box: Sandbox) -> None:
        os.mkdir(f"{box.rootfs}/dev")
        for name, number in NODES.items():
            os.mknod(f"{box.rootfs}/dev/{name}", stat.S_IFCHR | 0o600, os.makedev(*number))
        os.mkfifo(f"{box.rootfs}/dev/pipe", 0o600)
        devices = (device("/dev/null", "c", 1, 3, uid=5), device("/dev/pipe", "p", uid=5))
        spec = box.spec(devices=devices, rootfs=Rootfs(lower=box.rootfs, nodev=False)).replace(mounts=())
        script = "stat -c '%a %u' /dev/null /dev/pipe; echo x > /dev/null && echo works"
        assert started(box, script, spec.replace(masked_paths=(), readonly_paths=())).splitlines() == [
            *("600 0", "600 0", "works")
        ]

    @pytest.mark.parametrize(
        ("wanted", "reason"),
        [
            (device("/dev/there", "c", 1, 3), "not character device 1:3"),
            (device("/dev/there", "b", 1, 5), "not block device 1:5"),
            (device("/dev/there", "p"), "something else is there"),
            (device("/dev/file", "c", 1, 3), "not character device 1:3"),
            (device("/dev/link", "c", 1, 3), "not character device 1:3"),
        ],
    )
    def test_another_thing_in_its_place_is_an_error(self, box: Sandbox, wanted: Device, reason: str) -> None:
        os.mkdir(f"{box.rootfs}/dev")
        os.mknod(f"{box.rootfs}/dev/there", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        os.mknod(f"{box.rootfs}/dev/real", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.symlink("real", f"{box.rootfs}/dev/link")
        with open(f"{box.rootfs}/dev/file", "w"):
            pass
        spec = box.spec(devices=(wanted,)).replace(mounts=())
        with pytest.raises(Failed, match=f"make device {wanted.path}: .*{reason}") as caught:
            started(box, "true", spec)
        assert caught.value.op == "make-devices"

    def test_a_user_namespace_gets_the_hosts_own_which_keeps_its_owner(self, box: Sandbox) -> None:
        devices = (device("/dev/fuse", "c", 10, 229, uid=5, gid=6), device("/dev/pipe", "p", uid=7))
        if not os.path.exists("/dev/fuse"):
            pytest.skip("this host has no /dev/fuse")
        before = os.stat("/dev/fuse")
        script = "stat -c '%F %t:%T' /dev/fuse; stat -c '%F %u' /dev/pipe"
        output = inside(box, script, devices=devices, **user(box))
        assert output.splitlines() == ["character special file a:e5", "fifo 7"]
        after = os.stat("/dev/fuse")
        assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)

    def test_a_user_namespace_is_not_given_another_device_of_that_name(self, box: Sandbox) -> None:
        wanted = device("/dev/kmsg", "c", 1, 2)
        if not os.path.exists("/dev/kmsg"):
            pytest.skip("this host has no /dev/kmsg")
        with pytest.raises(Failed, match=r"make device /dev/kmsg: .*not character device 1:2"):
            inside(box, "true", devices=(wanted,), **user(box))


@pytest.fixture
def own_cgroups() -> Iterator[CgroupRows]:
    """Cgroups as a container has them, with one below: (directory, type, options, path)."""
    name = f"gocker-test-{os.getpid()}"
    rows: CgroupRows = (("", "cgroup2", (), f"/sys/fs/cgroup/{name}"),)
    if V1:
        rows = tuple(
            (kind, "cgroup", (kind,), f"/sys/fs/cgroup/{kind}/{name}") for kind in ("memory", "pids")
        )
    paths = [path for row in rows for path in (row[3], f"{row[3]}/child")]
    for path in paths:
        os.mkdir(path)
    yield rows
    for path in reversed(paths):
        os.rmdir(path)


class TestCgroups:
    @pytest.mark.parametrize("mapped", [False, True])
    def test_without_a_namespace_of_its_own_a_container_sees_its_own_cgroup_alone(
        self, box: Sandbox, own_cgroups: CgroupRows, mapped: bool
    ) -> None:
        changes = user(box, "cgroup") if mapped else {}
        namespaces = changes.pop("namespaces", box.spec().namespaces)
        asked = Mount(kind="cgroup", target="/sys/fs/cgroup", options=("ro", "nosuid", "nodev", "noexec"))
        output = inside(
            box,
            "for row in /sys/fs/cgroup /sys/fs/cgroup/pids; do ls -d $row/child; touch $row/x; done; cat /proc/self/mountinfo",
            cgroups=own_cgroups,
            namespaces=tuple(request for request in namespaces if request.kind != "cgroup"),
            mounts=(asked,),
            **changes,
        )
        assert "child" in output
        mounts = mounts_of("\n".join(line for line in output.splitlines() if " - " in line))
        tops = {f"/sys/fs/cgroup/{row[0]}".rstrip("/") for row in own_cgroups}
        shown = {path for path in mounts if path.startswith("/sys/fs/cgroup")}
        assert shown == {"/sys/fs/cgroup", *tops}
        for row, top in zip(own_cgroups, sorted(tops), strict=True):
            assert {"ro", "nosuid", "nodev", "noexec"} <= mounts[top][1]
            assert f"/{os.path.basename(row[3])} {top} " in output, (
                "the root of the mount is not the own cgroup"
            )
        assert output.count("Read-only file system") >= len(tops)

    def test_with_one_they_are_mounted_anew_where_it_was_asked_for(
        self, box: Sandbox, own_cgroups: CgroupRows
    ) -> None:
        asked = Mount(kind="cgroup", target="/cgroups", options=("nosuid",))
        output = inside(
            box, "cat /proc/self/mountinfo", UnshareCgroup(), cgroups=own_cgroups, mounts=(asked,)
        )
        mounts = mounts_of(output)
        tops = {f"/cgroups/{row[0]}".rstrip("/") for row in own_cgroups}
        assert {path for path in mounts if path.startswith("/cgroups")} == {"/cgroups", *tops}
        assert all(f" / {top} " in output for top in tops)
        assert all(mounts[top][1] & {"rw", "nosuid", "nodev"} == {"rw", "nosuid"} for top in tops)

    def test_they_may_lie_in_a_sys_that_is_bound(self, box: Sandbox, own_cgroups: CgroupRows) -> None:
        asked = (bind("/sys", "/sys", "rro"), Mount(kind="cgroup", target="/sys/fs/cgroup", options=("ro",)))
        top = f"/sys/fs/cgroup/{own_cgroups[0][0]}".rstrip("/")
        output = inside(box, "cat /proc/self/mountinfo", UnshareCgroup(), cgroups=own_cgroups, mounts=asked)
        last = [line for line in output.splitlines() if line.split()[4:5] == [top]][-1]
        assert f" / {top} ro" in last

    def test_without_any_the_hosts_do_not_show_in_a_copy_of_its_sys(self, box: Sandbox) -> None:
        assert inside(box, "ls /sys/fs/cgroup", **user(box, "network")) == ""


class TestPropagation:
    @pytest.mark.parametrize(
        ("kind", "top", "below"),
        [
            ("", set(), set()),
            ("private", set(), set()),
            ("rslave", set(), set()),  # of nobody: the host is out of sight
            ("shared", {"shared"}, set()),
            ("rshared", {"shared"}, {"shared"}),
            ("unbindable", {"unbindable"}, set()),
            ("runbindable", {"unbindable"}, {"unbindable"}),
        ],
    )
    def test_the_root_has_the_one_that_was_asked_for(
        self, box: Sandbox, kind: str, top: set[str], below: set[str]
    ) -> None:
        rootfs = Rootfs(lower=box.rootfs, propagation=kind)
        text = inside(box, "cat /proc/self/mountinfo", rootfs=rootfs)
        assert (peers(text, "/"), peers(text, "/proc"), peers(text, "/dev/pts")) == (top, below, below)

    def test_a_shared_root_inside_is_no_peer_of_the_hosts(self, box: Sandbox) -> None:
        spec = box.spec(rootfs=Rootfs(lower=box.rootfs, writable=True, propagation="rshared"))
        assert started(box, "mount -t tmpfs none /bin/../etc && echo mounted", spec) == "mounted\n"
        with open("/proc/self/mountinfo") as file:
            assert f"{box.rootfs}/etc" not in file.read()

    @pytest.mark.parametrize("mapped", [False, True])
    @pytest.mark.parametrize(
        ("option", "top", "below"),
        [
            ("", set(), set()),
            ("private", set(), set()),
            ("rprivate", set(), set()),
            ("slave", {"master"}, {"master"}),
            ("rslave", {"master"}, {"master"}),
            ("rshared", {"shared"}, {"shared"}),
        ],
    )
    def test_a_bind_keeps_no_tie_to_the_host_that_was_not_asked_for(
        self, box: Sandbox, source: str, option: str, top: set[str], below: set[str], mapped: bool
    ) -> None:
        changes = user(box) if mapped else {}
        mount = bind(source, "/data", *([option] if option else []))
        text = inside(box, "cat /proc/self/mountinfo", mounts=(mount,), **changes)
        assert (peers(text, "/data"), peers(text, "/data/sub")) == (top, below)


class TestSystemDirectories:
    def test_a_tmpfs_deep_in_dev_has_its_parents_made(self, box: Sandbox) -> None:
        mount = Mount(kind="tmpfs", target="/dev/a/b/c", options=("size=4k", "nodev"))
        output = inside(box, "stat -f -c %T /dev/a/b/c; ls /dev/a", mounts=(mount,))
        assert output.split() == ["tmpfs", "b"]

    @pytest.mark.parametrize("options", [(), ("nodev",)])
    def test_a_tmpfs_on_dev_holds_the_devices_and_stdin_is_empty(
        self, box: Sandbox, options: tuple[str, ...]
    ) -> None:
        mount = Mount(kind="tmpfs", target="/dev", options=options)
        output = inside(box, "cat; ls /dev; readlink /proc/self/fd/0", mounts=(mount,))
        assert set(NODES) <= set(output.split())
        assert output.splitlines()[-1].partition(":")[0] == ("pipe" if options else "/dev/null")

    def test_a_file_system_of_another_kind_goes_where_links_in_the_root_lead(self, box: Sandbox) -> None:
        os.symlink("/real", f"{box.rootfs}/link")
        os.mkdir(f"{box.rootfs}/real")
        mount = Mount(kind="mqueue", target="/link/queues", options=("nosuid", "ro"))
        mounts = mounts_of(inside(box, "cat /proc/self/mountinfo", mounts=(mount,)))
        kind, options = mounts["/real/queues"]
        assert kind == "mqueue"
        assert {"ro", "nosuid"} <= options
