"""R15: cgroups, devices, sysctls, user namespaces, and what is left when a container is deleted."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

from . import host
from .lab import Bundle, Lab, Verdict, broken, held
from .suite import attack

_UP = "../../../../../../../.."
KMSG = ("1", "11")  # a device that nobody's list has, and that reading does no harm


def device_verdict(lab: Lab, answer: str, refused: str) -> Verdict:
    """What opening the device said."""
    if answer == "open":
        return broken("opened /dev/kmsg of the host")
    return held(answer or refused)


def reads_the_log(lab: Lab) -> tuple[Bundle, dict[str, Any]]:
    """A bundle, and capabilities, whose program is kept from the kernel's log by the device list alone."""
    bundle = lab.bundle()
    sets: dict[str, Any] = bundle.spec["process"]["capabilities"]
    for name in ("bounding", "effective", "permitted"):
        sets[name] = [*sets[name], "CAP_SYSLOG"]  # else sysctl kernel.dmesg_restrict does
    return bundle, sets


@attack("R15", "device list")
def device_in_run(lab: Lab) -> Verdict:
    """Make a node for the kernel's log and open it."""
    bundle, _ = reads_the_log(lab)
    bundle.run_inside("device", *KMSG)
    done = lab.run(bundle).must_run()
    return device_verdict(lab, done.value("device"), done.value("mknod"))


@attack("R15", "device list")
def device_in_exec(lab: Lab) -> Verdict:
    """The same in `exec`."""
    bundle, sets = reads_the_log(lab)
    bundle.run_inside("sleep", "30")
    lab.up(bundle)
    done = lab.exec(["/bin/inside", "device", *KMSG], capabilities=sets).must_run()
    return device_verdict(lab, done.value("device"), done.value("mknod"))


@attack("R15", "device list")
def device_without_a_list(lab: Lab) -> Verdict:
    """The configuration says nothing about devices."""
    bundle, _ = reads_the_log(lab)
    bundle.spec["linux"].pop("resources")
    bundle.run_inside("device", *KMSG)
    done = lab.run(bundle).must_run()
    return device_verdict(lab, done.value("device"), done.value("mknod"))


@attack("R15", "device list")
def device_of_the_image(lab: Lab) -> Verdict:
    """The image brings the node."""
    bundle = lab.bundle()
    os.mknod(bundle.path("etc/node"), 0o20666, os.makedev(1, 11))
    bundle.run_inside("files", "r:/etc/node", "w:/etc/node")
    done = lab.run(bundle).must_run()
    return device_verdict(lab, "open" if done.value("openw").endswith(" open") else "", "cannot be opened")


def _cgroups_path(lab: Lab, path: str) -> Verdict:
    bundle, aim = lab.bundle(), lab.host_directory("aim")
    bundle.spec["linux"]["cgroupsPath"] = path.format(aim=aim, up=_UP)
    done = lab.run(bundle)
    names = os.listdir(aim)
    lab.call("delete", "--force", "c1")
    if names:
        return broken(f"made {names[0]} in a directory of the host")
    return held("stayed in its hierarchy" if done.ran else f"refused: {done.refusal}")


@attack("R15", "crun 1.8.1 cgroupsPath")
def cgroups_path_by_dotdot(lab: Lab) -> Verdict:
    """cgroupsPath climbs out of /sys/fs/cgroup to a directory of the host."""
    return _cgroups_path(lab, "/{up}{aim}/new")


@attack("R15", "crun 1.8.1 cgroupsPath")
def cgroups_path_by_relative_dotdot(lab: Lab) -> Verdict:
    """The same, relative."""
    return _cgroups_path(lab, "{up}{aim}/new")


@attack("R15", "CVE-2022-0492")
def cgroup_mount_and_release_agent(lab: Lab) -> Verdict:
    """Mount a cgroup hierarchy and open its release_agent, with docker's capabilities."""
    first = [
        point for point, second in host.cgroup_mounts() if not second and point.endswith(("/pids", "/memory"))
    ]
    bundle = lab.bundle()
    if first:
        bundle.run_inside("mount-cgroup", "cgroup", os.path.basename(first[0]))
    else:
        bundle.run_inside("mount-cgroup", "cgroup2")
    done = lab.run(bundle).must_run()
    opened = [word for word in done.values("openw") if word.endswith(" open")]
    return broken(f"opened {opened[0]}") if opened else held(f"mount: {done.value('mount')}")


def _with_cgroups(lab: Lab) -> Bundle:
    bundle = lab.bundle()
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", ["nosuid", "noexec", "nodev", "relatime", "ro"])
    return bundle


def _hierarchies() -> list[str]:
    return [point for point, second in host.cgroup_mounts() if not second or point == "/sys/fs/cgroup"]


