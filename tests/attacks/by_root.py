"""R14 and R2: the root file system itself, and the old one behind it."""

from __future__ import annotations

import os
import shutil

from .lab import SECRET, SECRET_FILE, Bundle, Lab, Verdict, broken, held
from .suite import attack


def _with_admin(lab: Lab) -> Bundle:
    bundle = lab.bundle()
    capabilities = bundle.spec["process"]["capabilities"]
    for kind in ("bounding", "effective", "permitted"):
        capabilities[kind] = [*capabilities[kind], "CAP_SYS_ADMIN"]
    return bundle


@attack("R14", "chroot is no wall")
def escape_by_chroot(lab: Lab) -> Verdict:
    """Climb out with a second chroot, which docker's capabilities allow."""
    bundle = lab.bundle()
    bundle.run_inside("chroot-escape", SECRET_FILE)
    done = lab.run(bundle).must_run()
    return broken("read the host's file") if SECRET in done.out else held("the root is the root")


@attack("R14", "chroot is no wall")
def escape_by_setns(lab: Lab) -> Verdict:
    """Enter its own mount namespace again, which leads to that namespace's root, with CAP_SYS_ADMIN."""
    bundle = _with_admin(lab)
    bundle.run_inside("setns-escape", SECRET_FILE)
    done = lab.run(bundle).must_run()
    return broken("read the host's file") if SECRET in done.out else held("the root is the root")


@attack("R14", "chroot is no wall")
def escape_by_chroot_in_exec(lab: Lab) -> Verdict:
    """Climb out of an `exec`."""
    bundle = lab.bundle()
    bundle.run_inside("sleep", "30")
    lab.up(bundle)
    done = lab.exec(["/bin/inside", "chroot-escape", SECRET_FILE]).must_run()
    return broken("read the host's file") if SECRET in done.out else held("the root is the root")


@attack("R14", "propagation")
def mounts_travel_to_the_host(lab: Lab) -> Verdict:
    """Mount something inside, with CAP_SYS_ADMIN, and look for it on a host whose mounts are shared."""
    bundle = _with_admin(lab)
    volume = lab.host_directory("volume")
    bundle.mount("/data", volume)
    bundle.run_inside("mount", "/data")
    lab.up(bundle, wait_for="mount=done")
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        lines = [line for line in file if volume in line and " - tmpfs inside" in line]
    return broken("the host has the mount") if lines else held("the host does not have it")


@attack("R14", "propagation")
def mounts_of_the_setup_travel_to_the_host(lab: Lab) -> Verdict:
    """Does a mount that the runtime itself made appear on a host whose mounts are shared?"""
    bundle = lab.bundle()
    bundle.run_inside("sleep", "30")
    lab.up(bundle)
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        points = [line.split()[4] for line in file]
    inside = [point for point in points if point.startswith(f"{bundle.rootfs}/")]
    return broken(f"the host has {inside[0]}") if inside else held("the host has none")


@attack("R2", "root.path")
def root_is_a_link(lab: Lab) -> Verdict:
    """root.path is a link, made with the bundle, to a directory of the host."""
    bundle = lab.bundle()
    shutil.move(bundle.rootfs, "/lab/host/elsewhere")
    os.symlink("/lab/host/elsewhere", bundle.rootfs)
    bundle.spec["process"]["args"] = ["/bin/inside", "files", "m:/made"]
    done = lab.run(bundle)
    if os.path.exists("/lab/host/elsewhere/made"):
        return broken("ran with a directory of the host as its root")
    return held("not followed" if done.ran else f"refused: {done.refusal}")


@attack("R13", "root.path")
def root_is_a_fifo(lab: Lab) -> Verdict:
    """root.path is a FIFO: does `run` wait for ever?"""
    bundle = lab.bundle()
    shutil.rmtree(bundle.rootfs)
    os.mkfifo(bundle.rootfs)
    done = lab.run(bundle, timeout=4)
    if done.timed_out:
        return broken("waits for it")
    return broken(done.crash) if done.crash else held(f"refused: {done.refusal}")


@attack("R14", "the host's name")
def hostname_without_a_namespace(lab: Lab) -> Verdict:
    """A hostname is set, and the UTS namespace is the host's."""
    bundle = lab.bundle()
    bundle.without_namespace("uts")
    bundle.spec["hostname"] = "gattack-renamed"
    done = lab.run(bundle)
    if os.uname().nodename == "gattack-renamed":
        return broken("renamed the host")
    return held("the host has its name" if done.ran else f"refused: {done.refusal}")


@attack("R15", "idmapped mounts")
def id_map_of_a_mount_is_ignored(lab: Lab) -> Verdict:
    """A mount asks for ids of its own: are its files root's all the same?"""
    bundle = lab.bundle()
    volume = lab.host_directory("volume")
    bundle.mount("/data", volume)
    maps = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    bundle.spec["mounts"][-1] |= {"uidMappings": maps, "gidMappings": maps}
    bundle.run_inside("files", "s:/data", "m:/data/made")
    done = lab.run(bundle)
    if done.ran and " uid=0 " in done.value("stat"):
        return broken("the map is ignored")
    return held(done.value("stat") if done.ran else f"refused: {done.refusal}")
