"""R1 and R7: the host's programs, reached from inside; and R14: processes that come to a container."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import time

from .lab import MARK, SECRET, SECRET_FILE, Bundle, Lab, Unclear, Verdict, broken, held, text_of
from .suite import attack

LOADERS = ("lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1", "lib/ld-linux.so.2")


def hostile_loader(lab: Lab, bundle: Bundle) -> None:
    """Let a program of the host that runs with this root be in hostile hands from its first instruction."""
    with open(f"{lab.programs}/loader", "rb") as file:
        content = file.read()
    for name in LOADERS:
        bundle.file(name, content, 0o755)


def verdict_on_files(lab: Lab, output: str) -> Verdict:
    """After some seconds for the hostile program to find the file not in use."""
    if lab.wait(lambda: "loader=ran" in text_of(output), 0.5):
        lab.wait(lambda: bool(lab.overwritten()) or "overwrite=" in text_of(output), 4)
    path = lab.overwritten()
    if path:
        return broken(f"wrote to {os.path.basename(path)} of the host")
    words = [line for line in text_of(output).splitlines() if line.startswith(("overwrite=", "loader="))]
    return held(f"not written: {' '.join(words) or 'the host has nothing that runs inside'}")


def start_hostile(lab: Lab, bundle: Bundle) -> Verdict:
    """Create and start, so that no runtime is left that keeps its file busy."""
    done = lab.create(bundle)
    output = f"/lab/tmp/call{lab.calls}.out"
    if done.code == 0:
        lab.call("start", "c1")
    return verdict_on_files(lab, output)


def elf_with_own_exe_as_interpreter(lab: Lab, bundle: Bundle) -> None:
    """/bin/hostile: its interpreter is /proc/self/exe, which while it is loaded is whatever started it."""
    with open(f"{lab.programs}/selfinterp", "rb") as file:
        bundle.file("bin/hostile", file.read(), 0o755)


@attack("R1", "CVE-2019-5736")
def exe_as_program(lab: Lab) -> Verdict:
    """The program is /proc/self/exe, the image's ld.so is hostile."""
    bundle = lab.bundle()
    hostile_loader(lab, bundle)
    bundle.spec["process"]["args"] = ["/proc/self/exe", "init"]
    return start_hostile(lab, bundle)


@attack("R1", "CVE-2019-5736")
def exe_link_as_program(lab: Lab) -> Verdict:
    """The program is a link to /proc/self/exe."""
    bundle = lab.bundle()
    hostile_loader(lab, bundle)
    bundle.link("bin/hostile", "/proc/self/exe")
    bundle.spec["process"]["args"] = ["/bin/hostile"]
    return start_hostile(lab, bundle)


@attack("R1", "CVE-2019-5736")
def exe_as_script_interpreter(lab: Lab) -> Verdict:
    """The program is a script that begins with #!/proc/self/exe."""
    bundle = lab.bundle()
    hostile_loader(lab, bundle)
    bundle.file("bin/hostile", "#!/proc/self/exe\n", 0o755)
    bundle.spec["process"]["args"] = ["/bin/hostile"]
    return start_hostile(lab, bundle)


def exec_hostile(lab: Lab, bundle: Bundle, arguments: list[str]) -> Verdict:
    """The same by `exec` into a container that sleeps."""
    bundle.run_inside("sleep", "30")
    lab.up(bundle)
    lab.exec(arguments, "c1", "--detach", timeout=6)
    return verdict_on_files(lab, f"/lab/tmp/call{lab.calls}.out")


@attack("R1", "CVE-2019-5736")
def exec_of_exe(lab: Lab) -> Verdict:
    """`exec` of /proc/self/exe."""
    bundle = lab.bundle()
    hostile_loader(lab, bundle)
    return exec_hostile(lab, bundle, ["/proc/self/exe"])


@attack("R1", "CVE-2019-5736")
def exec_of_exe_script(lab: Lab) -> Verdict:
    """`exec` of a script that begins with #!/proc/self/exe."""
    bundle = lab.bundle()
    hostile_loader(lab, bundle)
    bundle.file("bin/hostile", "#!/proc/self/exe\n", 0o755)
    return exec_hostile(lab, bundle, ["/bin/hostile"])


def watched(lab: Lab, mode: str, arguments: list[str], prepare: Bundle | None = None, times: int = 4) -> str:
    """The container watches for processes that join it while `exec` is called; return what it saw."""
    bundle = prepare or lab.bundle()
    bundle.run_inside("watch", mode, str(3 * lab.patience), SECRET_FILE)
    output = lab.up(bundle, wait_for="watching=1")
    end = time.monotonic() + 2.2 * lab.patience
    called = 0
    while called < times and time.monotonic() < end:
        done = lab.exec(arguments, timeout=4)
        if not done.ran and arguments == ["/bin/inside", "look"]:
            raise Unclear(f"exec does not run: {done.refusal}")
        called += 1
    if not lab.wait(lambda: "watched=1" in text_of(output), 6):
        raise Unclear("the watcher did not end")
    return text_of(output)


