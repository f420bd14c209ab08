"""What is fuzzed with the real commands: `gocker-oci create`, `delete` and `gocker run`, of what can do no harm.

What a config may ask for of the host is left as it is: no source of a mount, no hook, no cgroup, no namespace of
others and no device number is ever changed, and the root is read-only.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import Any

from hypothesis import strategies as st
from mutate import ANY, ODD, Change, changed, places

TIMEOUT = 60.0 * float(os.environ.get("GOCKER_TEST_SLOWNESS", "1"))  # seconds
_BIN = os.path.dirname(sys.executable)
_DIRECTORIES = ("bin", "proc", "dev", "sys", "tmp", "mnt")
_BUGS = ("Traceback", "internal error")


def base(rootfs: str) -> dict[str, Any]:
    """A config that starts."""
    kinds = ("mount", "pid", "ipc", "uts", "network", "cgroup")
    return {
        "ociVersion": "1.2.0",
        "root": {"path": rootfs, "readonly": True},
        "hostname": "box",
        "domainname": "example.test",
        "process": {
            "terminal": False,
            "cwd": "/",
            "args": ["/bin/true"],
            "env": ["PATH=/bin", "A=1"],
            "user": {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [5]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}],
            "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
            "noNewPrivileges": True,
            "oomScoreAdj": 100,
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "ro"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755", "size=64k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["mode=620"]},
            {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["noexec", "rprivate"]},
        ],
        "annotations": {"com.example.key": "value", "dev.gocker.limit.pids": "20"},
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "resources": {"memory": {"limit": 100 << 20}, "cpu": {"shares": 512}},
            "sysctl": {"net.ipv4.ip_forward": "1"},
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
            "rootfsPropagation": "private",
            "personality": {"domain": "LINUX"},
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["keyctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
            },
        },
    }


def _is_harmless(path: tuple[str | int, ...]) -> bool:
    words = [word for word in path if isinstance(word, str)]
    if (
        not words
        or words[0] == "root"
        or words[:2] == ["linux", "namespaces"]
        or words in (["linux"], ["mounts"])
    ):
        return False
    return words[0] != "mounts" or words[-1] in {"destination", "options"}


def _harmless(config: Any) -> Any:
    """Nothing of the host may have come in by a value."""
    for mount in config.get("mounts", ()):
        options = mount.get("options")
        if isinstance(options, list):
            texts = [option for option in options if isinstance(option, str)]
            mount["options"] = [
                option for option in texts if "bind" not in option and "remount" not in option
            ]
    for name in ("hooks", "vm", "zos"):
        config.pop(name, None)
    linux = config["linux"]
    for name in ("cgroupsPath", "netDevices", "intelRdt", "devices", "mountLabel"):
        linux.pop(name, None)
    return config


_BASE = base("/")
CHANGES = st.lists(
    st.builds(
        Change,
        st.sampled_from([path for path in places(_BASE) if _is_harmless(path)]),
        st.sampled_from(["put", "put", "delete", "double", "number", "add", "long"]),
        ODD | ANY,
    ),
    max_size=2,
)
_TEXT = st.sampled_from(
    [
        "",
        "-1",
        "0",
        "1",
        "a",
        "é",
        "a=b",
        "=",
        "x" * 300,
        "9" * 25,
        "100m",
        "64m",
        "nobody",
        "1000:1000",
        "/",
        "/tmp",
        "..",
    ]
) | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
_OPTIONS = (
    *(
        "--hostname",
        "--env",
        "--workdir",
        "--user",
        "--ulimit",
        "--label",
        "--memory",
        "--cpu-shares",
        "--pids-limit",
    ),
    *(
        "--cpus",
        "--limit",
        "--sysctl",
        "--oom-score-adj",
        "--cap-add",
        "--cap-drop",
        "--tmpfs",
        "--name",
        "--stop-signal",
    ),
    *(
        "--group-add",
        "--domainname",
        "--entrypoint",
        "--security-opt",
        "--uts",
        "--network",
        "--timeout",
        "--blkio-weight",
    ),
)
_FLAGS = (
    "--init",
    "--read-only",
    "--interactive",
    "--tty",
    "--dry-run",
    "--quiet-no-such",
    "--userns=private",
)
WORDS = st.lists(
    st.tuples(st.sampled_from(_OPTIONS), _TEXT).map(list) | st.sampled_from(_FLAGS).map(lambda flag: [flag]),
    max_size=3,
).map(lambda found: [word for part in found for word in part])


class Live:
    """A host's worth of places, for as long as the fuzzing goes on."""

    def __init__(self, directory: str = "") -> None:
        self.directory = directory or tempfile.mkdtemp(prefix="gocker-fuzz-")
        self.rootfs = f"{self.directory}/rootfs"
        for name in _DIRECTORIES:
            os.makedirs(f"{self.rootfs}/{name}")
        shutil.copy("/bin/busybox", f"{self.rootfs}/bin/busybox")
        for name in ("sh", "true", "sleep"):
            os.symlink("busybox", f"{self.rootfs}/bin/{name}")
        os.mkdir(f"{self.directory}/bundle")
        self.config = base(self.rootfs)
        self.number = 0
        self.created = 0
        self.env = {
            **os.environ,
            "GOCKER_ROOT": f"{self.directory}/data",
            "GOCKER_STATE": f"{self.directory}/state",
            "GOCKER_AUDIT_LOG": f"{self.directory}/log/audit.jsonl",
        }

    def close(self) -> None:
        """Its files go."""
        shutil.rmtree(self.directory)

    def check(self) -> None:
        """What is changed starts as it is."""
        self.oci([])
        assert self.created == 1, "the config is refused"
        assert self.run([]) == 0, "the command is refused"

    def oci(self, found: list[Change]) -> None:
        """Create a container of a changed config, and delete it, whatever came of that."""
        self.number += 1
        container = f"fz-{os.getpid()}-{self.number}"
        config = _harmless(changed(self.config, found))
        with open(f"{self.directory}/bundle/config.json", "w", encoding="utf-8") as file:
            json.dump(config, file)
        root = f"{self.directory}/oci"
        program = [f"{_BIN}/gocker-oci", "--root", root]
        status, said = self._call([*program, "create", "--bundle", f"{self.directory}/bundle", container])
        assert status in {0, 1}, (status, said)
        if status == 0:
            self.created += 1
            started, said = self._call([*program, "start", container])
            assert started in {0, 1}, (started, said)
        deleted, said = self._call([*program, "delete", "--force", container])
        assert deleted == 0, said
        self._nothing_left(root, container)

    def run(self, words: list[str]) -> int:
        """`gocker run` with changed options; its exit status."""
        self.number += 1
        known = len(self._logged())
        status, _ = self._call([f"{_BIN}/gocker", "run", *words, "--rootfs", self.rootfs, "/bin/true"])
        assert status >= 0, f"killed by signal {-status}"
        ids = {json.loads(line).get("container") for line in self._logged()[known:]}
        self._nothing_left(f"{self.directory}/state", *filter(None, ids))
        return status

    def _logged(self) -> list[str]:
        """The lines of the audit log."""
        try:
            with open(self.env["GOCKER_AUDIT_LOG"], encoding="utf-8") as file:
                return file.read().splitlines()
        except FileNotFoundError:
            return []

    def _call(self, argv: list[str]) -> tuple[int, str]:
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(err := tempfile.TemporaryFile()),
            env=self.env,
            cwd=self.directory,
            start_new_session=True,
        ) as process:
            try:
                status = process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise AssertionError(f"{argv} took more than {TIMEOUT} s") from None
        err.seek(0)
        said = err.read().decode("utf-8", "backslashreplace")
        err.close()
        assert not any(bug in said for bug in _BUGS), said
        assert not said or said.startswith("gocker: ") or "Usage:" in said, said
        return status, said

    def _nothing_left(self, root: str, *containers: str) -> None:
        left = [name for place in ("containers", "names") for name in _names(f"{root}/{place}")]
        left += _names(f"{self.directory}/data/containers")
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            left += [line for line in file if self.directory in line]
        left += [path for path in _cgroups() if path.rpartition("/")[2] in containers]
        assert not left, left


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _cgroups() -> list[str]:
    found = []
    for name in os.listdir("/sys/fs/cgroup"):
        for path in (f"/sys/fs/cgroup/{name}/gocker", "/sys/fs/cgroup/gocker"):
            found += [f"{path}/{entry}" for entry in _names(path)]
    return found