@attack("R15", "CVE-2023-25809")
def cgroup_is_written(lab: Lab) -> Verdict:
    """Open files of the container's own cgroup, mounted read-only, for writing."""
    bundle = _with_cgroups(lab)
    files = []
    for point in _hierarchies():
        files += [
            f"w:{point}/cgroup.procs",
            f"w:{point}/{lab.token}/bundle/cgroup.procs",
            f"d:{point}/{lab.token}-new",
        ]
    bundle.run_inside("files", *files)
    done = lab.run(bundle).must_run()
    opened = [
        word for word in done.values("openw") + done.values("mkdir") if word.endswith((" open", " made"))
    ]
    return broken(f"{opened[0]}") if opened else held("read-only")


@attack("R15", "CVE-2023-25809")
def cgroups_of_others_are_seen(lab: Lab) -> Verdict:
    """List the cgroups inside, in a cgroup namespace of its own, and look for another's."""
    bundle = _with_cgroups(lab)
    for point in _hierarchies():
        with suppress(OSError):
            os.mkdir(f"{point}/{lab.token}-other")
    bundle.run_inside("list", *_hierarchies())
    done = lab.run(bundle).must_run()
    seen = [word for word in done.values("entry") if word.endswith("-other")]
    return broken("sees another's cgroup") if seen else held("sees its own")


def _sysctl(lab: Lab, name: str, value: str, without: str = "") -> Verdict:
    bundle = lab.bundle()
    if without:
        bundle.without_namespace(without)
    bundle.spec["linux"]["sysctl"] = {name: value}
    done = lab.run(bundle)
    return broken("took it") if done.ran else held(f"refused: {done.refusal}")


def _now(path: str) -> str:
    with open(f"/proc/sys/{path}", encoding="utf-8") as file:
        return file.read().strip()


@attack("R15", "sysctls of the host")
def sysctl_of_no_namespace(lab: Lab) -> Verdict:
    """A sysctl that is the whole machine's, with the value that it has."""
    return _sysctl(lab, "vm.overcommit_memory", _now("vm/overcommit_memory"))


@attack("R15", "sysctls of the host")
def sysctl_of_the_kernel(lab: Lab) -> Verdict:
    """kernel.panic, with the value that it has."""
    return _sysctl(lab, "kernel.panic", _now("kernel/panic"))


@attack("R15", "sysctls by path")
def sysctl_by_dotdot(lab: Lab) -> Verdict:
    """A sysctl that begins as one of the network and climbs to the machine's by `/` and `..`."""
    return _sysctl(lab, "net/../vm/overcommit_memory", _now("vm/overcommit_memory"))


@attack("R15", "sysctls by path")
def sysctl_by_dotdot_after_a_prefix(lab: Lab) -> Verdict:
    """The same after a prefix that is allowed, `net.`."""
    return _sysctl(lab, "net.ipv4/../../vm/overcommit_memory", _now("vm/overcommit_memory"))


