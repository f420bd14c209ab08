"""A container's file systems, made for real and looked at from inside."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from inside import Failed, Sandbox, run
from mounting import mounts_of

from gocker.defaults import MASKED_PATHS, READONLY_PATHS
from gocker.errors import GockerError
from gocker.kernel import mount as kernel
from gocker.kernel.syscalls import call
from gocker.model import IdMap, Mount, NamespaceRequest, Rootfs
from gocker.plan import Context, Step, step_from_json
from gocker.rootplan import file_system_steps, layer_steps
from gocker.steps.idmap import MapLayers
from gocker.steps.launch import UnshareCgroup
from gocker.steps.mounts import MountFs
from gocker.steps.namespaces import LinkUp, SetDomainname, SetHostname, Sysctl
from gocker.steps.rootfs import OverlayRoot, PivotRoot, Propagation

V1_ROWS = (
    ("memory", "cgroup", ("memory",), "/sys/fs/cgroup/memory"),
    ("pids", "cgroup", ("pids",), "/sys/fs/cgroup/pids"),
)
V2_ROWS = (("", "cgroup2", (), "/sys/fs/cgroup"),)
V1 = os.path.isdir("/sys/fs/cgroup/memory")
ROWS = V1_ROWS if V1 else V2_ROWS
CGROUP_MOUNTS = {"/sys/fs/cgroup", *({"/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"} if V1 else ())}


@pytest.fixture
def box() -> Iterator[Sandbox]:
    # On tmpfs: an upper layer may not lie on an overlay, and other tests keep the disk busy.
    with tempfile.TemporaryDirectory(prefix="gocker-root-", dir="/dev/shm") as base:
        os.chmod(base, 0o755)
        yield Sandbox(base)


def inside(box: Sandbox, script: str, *before: Step, **changes: Any) -> str:
    spec = box.spec(**changes)
    return run((*before, *file_system_steps(spec, box.container)), script)


@pytest.mark.guest
def test_only_the_containers_own_mounts_are_there(box: Sandbox) -> None:
    mounts = mounts_of(inside(box, "cat /proc/self/mountinfo"))
    assert {path: kind for path, (kind, _) in mounts.items() if not path.startswith(("/proc/", "/sys/"))} == {
        "/": "overlay",
        "/proc": "proc",
        "/sys": "sysfs",
        "/dev": "tmpfs",
        "/dev/pts": "devpts",
        "/dev/shm": "tmpfs",
        "/dev/mqueue": "mqueue",
        "/etc/hosts": "tmpfs",  # bound from the container's own directory, which lies on a tmpfs here
        "/etc/hostname": "tmpfs",
        "/etc/resolv.conf": "tmpfs",
    }
    masked = {path for path in mounts if path.startswith(("/proc/", "/sys/"))}
    assert masked <= {*MASKED_PATHS, *READONLY_PATHS}
    assert {"nosuid", "nodev", "noexec"} <= mounts["/proc"][1]
    assert {"ro", "nosuid", "nodev", "noexec"} <= mounts["/sys"][1]
    assert {"nosuid", "nodev", "noexec"} <= mounts["/dev/shm"][1]
    assert "nosuid" in mounts["/dev"][1]


def test_no_mount_propagates_to_or_from_a_host_whose_mounts_are_shared(box: Sandbox) -> None:
    class ShareAll(Step):
        op = "test-share-all"

        def execute(self, ctx: Context) -> None:
            kernel.set_propagation(b"/", kernel.MS_SHARED | kernel.MS_REC)

    text = inside(box, "cat /proc/self/mountinfo", ShareAll())
    assert " / / " in text
    assert "shared:" not in text
    assert "master:" not in text
    with open("/proc/self/mountinfo") as file:
        assert box.base not in file.read()


def test_proc_shows_only_the_container(box: Sandbox) -> None:
    names = inside(box, "ls /proc; cat /proc/self/comm").split()
    assert next(name for name in names if name.isdigit()) == "1"
    assert len([name for name in names if name.isdigit()]) <= 3  # the shell, ls or cat


def test_writes_go_to_the_upper_layer_and_the_image_stays_as_it_was(box: Sandbox) -> None:
    before = sorted(os.listdir(box.rootfs))
    inside(box, "echo new > /made; echo changed > /bin/touch; echo x > /etc/extra")
    assert sorted(os.listdir(box.rootfs)) == before
    assert os.readlink(f"{box.rootfs}/bin/touch") == "busybox"
    with open(f"{box.container}/upper/made") as file:
        assert file.read() == "new\n"
    assert os.path.exists(f"{box.container}/upper/etc/extra")


def test_the_root_directory_has_the_images_mode_and_owner(box: Sandbox) -> None:
    os.chmod(box.rootfs, 0o751)
    os.chown(box.rootfs, 12, 34)
    os.chmod(f"{box.container}/upper", 0o700)
    assert inside(box, "stat -c '%a %u %g' /") == "751 12 34\n"


def test_writes_to_a_writable_root_reach_the_directory(box: Sandbox) -> None:
    inside(box, "echo through > /made", rootfs=Rootfs(lower=box.rootfs, writable=True))
    with open(f"{box.rootfs}/made") as file:
        assert file.read() == "through\n"
    assert os.listdir(f"{box.container}/upper") == []


def test_a_read_only_root_refuses_writes_but_has_a_writable_shm(box: Sandbox) -> None:
    script = "touch /made; touch /etc/hosts; touch /dev/shm/made && echo shm"
    output = inside(box, script, rootfs=Rootfs(lower=box.rootfs, readonly=True))
    assert output.count("Read-only file system") == 2
    assert output.endswith("shm\n")


def test_layer_paths_with_commas_colons_and_backslashes_are_taken_as_they_are() -> None:
    with tempfile.TemporaryDirectory(prefix="a,b:c\\d=", dir="/dev/shm") as base:
        os.chmod(base, 0o755)
        box = Sandbox(base)
        assert inside(box, "echo yes > /made; cat /made") == "yes\n"
        assert os.path.exists(f"{box.container}/upper/made")


def test_many_layers_lie_on_one_another_in_order(box: Sandbox) -> None:
    layers = tuple(f"{box.base}/layer{number}" for number in range(30))
    for number, layer in enumerate(layers):
        os.mkdir(layer)
        for name in (f"own{number}", "shared"):
            with open(f"{layer}/{name}", "w") as file:
                file.write(f"{number}\n")
    steps = [
        step.replace(lower=(*layers, box.rootfs)) if isinstance(step, OverlayRoot) else step
        for step in file_system_steps(box.spec(), box.container)
    ]
    assert run(tuple(steps), "cat /shared /own0 /own29") == "0\n0\n29\n"


def test_a_second_mount_of_a_volatile_overlay_says_what_to_do(box: Sandbox) -> None:
    inside(box, "true")
    with pytest.raises(Failed) as caught:
        inside(box, "true")
    assert f"remove {box.container}/work" in caught.value.remedy


def test_mountinfo_does_not_name_the_layers_on_the_host(box: Sandbox) -> None:
    text = inside(box, "cat /proc/self/mountinfo")
    root = next(line for line in text.splitlines() if " / / " in line)
    assert box.base not in root


def test_a_missing_lower_layer_is_named(box: Sandbox) -> None:
    with pytest.raises(Failed, match=r"open layer /nowhere: ENOENT") as caught:
        inside(box, "true", rootfs=Rootfs(lower="/nowhere"))
    assert caught.value.op == "overlay-root"


def test_an_upper_layer_on_an_overlay_is_refused_with_the_remedy(box: Sandbox) -> None:
    class Nested(Step):
        op = "test-nested"

        def execute(self, ctx: Context) -> None:
            inner = f"/proc/self/fd/{ctx.root}"
            for name in ("lower", "upper", "work"):
                os.mkdir(f"{inner}/{name}")
            OverlayRoot(lower=(f"{inner}/lower",), upper=f"{inner}/upper", work=f"{inner}/work").execute(ctx)

    with pytest.raises(Failed) as caught:
        run((*file_system_steps(box.spec(), box.container)[:2], Nested()))
    assert caught.value.errno == "EINVAL"
    assert "GOCKER_ROOT" in caught.value.remedy
    assert "overlay" in caught.value.remedy


def test_the_devices_are_there_and_work(box: Sandbox) -> None:
    script = """
        stat -c '%n %t:%T %a' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty
        for link in fd stdin stdout stderr ptmx; do readlink /dev/$link; done
        dd if=/dev/zero bs=4 count=1 2>/dev/null | cat > /dev/null && echo worked
        ls /dev
    """
    lines = inside(box, script).splitlines()
    assert lines[:6] == [
        "/dev/null 1:3 666",
        "/dev/zero 1:5 666",
        "/dev/full 1:7 666",
        "/dev/random 1:8 666",
        "/dev/urandom 1:9 666",
        "/dev/tty 5:0 666",
    ]
    assert lines[6:11] == [
        "/proc/self/fd",
        "/proc/self/fd/0",
        "/proc/self/fd/1",
        "/proc/self/fd/2",
        "pts/ptmx",
    ]
    assert lines[11] == "worked"
    assert set(lines[12:]) == {
        *("core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm"),
        *("stderr", "stdin", "stdout", "tty", "urandom", "zero"),
    }


def test_shm_is_as_large_as_asked(box: Sandbox) -> None:
    output = inside(box, "stat -f -c '%b %S' /dev/shm; stat -c %a /dev/shm", shm_size=1 << 20)
    blocks, size, mode = output.split()
    assert int(blocks) * int(size) == 1 << 20
    assert mode == "1777"


def test_masked_files_are_empty_and_masked_directories_too(box: Sandbox) -> None:
    output = inside(box, "for p in /proc/keys /proc/timer_list; do cat $p; done; ls /sys/firmware; echo end")
    assert output == "end\n"
    with open("/proc/keys") as file:
        assert file.read(), "the host shows no keys: this test proves nothing here"


def test_masked_directories_cannot_be_written(box: Sandbox) -> None:
    assert "Read-only" in inside(box, "touch /sys/firmware/x")


def test_read_only_paths_refuse_writes(box: Sandbox) -> None:
    assert "Read-only" in inside(box, "echo 1 > /proc/sys/net/ipv4/ip_forward")
    box.renew()
    free = inside(
        box, "echo 1 > /proc/sys/net/ipv4/ip_forward; cat /proc/sys/net/ipv4/ip_forward", readonly_paths=()
    )
    assert free == "1\n"


def test_absent_masked_paths_are_fine(box: Sandbox) -> None:
    paths = ("/proc/nosuch", "/proc/cpuinfo/below", "/nowhere/at/all")
    assert inside(box, "echo ok", masked_paths=paths, readonly_paths=paths) == "ok\n"


def test_a_masked_path_that_is_a_link_is_fatal(box: Sandbox) -> None:
    os.symlink("/bin", f"{box.rootfs}/link")
    with pytest.raises(Failed) as caught:
        inside(box, "true", masked_paths=("/link/busybox",))
    assert (caught.value.op, caught.value.errno) == ("mask-paths", "ELOOP")


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
@pytest.mark.parametrize("target", ["/bin", "/", "../../../../../../../tmp", "/proc/self/cwd"])
def test_an_image_with_a_link_for_a_system_directory_is_refused(box: Sandbox, name: str, target: str) -> None:
    os.symlink(target, f"{box.rootfs}/{name}")
    with pytest.raises(Failed, match=f"mount on /{name}: it must be mounted on ordinary directory") as caught:
        inside(box, "true")
    assert caught.value.op == "mount-fs"


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_an_image_with_a_file_for_a_system_directory_is_refused(box: Sandbox, name: str) -> None:
    with open(f"{box.rootfs}/{name}", "w"):
        pass
    with pytest.raises(Failed, match=f"mount on /{name}"):
        inside(box, "true")


def test_device_nodes_of_the_image_are_hidden_by_the_own_dev(box: Sandbox) -> None:
    os.mkdir(f"{box.rootfs}/dev")
    os.symlink("/bin/busybox", f"{box.rootfs}/dev/null")
    assert inside(box, "stat -c '%F %t:%T' /dev/null") == "character special file 1:3\n"


@pytest.mark.parametrize("source", ["/dev/zero", "/etc/hostname"])
def test_masks_are_not_made_of_something_else_than_the_null_device(box: Sandbox, source: str) -> None:
    with pytest.raises(Failed, match="not character device 1:3") as caught:
        inside(box, "true", mounts=(Mount(kind="bind", source=source, target="/dev/null"),))
    assert caught.value.op == "mask-paths"


def test_etc_files_cover_those_of_the_image(box: Sandbox) -> None:
    os.mkdir(f"{box.rootfs}/etc")
    with open(f"{box.rootfs}/etc/hosts", "w") as file:
        file.write("of the image\n")
    assert inside(box, "cat /etc/hosts /etc/hostname /etc/resolv.conf") == (
        "127.0.0.1 localhost\ninside\nnameserver 9.9.9.9\n"
    )


def test_an_etc_file_that_is_a_link_is_covered_and_not_followed(box: Sandbox) -> None:
    os.makedirs(f"{box.rootfs}/etc")
    os.mkdir(f"{box.rootfs}/run")
    with open(f"{box.rootfs}/run/victim", "w") as file:
        file.write("victim\n")
    os.symlink("/run/victim", f"{box.rootfs}/etc/hosts")
    os.symlink("../run/systemd/resolve/stub-resolv.conf", f"{box.rootfs}/etc/resolv.conf")
    os.symlink("../../../../../../etc/shadow", f"{box.rootfs}/etc/hostname")
    output = inside(box, "cat /etc/hosts /etc/hostname /etc/resolv.conf /run/victim; ls /run")
    assert output == "127.0.0.1 localhost\ninside\nnameserver 9.9.9.9\nvictim\nvictim\n"


@pytest.mark.parametrize("link", ["/proc/sys/kernel", "proc/1"])
def test_an_etc_that_leads_into_proc_is_refused(box: Sandbox, link: str) -> None:
    os.symlink(link, f"{box.rootfs}/etc")
    with pytest.raises(Failed, match="mount on /etc: it is in /proc"):
        inside(box, "true")


def test_an_etc_file_that_is_a_directory_is_an_error(box: Sandbox) -> None:
    os.makedirs(f"{box.rootfs}/etc/hosts")
    with pytest.raises(Failed, match="mount on /etc/hosts: the root file system has a directory there"):
        inside(box, "true")


def test_a_writable_root_that_has_the_etc_files_is_not_written(box: Sandbox) -> None:
    os.mkdir(f"{box.rootfs}/etc")
    for name in ("hosts", "hostname", "resolv.conf"):
        with open(f"{box.rootfs}/etc/{name}", "w") as file:
            file.write("as it was\n")
    assert "localhost" in inside(box, "cat /etc/hosts", rootfs=Rootfs(lower=box.rootfs, writable=True))
    with open(f"{box.rootfs}/etc/hosts") as file:
        assert file.read() == "as it was\n"


def bind(box: Sandbox, target: str, *options: str, kind: str = "directory") -> Mount:
    source = f"{box.base}/source"
    if kind == "directory":
        os.makedirs(f"{source}/sub", exist_ok=True)
        with open(f"{source}/file", "w") as file:
            file.write("from the host\n")
    else:
        with open(source, "w") as file:
            file.write("from the host\n")
    return Mount(kind="bind", source=source, target=target, options=options)


def test_a_bound_directory_is_shared_with_the_host(box: Sandbox) -> None:
    mount = bind(box, "/data/deep/down")
    assert inside(box, "cat /data/deep/down/file; echo x > /data/deep/down/new", mounts=(mount,)) == (
        "from the host\n"
    )
    assert os.path.exists(f"{box.base}/source/new")
    assert not os.path.exists(f"{box.rootfs}/data")


def test_a_bound_file_gets_a_file_to_lie_on(box: Sandbox) -> None:
    mount = bind(box, "/srv/some/file", kind="file")
    assert inside(box, "cat /srv/some/file", mounts=(mount,)) == "from the host\n"


class MountBelow(Step):
    op = "test-mount-below"

    path: str

    def execute(self, ctx: Context) -> None:
        fd = kernel.new_mount("tmpfs")
        kernel.attach_at(fd, self.path.encode())
        os.close(fd)


def with_mount_below(box: Sandbox, script: str, *options: str) -> str:
    """As `inside`, with a bind on /data of a directory that has a tmpfs below, at sub."""
    mount = bind(box, "/data", *options)
    first, *rest = file_system_steps(box.spec(mounts=(mount,)), box.container)
    return run((first, MountBelow(path=f"{box.base}/source/sub"), *rest), script)


def test_a_read_only_bind_with_r_is_read_only_also_below(box: Sandbox) -> None:
    output = with_mount_below(box, "touch /data/x; touch /data/sub/x; cat /proc/self/mountinfo", "rro")
    assert output.count("Read-only file system") == 2
    assert " /data/sub " in output


def test_a_read_only_bind_without_r_is_read_only_at_its_top_alone(box: Sandbox) -> None:
    output = with_mount_below(box, "touch /data/x; touch /data/sub/x && echo written below", "ro")
    assert output == "touch: /data/x: Read-only file system\nwritten below\n"


def test_attributes_with_r_are_set_below_too_and_without_only_at_the_top(box: Sandbox) -> None:
    options = ("rnosuid", "rnoexec", "rnoatime", "nodev", "nosymfollow")
    mounts = mounts_of(with_mount_below(box, "cat /proc/self/mountinfo", *options))
    below = {"rw", "nosuid", "noexec", "noatime"}
    assert mounts["/data/sub"][1] == below
    assert mounts["/data"][1] == {*below, "nodev", "nosymfollow"}


def test_the_top_of_a_bind_may_differ_from_what_is_said_of_all(box: Sandbox) -> None:
    mounts = mounts_of(with_mount_below(box, "cat /proc/self/mountinfo", "rnoexec", "rnosuid", "exec"))
    assert mounts["/data"][1] == {"rw", "nosuid", "relatime"}
    assert mounts["/data/sub"][1] == {"rw", "nosuid", "noexec", "relatime"}


def test_a_bind_with_rw_opens_nothing_that_the_host_mounted_read_only(box: Sandbox) -> None:
    mount = bind(box, "/data", "rw")

    class Below(Step):
        op = "test-read-only-below"

        def execute(self, ctx: Context) -> None:
            fd = kernel.new_mount("tmpfs", (), kernel.MOUNT_ATTR_RDONLY)
            kernel.attach_at(fd, f"{box.base}/source/sub".encode())
            os.close(fd)

    first, *rest = file_system_steps(box.spec(mounts=(mount,)), box.container)
    output = run((first, Below(), *rest), "touch /data/x && touch /data/sub/x")
    assert output == "touch: /data/sub/x: Read-only file system\n"


def test_a_bind_without_recursion_leaves_out_what_is_mounted_below(box: Sandbox) -> None:
    output = inside(
        box,
        "cat /proc/self/mountinfo",
        mounts=(Mount(kind="bind", source="/sys", target="/hostsys", options=("bind", "ro")),),
    )
    assert [path for path in mounts_of(output) if path.startswith("/hostsys")] == ["/hostsys"]


def test_bind_options_become_attributes(box: Sandbox) -> None:
    mount = bind(box, "/data", "nosuid", "nodev", "noexec", "noatime")
    options = mounts_of(inside(box, "cat /proc/self/mountinfo", mounts=(mount,)))["/data"][1]
    assert options == {"rw", "nosuid", "nodev", "noexec", "noatime"}


def test_a_bind_with_rslave_sees_later_mounts_of_the_host(box: Sandbox) -> None:
    mount = bind(box, "/data", "rslave")
    source = f"{box.base}/source".encode()
    call("mount", source, source, None, kernel.MS_BIND, None)
    try:
        kernel.set_propagation(source, kernel.MS_SHARED)
        text = inside(box, "cat /proc/self/mountinfo", mounts=(mount,))
    finally:
        call("umount2", source, kernel.MNT_DETACH)
    line = next(line for line in text.splitlines() if " /data " in line)
    assert "master:" in line
    assert "shared:" not in text


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("/etc", "/out/x"),  # absolute: means the root's own /etc
        ("../../../../../../../../etc", "/out/x"),
        ("..", "/out/../etc/x"),
    ],
)
def test_links_in_a_mount_target_stay_in_the_root(box: Sandbox, link: str, target: str) -> None:
    os.mkdir(f"{box.rootfs}/etc")
    os.symlink(link, f"{box.rootfs}/out")
    mount = bind(box, target, kind="file")
    assert inside(box, "cat /etc/x", mounts=(mount,)) == "from the host\n"
    assert not os.path.exists("/etc/x")


@pytest.mark.parametrize(("source", "target"), [("/etc/hostname", "/out"), ("/etc", "/out/deeper")])
def test_a_mount_target_behind_a_dangling_link_is_made_inside(box: Sandbox, source: str, target: str) -> None:
    os.symlink("../../run/nowhere", f"{box.rootfs}/out")
    mount = Mount(kind="bind", source=source, target=target)
    place = target.replace("/out", "/run/nowhere")
    assert inside(box, f"grep -c ' {place} ' /proc/mounts", mounts=(mount,)) == "1\n"


def test_a_mount_on_the_root_takes_its_place(box: Sandbox) -> None:
    mount = Mount(kind="bind", source=box.rootfs, target="/")
    spec = box.spec().replace(mounts=(mount, *box.spec().mounts), etc=False)
    mounts = mounts_of(run(file_system_steps(spec, box.container), "cat /proc/self/mountinfo"))
    assert mounts["/"][0] == "tmpfs"  # of the sandbox, where the image lies; not the overlay
    assert "/dev/pts" in mounts


@pytest.mark.parametrize("link", ["/proc", "/proc/sys", "proc/self"])
def test_a_mount_target_that_leads_into_proc_is_refused(box: Sandbox, link: str) -> None:
    os.symlink(link, f"{box.rootfs}/out")
    with pytest.raises(Failed, match="it is in /proc") as caught:
        inside(box, "true", mounts=(bind(box, "/out"),))
    assert caught.value.op == "bind-mount"


def test_a_mount_target_that_leads_to_the_root_is_refused(box: Sandbox) -> None:
    os.symlink("/", f"{box.rootfs}/out")
    with pytest.raises(Failed, match="it leads to the root itself"):
        inside(box, "true", mounts=(bind(box, "/out"),))


def test_a_file_is_not_bound_on_a_directory(box: Sandbox) -> None:
    with pytest.raises(Failed, match="a file onto a directory cannot be mounted"):
        inside(box, "true", mounts=(bind(box, "/bin", kind="file"),))


def test_a_missing_bind_source_is_named(box: Sandbox) -> None:
    mount = Mount(kind="bind", source="/no/such/source", target="/data")
    with pytest.raises(Failed, match="open mount source /no/such/source: ENOENT"):
        inside(box, "true", mounts=(mount,))


def test_tmpfs_mounts_are_as_they_were_asked_for(box: Sandbox) -> None:
    mounts = (
        Mount(kind="tmpfs", target="/scratch", options=("nosuid", "rnodev", "noexec", "size=1m", "mode=700")),
        Mount(kind="tmpfs", target="/run/exec", options=("nodev", "exec", "suid")),
    )
    output = inside(box, "cat /proc/self/mountinfo", mounts=mounts)
    table = mounts_of("\n".join(line for line in output.splitlines() if " - " in line))
    assert {"rw", "nosuid", "nodev", "noexec"} <= table["/scratch"][1]
    assert table["/run/exec"][1] & {"nosuid", "nodev", "noexec"} == {"nodev"}
    assert re.search(r"/scratch .*size=1024k,mode=700", output)


def test_a_bad_tmpfs_option_is_said_in_the_kernels_words(box: Sandbox) -> None:
    with pytest.raises(Failed, match=r"(?i)tmpfs.*size") as caught:
        run(
            (
                *file_system_steps(box.spec(), box.container)[:2],
                MountFs(fstype="tmpfs", target="/x", options=("size=lots",), follow=True),
            )
        )
    assert caught.value.errno == "EINVAL"


def test_a_user_mount_replaces_the_default_of_its_place(box: Sandbox) -> None:
    shm = Mount(kind="tmpfs", target="/dev/shm", options=("size=2m",))
    output = inside(
        box, "cat /proc/self/mountinfo; cat /etc/hosts", mounts=(shm, bind(box, "/etc/hosts", kind="file"))
    )
    assert output.count(" /dev/shm ") == 1
    assert output.count(" /etc/hosts ") == 1
    assert output.endswith("from the host\n")


def test_the_hosts_shm_is_seen_with_the_hosts_ipc(box: Sandbox) -> None:
    spec = box.spec(namespaces=tuple(r for r in box.spec().namespaces if r.kind != "ipc"))
    steps = file_system_steps(spec, box.container)
    name = os.path.basename(box.base)
    assert run(steps, f"ls /dev/shm/{name}", without=("ipc",)).split() == ["container", "rootfs"]


def test_sysctls_are_written_before_the_root_is_there(box: Sandbox) -> None:
    before = (Sysctl(name="net.ipv4.ip_forward", value="1"), Sysctl(name="kernel.msgmax", value="4096"))
    assert inside(box, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax", *before) == "1\n4096\n"
    with open("/proc/sys/kernel/msgmax") as file:
        assert file.read() != "4096\n"


def test_a_sysctl_that_is_not_there_is_named(box: Sandbox) -> None:
    with pytest.raises(Failed, match=r"set sysctl net\.nosuch=1: ENOENT"):
        inside(box, "true", Sysctl(name="net.nosuch", value="1"))


def test_names_and_links_are_set_inside_only(box: Sandbox) -> None:
    before = (SetHostname(name="höst"), SetDomainname(name="dom"), LinkUp(name="lo"))
    script = (
        "cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname /sys/class/net/lo/flags; ls /sys/class/net"
    )
    lines = inside(box, script, *before).split()
    assert lines[:2] == ["höst", "dom"]
    assert int(lines[2], 16) & 1
    assert "eth0" not in lines
    assert os.uname().nodename != "höst"


def test_a_missing_interface_is_an_error(box: Sandbox) -> None:
    with pytest.raises(Failed) as caught:
        inside(box, "true", LinkUp(name="eth9"))
    assert caught.value.errno == "ENODEV"


def test_the_console_is_a_pty_of_the_containers_own(box: Sandbox) -> None:
    class UseConsole(Step):
        op = "test-use-console"

        def execute(self, ctx: Context) -> None:
            os.write(ctx.fds["console"], b"said\n")
            fd = os.open("/seen", os.O_WRONLY | os.O_CREAT)
            os.write(fd, os.read(ctx.fds["ptmx"], 100))
            os.close(fd)
            os.set_inheritable(ctx.fds["ptmx"], True)  # as the launcher's copy keeps it alive

    steps = (*file_system_steps(box.spec(terminal=True), box.container), UseConsole())
    output = run(steps, "cat /seen; stat -c '%F %t %a' /dev/console /dev/pts/0; ls /dev/pts")
    assert output.replace("\r", "").splitlines() == [
        "said",
        "character special file 88 620",
        "character special file 88 620",
        "0",
        "ptmx",
    ]


@pytest.mark.guest
def test_own_cgroups_are_seen_read_only(box: Sandbox) -> None:
    steps = (UnshareCgroup(), *file_system_steps(box.spec(), box.container, ROWS))
    top = "/sys/fs/cgroup/pids" if V1 else "/sys/fs/cgroup"
    script = f"echo 1 > {top}/cgroup.procs; touch /sys/fs/cgroup/x; cat /proc/self/mountinfo; ls {top}"
    output = run(steps, script)
    assert output.count("Read-only file system") == 2
    mounts = mounts_of("\n".join(line for line in output.splitlines() if " - " in line))
    assert {path for path in mounts if path.startswith("/sys/fs/cgroup")} == CGROUP_MOUNTS
    assert all({"ro", "nosuid", "nodev", "noexec"} <= mounts[path][1] for path in CGROUP_MOUNTS)
    assert f" / {top} " in output, "the root of the mount is not the own cgroup"
    assert "cgroup.procs" in output


def test_without_a_cgroup_namespace_no_cgroup_is_seen(box: Sandbox) -> None:
    spec = box.spec(namespaces=tuple(r for r in box.spec().namespaces if r.kind != "cgroup"))
    assert run(file_system_steps(spec, box.container, ROWS), "ls /sys/fs/cgroup") == ""


def test_the_host_is_out_of_reach_after_the_pivot(box: Sandbox) -> None:
    script = f"ls -d {box.base}; ls /proc/1/root; ls -l /proc/self/fd; cd /..; ls"
    output = inside(box, script)
    assert "No such file" in output
    assert box.base not in output.partition("No such file")[2]


def test_no_fd_is_left_open_by_the_steps(box: Sandbox) -> None:
    before: set[int] = set()

    class Before(Step):
        op = "test-before"

        def execute(self, ctx: Context) -> None:
            before.update(fd for fd in range(100) if _is_open(fd))

    class After(Step):
        op = "test-after"

        def execute(self, ctx: Context) -> None:
            left = [
                os.readlink(f"/proc/self/fd/{fd}") for fd in range(100) if _is_open(fd) and fd not in before
            ]
            if left or ctx.root != -1 or ctx.fds:
                raise OSError(16, f"left open: {left}, {ctx.fds}")

    spec = box.spec(mounts=(bind(box, "/data", "rslave"), Mount(kind="tmpfs", target="/scratch")))
    run((Before(), *file_system_steps(spec, box.container), After()))


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_the_umask_inside_is_the_usual_one_whatever_gockers_was(box: Sandbox) -> None:
    before = os.umask(0o077)
    try:
        output = inside(box, "umask; touch /f; stat -c %a /f /etc /proc/..")
    finally:
        os.umask(before)
    assert output.split() == ["0022", "644", "755", "755"]


def test_namespaces_of_another_mount_table_get_no_steps(box: Sandbox) -> None:
    assert file_system_steps(box.spec(rootfs=None), box.container) == ()


def test_a_joined_namespace_request_is_not_taken_for_an_own_one(box: Sandbox) -> None:
    requests = (NamespaceRequest(kind="cgroup", mode="path", path="/proc/1/ns/cgroup"),)
    steps = file_system_steps(box.spec(namespaces=requests), box.container, V1_ROWS)
    assert not any(step.op == "mount-cgroups" for step in steps)


def test_steps_can_be_said_and_read_back(box: Sandbox) -> None:
    steps = file_system_steps(
        box.spec(terminal=True, mounts=(bind(box, "/data", "rslave"),)), box.container, V1_ROWS
    )
    for step in steps:
        assert "\n" not in step.describe()
        assert step_from_json(step.to_json()) == step
    assert isinstance(steps[-1], PivotRoot)
    assert any(isinstance(step, Propagation) for step in steps)
    assert sum(isinstance(step, MountFs) for step in steps) == 6


MAP = (IdMap(inside=0, outside=100000, count=65536),)


def mapped(box: Sandbox, script: str, *, without: tuple[str, ...] = (), **changes: Any) -> str:
    """As `inside`, in a user namespace, with directories above that only the host's root may enter."""
    os.chmod(box.base, 0o700)
    os.chmod(box.container, 0o700)
    requests = tuple(r for r in box.spec().namespaces if r.kind not in without)
    namespaces = (*requests, NamespaceRequest(kind="user"))
    spec = box.spec(namespaces=namespaces, uid_map=MAP, gid_map=MAP, **changes)
    ctx = Context(spec)
    try:
        for step in layer_steps(spec, box.container):
            step.execute(ctx)
        steps = (UnshareCgroup(), *file_system_steps(spec, box.container, ROWS))
        return run(steps, script, without=without, maps=(MAP, MAP), ctx=ctx)
    finally:
        for fd in ctx.fds.values():
            os.close(fd)


