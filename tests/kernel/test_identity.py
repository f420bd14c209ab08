"""Identity steps in real processes: what /proc says of the program afterwards."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
from pathlib import Path

import pytest
from firstprocess import HOST_PATH, keep_only, launch, program

from gocker import init
from gocker.errors import KernelError
from gocker.kernel import caps, ids, rlimit
from gocker.kernel.process import CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER
from gocker.kernel.progress import Progress
from gocker.kernel.spawn import spawn
from gocker.kernel.syscalls import call, prctl, unshare
from gocker.model import ContainerSpec, Rlimit, plain_capabilities
from gocker.plan import Context, Step
from gocker.steps import identity
from gocker.steps.capabilities import DropBounding, NoNewPrivileges
from gocker.steps.identity import Chdir, JoinSessionKeyring, Umask, Undumpable
from gocker.steps.launch import GO, BecomeRoot
from gocker.steps.limits import OomScoreAdj, RaiseRlimits, SetRlimits
from gocker.steps.program import FindProgram
from gocker.steps.users import SetUser

NOBODY = pwd.getpwnam("nobody")
STATUS = program("cat", "/proc/self/status")
ALL = caps.docker_capabilities((), (), privileged=True)
may_raise = pytest.mark.skipif("CAP_SYS_RESOURCE" not in ALL, reason="needs CAP_SYS_RESOURCE")


def mask(names: tuple[str, ...]) -> int:
    return sum(1 << caps.NUMBERS[name] for name in names)


class Call(Step):
    """Whatever the test wants to happen in the child."""

    op = "test-call"

    what: object

    def describe(self) -> str:
        return "call it"

    def execute(self, ctx: Context) -> None:
        self.what()  # type: ignore[operator]


@pytest.mark.parametrize("keep", [(), ("CAP_CHOWN",), caps.DOCKER_DEFAULT, ALL])
def test_root_keeps_exactly_its_capabilities(keep: tuple[str, ...]) -> None:
    outcome = launch([DropBounding(keep=keep), SetUser(), keep_only(keep), *STATUS])
    wanted = mask(keep)
    assert [int(outcome.field(name), 16) for name in ("CapPrm", "CapEff", "CapBnd")] == [wanted] * 3
    assert [int(outcome.field(name), 16) for name in ("CapInh", "CapAmb")] == [0, 0]


def test_another_user_keeps_none_but_the_bounding_set() -> None:
    keep = caps.DOCKER_DEFAULT
    outcome = launch([DropBounding(keep=keep), SetUser(user="nobody"), keep_only(keep), *STATUS])
    masks = [int(outcome.field(name), 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd")]
    assert masks == [0, 0, 0, 0, mask(keep)]


def test_inherited_ambient_and_inheritable_capabilities_go() -> None:
    def inherit() -> None:
        low, high = mask(ALL) & 0xFFFFFFFF, mask(ALL) >> 32
        words = caps._DATA.pack(low, low, low, high, high, high)
        call("capset", caps._HEADER.pack(caps._VERSION_3, 0), words)
        prctl(47, 2, 0)  # PR_CAP_AMBIENT_RAISE of CAP_CHOWN

    def ambient() -> None:
        with open("/proc/self/status") as file:
            assert "CapAmb:\t0000000000000001" in file.read()

    keep = ("CAP_CHOWN",)
    outcome = launch(
        [
            Call(inherit),
            Call(ambient),
            DropBounding(keep=keep),
            SetUser(user="nobody"),
            keep_only(keep),
            *STATUS,
        ]
    )
    assert not outcome.failed
    assert [int(outcome.field(name), 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [0] * 4


def test_a_capability_that_gocker_lacks_is_named() -> None:
    steps = [
        DropBounding(keep=()),
        keep_only(("CAP_KILL",)),
        keep_only(("CAP_KILL", "CAP_SYS_ADMIN")),
    ]
    outcome = launch([*steps, *program("true")])
    assert outcome.failed["op"] == "set-capabilities"
    assert "CAP_SYS_ADMIN: gocker itself does not have it" in outcome.failed["reason"]


@pytest.mark.parametrize(
    ("user", "groups", "ids", "extra"),
    [
        ("", (), (0, 0), None),
        ("0:0", (), (0, 0), {0}),
        ("1234", (), (1234, 0), {0}),
        ("1234:5678", (), (1234, 5678), {5678}),
        ("4294967294:4294967294", (), (4294967294, 4294967294), {4294967294}),
        ("1234:5678", ("7", "8"), (1234, 5678), {5678, 7, 8}),
        ("nobody", (), (NOBODY.pw_uid, NOBODY.pw_gid), {NOBODY.pw_gid}),
        ("nobody:daemon", ("mail",), (NOBODY.pw_uid, 1), {1, 8}),
    ],
)
def test_the_program_runs_as_the_user(
    user: str, groups: tuple[str, ...], ids: tuple[int, int], extra: set[int] | None
) -> None:
    outcome = launch([SetUser(user=user, groups=groups), *STATUS])
    assert outcome.field("Uid").split() == [str(ids[0])] * 4
    assert outcome.field("Gid").split() == [str(ids[1])] * 4
    if extra is not None:
        assert {int(text) for text in outcome.field("Groups").split()} == extra


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("nosuchuser", "not in the container's /etc/passwd"),
        ("0:nosuchgroup", "not in the container's /etc/group"),
    ],
)
def test_a_user_that_is_not_there_fails_the_step(user: str, message: str) -> None:
    outcome = launch([SetUser(user=user), *program("true")])
    assert outcome.failed["op"] == "set-user"
    assert message in outcome.failed["reason"]


def test_home_comes_from_passwd_unless_it_was_given() -> None:
    def home(*env: tuple[str, str], user: str = "nobody") -> str:
        return launch([SetUser(user=user), *program("sh", "-c", "echo $HOME", env=env)]).text.strip()

    assert home() == NOBODY.pw_dir
    assert home(user="1234:1234") == "/"
    assert home(("HOME", "/mine")) == "/mine"


def test_the_signal_for_the_parents_death_outlives_the_change_of_user() -> None:
    class Arm(Step):
        op = "test-arm"

        def execute(self, ctx: Context) -> None:
            prctl(ids.PR_SET_PDEATHSIG, signal.SIGKILL)

    script = "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); print(n.value)"
    steps = [
        SetUser(user="nobody"),
        keep_only(()),
        *program("/usr/bin/python3", "-S", "-c", script),
    ]
    assert launch([Arm(), *steps]).text == "9\n"
    assert launch(steps).text == "0\n"


def test_the_user_may_open_its_output_again_but_gets_no_file_of_the_caller(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_text("")
    with path.open() as file:
        script = "echo again > /dev/stdout"
        outcome = launch([SetUser(user="nobody"), *program("sh", "-c", script)], stdin=file.fileno())
    assert (outcome.code, outcome.text) == (0, "again\n")
    assert path.stat().st_uid == 0


def test_no_new_privileges_holds() -> None:
    outcome = launch([NoNewPrivileges(), *STATUS])
    assert outcome.field("NoNewPrivs") == "1"
    assert launch([*STATUS]).field("NoNewPrivs") == "0"


def say(value: int) -> None:
    os.write(1, b"%d\n" % value)


def test_the_first_process_is_not_dumpable_and_the_program_is() -> None:
    tell = Call(lambda: say(prctl(3)))  # PR_GET_DUMPABLE
    script = "import ctypes; print(ctypes.CDLL(None).prctl(3))"
    dumpable = Call(lambda: say(prctl(4, 1)))  # PR_SET_DUMPABLE: whatever other tests did to this process
    outcome = launch([dumpable, tell, Undumpable(), tell, *program("/usr/bin/python3", "-S", "-c", script)])
    assert outcome.lines == ["0", "1", "0", "1"]


def test_new_ids_do_not_make_the_first_process_dumpable_again() -> None:
    """As the kernel would make it where the sysctl fs.suid_dumpable is 1."""
    new_ids = SetUser()
    new_ids.__dict__["execute"] = lambda ctx: prctl(4, 1)  # PR_SET_DUMPABLE

    def tell() -> None:
        raise KernelError("tell", "", f"dumpable: {prctl(3)}")

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    progress = Progress()
    pid, pidfd = spawn(
        lambda: init.enter((new_ids, Call(tell)), Context(None), theirs, (0, 1, 2), progress), 0
    )
    with ours, theirs:
        ours.send(GO + b" 1")
        assert os.waitpid(pid, 0)[1] >> 8 == 125
        (message,) = [text for _ in range(2) if (text := json.loads(ours.recv(4096))).get("failed")]
    os.close(pidfd)
    progress.close()
    assert message["failed"]["reason"] == "dumpable: 0"


def test_the_session_keyring_is_the_containers_own() -> None:
    def keyring() -> None:
        say(call("keyctl", 0, -3, 0))  # KEYCTL_GET_KEYRING_ID of KEY_SPEC_SESSION_KEYRING

    outcome = launch([Call(keyring), JoinSessionKeyring(name="gocker-test"), Call(keyring), *program("true")])
    assert not outcome.failed
    before, after = outcome.lines
    assert before != after


@pytest.mark.parametrize(("number", "fine"), [(38, True), (1, True), (122, False)])
def test_a_keyring_that_cannot_be_had_is_an_error_only_when_there_is_one(number: int, fine: bool) -> None:
    """ENOSYS and EPERM mean that nothing inside reaches a keyring either; EDQUOT does not."""
    keyctl = 250 if os.uname().machine == "x86_64" else 219
    from gocker.kernel.seccomp import ALLOW, ERRNO, answer, install_filter, jump_if_equal, load

    def forbid() -> None:
        code = [load(0), jump_if_equal(keyctl, 0, 1), answer(ERRNO | number), answer(ALLOW)]
        install_filter(b"".join(code))

    outcome = launch([Call(forbid), JoinSessionKeyring(name="x"), *program("true")])
    assert (not outcome.failed) == fine
    if not fine:
        assert outcome.failed["errno"] == "EDQUOT"
        assert "kernel.keys.maxkeys" in outcome.failed["remedy"]


LIMITS = (("nofile", 100, 200), ("core", 0, 0), ("fsize", 1 << 20, rlimit.UNLIMITED))
DROP = [DropBounding(keep=()), SetUser(user="nobody"), keep_only(())]
SHOW = program("cat", "/proc/self/limits")


def limits_of(text: str) -> dict[str, list[str]]:
    return {line[:25].strip(): line[26:].split()[:2] for line in text.splitlines()}


def test_limits_are_set_without_privilege() -> None:
    rows = limits_of(launch([*DROP, SetRlimits(limits=LIMITS), *SHOW]).text)
    assert rows["Max open files"] == ["100", "200"]
    assert rows["Max core file size"] == ["0", "0"]
    assert rows["Max file size"] == ["1048576", "unlimited"]


def test_a_hard_limit_that_is_high_enough_is_left_alone() -> None:
    context = Context(None)

    def parent(pid: int) -> None:
        context.pid = pid
        before = rlimit.get_rlimit(pid, "nofile")
        RaiseRlimits(limits=LIMITS).execute(context)
        assert rlimit.get_rlimit(pid, "nofile") == before

    assert not launch(program("true"), prepare=parent).failed


@may_raise
@pytest.mark.guest
def test_a_hard_limit_is_raised_from_outside() -> None:
    context = Context(None)

    def parent(pid: int) -> None:
        rlimit.set_rlimit(pid, "nofile", 64, 128)
        context.pid = pid
        RaiseRlimits(limits=LIMITS).execute(context)
        assert rlimit.get_rlimit(pid, "nofile") == (64, 200)

    rows = limits_of(launch([*DROP, SetRlimits(limits=LIMITS), *SHOW], prepare=parent).text)
    assert rows["Max open files"] == ["100", "200"]


def test_a_limit_that_nobody_raised_fails_the_step() -> None:
    low = Call(lambda: rlimit.set_rlimit(0, "nofile", 64, 128))
    outcome = launch([low, *DROP, SetRlimits(limits=LIMITS), *SHOW])
    assert (outcome.failed["op"], outcome.failed["errno"]) == ("rlimits", "EPERM")
    assert "nofile=100:200" in outcome.failed["reason"]
    assert outcome.failed["remedy"] == "gocker needs CAP_SYS_RESOURCE for it"


def test_few_files_do_not_stop_gocker_itself() -> None:
    spec = ContainerSpec(
        id="x", name="x", argv=("true",), user="nobody", rlimits=(Rlimit(name="nofile", soft=3, hard=3),)
    )
    outcome = launch(identity.last_steps(spec, None))
    assert not outcome.failed
    assert outcome.records == []
    assert outcome.code == 127  # true's own loader finds no fd to open libc by


@pytest.mark.parametrize("value", [pytest.param(-500, marks=[may_raise, pytest.mark.guest]), 0, 777])
def test_the_oom_score_is_adjusted_from_outside(value: int) -> None:
    context = Context(None)

    def adjust(pid: int) -> None:
        context.pid = pid
        OomScoreAdj(value=value).execute(context)

    outcome = launch(program("cat", "/proc/self/oom_score_adj"), prepare=adjust)
    assert outcome.text == f"{value}\n"


@pytest.mark.skipif("CAP_SYS_RESOURCE" in ALL, reason="needs a host that lacks CAP_SYS_RESOURCE")
def test_a_score_that_gocker_may_not_give_is_an_error_with_its_reason() -> None:
    outcome = launch([OomScoreAdj(value=-500), *program("true")])
    assert (outcome.failed["op"], outcome.failed["errno"]) == ("oom-score-adj", "EACCES")
    assert "set oom_score_adj=-500" in outcome.failed["reason"]
    assert outcome.failed["remedy"] == "gocker needs CAP_SYS_RESOURCE for it"


def in_mounts(what: object) -> None:
    unshare(CLONE_NEWNS)
    call("mount", None, b"/", None, (1 << 18) | (1 << 14), None)  # MS_PRIVATE | MS_REC
    what()  # type: ignore[operator]


def test_a_proc_that_is_none_is_not_written_to() -> None:
    def fake() -> None:
        call("mount", b"x", b"/proc", b"tmpfs", 0, None)
        os.makedirs("/proc/self")
        with open("/proc/self/oom_score_adj", "w"):
            pass

    outcome = launch([Call(lambda: in_mounts(fake)), OomScoreAdj(value=5), *program("true")])
    assert outcome.failed["errno"] == "EXDEV"


def test_a_file_mounted_over_one_of_proc_is_not_written_to() -> None:
    def cover() -> None:
        call("mount", b"/etc/passwd", f"/proc/{os.getpid()}/oom_score_adj".encode(), None, 4096, None)

    outcome = launch([Call(lambda: in_mounts(cover)), OomScoreAdj(value=5), *program("true")])
    assert outcome.failed["errno"] == "EXDEV"


def test_the_working_directory_is_made_when_missing(tmp_path: Path) -> None:
    path = f"{tmp_path}/a/b c"
    outcome = launch([Umask(), Chdir(path=path), SetUser(user="0:7"), *program("pwd")])
    assert outcome.text == f"{path}\n"
    for part in (f"{tmp_path}/a", path):
        info = os.stat(part)
        assert (info.st_mode & 0o7777, info.st_uid, info.st_gid) == (0o755, 0, 0)


def test_a_working_directory_that_is_not_to_be_made_is_missed(tmp_path: Path) -> None:
    outcome = launch([Chdir(path=f"{tmp_path}/a", create=False), *program("pwd")])
    assert (outcome.failed["op"], outcome.failed["errno"]) == ("chdir", "ENOENT")
    assert f"enter {tmp_path}/a" in outcome.failed["reason"]


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/passwd/below"])
def test_a_working_directory_that_is_a_file_is_an_error(path: str) -> None:
    outcome = launch([Chdir(path=path), *program("pwd")])
    assert outcome.failed["errno"] == "ENOTDIR"


def test_a_working_directory_behind_a_magic_link_is_refused() -> None:
    """CVE-2024-21626: --workdir /proc/self/fd/N leads to the host by a leaked fd."""
    fd = os.open("/", os.O_PATH)
    try:
        outcome = launch([Chdir(path=f"/proc/self/fd/{fd}"), *program("pwd")])
    finally:
        os.close(fd)
    assert (outcome.failed["op"], outcome.failed["errno"]) == ("chdir", "ELOOP")


def test_a_working_directory_outside_the_root_is_seen(tmp_path: Path) -> None:
    def leave() -> None:
        call("mount", b"x", os.fsencode(tmp_path), b"tmpfs", 0, None)
        os.chdir(tmp_path)
        call("umount2", os.fsencode(tmp_path), 2)  # MNT_DETACH
        assert ids.raw_getcwd().startswith(b"(unreachable)")
        with pytest.raises(KernelError, match="it lies outside the container"):
            identity.require_inside()

    outcome = launch([Call(lambda: in_mounts(leave)), *program("true")])
    assert not outcome.failed


def test_the_umask_is_set() -> None:
    assert launch([Umask(), *program("sh", "-c", "umask")]).text == "0022\n"
    assert launch([Umask(mask=0o077), *program("sh", "-c", "umask")]).text == "0077\n"


def test_the_program_is_looked_up_as_the_user(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[:-2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho ran\n")
    tool.chmod(0o700)
    find = FindProgram(name="tool", path=str(tmp_path))
    allowed = launch([find, *program("tool")])
    assert allowed.text == "ran\n"
    refused = launch([SetUser(user="nobody"), keep_only(()), find, *program("tool")])
    assert (refused.failed["op"], refused.failed["errno"]) == ("find-program", "EACCES")
    assert f"uid {NOBODY.pw_uid} may not execute it" in refused.failed["reason"]


def test_all_steps_together_start_a_program() -> None:
    spec = ContainerSpec(
        id="whole",
        name="whole",
        argv=("sh", "-c", "cat /proc/self/status; echo $A $HOME; pwd; ls /proc/self/fd"),
        env=(("PATH", HOST_PATH), ("A", "b c")),
        user="nobody",
        cwd="/usr",
        capabilities=plain_capabilities(caps.DOCKER_DEFAULT),
        rlimits=(Rlimit(name="nofile", soft=512, hard=1024),),
        oom_score_adj=100,
    )
    from gocker.seccomp import seccomp_step

    context = Context(spec)

    def parent(pid: int) -> None:
        context.pid = pid
        for step in identity.parent_steps(spec):
            step.execute(context)

    steps = (*identity.first_steps(spec), *identity.last_steps(spec, seccomp_step(spec, "")))
    outcome = launch(steps, prepare=parent, flags=CLONE_NEWPID)
    assert not outcome.failed
    assert (outcome.field("Seccomp"), outcome.field("NoNewPrivs"), outcome.field("CapEff")) == (
        "2",
        "1",
        "0" * 16,
    )
    assert outcome.lines[-6:] == [f"b c {NOBODY.pw_dir}", "/usr", "0", "1", "2", "3"]


def test_without_no_new_privileges_all_steps_start_a_program_too() -> None:
    from gocker.seccomp import seccomp_step

    spec = ContainerSpec(
        id="whole",
        name="whole",
        argv=("cat", "/proc/self/status"),
        user="nobody",
        capabilities=plain_capabilities(caps.DOCKER_DEFAULT),
        no_new_privileges=False,
    )
    outcome = launch((*identity.first_steps(spec), *identity.last_steps(spec, seccomp_step(spec, ""))))
    assert not outcome.failed
    assert [outcome.field(name) for name in ("Seccomp", "NoNewPrivs", "CapPrm", "CapEff")] == [
        "2",
        "0",
        "0" * 16,
        "0" * 16,
    ]


@pytest.mark.parametrize("init", [False, True])
@pytest.mark.parametrize("user", ["", "5:6"])
def test_all_steps_together_start_a_program_in_a_user_namespace(user: str, init: bool) -> None:
    from gocker.seccomp import seccomp_step

    spec = ContainerSpec(
        id="mapped",
        name="mapped",
        argv=("sh", "-c", "cat /proc/self/status"),
        env=(("PATH", HOST_PATH),),
        user=user,
        capabilities=plain_capabilities(caps.DOCKER_DEFAULT),
        rlimits=(Rlimit(name="nofile", soft=512, hard=1024),),
        oom_score_adj=100,
        init=init,
    )
    context = Context(spec)

    def parent(pid: int) -> None:
        for kind in ("uid", "gid"):
            Path(f"/proc/{pid}/{kind}_map").write_text("0 100000 65536\n")
        context.pid = pid
        for step in identity.parent_steps(spec):
            step.execute(context)

    steps = (
        BecomeRoot(),
        *identity.first_steps(spec),
        *(step for step in identity.last_steps(spec, seccomp_step(spec, "")) if step.op != "chdir"),
    )
    outcome = launch(steps, prepare=parent, flags=CLONE_NEWPID | CLONE_NEWUSER)
    assert not outcome.failed
    assert outcome.code == 0
    assert outcome.field("Uid").split()[0] == (user.partition(":")[0] or "0")
    assert outcome.field("Seccomp") == "2"
    assert int(outcome.field("CapEff"), 16) == (mask(caps.DOCKER_DEFAULT) if not user else 0)
