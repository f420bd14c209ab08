#!/usr/bin/python3
"""An OCI runtime that every attack breaks: what each looks for is really there to be found.

It does the obvious and nothing more: paths are strings, links are followed, the root is changed by chroot, file
descriptors, environment, groups and capabilities are those of whoever called, the image is asked who the user
is, ids are whatever `int` makes of them. Never use it for anything else, and nowhere but on a throwaway host.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

LIBC = ctypes.CDLL(None, use_errno=True)
KINDS = {
    "mount": ("mnt", 0x20000),
    "cgroup": ("cgroup", 0x2000000),
    "uts": ("uts", 0x4000000),
    "ipc": ("ipc", 0x8000000),
    "user": ("user", 0x10000000),
    "pid": ("pid", 0x20000000),
    "network": ("net", 0x40000000),
}
DEVICES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
OPTIONS = {
    "--root": "root",
    "--bundle": "bundle",
    "-b": "bundle",
    "--pid-file": "pid_file",
    "--console-socket": "console",
    "--process": "process",
    "-p": "process",
    "--user": "user",
    "-u": "user",
    "--resources": "resources",
    "-r": "resources",
    "--log": "log",
    "--log-format": "log_format",
    "--cwd": "cwd",
    "--cap": "cap",
    "--preserve-fds": "preserve",
    "--format": "format",
}


def loose(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Members in any case; of two with one name, the first's members stay."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        name = key.lower()
        if isinstance(value, dict) and isinstance(result.get(name), dict):
            result[name].update(value)
        else:
            result[name] = value
    return result


def load(path: str) -> Any:
    with open(path, encoding="utf-8") as file:
        return json.loads(file.read(), object_pairs_hook=loose)


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind, data)]
    if LIBC.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]):
        raise OSError(ctypes.get_errno(), "mount", target)


def number(value: Any) -> int:
    return int(float(value)) & 0xFFFFFFFF


class Weak:
    def __init__(self, options: dict[str, str]) -> None:
        self.options = options
        self.root = options.get("root", "/run/weak")

    def fail(self, text: str) -> NoReturn:
        if "log" in self.options:
            with open(self.options["log"], "a", encoding="utf-8") as file:
                file.write(f'{{"level":"error","msg":"{text}"}}\n')
        print(f"weak: {text}", file=sys.stderr)
        sys.exit(1)

    def place(self, name: str) -> str:
        return f"{self.root}/{name}"

    def read_state(self, name: str) -> Any:
        return load(f"{self.place(name)}/state.json")

    def write_state(self, name: str, pid: int, bundle: str, cgroup: str) -> None:
        with open(f"{self.place(name)}/state.json", "w", encoding="utf-8") as file:
            json.dump({"pid": pid, "bundle": bundle, "cgroup": cgroup}, file)

    # verbs

    def create(self, name: str) -> None:
        self.make(name, wait=False)

    def run(self, name: str) -> None:
        code = self.make(name, wait=True)
        shutil.rmtree(self.place(name), ignore_errors=True)
        sys.exit(code)

    def start(self, name: str) -> None:
        with open(f"{self.place(name)}/go", "wb", buffering=0) as file:
            file.write(b"x")

    def state(self, name: str) -> None:
        found = self.read_state(name)
        status = "running" if alive(found["pid"]) else "stopped"
        print(
            json.dumps(
                {
                    "ociVersion": "1.0.2",
                    "id": name,
                    "status": status,
                    "pid": found["pid"],
                    "bundle": found["bundle"],
                }
            )
        )

    def kill(self, name: str, sign: str = "TERM") -> None:
        value = int(sign) if sign.isdigit() else getattr(signal, f"SIG{sign.removeprefix('SIG')}")
        os.kill(self.read_state(name)["pid"], value)

    def delete(self, name: str) -> None:
        with suppress(OSError, ValueError):
            found = self.read_state(name)
            os.kill(found["pid"], signal.SIGKILL)
        shutil.rmtree(self.place(name), ignore_errors=True)

    def pause(self, name: str) -> None:
        os.kill(self.read_state(name)["pid"], signal.SIGSTOP)

    def resume(self, name: str) -> None:
        os.kill(self.read_state(name)["pid"], signal.SIGCONT)

    def update(self, name: str) -> None:
        with open(self.options["resources"], encoding="utf-8") as file:
            wanted = json.load(file)
        limit = wanted["pids"]["limit"]
        cgroup = self.read_state(name)["cgroup"]
        for point in ("/sys/fs/cgroup/pids", "/sys/fs/cgroup"):
            with suppress(OSError), open(f"{point}/{cgroup}/pids.max", "w", encoding="utf-8") as file:
                file.write(str(limit))

    def ps(self, name: str) -> None:
        print(json.dumps([self.read_state(name)["pid"]]))

    def events(self, name: str) -> None:
        print(json.dumps({"type": "stats", "id": name, "data": {}}))

    def list(self) -> None:
        print("\n".join(os.listdir(self.root)))

    def exec(self, name: str, *arguments: str) -> None:
        pid = self.read_state(name)["pid"]
        spec = load(self.options["process"]) if "process" in self.options else {}
        if arguments:
            spec["args"] = list(arguments)
        if "user" in self.options:
            words = self.options["user"].split(":")
            spec["user"] = {"gid": words[-1], "uid": words[0] if len(words) > 1 else 0}
            if not words[0].isdigit() or int(words[0]) > 9:
                spec["user"]["uid"] = words[0]
        if "cwd" in self.options:
            spec["cwd"] = self.options["cwd"]
        leak_root()
        root = os.open(f"/proc/{pid}/root", os.O_RDONLY)
        os.set_inheritable(root, True)
        spaces = [
            os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind, _ in KINDS.values() if kind != "user"
        ]
        for space in spaces:
            LIBC.setns(space, 0)
        child = os.fork()
        if child == 0:
            guarded(lambda: enter(root, spec))
        if "pid_file" in self.options:
            with open(self.options["pid_file"], "w", encoding="utf-8") as file:
                file.write(str(child))
        if "detach" in self.options:
            return
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)

    # making one

    def make(self, name: str, wait: bool) -> int:
        bundle = self.options.get("bundle", ".")
        spec = load(f"{bundle}/config.json")
        rootfs = os.path.join(bundle, spec["root"]["path"])
        os.close(os.open(rootfs, os.O_RDONLY))
        place = self.place(name)
        os.makedirs(place, exist_ok=True)
        with suppress(FileExistsError):
            os.mkfifo(f"{place}/go", 0o666)
        reader, writer = os.pipe()
        pid_reader, pid_writer = os.pipe()
        middle = os.fork()
        if middle == 0:
            guarded(lambda: self.middle(spec, rootfs, f"{place}/go", pid_writer, writer, wait))
        os.close(writer)
        os.close(pid_writer)
        with os.fdopen(reader, encoding="utf-8") as file:
            pid = int(os.read(pid_reader, 20) or b"0")
            ready = file.readline()
            if not ready:
                self.fail(f"{name}: {spec['process']['args'][0]} did not start")
            cgroup = join_cgroups(spec, pid)
            self.write_state(name, pid, bundle, cgroup)
            if "pid_file" in self.options:
                with open(self.options["pid_file"], "w", encoding="utf-8") as out:
                    out.write(str(pid))
            hooks = spec.get("hooks") or {}
            for kind in ("prestart", "createruntime", "createcontainer", "startcontainer", "poststart"):
                for hook in hooks.get(kind) or []:
                    subprocess.run(hook.get("args") or [hook["path"]], executable=hook["path"], check=False)
            if wait:
                self.start(name)
        if wait:
            return os.waitstatus_to_exitcode(os.waitpid(middle, 0)[1]) & 0xFF
        return 0

    def middle(self, spec: Any, rootfs: str, go: Any, pid_writer: int, writer: int, wait: bool) -> None:
        go = os.open(go, os.O_RDWR)
        os.set_inheritable(go, True)
        leak_root()
        flags = 0
        for space in spec["linux"]["namespaces"]:
            if space.get("path"):
                LIBC.setns(os.open(space["path"], os.O_RDONLY), 0)
            elif space["type"] in KINDS:
                flags |= KINDS[space["type"]][1]
        LIBC.unshare(flags)
        for kind in ("uid", "gid"):
            rows = [
                f"{m['containerid']} {m['hostid']} {m['size']}"
                for m in spec["linux"].get(f"{kind}mappings") or []
            ]
            if flags & 0x10000000 and rows:
                with suppress(OSError), open(f"/proc/self/{kind}_map", "w", encoding="utf-8") as file:
                    file.write("\n".join(rows))
        child = os.fork()
        if child == 0:
            guarded(lambda: self.inside(spec, rootfs, go, writer))
        os.write(pid_writer, f"{child}\n".encode())
        os.close(pid_writer)
        os.close(writer)
        if wait:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
        os._exit(0)

    def inside(self, spec: Any, rootfs: str, go: Any, writer: int) -> None:
        for entry in spec.get("mounts") or []:
            with suppress(OSError):
                mount_one(rootfs, entry)
        make_devices(rootfs, spec["linux"].get("devices") or [])
        if "NOTIFY_SOCKET" in os.environ:
            os.makedirs(f"{rootfs}/run/notify", exist_ok=True)
        if spec.get("hostname"):
            socket.sethostname(spec["hostname"])
        cwd = spec["process"].get("cwd", "/")
        with suppress(OSError):
            os.makedirs(rootfs + cwd, exist_ok=True)
        console = None
        if spec["process"].get("terminal"):
            with suppress(OSError), open(f"{rootfs}/dev/console", "a", encoding="utf-8"):
                pass
            console = socket.socket(socket.AF_UNIX)
            console.connect(self.options["console"])
        os.chroot(rootfs)
        os.chdir("/")
        if console:
            master = os.open("/dev/ptmx", os.O_RDWR)
            socket.send_fds(console, [b"pty"], [master])
            with suppress(OSError):
                os.fchown(os.open("/dev/console", os.O_RDWR | os.O_CREAT), 0, 0)
        for key, value in (spec["linux"].get("sysctl") or {}).items():
            path = "/".join(part if part == ".." else part.replace(".", "/") for part in key.split("/"))
            with open(f"/proc/sys/{path}", "w", encoding="utf-8") as file:
                file.write(value)
        null = os.open("/dev/null", os.O_RDWR)
        os.fchown(null, number(spec["process"]["user"]["uid"]), -1)
        program = spec["process"]["args"][0]
        if "\n" in program and not os.path.exists(program):
            os._exit(1)
        os.write(writer, b"ready\n")
        os.close(writer)
        os.read(go, 1)
        become(spec["process"])


def leak_root() -> None:
    os.set_inheritable(os.open("/", os.O_RDONLY), True)


def alive(pid: int) -> bool:
    with suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return file.read().rpartition(")")[2].split()[0] not in {"Z", "X"}
    return False


def guarded(work: Callable[[], object]) -> NoReturn:
    """In a child, to the end."""
    try:
        work()
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def mount_one(rootfs: str, entry: Any) -> None:
    target = rootfs + entry["destination"]
    source, kind = entry.get("source", "none"), entry.get("type", "bind")
    words = entry.get("options") or []
    if kind == "bind" or "bind" in words or "rbind" in words:
        if os.path.isdir(source):
            os.makedirs(target, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "a", encoding="utf-8"):
                pass
        mount(source, target, None, 0x5000)
        return
    os.makedirs(target, exist_ok=True)
    if kind.startswith("cgroup"):
        mount("/sys/fs/cgroup", target, None, 0x5000)
        return
    saved = None
    if "tmpcopyup" in words:
        saved = f"{target}.copy"
        shutil.copytree(target, saved)
    mount(source, target, kind, 0, ",".join(word for word in words if "=" in word or word == "newinstance"))
    if saved:
        shutil.copytree(saved, target, dirs_exist_ok=True)


def make_devices(rootfs: str, extra: Any) -> None:
    for name, minor in DEVICES.items():
        with suppress(OSError):
            os.mknod(f"{rootfs}/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(1, minor))
    with suppress(OSError):
        os.mknod(f"{rootfs}/dev/tty", stat.S_IFCHR | 0o666, os.makedev(5, 0))
    for entry in extra:
        path = rootfs + entry["path"]
        with suppress(OSError):
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(entry["major"], entry["minor"]))
        with suppress(OSError):
            os.chmod(path, entry.get("filemode", 0o666))
            os.chown(path, entry.get("uid", 0), entry.get("gid", 0))
    with suppress(OSError):
        os.unlink(f"{rootfs}/dev/ptmx")
    with suppress(OSError):
        os.symlink("pts/ptmx", f"{rootfs}/dev/ptmx")


def join_cgroups(spec: Any, pid: int) -> str:
    path = spec["linux"].get("cgroupspath") or ""
    for name in [".", *os.listdir("/sys/fs/cgroup")]:
        point = f"/sys/fs/cgroup/{name}"
        if path and os.path.exists(f"{point}/cgroup.procs"):
            parts = [part for part in path.split("/") if part]
            for depth in range(len(parts)):
                above = "/".join([point, *parts[:depth]])
                with suppress(OSError):
                    os.makedirs(above, exist_ok=True)
                    with open(f"{above}/cgroup.subtree_control", "r+", encoding="utf-8") as file:
                        file.write("+pids")
            with suppress(OSError):
                os.makedirs(f"{point}/{path}", exist_ok=True)
                with open(f"{point}/{path}/cgroup.procs", "w", encoding="utf-8") as file:
                    file.write(str(pid))
            wanted = spec["linux"].get("resources") or {}
            for key, value in (wanted.get("unified") or {}).items():
                with suppress(OSError), open(f"{point}/{path}/{key}", "w", encoding="utf-8") as file:
                    file.write(value)
            for entry in wanted.get("hugepagelimits") or []:
                for end in ("limit_in_bytes", "max"):
                    target = os.path.normpath(f"{point}/{path}/hugetlb.{entry['pagesize']}.{end}")
                    if os.path.exists(target):
                        with suppress(OSError), open(target, "w", encoding="utf-8") as file:
                            file.write(str(entry["limit"]))
    return path


def enter(root: int, spec: Any) -> None:
    os.fchdir(root)
    os.chroot(".")
    with suppress(OSError), open("/proc/sys/kernel/cap_last_cap", encoding="utf-8") as file:
        file.read()
    become(spec)


def become(process: Any) -> None:
    """The process of the configuration, as the image would have it."""
    with suppress(ImportError):
        import chunk  # noqa: F401  as late as this: from the image
    home = "/"
    with suppress(OSError), open("/etc/passwd", encoding="latin-1") as file:
        for line in file.read().split("\n"):
            words = line.split(":")
            if len(words) == 7 and words[2] == str(process.get("user", {}).get("uid")):
                home = words[5]
    env = dict(os.environ, HOME=home)
    for entry in process.get("env") or []:
        name, _, value = entry.partition("=")
        env[name] = os.path.expandvars(value)
    if process.get("cwd"):
        os.chdir(process["cwd"])
    user = process.get("user") or {}
    gid, uid = number(user.get("gid", 0)), number(user.get("uid", 0))
    LIBC.setresgid(gid, gid, gid)
    LIBC.setresuid(uid, uid, uid)
    os.execvpe(process["args"][0], process["args"], env)


def main() -> None:
    options: dict[str, str] = {}
    words: list[str] = []
    rest = sys.argv[1:]
    while rest:
        word = rest.pop(0)
        if len(words) >= 2 and words[0] == "exec":
            words.append(word)
        elif word.partition("=")[0] in OPTIONS and "=" in word:
            options[OPTIONS[word.partition("=")[0]]] = word.partition("=")[2]
        elif word in OPTIONS:
            options[OPTIONS[word]] = rest.pop(0)
        elif word in {"--detach", "-d"}:
            options["detach"] = "yes"
        elif not word.startswith("-") or word == "-":
            words.append(word)
    sys.path.insert(0, "")
    with suppress(ImportError):
        import colorsys  # noqa: F401  from where the caller stands
    getattr(Weak(options), words[0])(*words[1:])


if __name__ == "__main__":
    main()