@pytest.mark.guest
def test_root_of_a_user_namespace_owns_the_image_that_root_owns(box: Sandbox) -> None:
    with open(f"{box.rootfs}/secret", "w") as file:
        file.write("of root\n")
    os.chmod(f"{box.rootfs}/secret", 0o600)
    os.chown(f"{box.rootfs}/bin/cat", 7, 8, follow_symlinks=False)
    output = mapped(
        box, "cat /proc/self/uid_map /secret; stat -c '%u:%g' /secret / /bin/cat /etc/hosts /dev/shm"
    )
    assert output.split() == [
        *("0", "100000", "65536", "of", "root"),
        *("0:0", "0:0", "7:8", "0:0", "0:0"),
    ]


def test_what_a_user_namespace_writes_has_the_ids_of_the_inside_on_disk(box: Sandbox) -> None:
    script = "echo x > /made && echo y >> /secret && echo z >> /etc/hosts && cat /secret"
    with open(f"{box.rootfs}/secret", "w") as file:
        file.write("before\n")
    assert mapped(box, script) == "before\ny\n"
    for name in ("made", "secret"):
        status = os.stat(f"{box.container}/upper/{name}")
        assert (status.st_uid, status.st_gid) == (0, 0)
    with open(f"{box.rootfs}/secret") as file:
        assert file.read() == "before\n"


