"""R2: paths that lead out of the root file system, by links, by `..`, and by changing while they are looked at."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import socket
import stat
import time
from contextlib import suppress

from .lab import HOST, SECRET, Bundle, Done, Lab, Verdict, broken, held
from .suite import attack

_RENAMEAT2 = {"x86_64": 316, "aarch64": 276}[platform.machine()]
_UP = "../../../../../../../.."


def verdict_on_directory(path: str, done: Done) -> Verdict:
    """Was something made in the host's directory?"""
    names = os.listdir(path)
    if names:
        return broken(f"made {' '.join(sorted(names))[:60]} in a directory of the host")
    return held("stayed inside" if done.ran else f"refused: {done.refusal}")


def mounted_on(lab: Lab, bundle: Bundle, destination: str, aim: str) -> Verdict:
    """Mount a tmpfs on `destination`, and look at the host's directory that it leads to."""
    bundle.mount(destination, "tmpfs", "tmpfs")
    return verdict_on_directory(aim, lab.run(bundle))


@attack("R2", "CVE-2021-30465")
def mount_below_absolute_link(lab: Lab) -> Verdict:
    """A mount's destination lies below a link of the image to a directory of the host."""
    bundle, aim = lab.bundle(), lab.host_directory("aim")
    bundle.link("data", aim)
    return mounted_on(lab, bundle, "/data/new", aim)


@attack("R2", "CVE-2021-30465")
def mount_below_relative_link(lab: Lab) -> Verdict:
    """The same with a link that climbs by `..`."""
    bundle, aim = lab.bundle(), lab.host_directory("aim")
    bundle.link("data", f"{_UP}{aim}")
    return mounted_on(lab, bundle, "/data/new", aim)


@attack("R2", "destination by `..`")
def mount_on_dotdot(lab: Lab) -> Verdict:
    """A mount's destination climbs by `..`."""
    bundle, aim = lab.bundle(), lab.host_directory("aim")
    return mounted_on(lab, bundle, f"/{_UP}{aim}/new", aim)


@attack("R2", "CVE-2024-45310")
def file_mount_through_link(lab: Lab) -> Verdict:
    """A file is mounted on a link that dangles to the host: the file it is mounted on is made there."""
    bundle, aim = lab.bundle(), lab.host_directory("aim")
    bundle.link("data", f"{aim}/made")
    bundle.mount("/data", lab.host_file("volume"))
    return verdict_on_directory(aim, lab.run(bundle))


@attack("R2", "CVE-2021-30465")
def copy_up_through_link(lab: Lab) -> Verdict:
    """A tmpfs with `tmpcopyup` on a link to a directory of the host takes its files inside."""
    bundle, aim = lab.bundle(), lab.host_directory("aim")
    with open(f"{aim}/secret", "w", encoding="utf-8") as file:
        file.write(SECRET)
    bundle.link("data", aim)
    bundle.mount("/data", "tmpfs", "tmpfs", ["tmpcopyup", "mode=755"])
    bundle.run_inside("files", "r:/data/secret", f"r:{aim}/secret")
    done = lab.run(bundle)
    inside = [
        f"{path}/{name}" for path, _, names in os.walk(bundle.rootfs) for name in names if name == "secret"
    ]
    if SECRET in done.out or inside:
        return broken("the host's file was copied in")
    return held("not copied" if done.ran else f"refused: {done.refusal}")


def swap_for_ever(one: str, two: str) -> int:
    """A process that exchanges two names, as a container with the same volume would; returns its pid."""
    child = os.fork()
    if child:
        return child
    libc = ctypes.CDLL(None)
    while True:
        libc.syscall(_RENAMEAT2, -100, os.fsencode(one), -100, os.fsencode(two), 2)


def keep_trying(lab: Lab, started: float, tries: int) -> bool:
    """For three seconds, or up to eight on a busy machine."""
    spent = (time.monotonic() - started) / lab.patience
    return spent < 3 or (tries < 15 and spent < 8)


def race(lab: Lab, bundle: Bundle, volume: str, aim: str) -> Verdict:
    """Run the bundle again and again, for some seconds, while /data/x of its volume is now a directory, now a link."""
    os.makedirs(f"{volume}/x")
    os.symlink(aim, f"{volume}/y")
    swapper = swap_for_ever(f"{volume}/x", f"{volume}/y")
    started, tries, ran = time.monotonic(), 0, 0
    try:
        while keep_trying(lab, started, tries) and not os.listdir(aim):
            tries += 1
            done = lab.run(bundle, f"c{tries}")
            ran += done.ran
            if done.code:
                lab.call("delete", "--force", f"c{tries}")
    finally:
        os.kill(swapper, signal.SIGKILL)
        os.waitpid(swapper, 0)
    if os.listdir(aim):
        return broken(f"made {os.listdir(aim)[0]} in a directory of the host, try {tries}")
    return held(f"stayed inside, {tries} tries, {ran} ran")


