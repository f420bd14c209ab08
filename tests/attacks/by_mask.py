"""R3 and R5: masks, read-only paths and mounts that are not what they seem, and false procfs."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import time

from .by_path import keep_trying, swap_for_ever
from .lab import Bundle, Done, Lab, Verdict, broken, held, text_of
from .suite import attack

HIDDEN = "gattack-hidden-in-the-image"


def with_hidden_file(lab: Lab) -> Bundle:
    """A bundle whose /etc/hidden is to be masked."""
    bundle = lab.bundle()
    bundle.file("etc/hidden", HIDDEN)
    bundle.spec["linux"]["maskedPaths"] = ["/etc/hidden"]
    bundle.run_inside("into", "/tmp/report", "files", "r:/etc/hidden", "s:/etc/hidden")
    return bundle


def report_of(bundle: Bundle) -> str:
    """What the program wrote, whatever its streams were."""
    path = bundle.path("tmp/report")
    return text_of(path) if os.path.isfile(path) else ""


def verdict_on_mask(bundle: Bundle, done: Done) -> Verdict:
    """Has it read what is masked?"""
    report = report_of(bundle)
    if HIDDEN in report:
        return broken("read what is masked, or what the image put in place of the mask")
    return held("shows nothing" if "program=ran" in report else f"refused: {done.refusal}")


@attack("R3", "maskedPaths are applied")
def masked_path_is_read(lab: Lab) -> Verdict:
    """Read a masked file."""
    bundle = with_hidden_file(lab)
    done = lab.run(bundle)
    if "program=ran" not in report_of(bundle):
        done.must_run()
    return verdict_on_mask(bundle, done)


@attack("R3", "readonlyPaths are applied")
def read_only_path_is_written(lab: Lab) -> Verdict:
    """Open files of read-only paths, in /proc and in the image, for writing."""
    bundle = lab.bundle()
    bundle.file("etc/fixed", "fixed")
    bundle.spec["linux"]["readonlyPaths"] += ["/etc/fixed"]
    bundle.run_inside("files", "w:/etc/fixed", "w:/proc/sys/kernel/printk")
    done = lab.run(bundle).must_run()
    opened = [word for word in done.values("openw") if word.endswith(" open")]
    return broken(f"opened {opened[0]}") if opened else held("cannot be opened")


@attack("R3", "CVE-2025-31133")
def null_is_a_link(lab: Lab) -> Verdict:
    """The image's /dev/null is a link to a file of the image: masks made of it show that file."""
    bundle = with_hidden_file(lab)
    bundle.without_mount("/dev")
    bundle.file("etc/shown", HIDDEN)
    bundle.link("dev/null", "/etc/shown")
    return verdict_on_mask(bundle, lab.run(bundle))


@attack("R3", "CVE-2025-31133")
def null_is_a_plain_file(lab: Lab) -> Verdict:
    """The image's /dev/null is a plain file, with a content that masks would then have."""
    bundle = with_hidden_file(lab)
    bundle.without_mount("/dev")
    bundle.file("dev/null", HIDDEN)
    return verdict_on_mask(bundle, lab.run(bundle))