def test_a_user_namespace_has_the_same_devices_and_masks(box: Sandbox) -> None:
    script = """
        stat -c '%n %t:%T' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty
        echo x > /dev/null; cat /proc/keys; ls /sys/firmware; touch /sys/fs/cgroup/x
    """
    lines = mapped(box, script).splitlines()
    assert lines == [
        "/dev/null 1:3",
        "/dev/zero 1:5",
        "/dev/full 1:7",
        "/dev/random 1:8",
        "/dev/urandom 1:9",
        "/dev/tty 5:0",
        "touch: /sys/fs/cgroup/x: Read-only file system",
    ]


def test_a_user_namespace_writes_through_to_a_writable_root(box: Sandbox) -> None:
    mapped(box, "echo x > /made", rootfs=Rootfs(lower=box.rootfs, writable=True))
    status = os.stat(f"{box.rootfs}/made")
    assert (status.st_uid, status.st_gid) == (0, 0)


def test_binds_reach_a_user_namespace_though_it_could_not_open_them(box: Sandbox) -> None:
    mount = bind(box, "/data", "rro")
    output = mapped(box, "cat /data/file; touch /data/x; stat -c %u /data/file", mounts=(mount,))
    assert output.splitlines() == ["from the host", "touch: /data/x: Read-only file system", "65534"]