@attack("R1", "CVE-2019-5736")
def exe_of_a_joining_process(lab: Lab) -> Verdict:
    """The container opens /proc/PID/exe of each `exec` and writes to it once it is free."""
    seen = watched(lab, "exe", ["/bin/inside", "look"])
    if lab.overwritten():
        return broken(f"wrote to {os.path.basename(lab.overwritten())} of the host")
    return held(
        "saw " + (" ".join(sorted({line for line in seen.splitlines() if "exe=" in line}))[:80] or "no exe")
    )


@attack("R1", "CVE-2019-5736")
def exe_as_elf_interpreter_in_exec(lab: Lab) -> Verdict:
    """`exec` of an ELF file whose interpreter is /proc/self/exe, with a watcher that opens what runs."""
    bundle = lab.bundle()
    elf_with_own_exe_as_interpreter(lab, bundle)
    hostile_loader(lab, bundle)
    watched(lab, "exe", ["/bin/hostile"], bundle)
    if lab.overwritten():
        return broken(f"wrote to {os.path.basename(lab.overwritten())} of the host")
    return held("not written")


@attack("R14", "CVE-2016-9962")
def files_of_a_joining_process(lab: Lab) -> Verdict:
    """The container looks through /proc/PID/{root,cwd,fd} of each `exec`."""
    if SECRET in watched(lab, "files", ["/bin/inside", "look"]):
        return broken("read the host's file through a joining process")
    return held("nothing to be read")


@attack("R14", "CVE-2016-9962")
def trace_of_a_joining_process(lab: Lab) -> Verdict:
    """The container attaches with ptrace to each `exec` before it is the container's program."""
    return verdict_on_trace(watched(lab, "ptrace", ["/bin/inside", "look"], times=8))


def verdict_on_trace(seen: str) -> Verdict:
    """What the watcher says that it has stopped."""
    found = [line for line in seen.splitlines() if line.startswith("ptrace=")]
    return (
        broken(f"has the runtime itself under ptrace: {found[0][7:]}")
        if found
        else held("nothing to attach to")
    )


def watched_while_created(lab: Lab, mode: str) -> str:
    """A container watches while another is created in its pid namespace, and waits there for `start`."""
    hostile = lab.bundle("hostile")
    hostile.run_inside("watch", mode, str(2 * lab.patience), SECRET_FILE)
    output = lab.up(hostile, "hostile", wait_for="watching=1")
    bundle = lab.bundle()
    bundle.without_namespace("pid")
    path = f"/proc/{lab.pid_of('hostile')}/ns/pid"
    bundle.spec["linux"]["namespaces"].append({"type": "pid", "path": path})
    done = lab.create(bundle)
    if done.code != 0:
        raise Unclear(f"cannot join a pid namespace: {done.refusal}")
    time.sleep(0.5 * lab.patience)
    lab.call("start", "c1")
    if not lab.wait(lambda: "watched=1" in text_of(output), 6):
        raise Unclear("the watcher did not end")
    return text_of(output)


@attack("R1", "CVE-2019-5736")
def exe_of_a_created_process(lab: Lab) -> Verdict:
    """A container is created in a hostile one's pid namespace, which opens its /proc/PID/exe."""
    watched_while_created(lab, "exe")
    if lab.overwritten():
        return broken(f"wrote to {os.path.basename(lab.overwritten())} of the host")
    return held("not written")


@attack("R14", "CVE-2016-9962")
def files_of_a_created_process(lab: Lab) -> Verdict:
    """The same, through its /proc/PID/{root,cwd,fd}."""
    if SECRET in watched_while_created(lab, "files"):
        return broken("read the host's file through a created process")
    return held("nothing to be read")


@attack("R14", "CVE-2016-9962")
def trace_of_a_created_process(lab: Lab) -> Verdict:
    """The same, with ptrace."""
    return verdict_on_trace(watched_while_created(lab, "ptrace"))


@attack("R14", "CVE-2021-3602")
def environment_of_a_joining_process(lab: Lab) -> Verdict:
    """The container reads /proc/PID/environ of each `exec`, for the caller's variables."""
    seen = watched(lab, "vars", ["/bin/inside", "look"])
    return broken("read the caller's variables") if f"variable={MARK}" in seen else held("nothing to be read")