@attack("R3", "CVE-2025-31133, CVE-2026-42306")
def race_of_null(lab: Lab) -> Verdict:
    """/dev/null is now the device, now a link, while masks are made of it."""
    bundle = with_hidden_file(lab)
    bundle.without_mount("/dev")
    bundle.file("etc/shown", HIDDEN)
    os.mknod(bundle.path("dev/null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
    bundle.link("dev/other", "/etc/shown")
    swapper = swap_for_ever(bundle.path("dev/null"), bundle.path("dev/other"))
    started, tries, ran = time.monotonic(), 0, 0
    try:
        while keep_trying(lab, started, tries):
            tries += 1
            done = lab.run(bundle, f"c{tries}")
            if done.code:
                lab.call("delete", "--force", f"c{tries}")
            verdict = verdict_on_mask(bundle, done)
            ran += done.code == 0
            if verdict.status == "broken":
                return broken(f"the mask is a file of the image, try {tries}")
    finally:
        os.kill(swapper, signal.SIGKILL)
        os.waitpid(swapper, 0)
    return held(f"showed nothing, {tries} tries, {ran} ran")


@attack("R3", "masked path is a link")
def masked_path_is_a_link(lab: Lab) -> Verdict:
    """The masked path is a link of the image to the file with the content."""
    bundle = with_hidden_file(lab)
    bundle.link("etc/alias", "hidden")
    bundle.spec["linux"]["maskedPaths"] = ["/etc/alias"]
    bundle.run_inside("into", "/tmp/report", "files", "r:/etc/alias")
    return verdict_on_mask(bundle, lab.run(bundle))


@attack("R3", "masked path that is not plain")
def masked_path_is_not_plain(lab: Lab) -> Verdict:
    """Masked paths are relative, or go through `..`: ignored, and nobody says so?"""
    bundle = with_hidden_file(lab)
    bundle.file("etc/deep/hidden", HIDDEN)
    bundle.spec["linux"]["maskedPaths"] = ["etc/hidden", "/etc/../etc/deep"]
    bundle.run_inside("into", "/tmp/report", "files", "r:/etc/hidden", "r:/etc/deep/hidden")
    return verdict_on_mask(bundle, lab.run(bundle))


@attack("R3", "read-only path is a link")
def read_only_path_is_a_link(lab: Lab) -> Verdict:
    """The read-only path is a link of the image, and is written to by that name."""
    bundle = lab.bundle()
    bundle.file("etc/fixed", "fixed")
    bundle.link("etc/alias", "fixed")
    bundle.spec["linux"]["readonlyPaths"] = ["/etc/alias"]
    bundle.run_inside("files", "w:/etc/alias")
    done = lab.run(bundle)
    if done.value("openw").endswith(" open"):
        return broken("opened it")
    return held("cannot be opened" if done.ran else f"refused: {done.refusal}")


@attack("R3", "mount options are applied")
def program_on_a_noexec_mount(lab: Lab) -> Verdict:
    """Run a program that lies on a volume mounted with noexec."""
    bundle = lab.bundle()
    volume = lab.host_directory("volume")
    shutil.copy(bundle.path("bin/inside"), volume)
    bundle.mount("/data", volume, "bind", ["rbind", "noexec"])
    bundle.spec["process"]["args"] = ["/data/inside", "look"]
    done = lab.run(bundle)
    return broken("it runs") if done.ran else held(f"refused: {done.refusal}")


@attack("R3", "mount options are applied")
def set_user_id_program_on_a_nosuid_mount(lab: Lab) -> Verdict:
    """User 1000 runs a set-user-id program that lies on a volume mounted with nosuid; no_new_privs is not asked for."""
    bundle = lab.bundle()
    volume = lab.host_directory("volume")
    shutil.copy(bundle.path("bin/inside"), volume)
    os.chmod(f"{volume}/inside", 0o4755)
    bundle.mount("/data", volume, "bind", ["rbind", "nosuid"])
    bundle.spec["process"] |= {
        "noNewPrivileges": False,
        "user": {"uid": 1000, "gid": 1000},
        "args": ["/data/inside", "look"],
    }
    done = lab.run(bundle).must_run()
    return broken("is root") if done.value("euid") == "0" else held(f"is {done.value('euid')}")


@attack("R3", "mount options are applied")
def read_only_mount_is_written(lab: Lab) -> Verdict:
    """Write to a volume that is mounted read-only."""
    bundle = lab.bundle()
    volume = lab.host_directory("volume")
    bundle.mount("/data", volume, "bind", ["rbind", "ro", "nosuid", "nodev", "noexec"])
    bundle.run_inside("files", "m:/data/made")
    lab.run(bundle).must_run()
    return broken("wrote to it") if os.listdir(volume) else held("cannot be written")


@attack("R3", "root.readonly is applied")
def read_only_root_is_written(lab: Lab) -> Verdict:
    """Write to a root file system that is read-only."""
    bundle = lab.bundle()
    bundle.spec["root"]["readonly"] = True
    bundle.run_inside("files", "m:/etc/made")
    lab.run(bundle).must_run()
    return broken("wrote to it") if os.path.exists(bundle.path("etc/made")) else held("cannot be written")


@attack("R3", "masks cannot be undone")
def read_only_root_is_made_writable(lab: Lab) -> Verdict:
    """Remount the root file system and /proc/sys writable, with docker's capabilities."""
    bundle = lab.bundle()
    bundle.run_inside("remount-rw", "/proc/sys", "/proc/sys/kernel/printk")
    done = lab.run(bundle).must_run()
    if done.value("openw").endswith(" open"):
        return broken("writes to /proc/sys")
    return held(f"remount: {done.value('remount')}")


@attack("R5", "CVE-2019-16884, CVE-2025-52881")
def volume_over_proc(lab: Lab) -> Verdict:
    """A volume with a false procfs is mounted over /proc: labels and limits would be written to its files."""
    return _over_proc(lab, "/proc")


@attack("R5", "CVE-2019-16884")
def volume_over_proc_by_dotdot(lab: Lab) -> Verdict:
    """The same, the destination written in another way."""
    return _over_proc(lab, "/data/..//proc/.")


@attack("R5", "CVE-2019-16884, CVE-2023-28642")
def volume_over_proc_by_a_link(lab: Lab) -> Verdict:
    """The same, the destination is a link of the image to /proc."""
    return _over_proc(lab, "/data", link="proc")


@attack("R5", "CVE-2019-16884")
def volume_over_attributes(lab: Lab) -> Verdict:
    """A volume is mounted over /proc/self/attr, where security labels are written."""
    return _over_proc(lab, "/proc/self/attr", look="/proc/self/attr")


@attack("R5", "CVE-2025-52881")
def volume_over_proc_sys(lab: Lab) -> Verdict:
    """A volume is mounted over /proc/sys through a link, where sysctls are written."""
    return _over_proc(lab, "/data/sys", link="proc", look="/proc/sys")


def _over_proc(lab: Lab, destination: str, link: str = "", look: str = "/proc") -> Verdict:
    bundle = lab.bundle()
    volume = lab.host_directory("volume")
    os.makedirs(f"{volume}/self/attr")
    with open(f"{volume}/mark", "w", encoding="utf-8") as file:
        file.write("false")
    if link:
        bundle.link("data", link)
    bundle.mount(destination, volume)
    bundle.spec["linux"].pop("maskedPaths")
    bundle.spec["linux"].pop("readonlyPaths")
    bundle.run_inside("files", f"r:{look}/mark", f"r:{destination}/mark")
    done = lab.run(bundle)
    if done.value(f"read.{look}/mark") or done.value(f"read.{destination}/mark"):
        return broken(f"{look} is the volume")
    return held(f"{look} is none of the volume's" if done.ran else f"refused: {done.refusal}")


@attack("R5", "CVE-2025-52881")
def sysctl_written_to_a_file_of_the_image(lab: Lab) -> Verdict:
    """No procfs is mounted, the image has plain files in its place: is a sysctl written there and taken as set?"""
    bundle = lab.bundle()
    bundle.without_mount("/proc")
    bundle.file("proc/sys/net/ipv4/ip_unprivileged_port_start", "1024")
    bundle.file("proc/self/attr/exec", "")
    bundle.spec["linux"].pop("maskedPaths")
    bundle.spec["linux"].pop("readonlyPaths")
    bundle.spec["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "77"}
    done = lab.run(bundle)
    with open(bundle.path("proc/sys/net/ipv4/ip_unprivileged_port_start"), encoding="utf-8") as file:
        if file.read().strip() == "77":
            return broken("wrote it to a file of the image" + (" and ran" if done.ran else ""))
    return held("set in the kernel" if done.ran else f"refused: {done.refusal}")


@attack("R5", "labels that cannot be set")
def apparmor_is_ignored(lab: Lab) -> Verdict:
    """An AppArmor profile that is not there is asked for: does the program run without it?"""
    bundle = lab.bundle()
    bundle.spec["process"]["apparmorProfile"] = "gattack-no-such-profile"
    done = lab.run(bundle)
    return broken("ran without its profile") if done.ran else held(f"refused: {done.refusal}")


@attack("R5", "labels that cannot be set")
def selinux_is_ignored(lab: Lab) -> Verdict:
    """An SELinux label that no policy knows is asked for: does the program run without it?"""
    bundle = lab.bundle()
    bundle.spec["process"]["selinuxLabel"] = "gattack:no:such_label:s0"
    done = lab.run(bundle)
    return broken("ran without its label") if done.ran else held(f"refused: {done.refusal}")


@attack("R2", "CVE-2019-19921")
def volume_over_the_root_by_a_link(lab: Lab) -> Verdict:
    """A volume's destination is a link of the image to its root: everything that was set up would lie below it."""
    bundle = lab.bundle()
    volume = lab.host_directory("volume")
    os.makedirs(f"{volume}/bin")
    shutil.copy(bundle.path("bin/inside"), f"{volume}/bin")
    with open(f"{volume}/mark", "w", encoding="utf-8") as file:
        file.write("false")
    bundle.link("data", ".")
    bundle.mount("/data", volume)
    bundle.spec["linux"].pop("maskedPaths")
    bundle.spec["linux"].pop("readonlyPaths")
    bundle.run_inside("files", "r:/mark")
    done = lab.run(bundle)
    if done.value("read./mark"):
        return broken("the root is the volume")
    return held("the root is the image" if done.ran else f"refused: {done.refusal}")


@attack("R3", "propagation that is unknown")
def propagation_that_is_unknown(lab: Lab) -> Verdict:
    """rootfsPropagation is a word that is none: does the program run all the same?"""
    bundle = lab.bundle()
    bundle.spec["linux"]["rootfsPropagation"] = "gattack"
    done = lab.run(bundle)
    return broken("ran") if done.ran else held(f"refused: {done.refusal}")
