"""The process fields of the OCI, by the real launcher; what the kernel says of them is read from inside."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from firstprocess import Outcome, launch, program
from launching import run, run_apart, spec

from gocker.errors import KernelError, StepError
from gocker.hierarchy import read_host
from gocker.kernel import caps
from gocker.kernel.lsm import apparmor_enabled
from gocker.kernel.process import CLONE_NEWPID, CLONE_NEWUSER
from gocker.model import Capabilities, Hierarchy, IoPriority, MemoryPolicy, Scheduler
from gocker.plan import Context, Step
from gocker.steps.labels import ApparmorProfile, SelinuxLabel
from gocker.steps.launch import BecomeRoot
from gocker.steps.memorypolicy import SetMemoryPolicy
from gocker.steps.scheduling import SetAffinity, SetScheduler

HAVE = caps.permitted()
may_nice = pytest.mark.skipif("CAP_SYS_NICE" not in HAVE, reason="needs CAP_SYS_NICE")
NUMBERS = {"sched_getattr": 315, "ioprio_get": 252, "get_mempolicy": 239}
if os.uname().machine == "aarch64":
    NUMBERS = {"sched_getattr": 275, "ioprio_get": 31, "get_mempolicy": 236}
SEE = f"""
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    result = libc.syscall(number, *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return result if result >= 0 else os.strerror(ctypes.get_errno())
def scheduler(pid=0):
    data = ctypes.create_string_buffer(48)
    call({NUMBERS["sched_getattr"]}, pid, data, 48, 0)
    return struct.unpack('=IIQiI3Q', data.raw)[1:]
def memory():
    mode, nodes = ctypes.c_int(), ctypes.create_string_buffer(128)
    call({NUMBERS["get_mempolicy"]}, ctypes.byref(mode), nodes, 1024, 0, 0)
    return hex(mode.value), int.from_bytes(nodes.raw, 'little')
"""


def see(what: str, **changes: Any) -> str:
    """What a Python expression inside is."""
    return run(spec(sys.executable, "-S", "-c", f"{SEE}\nprint({what})", **changes)).output.strip()


@may_nice
@pytest.mark.parametrize(
    ("asked", "seen"),
    [
        (Scheduler(policy="SCHED_OTHER", nice=7), (0, 0, 7, 0)),
        (Scheduler(policy="SCHED_OTHER", nice=-7), (0, 0, -7, 0)),
        (Scheduler(policy="SCHED_BATCH", nice=19), (3, 0, 19, 0)),
        (Scheduler(policy="SCHED_IDLE"), (5, 0, os.nice(0), 0)),
        (Scheduler(policy="SCHED_FIFO", priority=3), (1, 0, 0, 3)),
        (Scheduler(policy="SCHED_RR", priority=99, flags=("SCHED_FLAG_RESET_ON_FORK",)), (2, 1, 0, 99)),
    ],
)
def test_the_scheduler_is_the_one_that_was_asked_for(asked: Scheduler, seen: tuple[int, ...]) -> None:
    assert see("scheduler()[:4]", scheduler=asked) == str(seen)


@may_nice
def test_a_deadline_is_kept_with_its_times() -> None:
    asked = Scheduler(policy="SCHED_DEADLINE", runtime=5_000_000, deadline=20_000_000, period=40_000_000)
    try:
        seen = see("scheduler()", scheduler=asked)
    except StepError as error:
        if error.errno not in {1, 16}:
            raise
        pytest.skip(f"needs a CPU with room for a deadline: {error.reason}")
    assert seen == "(6, 0, 0, 0, 5000000, 20000000, 40000000)"


def in_user_namespace(container: Any) -> str:
    class Map(Step):
        op = "test-map"

        def execute(self, ctx: Context) -> None:
            for kind in ("uid", "gid"):
                Path(f"/proc/{ctx.pid}/{kind}_map").write_text("0 100000 65536\n")

    from gocker.steps import identity

    steps = (step for step in identity.last_steps(container, None) if step.op != "chdir")
    init = (BecomeRoot(), *identity.first_steps(container), *steps)
    Step.known.pop("test-map", None)
    ran = run(
        container,
        init=init,
        flags=CLONE_NEWPID | CLONE_NEWUSER,
        kinds=("pid", "user"),
        between=(Map(),),
    )
    return ran.output.strip()


@may_nice
def test_in_a_user_namespace_too_whose_root_could_not_do_it() -> None:
    """CAP_SYS_NICE counts in the first user namespace alone: the launcher does it from outside."""
    container = spec(
        "/bin/sh",
        "-c",
        "chrt -p 0; ionice",
        scheduler=Scheduler(policy="SCHED_RR", priority=5),
        io_priority=IoPriority(kind="IOPRIO_CLASS_RT", priority=2),
    )
    policy, priority, io = in_user_namespace(container).splitlines()
    assert policy.endswith(": SCHED_RR")
    assert priority.endswith(": 5")
    assert io == "realtime: prio 2"


def test_a_scheduler_that_the_kernel_refuses_is_named() -> None:
    with pytest.raises(StepError, match=r"set scheduler SCHED_FIFO.*EINVAL|chrt --fifo.*EINVAL"):
        see("1", scheduler=Scheduler(policy="SCHED_FIFO", priority=0))


@pytest.mark.parametrize(
    ("kind", "level", "value"),
    [
        pytest.param("IOPRIO_CLASS_RT", 1, 1 << 13 | 1, marks=may_nice),
        ("IOPRIO_CLASS_BE", 7, 2 << 13 | 7),
        ("IOPRIO_CLASS_IDLE", 0, 3 << 13),
    ],
)
def test_the_io_priority_is_the_one_that_was_asked_for(kind: str, level: int, value: int) -> None:
    asked = IoPriority(kind=kind, priority=level)
    assert see(f"call({NUMBERS['ioprio_get']}, 1, 0)", io_priority=asked) == str(value)


CPUS = sorted(os.sched_getaffinity(0))


def test_the_cpus_of_an_exec_are_those_before_and_those_after() -> None:
    first, last = CPUS[0], CPUS[-1]
    seen: list[set[int]] = []

    class Look(Step):
        op = "test-look-at-cpus"
        at_host = True

        def describe(self) -> str:
            return "look"

        def execute(self, ctx: Context) -> None:
            seen.append(os.sched_getaffinity(ctx.pid))

    from gocker.steps import identity

    container = spec(
        sys.executable,
        "-S",
        "-c",
        "import os; print(os.sched_getaffinity(0))",
        cpu_affinity=(str(first), str(last)),
    )
    init = (*identity.first_steps(container), Look(), *identity.last_steps(container, None))
    Step.known.pop("test-look-at-cpus")
    assert run(container, init=init).output == f"{{{last}}}\n"
    assert seen == [{first}]


@pytest.mark.parametrize("affinity", [("", ""), (str(CPUS[0]), ""), ("", str(CPUS[0]))])
def test_an_empty_list_leaves_the_cpus_alone(affinity: tuple[str, str]) -> None:
    expected = {CPUS[0]} if any(affinity) else set(CPUS)
    assert see("os.sched_getaffinity(0)", cpu_affinity=affinity) == str(expected)


def test_a_cpu_that_is_not_there_is_named() -> None:
    outcome = launch([SetAffinity(cpus="1000", final=True), *program("true")])
    assert (outcome.failed["op"], outcome.failed["errno"]) == ("cpu-affinity", "EINVAL")
    assert "set CPU affinity 1000" in outcome.failed["reason"]
    assert "in the container's cpuset" in outcome.failed["remedy"]


@pytest.fixture
def narrow() -> Iterator[Path]:
    """A cgroup that has the first CPU alone."""
    place = read_host().require("cpuset")
    if place.version is not Hierarchy.V1 or len(CPUS) < 2:
        pytest.skip("needs two CPUs, and cpuset on v1")
    directory = Path(place.directory(f"/gocker-affinity-{os.getpid()}"))
    directory.mkdir()
    (directory / "cpuset.cpus").write_text(str(CPUS[0]))
    (directory / "cpuset.mems").write_text("0")
    yield directory
    directory.rmdir()


def test_who_is_in_its_cgroup_already_has_no_cpus_before(narrow: Path) -> None:
    context = Context(None)

    def prepare(pid: int) -> None:
        (narrow / "cgroup.procs").write_text(str(pid))
        context.pid = pid
        SetAffinity(cpus=str(CPUS[-1])).execute(context)
        with pytest.raises(KernelError, match="set CPU affinity 1000: EINVAL"):
            SetAffinity(cpus="1000").execute(context)

    script = "import os; print(os.sched_getaffinity(0))"
    outcome = launch(program(sys.executable, "-S", "-c", script), prepare=prepare)
    assert outcome.text == f"{{{CPUS[0]}}}\n"


def has_numa() -> bool:
    return os.path.isdir("/sys/devices/system/node/node0")


needs_numa = pytest.mark.skipif(not has_numa(), reason="needs a kernel with NUMA")


@needs_numa
@pytest.mark.parametrize(
    ("asked", "seen"),
    [
        (MemoryPolicy(mode="MPOL_BIND", nodes="0"), "('0x2', 1)"),
        (MemoryPolicy(mode="MPOL_INTERLEAVE", nodes="0"), "('0x3', 1)"),
        (MemoryPolicy(mode="MPOL_PREFERRED", nodes="0"), "('0x1', 1)"),
        (MemoryPolicy(mode="MPOL_LOCAL"), "('0x4', 0)"),
        (MemoryPolicy(mode="MPOL_DEFAULT"), "('0x0', 0)"),
        (MemoryPolicy(mode="MPOL_BIND", nodes="0", flags=("MPOL_F_STATIC_NODES",)), "('0x8002', 1)"),
        (MemoryPolicy(mode="MPOL_INTERLEAVE", nodes="0", flags=("MPOL_F_RELATIVE_NODES",)), "('0x4003', 1)"),
    ],
)
def test_the_memory_policy_is_the_one_that_was_asked_for(asked: MemoryPolicy, seen: str) -> None:
    assert see("memory()", memory_policy=asked) == seen


@needs_numa
def test_a_node_that_is_not_there_is_named() -> None:
    outcome = launch([SetMemoryPolicy(mode="MPOL_BIND", nodes="900"), *program("true")])
    assert (outcome.failed["op"], outcome.failed["errno"]) == ("memory-policy", "EINVAL")
    assert "set memory policy MPOL_BIND 900" in outcome.failed["reason"]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs x86-64: i686 is its")
def test_linux32_is_another_machine() -> None:
    assert run(spec("uname", "-m", personality=8)).output == "i686\n"
    assert run(spec("uname", "-m", personality=0)).output == "x86_64\n"


def test_without_a_security_module_no_label_is_claimed() -> None:
    """The steps themselves: planning refuses before them."""
    if not os.path.exists("/sys/module/apparmor"):
        outcome = launch([ApparmorProfile(profile="docker-default"), *program("true")])
        assert outcome.failed["op"] == "apparmor-profile"
        assert "apply AppArmor profile docker-default" in outcome.failed["reason"]
    if not os.path.exists("/sys/fs/selinux/enforce"):
        outcome = launch([SelinuxLabel(label="a:b:c:s0"), *program("true")])
        assert outcome.failed["op"] == "selinux-label"
        assert "apply SELinux label a:b:c:s0" in outcome.failed["reason"]


def keyring(**changes: Any) -> str:
    keyctl = 250 if os.uname().machine == "x86_64" else 219
    return see(f"call({keyctl}, 0, -3, 0)", **changes)


def test_a_session_keyring_is_the_containers_unless_it_shall_keep_the_callers() -> None:
    mine = str(ctypes.CDLL(None).syscall(250 if os.uname().machine == "x86_64" else 219, 0, -3, 1))
    assert keyring(session_keyring=False) == mine
    assert keyring() != mine


SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
CHOWN, KILL, NET_RAW = ("CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW")


def mask(*names: str) -> int:
    return sum(1 << caps.NUMBERS[name] for name in names)


def sets(user: str, capabilities: Capabilities, **changes: Any) -> list[int]:
    text = run(spec("cat", "/proc/self/status", user=user, capabilities=capabilities, **changes)).output
    outcome = Outcome(0, text.encode(), [], {})
    return [int(outcome.field(name), 16) for name in SETS]


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_ambient_capabilities_reach_the_program_of_another_user(no_new_privileges: bool) -> None:
    asked = Capabilities(
        bounding=(CHOWN, KILL, NET_RAW),
        effective=(CHOWN, KILL),
        permitted=(CHOWN, KILL),
        inheritable=(CHOWN, NET_RAW),
        ambient=(CHOWN,),
    )
    seen = sets("1000:1000", asked, no_new_privileges=no_new_privileges)
    assert seen == [
        mask(CHOWN, NET_RAW),
        mask(CHOWN),
        mask(CHOWN),
        mask(CHOWN, KILL, NET_RAW),
        mask(CHOWN),
    ]


def test_without_ambient_ones_another_user_has_what_is_inheritable_and_nothing_in_force() -> None:
    asked = Capabilities(bounding=(CHOWN, KILL), effective=(CHOWN,), permitted=(CHOWN,), inheritable=(KILL,))
    assert sets("1000:1000", asked) == [mask(KILL), 0, 0, mask(CHOWN, KILL), 0]


@pytest.mark.parametrize(("no_new_privileges", "given"), [(True, (CHOWN,)), (False, (CHOWN, KILL))])
def test_root_keeps_its_sets_where_no_exec_gives_any(no_new_privileges: bool, given: tuple[str, ...]) -> None:
    """Else the kernel gives root at the exec all of the bounding set: capabilities(7), execution by root."""
    asked = Capabilities(bounding=(CHOWN, KILL), effective=(CHOWN,), permitted=(CHOWN,), inheritable=(CHOWN,))
    seen = sets("", asked, no_new_privileges=no_new_privileges)
    assert seen == [mask(CHOWN), mask(*given), mask(*given), mask(CHOWN, KILL), 0]


def test_an_ambient_capability_works_for_another_user(tmp_path: Path) -> None:
    """CAP_CHOWN gives a file away."""
    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[:-2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    file = tmp_path / "file"
    file.touch()
    asked = Capabilities(
        bounding=(CHOWN,), effective=(CHOWN,), permitted=(CHOWN,), inheritable=(CHOWN,), ambient=(CHOWN,)
    )
    run(spec("chown", "77:77", str(file), user="1000:1000", capabilities=asked.replace(ambient=())))
    assert file.stat().st_uid == 0
    run(spec("chown", "77:77", str(file), user="1000:1000", capabilities=asked))
    assert (file.stat().st_uid, file.stat().st_gid) == (77, 77)


def test_ambient_without_inheritable_contradicts_itself() -> None:
    asked = Capabilities(bounding=(CHOWN,), effective=(CHOWN,), permitted=(CHOWN,), ambient=(CHOWN,))
    with pytest.raises(StepError, match="the sets contradict each other"):
        sets("1000:1000", asked)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[list[int]]:
    """Three open files, with what they are called in them."""
    fds = []
    for name in ("one", "two", "three"):
        (tmp_path / name).write_text(name)
        fds.append(os.open(tmp_path / name, os.O_RDONLY))
    yield fds
    for fd in fds:
        os.close(fd)


READ = 'for fd in 3 4 5 6 7; do eval "read -r text <&$fd" 2>/dev/null; echo "$fd=$text"; text=; done; ls /proc/self/fd'


@pytest.mark.parametrize("init", [False, True])
def test_the_program_gets_the_fds_of_its_caller_from_3_on_and_no_other(files: list[int], init: bool) -> None:
    fields = {"argv": ["bash", "-c", READ], "preserve_fds": 2, "init": init}
    code, text = run_apart(fields, {3: files[0], 4: files[1], 5: files[2]})
    assert code == 0, text
    assert text.split()[:5] == ["3=one", "4=two", "5=", "6=", "7="]
    assert text.split()[5:] == ["0", "1", "2", "3", "4", "5"]  # the last one is ls's own


def test_ten_fds_and_more_are_above_none_of_gockers_own(files: list[int]) -> None:
    """Where gocker's own fds usually lie."""
    fds = {number: files[number % 3] for number in range(3, 25)}
    argv = [
        sys.executable,
        "-S",
        "-c",
        "import os; print(*(os.pread(fd, 9, 0).decode() for fd in range(3, 25)))",
    ]
    code, text = run_apart({"argv": argv, "preserve_fds": 22}, fds)
    assert (code, text.split()) == (0, [("one", "two", "three")[number % 3] for number in range(3, 25)])


def test_what_gocker_opened_is_not_given_away_in_place_of_what_the_caller_did_not(files: list[int]) -> None:
    """With fd 3 alone gocker's own files come to lie at 4 and above."""
    argv = [sys.executable, "-S", "-c", "import os; print(os.listdir('/proc/self/fd'))"]
    code, text = run_apart({"argv": argv, "preserve_fds": 6}, {3: files[0]})
    assert (code, text) == (0, "['0', '1', '2', '3', '4']\n")  # the last one is of the directory


def test_who_is_activated_by_sockets_is_told_its_own_pid(files: list[int]) -> None:
    fields = {
        "argv": ["sh", "-c", "echo $LISTEN_FDS $LISTEN_PID $$"],
        "preserve_fds": 1,
        "env": [["LISTEN_FDS", "1"], ["LISTEN_PID", "4711"]],
    }
    assert run_apart(fields, {3: files[0]}) == (0, "1 1 1\n")
    fields["preserve_fds"] = 0
    assert run_apart(fields, {3: files[0]}) == (0, "1 4711 1\n")


def test_gocker_lets_go_of_what_it_passed_on() -> None:
    """A reader sees the end when the program closes its fd, not when it ends."""
    ours, theirs = socket.socketpair()
    script = "import socket, time; own = socket.socket(fileno=3); own.send(b'inside'); own.close(); time.sleep(1.5)"
    fields = {"argv": [sys.executable, "-S", "-c", script], "preserve_fds": 1}
    runner = threading.Thread(target=run_apart, args=(fields, {3: theirs.fileno()}))
    with ours:
        runner.start()
        assert ours.recv(100) == b"inside"
        theirs.close()
        ours.settimeout(10)
        assert ours.recv(100) == b""
        assert runner.is_alive()
        runner.join()


def test_a_refused_scheduler_names_the_capability_that_lacks() -> None:
    drop = [name for name in caps.NAMES if name != "CAP_SYS_NICE"]

    class Drop(Step):
        op = "test-drop"

        def execute(self, ctx: Context) -> None:
            have = tuple(name for name in drop if name in HAVE)
            caps.set_capabilities(have, have)

    outcome = launch([Drop(), SetScheduler(policy="SCHED_RR", priority=1), *program("true")])
    Step.known.pop("test-drop")
    assert outcome.failed["errno"] == "EPERM"
    assert outcome.failed["remedy"] == "gocker needs CAP_SYS_NICE for it"


@pytest.mark.guest
@pytest.mark.skipif(not apparmor_enabled(), reason="needs a kernel with AppArmor")
class TestApparmor:
    """Without a parser there is no profile but the one that every kernel has."""

    def test_the_profile_is_asked_for_and_one_that_is_not_there_is_named(self) -> None:
        asked = "cat /proc/self/attr/apparmor/current /proc/self/attr/apparmor/prev"
        assert run(spec("sh", "-c", asked, apparmor_profile="unconfined")).output.startswith("unconfined")
        with pytest.raises(StepError, match=r"aa-exec --profile no-such: .*ENOENT.*apparmor_parser"):
            run(spec("true", apparmor_profile="no-such"))
