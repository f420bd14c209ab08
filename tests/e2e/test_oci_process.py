"""The process of a config.json, and linux.seccomp, by `gocker-oci`: what a program inside sees of them."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ocicommand import GockerOci, text_of, until
from seccompagent import Agent

SHELL = ["sh", "-c"]
NAME = f"process-{os.getpid()}"
MKDIR = {83, 258} if platform.machine() == "x86_64" else {34}
ENOSPC = 28


def agent(path: str) -> Agent:
    """Refuses mkdir, as if the disk were full."""
    if os.path.exists(path):
        os.unlink(path)
    made = Agent(path, lambda number, args: ENOSPC if number in MKDIR else None)
    made.start()
    return made


def asking(path: str) -> dict[str, Any]:
    """linux.seccomp that asks about mkdir, and about what a listener could be passed on by."""
    names = ["mkdir", "mkdirat", "write", "sendmsg", "sendto", "execve"]
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path,
        "listenerMetadata": "of the test",
        "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}],
    }


def test_a_filter_asks_from_the_start_on_and_in_each_exec(oci: GockerOci, tmp_path: Path) -> None:
    path = f"{tmp_path}/agent"
    first = agent(path)
    container = oci.create(NAME, args=[*SHELL, "mkdir /tmp/x; sleep 1000"], linux={"seccomp": asking(path)})
    assert first.state == {}  # the filter comes with the start
    pid = oci.state(NAME)["pid"]
    oci.ok("start", NAME)
    until(lambda: "No space left on device" in text_of(f"{container}.err"))
    assert (first.state["pid"], first.state["state"]["pid"], first.state["metadata"]) == (
        pid,
        pid,
        "of the test",
    )
    assert (first.state["state"]["id"], first.state["state"]["status"]) == (NAME, "created")
    second = agent(path)
    assert "No space left on device" in oci("exec", NAME, *SHELL, "mkdir /tmp/y").err
    assert second.state["pid"] != pid
    assert (second.state["state"]["pid"], second.state["state"]["status"]) == (pid, "running")


def test_without_who_listens_a_created_container_does_not_start(oci: GockerOci, tmp_path: Path) -> None:
    out = oci.create(NAME, args=["echo", "ran"], linux={"seccomp": asking(f"{tmp_path}/nobody")})
    assert f"{tmp_path}/nobody: ENOENT" in oci.refused("start", NAME)
    until(lambda: oci.status(NAME) == "stopped")
    assert text_of(out) == ""


def with_fds(oci: GockerOci, tmp_path: Path, before: str, *arguments: str) -> str:
    """The output of a gocker-oci that a shell execs with three files as 3, 4 and 5."""
    for name in ("one", "two", "three"):
        (tmp_path / name).write_text(f"{name}\n")
    files = f"exec 3<{tmp_path}/one 4<{tmp_path}/two 5<{tmp_path}/three; {before}"
    command = ["bash", "-c", f'{files}; exec "$@"', "bash", oci.program, "--root", oci.root, *arguments]
    out = tmp_path / "out"
    with out.open("wb") as file:
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=True)
    return str(out)


SEE = 'echo "$LISTEN_FDS $LISTEN_PID"; for fd in 3 4 5; do read -r text <&$fd && echo $fd=$text; done 2>/dev/null; true'


def test_the_program_gets_what_is_preserved_from_3_on(oci: GockerOci, tmp_path: Path) -> None:
    bundle = oci.bundle(args=[*SHELL, SEE])
    out = with_fds(oci, tmp_path, ":", "create", "--bundle", bundle, "--preserve-fds", "2", NAME)
    oci.ok("start", NAME)
    until(lambda: oci.status(NAME) == "stopped")
    assert text_of(out) == " \n3=one\n4=two\n"


def test_sockets_of_an_activation_come_first_and_the_program_is_told_its_pid(
    oci: GockerOci, tmp_path: Path
) -> None:
    bundle = oci.bundle(args=[*SHELL, SEE])
    activate = "export LISTEN_FDS=2 LISTEN_PID=$$"
    out = with_fds(oci, tmp_path, activate, "run", "--bundle", bundle, "--preserve-fds", "1", NAME)
    assert text_of(out) == "2 1\n3=one\n4=two\n5=three\n"
    other = "export LISTEN_FDS=2 LISTEN_PID=1"
    out = with_fds(oci, tmp_path, other, "run", "--bundle", bundle, f"{NAME}-2")
    assert text_of(out) == " \n"


def test_an_exec_passes_fds_on_as_well(oci: GockerOci, tmp_path: Path) -> None:
    oci.run(NAME)
    out = with_fds(oci, tmp_path, ":", "exec", "--preserve-fds", "1", NAME, *SHELL, SEE)
    assert text_of(out) == " \n3=one\n"


def test_the_program_is_scheduled_as_asked(oci: GockerOci) -> None:
    """Fields 19, nice, and 41, policy, of proc_pid_stat(5)."""
    oci.run(
        NAME,
        args=["sleep", "1000"],
        scheduler={"policy": "SCHED_BATCH", "nice": 11},
        ioPriority={"class": "IOPRIO_CLASS_IDLE"},
    )
    pid = oci.state(NAME)["pid"]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    assert (fields[19 - 3], fields[41 - 3]) == ("11", "3")
    idle = subprocess.run(["ionice", "-p", str(pid)], capture_output=True, text=True, check=True)
    assert idle.stdout == "idle\n"


def test_an_exec_runs_on_its_cpus_and_the_container_on_all(oci: GockerOci) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    one = str(allowed[-1])
    oci.run(NAME, execCPUAffinity={"initial": str(allowed[0]), "final": one})
    assert os.sched_getaffinity(oci.state(NAME)["pid"]) == set(allowed)
    process = '{"cwd": "/", "args": ["grep", "Cpus_allowed_list", "/proc/self/status"], "execCPUAffinity": {"final": "%s"}}'
    ran = oci.ok("exec", "--process", "/dev/stdin", NAME, stdin=(process % one).encode())
    assert ran.split() == ["Cpus_allowed_list:", one]


def test_an_exec_is_scheduled_as_asked(oci: GockerOci) -> None:
    oci.run(NAME)
    process = (
        b'{"cwd": "/", "args": ["cat", "/proc/self/stat"], "scheduler": {"policy": "SCHED_BATCH", "nice": 9}}'
    )
    text = oci.ok("exec", "--process", "/dev/stdin", NAME, stdin=process)
    fields = text.rpartition(")")[2].split()
    assert (fields[19 - 3], fields[41 - 3]) == ("9", "3")


@pytest.mark.skipif(not os.path.isdir("/sys/devices/system/node/node0"), reason="needs a kernel with NUMA")
def test_the_memory_is_of_the_nodes_that_were_asked_for(oci: GockerOci) -> None:
    """proc_pid_numa_maps(5) names the policy of each mapping."""
    oci.run(NAME, args=["sleep", "1000"], linux={"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0"}})
    maps = Path(f"/proc/{oci.state(NAME)['pid']}/numa_maps").read_text()
    assert {line.split()[1] for line in maps.splitlines()} == {"bind:0"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs x86-64: i686 is its")
def test_the_program_sees_a_machine_of_32_bits(oci: GockerOci) -> None:
    out = oci.run(NAME, args=["uname", "-m"], linux={"personality": {"domain": "LINUX32"}})
    until(lambda: text_of(out) != "")
    assert text_of(out) == "i686\n"


@pytest.mark.parametrize(
    ("fields", "module"),
    [({"apparmorProfile": "docker-default"}, "AppArmor"), ({"selinuxLabel": "u:r:t:s0"}, "SELinux")],
)
def test_a_label_that_nobody_here_enforces_is_refused_by_name(
    oci: GockerOci, fields: dict[str, Any], module: str
) -> None:
    if os.path.exists({"AppArmor": "/sys/module/apparmor", "SELinux": "/sys/fs/selinux"}[module]):
        pytest.skip(f"needs a host without {module}")
    message = oci.refused("create", "--bundle", oci.bundle(**fields), NAME)
    assert f"{next(iter(fields.values()))}: {module} is not enabled in this kernel" in message
