"""The steps of the OCI's process fields: what they say, what they refuse, and their order."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from gocker.errors import GockerError, UsageError
from gocker.kernel.ids import outlives_exec
from gocker.model import (
    ContainerSpec,
    IoPriority,
    MemoryPolicy,
    Mount,
    Rlimit,
    Rootfs,
    Scheduler,
    plain_capabilities,
)
from gocker.plan import Context, Step, step_from_json
from gocker.rootplan import file_system_steps
from gocker.steps import identity
from gocker.steps.exec import CloseFds, Exec, InstallSeccomp
from gocker.steps.labels import (
    ApparmorProfile,
    SelinuxLabel,
    label_steps,
    labelled_options,
)
from gocker.steps.memorypolicy import SetMemoryPolicy, memory_policy_step
from gocker.steps.mounts import MountFs
from gocker.steps.personality import SetPersonality, personality_step
from gocker.steps.preserve import PreserveFds
from gocker.steps.scheduling import SetAffinity, SetIoPriority, SetScheduler
from gocker.steps.seccomplistener import InstallWithListener

FILTER = InstallSeccomp(profile="default", digest="sha256:" + "0" * 64, instructions=1, flags=0, program=b"")


def spec(**changes: Any) -> ContainerSpec:
    return ContainerSpec(**{"id": "a", "name": "a", "argv": ("true",), **changes})


def last(**changes: Any) -> list[str]:
    return [step.op for step in identity.last_steps(spec(**changes), FILTER)]


SAID: list[tuple[Step, str]] = [
    (
        SetScheduler(policy="SCHED_FIFO", priority=10, flags=("SCHED_FLAG_RESET_ON_FORK",)),
        "chrt --fifo --reset_on_fork --pid 10 CHILD",
    ),
    (SetScheduler(policy="SCHED_BATCH", nice=19), "chrt --batch --pid 0 CHILD && renice -n 19 --pid CHILD"),
    (
        SetScheduler(policy="SCHED_DEADLINE", runtime=1, deadline=2, period=3),
        "chrt --deadline -T 1 -D 2 -P 3 --pid 0 CHILD",
    ),
    (SetIoPriority(kind="IOPRIO_CLASS_BE", priority=4), "ionice -c 2 -n 4 -p CHILD"),
    (SetAffinity(cpus="0-3,7"), "taskset --cpu-list --pid 0-3,7 CHILD"),
    (SetAffinity(cpus="1", final=True), "taskset --cpu-list --pid 1 $$"),
    (SetMemoryPolicy(mode="MPOL_LOCAL"), "set_mempolicy MPOL_LOCAL"),
    (
        SetMemoryPolicy(mode="MPOL_BIND", nodes="0-1", flags=("MPOL_F_STATIC_NODES",)),
        "set_mempolicy MPOL_BIND|MPOL_F_STATIC_NODES 0-1",
    ),
    (SetPersonality(persona=8), "setarch linux32"),
    (SetPersonality(persona=0x0040000), "setarch 0x40000"),
    (ApparmorProfile(profile="docker-default"), "aa-exec --profile docker-default"),
    (SelinuxLabel(label="u:r:t:s0:c1,c2"), "runcon u:r:t:s0:c1,c2"),
    (PreserveFds(count=2), "exec 3>&3 4>&4"),
    (CloseFds(), "close on exec every fd from 4 on"),
    (CloseFds(preserve=2), "close on exec every fd from 6 on"),
]


@pytest.mark.parametrize(("step", "text"), SAID, ids=lambda value: getattr(value, "op", None))
def test_a_step_says_what_it_does(step: Step, text: str) -> None:
    assert step.describe() == text


@pytest.mark.parametrize("step", [step for step, _ in SAID], ids=lambda step: step.op)
def test_a_step_is_json_and_back(step: Step) -> None:
    assert step_from_json(json.loads(json.dumps(step.to_json()))) == step


FULL: dict[str, Any] = {
    "capabilities": plain_capabilities(("CAP_KILL",)),
    "scheduler": Scheduler(policy="SCHED_BATCH"),
    "io_priority": IoPriority(kind="IOPRIO_CLASS_IDLE"),
    "cpu_affinity": ("0", "0-1"),
    "memory_policy": MemoryPolicy(mode="MPOL_LOCAL"),
    "personality": 8,
    "rlimits": (Rlimit(name="core", soft=0, hard=0),),
    "oom_score_adj": 5,
    "preserve_fds": 2,
}


def test_privileges_go_in_the_order_of_the_rule() -> None:
    """SECURITY R9; and what throttles or limits the program comes last, so that it holds nobody else up."""
    assert last(**FULL) == [
        "umask",
        "chdir",
        "memory-policy",
        "personality",
        "bounding-set",
        "set-user",
        "set-capabilities",
        "no-new-privileges",
        "find-program",
        "cpu-affinity",
        "io-priority",
        "scheduler",
        "rlimits",
        "close-fds",
        "seccomp",
        "exec",
    ]


def test_what_the_launcher_does_to_the_child() -> None:
    steps = identity.parent_steps(spec(**FULL))
    assert [step.op for step in steps] == ["preserve-fds", "cpu-affinity", "raise-rlimits", "oom-score-adj"]


def test_what_is_waited_for_comes_when_all_else_has_been_tried() -> None:
    class Wait(Step):
        op = "test-wait"

    steps = identity.last_steps(spec(**FULL), FILTER, (Wait(),))
    Step.known.pop("test-wait")
    ops = [step.op for step in steps]
    assert ops[ops.index("test-wait") - 1] == "scheduler"
    assert [step.op for step in steps if step.at_host] == ["io-priority", "scheduler"]


def test_nothing_is_said_from_the_filter_on() -> None:
    quiet = [step.op for step in identity.last_steps(spec(**FULL), FILTER) if step.quiet]
    assert quiet == ["seccomp", "exec"]
    assert InstallWithListener.quiet


def test_the_first_steps_leave_the_keyring_where_they_are_told_to() -> None:
    assert [step.op for step in identity.first_steps(spec())] == ["undumpable", "setsid", "session-keyring"]
    plain = identity.first_steps(spec(session_keyring=False))
    assert [step.op for step in plain] == ["undumpable", "setsid"]


@pytest.mark.parametrize(
    ("preserve", "env", "listens"),
    [(0, (), False), (2, (), False), (2, (("LISTEN_FDS", "2"),), True), (0, (("LISTEN_FDS", "2"),), False)],
)
def test_the_program_is_told_its_pid_where_it_gets_sockets(
    preserve: int, env: tuple[tuple[str, str], ...], listens: bool
) -> None:
    step = identity.last_steps(spec(preserve_fds=preserve, env=env), None)[-1]
    assert isinstance(step, Exec)
    assert (step.preserve, step.listen) == (preserve, listens)
    if listens:
        assert step._listening() == (*env, ("LISTEN_PID", str(os.getpid())))
        assert step.replace(init=True)._listening() == env


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheduler": Scheduler(policy="SCHED_BEST")}, "set scheduler SCHED_BEST: no such policy"),
        ({"scheduler": Scheduler(policy="SCHED_RR", flags=("X",))}, "set scheduler X: no such flag"),
        ({"scheduler": Scheduler(policy="SCHED_OTHER", nice=20)}, "nice=20: not from -20 to 19"),
        ({"scheduler": Scheduler(policy="SCHED_RR", priority=-1)}, "priority=-1: not from 0 to 4294967295"),
        ({"scheduler": Scheduler(policy="SCHED_DEADLINE", runtime=1 << 64)}, "runtime=18446744073709551616"),
        ({"io_priority": IoPriority(kind="BEST")}, "set I/O priority BEST: no such class"),
        (
            {"io_priority": IoPriority(kind="IOPRIO_CLASS_BE", priority=8)},
            "set I/O priority 8: not from 0 to 7",
        ),
        ({"cpu_affinity": ("", "x")}, "execCPUAffinity"),
        ({"memory_policy": MemoryPolicy(mode="MPOL_BEST")}, "set memory policy MPOL_BEST: no such mode"),
        (
            {"memory_policy": MemoryPolicy(mode="MPOL_BIND", flags=("X",))},
            "set memory policy X: no such flag",
        ),
        (
            {"memory_policy": MemoryPolicy(mode="MPOL_BIND", nodes="1024")},
            "the highest node that can be is 1023",
        ),
        ({"memory_policy": MemoryPolicy(mode="MPOL_BIND", nodes="a")}, "memoryPolicy"),
        ({"personality": -1}, "set personality -1: not from 0"),
        ({"personality": 0xFFFFFFFF}, "set personality 4294967295: not from 0"),
    ],
)
def test_what_no_kernel_can_be_told_is_refused_before_anything_is_done(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(GockerError) as caught:
        last(**changes)
    assert message in str(caught.value)


def test_bad_cpus_until_the_exec_are_refused_as_well() -> None:
    with pytest.raises(GockerError, match="execCPUAffinity"):
        identity.parent_steps(spec(cpu_affinity=("1-", "")))


def test_repeated_flags_count_once() -> None:
    asked = MemoryPolicy(mode="MPOL_BIND", nodes="0", flags=("MPOL_F_STATIC_NODES",) * 2)
    assert memory_policy_step(asked).flags == ("MPOL_F_STATIC_NODES",)
    assert personality_step(8) == SetPersonality(persona=8)


class TestLabels:
    def test_they_are_asked_for_while_there_are_privileges(self) -> None:
        both = spec(apparmor_profile="p", selinux_label="u:r:t:s0")
        assert label_steps(both, apparmor=True, selinux=True) == (
            ApparmorProfile(profile="p"),
            SelinuxLabel(label="u:r:t:s0"),
        )
        assert label_steps(spec(), apparmor=False, selinux=False) == ()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"apparmor_profile": "docker-default"},
                "docker-default: AppArmor is not enabled in this kernel",
            ),
            ({"selinux_label": "u:r:t:s0"}, "u:r:t:s0: SELinux is not enabled in this kernel"),
        ],
    )
    def test_one_that_nobody_would_enforce_is_refused(self, changes: dict[str, str], message: str) -> None:
        with pytest.raises(UsageError) as caught:
            label_steps(spec(**changes), apparmor=False, selinux=False)
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("kind", "options", "labelled"),
        [
            ("tmpfs", ("size=1m",), ("size=1m", "context=u:r:t:s0:c1,c2")),
            ("mqueue", (), ("context=u:r:t:s0:c1,c2",)),
            ("tmpfs", ('context="a:b:c:s0"', "ro"), ("context=a:b:c:s0", "ro")),
            ("tmpfs", ("rootcontext=a:b:c:s0",), ("rootcontext=a:b:c:s0",)),
            ("proc", ("nosuid",), ("nosuid",)),
            ("sysfs", (), ()),
        ],
    )
    def test_a_new_file_system_gets_the_label_of_mounts(
        self,
        monkeypatch: pytest.MonkeyPatch,
        kind: str,
        options: tuple[str, ...],
        labelled: tuple[str, ...],
    ) -> None:
        monkeypatch.setattr("gocker.steps.labels.selinux_enabled", lambda: True)
        assert labelled_options("u:r:t:s0:c1,c2", kind, options) == labelled
        mounts = (Mount(kind=kind, target="/m", options=options),)
        container = spec(rootfs=Rootfs(lower="/r"), mounts=mounts, mount_label="u:r:t:s0:c1,c2")
        made = [step for step in file_system_steps(container, "/c") if isinstance(step, MountFs)]
        assert [step.options for step in made] == [labelled]

    def test_where_nobody_looks_at_labels_mounts_have_none(self) -> None:
        options = ("ro", 'context="a:b:c:s0"')
        assert labelled_options("u:r:t:s0", "tmpfs", options, selinux=False) == ("ro", "context=a:b:c:s0")
        assert labelled_options("u:r:t:s0", "tmpfs", ("ro",), selinux=False) == ("ro",)


def test_only_what_the_caller_passed_on_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, whose fds from 3 on are pytest's."""
    own, passed = (os.dup2(0, fd) for fd in (200, 201))
    monkeypatch.setattr("gocker.steps.preserve.STATUS_FD", own)
    os.set_inheritable(own, False)
    os.set_inheritable(passed, True)
    context = Context(None)
    try:
        PreserveFds(count=3).execute(context)
        assert [outlives_exec(fd) for fd in (own, passed, 202)] == [False, True, False]
        context.pid = 1
        PreserveFds(count=3).execute(context)
        assert not outlives_exec(passed)
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(passed)
        os.fstat(own)
    finally:
        os.close(own)