@attack("R14", "CVE-2021-3602")
def environment_of_a_created_process(lab: Lab) -> Verdict:
    """The same for a container that is created in its pid namespace."""
    seen = watched_while_created(lab, "vars")
    return broken("read the caller's variables") if f"variable={MARK}" in seen else held("nothing to be read")


@attack("R7", "modules beside the bundle")
def module_in_the_bundle(lab: Lab) -> Verdict:
    """The caller stands in the bundle, as containerd's does, and modules of Python lie there and in the image."""
    bundle = lab.bundle()
    marker = "/lab/host/imported"
    names = [
        "json",
        "os",
        "re",
        "site",
        "sitecustomize",
        "usercustomize",
        "gocker",
        "colorsys",
        "typing",
        "ctypes",
    ]
    for name in [
        *names,
        "encodings",
        "socket",
        "subprocess",
        "locale",
        "gettext",
        "linecache",
        "traceback",
        "pwd",
    ]:
        for directory in (bundle.directory, bundle.rootfs):
            with open(f"{directory}/{name}.py", "w", encoding="utf-8") as file:
                file.write(f"open({marker!r}, 'a').write({name!r}); open('/imported', 'a').write({name!r})\n")

    def stand_there() -> None:
        os.chdir(bundle.directory)

    done = lab.run(bundle, before=stand_there)
    if os.path.exists(marker) or os.path.exists(bundle.path("imported")):
        return broken("imported a module of the bundle")
    return held("imported none" if done.ran else f"refused: {done.refusal}")


class _Watch:
    """inotify on files and directories of an image: who opens them before its program is there to do it?"""

    OPEN = 0x20

    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self.libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self.names: dict[int, str] = {}

    def add(self, path: str, shown: str) -> None:
        """Watch one file, or all in one directory."""
        number = self.libc.inotify_add_watch(self.fd, os.fsencode(path), self.OPEN)
        if number >= 0:
            self.names[number] = shown

    def opened(self) -> list[str]:
        """What was opened since."""
        found: list[str] = []
        while True:
            try:
                data = os.read(self.fd, 65536)
            except BlockingIOError:
                return found
            while data:
                number, _, _, size = struct.unpack_from("=iIII", data)
                name = data[16 : 16 + size].rstrip(b"\0").decode()
                found.append(f"{self.names.get(number, '?')}/{name}".rstrip("/"))
                data = data[16 + size :]


def plant(bundle: Bundle) -> _Watch:
    """Put there what a program of the host loads late: libraries, name services, locales, modules of Python."""
    watch = _Watch()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folders = {
        "lib/x86_64-linux-gnu",
        "usr/lib/x86_64-linux-gnu",
        "usr/lib/x86_64-linux-gnu/gconv",
        "usr/lib/locale",
        f"usr/lib/{version}",
        "usr/lib/python3.11",
        "usr/lib/python3.11/encodings",
        f"usr/lib/{version}/lib-dynload",
        "usr/lib/python3/dist-packages",
    }
    for path in sys.path:
        if path.startswith("/") and "tests" not in path:
            folders.add(path.lstrip("/"))
    for folder in sorted(folders):
        os.makedirs(bundle.path(folder), exist_ok=True)
    for name in (
        "etc/nsswitch.conf",
        "etc/ld.so.cache",
        "etc/localtime",
        "lib/x86_64-linux-gnu/libnss_files.so.2",
        "lib/x86_64-linux-gnu/libgcc_s.so.1",
        "usr/lib/locale/locale-archive",
        "usr/lib/x86_64-linux-gnu/gconv/gconv-modules",
    ):
        bundle.file(name, "hostile")
    for folder in sorted(folders):
        watch.add(bundle.path(folder), f"/{folder}")
    for name in ("etc/nsswitch.conf", "etc/ld.so.cache", "etc/localtime"):
        watch.add(bundle.path(name), f"/{name}")
    watch.opened()
    return watch


@attack("R7", "CVE-2019-14271")
def late_loading_in_run(lab: Lab) -> Verdict:
    """Libraries, name services and modules lie in the image where the host has them: does `run` open any?"""
    bundle = lab.bundle()
    watch = plant(bundle)
    bundle.spec["process"]["user"] = {"uid": 1000, "gid": 1000}
    lab.run(bundle).must_run()
    opened = watch.opened()
    return broken(f"opened in the image: {opened[0]}") if opened else held("opened nothing of them")


@attack("R7", "CVE-2019-14271")
def late_loading_in_exec(lab: Lab) -> Verdict:
    """The same for `exec`."""
    bundle = lab.bundle()
    bundle.run_inside("sleep", "30")
    watch = plant(bundle)
    lab.up(bundle)
    watch.opened()
    lab.exec(["/bin/inside", "look"]).must_run()
    opened = watch.opened()
    return broken(f"opened in the image: {opened[0]}") if opened else held("opened nothing of them")