def test_a_user_namespace_with_the_hosts_network_sees_the_hosts_sys(box: Sandbox) -> None:
    script = "ls -d /sys/class/net; touch /sys/x; touch /sys/fs/cgroup/x; cat /proc/self/mountinfo"
    lines = mapped(box, script, without=("network",)).splitlines()
    assert lines[:3] == [
        "/sys/class/net",
        "touch: /sys/x: Read-only file system",
        "touch: /sys/fs/cgroup/x: Read-only file system",
    ]
    assert lines[-1].count("/proc/"), "the masks come last"
    shown = [line for line in lines if " /sys/fs/cgroup " in line]
    assert "cgroup2" in shown[-1] or V1
    box.renew()
    assert mapped(box, "ls /sys/fs/cgroup", without=("network", "cgroup")) == ""


def test_nothing_of_the_host_is_mounted_in_a_user_namespace(box: Sandbox) -> None:
    mounts = mounts_of(mapped(box, "cat /proc/self/mountinfo"))
    assert set(mounts) - {*MASKED_PATHS, *READONLY_PATHS} == {
        *CGROUP_MOUNTS,
        *(
            "/",
            "/proc",
            "/sys",
            "/dev",
            "/dev/pts",
            "/dev/shm",
            "/dev/mqueue",
            "/etc/hosts",
            "/etc/hostname",
            "/etc/resolv.conf",
        ),
        *(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")),
    }


def test_layers_that_cannot_be_mapped_are_named(box: Sandbox) -> None:
    ctx = Context(None)
    step = MapLayers(lower="/proc", container=box.container, uid_map=((0, 1000, 1),), gid_map=((0, 1000, 1),))
    with pytest.raises(GockerError, match=r"map the ids of /proc: EINVAL.*--userns host"):
        step.execute(ctx)
    assert ctx.fds == {}


def test_a_tmpfs_has_the_mode_of_what_it_covers_and_1777_where_there_is_nothing(box: Sandbox) -> None:
    os.mkdir(f"{box.rootfs}/there", 0o710)
    mounts = tuple(Mount(kind="tmpfs", target=target) for target in ("/there", "/new", "/given"))
    given = mounts[2].replace(options=("mode=700",))
    out = inside(box, "stat -c %a /there /new /given", mounts=(*mounts[:2], given))
    assert out.split() == ["710", "1777", "700"]