@attack("R2", "CVE-2021-30465, CVE-2024-45310")
def race_of_mount_destination(lab: Lab) -> Verdict:
    """A directory in a volume becomes a link while a mount's destination below it is made."""
    bundle, aim = lab.bundle(), lab.host_directory("aim")
    volume = lab.host_directory("volume")
    bundle.mount("/data", volume)
    bundle.mount("/data/x/new", "tmpfs", "tmpfs")
    return race(lab, bundle, volume, aim)


@attack("R2", "CVE-2024-45310")
def race_of_file_destination(lab: Lab) -> Verdict:
    """The same for the file on which a file is mounted."""
    bundle, aim = lab.bundle(), lab.host_directory("aim")
    volume = lab.host_directory("volume")
    bundle.mount("/data", volume)
    bundle.mount("/data/x/new", lab.host_file("one"))
    return race(lab, bundle, volume, aim)


@attack("R2", "CVE-2019-19921, CVE-2023-27561, CVE-2023-28642")
def proc_is_a_link(lab: Lab) -> Verdict:
    """The image's /proc is a link, so that masks and read-only paths go elsewhere."""
    bundle = lab.bundle()
    os.makedirs(bundle.path("elsewhere"))
    bundle.link("proc", "elsewhere")
    bundle.spec["linux"]["readonlyPaths"] = ["/proc/sys"]
    bundle.run_inside(
        "files", "s:/elsewhere/self", "w:/elsewhere/sys/kernel/printk", "w:/proc/sys/kernel/printk"
    )
    done = lab.run(bundle)
    if any(word.endswith(" open") for word in done.values("openw")):
        return broken("a procfs without its read-only paths")
    return held("read-only all the same" if done.ran else f"refused: {done.refusal}")


@attack("R2", "CVE-2023-27561")
def proc_is_a_link_in_a_volume(lab: Lab) -> Verdict:
    """The image's /proc is a link into a volume that others write to."""
    bundle = lab.bundle()
    volume = lab.host_directory("volume")
    os.makedirs(f"{volume}/proc")
    bundle.link("proc", "data/proc")
    bundle.spec["mounts"].insert(
        0, {"destination": "/data", "type": "bind", "source": volume, "options": ["rbind", "rw"]}
    )
    bundle.run_inside("files", "w:/data/proc/sys/kernel/printk")
    bundle.spec["linux"]["readonlyPaths"] = ["/proc/sys"]
    done = lab.run(bundle)
    if done.ran and done.value("openw").endswith(" open"):
        return broken("a procfs in the volume, without its read-only paths")
    return held("read-only all the same" if done.ran else f"refused: {done.refusal}")


@attack("R2", "CVE-2026-41579, CVE-2026-47766")
def dev_is_a_link(lab: Lab) -> Verdict:
    """The image's /dev is a link to a directory of the host, and nothing is mounted there."""
    bundle, aim = lab.bundle(), lab.host_directory("aim")
    bundle.without_mount("/dev")
    bundle.link("dev", aim)
    return verdict_on_directory(aim, lab.run(bundle))


@attack("R2", "CVE-2026-41579")
def dev_is_a_link_with_a_tmpfs(lab: Lab) -> Verdict:
    """The image's /dev is a link to a directory of the host, and /dev/shm below it is a mount."""
    bundle, aim = lab.bundle(), lab.host_directory("aim")
    bundle.without_mount("/dev")
    bundle.link("dev", aim)
    bundle.mount("/dev/shm", "shm", "tmpfs", ["nosuid", "mode=1777"])
    return verdict_on_directory(aim, lab.run(bundle))


@attack("R2", "CVE-2026-41579")
def ptmx_of_the_host_is_removed(lab: Lab) -> Verdict:
    """The same, and a file `ptmx` lies in that directory of the host."""
    bundle, aim = lab.bundle(), lab.host_directory("aim")
    with open(f"{aim}/ptmx", "w", encoding="utf-8") as file:
        file.write("intact")
    bundle.without_mount("/dev")
    bundle.link("dev", f"{_UP}{aim}")
    done = lab.run(bundle)
    if not os.path.isfile(f"{aim}/ptmx") or os.path.islink(f"{aim}/ptmx"):
        return broken("the host's file was removed")
    return held("left alone" if done.ran else f"refused: {done.refusal}")


@attack("R2", "linux.devices on a link")
def device_on_a_link(lab: Lab) -> Verdict:
    """A device's path is a link of the image to a file of the host, whose owner it would change."""
    bundle = lab.bundle()
    aim = lab.host_file("aim")
    bundle.without_mount("/dev")
    bundle.link("dev/evil", aim)
    bundle.spec["linux"]["devices"] = [
        {
            "path": "/dev/evil",
            "type": "c",
            "major": 1,
            "minor": 7,
            "fileMode": 0o666,
            "uid": 1234,
            "gid": 1234,
        }
    ]
    done = lab.run(bundle)
    found = os.stat(aim)
    if found.st_uid == 1234 or stat.S_IMODE(found.st_mode) == 0o666 or not stat.S_ISREG(found.st_mode):
        return broken("changed owner or mode of a file of the host")
    return held("left alone" if done.ran else f"refused: {done.refusal}")