@attack("R15", "sysctls of the host")
def sysctl_of_the_hosts_network(lab: Lab) -> Verdict:
    """A sysctl of the network, and the network is the host's."""
    bundle = lab.bundle()
    bundle.without_namespace("network")
    bundle.spec["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "78"}
    done = lab.run(bundle)
    if _now("net/ipv4/ip_unprivileged_port_start") == "78":
        return broken("changed the host's network")
    return held("left alone" if done.ran else f"refused: {done.refusal}")


def _user_namespace(lab: Lab, uid: list[dict[str, Any]] | None, gid: list[dict[str, Any]] | None) -> Verdict:
    bundle = lab.bundle()
    bundle.spec["linux"]["namespaces"].append({"type": "user"})
    if uid is not None:
        bundle.spec["linux"]["uidMappings"] = uid
    if gid is not None:
        bundle.spec["linux"]["gidMappings"] = gid
    for path, folders, files in os.walk(bundle.rootfs):
        for name in [*folders, *files, "."]:
            os.chown(f"{path}/{name}", 100000, 100000)
    done = lab.run(bundle)
    if done.ran:
        return broken(f"ran, as {done.value('uid')}:{done.value('gid')}")
    return broken(done.crash) if done.crash else held(f"refused: {done.refusal}")


_FULL = [{"containerID": 0, "hostID": 100000, "size": 65536}]


@attack("R15", "user namespaces")
def user_namespace_without_maps(lab: Lab) -> Verdict:
    """A user namespace without any map."""
    return _user_namespace(lab, None, None)


@attack("R15", "user namespaces")
def user_namespace_without_groups(lab: Lab) -> Verdict:
    """A user namespace with a map of users and none of groups."""
    return _user_namespace(lab, _FULL, None)


@attack("R15", "user namespaces")
def user_namespace_with_overlapping_maps(lab: Lab) -> Verdict:
    """Maps that overlap on the host's side."""
    maps = [
        {"containerID": 0, "hostID": 100000, "size": 1000},
        {"containerID": 1000, "hostID": 100500, "size": 1000},
    ]
    return _user_namespace(lab, maps, maps)


@attack("R15", "user namespaces")
def user_namespace_beyond_32_bits(lab: Lab) -> Verdict:
    """A map whose numbers are 0 when they are cut to 32 bits."""
    maps = [{"containerID": 0, "hostID": (1 << 32), "size": 1000}]
    return _user_namespace(lab, maps, maps)


def _daemons(lab: Lab, bundle: Bundle) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
                if file.read().startswith(b"/bin/inside\0"):
                    found.append(int(name))
    alive = []
    for pid in found:
        with suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            if file.read().rpartition(")")[2].split()[0] not in {"Z", "X"}:
                alive.append(pid)
    return alive


@attack("R15", "delete kills the whole cgroup")
def process_that_outlives_delete(lab: Lab) -> Verdict:
    """Without a pid namespace, the program leaves a process behind and ends; then `delete --force`."""
    bundle = lab.bundle()
    bundle.without_namespace("pid")
    bundle.run_inside("leave-one", "40")
    lab.up(bundle, wait_for="left=1")
    lab.wait(lambda: len(_daemons(lab, bundle)) == 1)
    lab.call("delete", "--force", "c1")
    if lab.wait(lambda: not _daemons(lab, bundle), 1.5):
        return held("killed with the container")
    return broken("a process lives on")


@attack("R15", "delete kills the whole cgroup")
def process_that_outlives_kill_and_delete(lab: Lab) -> Verdict:
    """The same, but the program still sleeps: `kill KILL`, then `delete`."""
    bundle = lab.bundle()
    bundle.without_namespace("pid")
    bundle.spec["process"]["args"] = ["/bin/inside", "leave-one", "40"]
    bundle.run_inside("leave-one", "40")
    lab.up(bundle, wait_for="left=1")
    lab.call("kill", "c1", "KILL")
    time.sleep(0.2)
    lab.call("delete", "c1")
    lab.call("delete", "--force", "c1")
    if lab.wait(lambda: not _daemons(lab, bundle), 1.5):
        return held("killed with the container")
    return broken("a process lives on")


@attack("R15", "delete kills the whole cgroup")
def processes_that_leap_from_delete(lab: Lab) -> Verdict:
    """Without a pid namespace, a process that is never there for longer than it takes to have another."""
    bundle = lab.bundle()
    bundle.without_namespace("pid")
    bundle.run_inside("leapfrog", str(6 * lab.patience))
    lab.up(bundle, wait_for="leaping=1")
    done = lab.call("delete", "--force", "c1", timeout=5)
    seen = 0
    for _ in range(40):
        seen += bool(_daemons(lab, bundle))
        time.sleep(0.01)
    if seen:
        return broken("it leaps on" + (" and delete does not end" if done.timed_out else ""))
    return held("all gone")


def _file_of_the_host(lab: Lab, name: str, resources: dict[str, Any]) -> Verdict:
    path = lab.host_file(name)
    bundle = lab.bundle()
    bundle.spec["linux"]["resources"] |= resources
    done = lab.run(bundle)
    with open(path, encoding="utf-8") as file:
        if file.read() != "intact":
            return broken("wrote to a file of the host")
    return held("left alone" if done.ran else f"refused: {done.refusal}")


@attack("R15", "names of cgroup files")
def unified_by_dotdot(lab: Lab) -> Verdict:
    """The name of a file in resources.unified climbs to a file of the host."""
    return _file_of_the_host(lab, "aim", {"unified": {f"{_UP}/lab/host/aim": "12345"}})


@attack("R15", "names of cgroup files")
def hugepage_size_by_dotdot(lab: Lab) -> Verdict:
    """The page size of a hugepage limit, of which a file's name is made, climbs to a file of the host."""
    name = "aim.limit_in_bytes" if _hierarchies() != ["/sys/fs/cgroup"] else "aim.max"
    size = f"x/{_UP}/../lab/host/aim"
    return _file_of_the_host(lab, name, {"hugepageLimits": [{"pageSize": size, "limit": 12345}]})


@attack("R15", "sysctls of the host")
def sysctl_of_the_hosts_ipc(lab: Lab) -> Verdict:
    """A sysctl of System V IPC, and that is the host's."""
    bundle = lab.bundle()
    bundle.without_namespace("ipc")
    bundle.spec["linux"]["sysctl"] = {"kernel.msgmax": "4321"}
    done = lab.run(bundle)
    if _now("kernel/msgmax") == "4321":
        return broken("changed the host's")
    return held("left alone" if done.ran else f"refused: {done.refusal}")


@attack("R15", "sysctls of the host")
def sysctl_of_the_hosts_name(lab: Lab) -> Verdict:
    """kernel.domainname, and the UTS namespace is the host's."""
    bundle = lab.bundle()
    bundle.without_namespace("uts")
    bundle.spec.pop("hostname")
    bundle.spec["linux"]["sysctl"] = {"kernel.domainname": "gattack"}
    done = lab.run(bundle)
    if _now("kernel/domainname") == "gattack":
        return broken("changed the host's")
    return held("left alone" if done.ran else f"refused: {done.refusal}")