@attack("R2", "linux.devices by `..`")
def device_on_dotdot(lab: Lab) -> Verdict:
    """A device's path climbs by `..`."""
    bundle, aim = lab.bundle(), lab.host_directory("aim")
    bundle.spec["linux"]["devices"] = [
        {
            "path": f"/dev/{_UP}{aim}/node",
            "type": "c",
            "major": 1,
            "minor": 7,
            "fileMode": 0o666,
            "uid": 0,
            "gid": 0,
        }
    ]
    return verdict_on_directory(aim, lab.run(bundle))


@attack("R2", "CVE-2026-55686")
def missing_cwd_through_a_link(lab: Lab) -> Verdict:
    """A working directory that does not exist lies below a link to the host: it is made there."""
    bundle, aim = lab.bundle(), lab.host_directory("aim")
    bundle.link("data", aim)
    bundle.spec["process"]["cwd"] = "/data/new"
    return verdict_on_directory(aim, lab.run(bundle))


@attack("R2", "sd_notify")
def notify_socket_through_a_link(lab: Lab) -> Verdict:
    """The caller has NOTIFY_SOCKET, the image's /run is a link to the host."""
    bundle, aim = lab.bundle(), lab.host_directory("aim")
    bundle.link("run", aim)
    path = f"{HOST}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        done = lab.run(bundle, env={"NOTIFY_SOCKET": path}, timeout=3)
    return verdict_on_directory(aim, done)


class Terminal:
    """The other end of --console-socket."""

    def __init__(self) -> None:
        self.path = f"{HOST}/console"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.listener.settimeout(0.5)

    def received(self) -> list[int]:
        """The descriptors that were sent."""
        found: list[int] = []
        with suppress(OSError):
            connection, _ = self.listener.accept()
            connection.settimeout(0.5)
            while True:
                data, fds, _, _ = socket.recv_fds(connection, 4096, 4)
                found += fds
                if not data:
                    break
        return found


def with_terminal(lab: Lab, bundle: Bundle) -> tuple[Done, list[int]]:
    """`create` with a terminal, then `start`."""
    bundle.spec["process"]["terminal"] = True
    terminal = Terminal()
    done = lab.create(bundle, "c1", "--console-socket", terminal.path, timeout=5)
    if done.code == 0:
        lab.call("start", "c1", timeout=5)
    return done, terminal.received()


@attack("R2", "CVE-2025-52565, CVE-2026-88264")
def console_is_a_link(lab: Lab) -> Verdict:
    """The image's /dev/console is a link that dangles to the host, and /dev is the image's own."""
    bundle, aim = lab.bundle(), lab.host_directory("aim")
    bundle.spec["mounts"] = [entry for entry in bundle.spec["mounts"] if entry["destination"] != "/dev"]
    bundle.link("dev/console", f"{aim}/made")
    done, _ = with_terminal(lab, bundle)
    names = os.listdir(aim)
    if names:
        return broken(f"made {names[0]} on the host")
    return held("stayed inside" if done.code == 0 else f"refused: {done.refusal}")


@attack("R5", "CVE-2025-52565")
def ptmx_is_a_file_of_the_image(lab: Lab) -> Verdict:
    """The image's /dev/pts/ptmx is a plain file: is it sent to the caller as a terminal?"""
    bundle = lab.bundle()
    bundle.without_mount("/dev")
    bundle.file("dev/pts/ptmx", "hostile", 0o666)
    bundle.file("dev/ptmx", "hostile", 0o666)
    done, fds = with_terminal(lab, bundle)
    fakes = [fd for fd in fds if not os.isatty(fd)]
    if fakes:
        return broken("the caller got a plain file of the image as its terminal")
    return held("got a terminal" if fds else f"refused: {done.refusal}")


@attack("R3", "CVE-2026-88265")
def null_for_stdio_is_a_link(lab: Lab) -> Verdict:
    """The image's /dev/null is a link to another file, which would change its owner with the streams."""
    bundle = lab.bundle()
    bundle.without_mount("/dev")
    bundle.file("etc/root-only", "intact", 0o600)
    bundle.link("dev/null", "/etc/root-only")
    bundle.spec["process"]["user"] = {"uid": 1000, "gid": 1000}
    done = lab.run(bundle)
    if os.stat(bundle.path("etc/root-only")).st_uid != 0:
        return broken("a file that was root's is the program's now")
    return held("left alone" if done.code == 0 else f"refused: {done.refusal}")
