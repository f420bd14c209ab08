"""The process of a config.json, and the process.json of exec."""

from __future__ import annotations

from typing import Any

import ocibundle
import pytest
from ocibundle import process, read, read_all, read_exec, refusal

from gocker.errors import UsageError
from gocker.kernel import caps
from gocker.model import Capabilities, ContainerSpec, IoPriority, Rlimit, Rootfs, Scheduler
from gocker.oci.process import own_capabilities, read_process


def refused(path: str, **members: Any) -> str:
    """The reason of an error that names this path."""
    text = refusal(process(**members))
    start = f"read config.json process.{path}: "
    assert text.startswith(start), text
    return text.removeprefix(start)


def test_a_bare_process_is_root_without_rights() -> None:
    spec = read(process())
    assert (spec.argv, spec.cwd, spec.user, spec.groups, spec.env) == (("sh",), "/", "0:0", (), ())
    assert spec.capabilities == Capabilities()
    assert (spec.no_new_privileges, spec.privileged, spec.terminal, spec.init) == (False, False, False, False)
    assert (spec.rlimits, spec.oom_score_adj, spec.umask) == ((), None, 0o022)
    assert spec.interactive


def test_a_config_without_a_process_is_read_only_when_asked_for() -> None:
    config = ocibundle.minimal(process=None)
    assert refusal(config) == "read config.json process: is missing (args and cwd are needed to start)"
    spec = read(config, process_required=False)
    assert (spec.argv, spec.user, spec.capabilities) == ((), "0:0", Capabilities())


def test_null_is_as_if_absent() -> None:
    names = ("env", "user", "capabilities", "rlimits", "terminal", "consoleSize", "scheduler", "oomScoreAdj")
    assert read(process(**dict.fromkeys(names))) == read(process())


@pytest.mark.parametrize("args", [None, [], [""]])
def test_a_process_needs_a_program(args: Any) -> None:
    assert "names no program" in refusal(process(args=args))


@pytest.mark.parametrize(
    ("cwd", "reason"), [("work", "is not an absolute path"), ("", "is empty"), (None, "is missing")]
)
def test_cwd_is_an_absolute_path(cwd: str | None, reason: str) -> None:
    assert reason in refused("cwd", cwd=cwd)


def test_cwd_keeps_what_a_link_could_be_before() -> None:
    assert read(process(cwd="//a/./b/../c/")).cwd == "/a/b/../c"


@pytest.mark.parametrize("entry", ["NAME", "", "=value", "="])
def test_an_environment_entry_has_a_name_and_an_equals_sign(entry: str) -> None:
    assert refused("env[1]", env=["A=1", entry]).endswith("is not NAME=VALUE")


def test_the_last_of_two_environment_entries_holds() -> None:
    assert read(process(env=["A=1", "B=", "A=2=3"])).env == (("A", "2=3"), ("B", ""))


def test_the_terminal_has_a_size_when_there_is_one() -> None:
    size = {"height": 24, "width": 80}
    assert read(process(terminal=True, consoleSize=size)).console_size == (24, 80)
    assert read(process(consoleSize=size)).console_size == (0, 0)
    assert "is missing" in refused("consoleSize.width", terminal=True, consoleSize={"height": 1})
    assert "65536 is not" in refused("consoleSize.height", terminal=True, consoleSize={"height": 65536})


@pytest.mark.parametrize("value", [4294967295, 4294967296, -1, True, 1.0, 0.5, "0", [0], {}])
@pytest.mark.parametrize("name", ["uid", "gid"])
def test_an_id_is_a_whole_number_below_the_one_that_means_none(name: str, value: Any) -> None:
    reason = refused(f"user.{name}", user={name: value})
    assert reason.endswith("is not an id (0 to 4294967294)")


def test_further_groups_are_ids_too() -> None:
    user = {"uid": 4294967294, "gid": 7, "additionalGids": [8, 9]}
    spec = read(process(user=user))
    assert (spec.user, spec.groups) == ("4294967294:7", ("8", "9"))
    assert refused("user.additionalGids[1]", user={"additionalGids": [1, -1]}).startswith("-1 is not an id")


def test_umask_has_nine_bits() -> None:
    assert read(process(user={"umask": 0})).umask == 0
    assert "512 is not" in refused("user.umask", user={"umask": 0o1000})


def test_the_five_sets_of_capabilities_are_read() -> None:
    sets = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_KILL", "CAP_KILL"],
        "inheritable": ["CAP_CHOWN"],
        "ambient": ["CAP_CHOWN"],
    }
    assert read(process(capabilities=sets)).capabilities == Capabilities(
        bounding=("CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN"),
        permitted=("CAP_CHOWN", "CAP_KILL"),
        effective=("CAP_KILL",),
        inheritable=("CAP_CHOWN",),
        ambient=("CAP_CHOWN",),
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("CAP_EVERYTHING", 'left out "CAP_EVERYTHING": no such capability'),
        ("cap_kill", 'left out "cap_kill": no such capability'),
        ("CAP_SYS_BOOT", "left out CAP_SYS_BOOT: cannot be given here"),
    ],
)
def test_a_capability_that_cannot_be_given_is_left_out_with_a_warning(name: str, reason: str) -> None:
    spec, warnings = read_all(process(capabilities={"bounding": ["CAP_KILL", name]}))
    assert spec.capabilities.bounding == ("CAP_KILL",)
    assert warnings == (f"process.capabilities.bounding: {reason}",)


def test_capabilities_that_the_kernel_would_refuse_together_are_left_out_with_a_warning() -> None:
    both = ["CAP_KILL", "CAP_CHOWN"]
    spec, warnings = read_all(process(capabilities={"effective": both, "inheritable": both, "ambient": both}))
    assert spec.capabilities == Capabilities()
    assert warnings == (
        "process.capabilities.effective: left out CAP_KILL CAP_CHOWN: not in permitted",
        "process.capabilities.inheritable: left out CAP_KILL CAP_CHOWN: not in bounding",
        "process.capabilities.ambient: can't raise ambient capability CAP_KILL: not in permitted",
        "process.capabilities.ambient: can't raise ambient capability CAP_CHOWN: not in permitted",
    )


def test_ambient_capabilities_that_are_not_inheritable_are_left_out_as_buildah_writes_them() -> None:
    names = ["CAP_CHOWN"]
    sets = {"bounding": names, "permitted": names, "effective": names, "ambient": names}
    spec, warnings = read_all(process(capabilities=sets))
    assert (spec.capabilities.effective, spec.capabilities.ambient) == (("CAP_CHOWN",), ())
    assert warnings == (
        "process.capabilities.ambient: can't raise ambient capability CAP_CHOWN: not in inheritable",
    )


def test_a_container_is_given_what_gocker_has_and_in_a_user_namespace_all() -> None:
    every = frozenset(caps.NAMES[: caps.last_cap() + 1])
    assert own_capabilities(mapped=True) == every
    assert own_capabilities() == every & caps.permitted()


def test_rlimits_are_read_to_the_last_bit() -> None:
    limits = [
        {"type": "RLIMIT_NOFILE", "soft": 0, "hard": 2**64 - 1},
        {"type": "RLIMIT_RTTIME", "soft": 5, "hard": 5},
    ]
    assert read(process(rlimits=limits)).rlimits == (
        Rlimit(name="nofile", soft=0, hard=2**64 - 1),
        Rlimit(name="rttime", soft=5, hard=5),
    )


@pytest.mark.parametrize(
    ("limit", "path", "reason"),
    [
        ({"type": "RLIMIT_TEA", "soft": 1, "hard": 1}, "rlimits[1].type", '"RLIMIT_TEA" is not known'),
        ({"type": "nofile", "soft": 1, "hard": 1}, "rlimits[1].type", '"nofile" is not known'),
        ({"soft": 1, "hard": 1}, "rlimits[1].type", "is missing"),
        ({"type": "RLIMIT_CORE", "hard": 1}, "rlimits[1].soft", "is missing"),
        ({"type": "RLIMIT_CORE", "soft": 1}, "rlimits[1].hard", "is missing"),
        ({"type": "RLIMIT_CORE", "soft": 2, "hard": 1}, "rlimits[1].soft", "2 is above the hard limit 1"),
        ({"type": "RLIMIT_CORE", "soft": 2**64, "hard": 1}, "rlimits[1].soft", f"{2**64} is not a whole"),
        ({"type": "RLIMIT_CPU", "soft": 1, "hard": 1}, "rlimits[1].type", '"RLIMIT_CPU" is there twice'),
        (7, "rlimits[1]", "7 is not an object"),
    ],
)
def test_a_bad_rlimit_is_refused(limit: Any, path: str, reason: str) -> None:
    first = {"type": "RLIMIT_CPU", "soft": 1, "hard": 1}
    assert refused(path, rlimits=[first, limit]).startswith(reason)


@pytest.mark.parametrize("score", [-1001, 1001, True, "1"])
def test_oom_score_adj_is_in_the_range_of_the_kernel(score: Any) -> None:
    assert "is not a score (-1000 to 1000)" in refused("oomScoreAdj", oomScoreAdj=score)


def test_labels_and_no_new_privileges_are_read() -> None:
    spec = read(process(apparmorProfile="a", selinuxLabel="b", noNewPrivileges=True, oomScoreAdj=0))
    assert (spec.apparmor_profile, spec.selinux_label, spec.no_new_privileges) == ("a", "b", True)
    assert spec.oom_score_adj == 0


def test_a_scheduler_is_read() -> None:
    assert read(process(scheduler={"policy": "SCHED_BATCH", "nice": -20})).scheduler == Scheduler(
        policy="SCHED_BATCH", nice=-20
    )
    for priority in (1, 99):
        assert read(process(scheduler={"policy": "SCHED_RR", "priority": priority})).scheduler == Scheduler(
            policy="SCHED_RR", priority=priority
        )


@pytest.mark.parametrize(
    ("scheduler", "name", "reason"),
    [
        ({}, "policy", "is missing"),
        ({"policy": "SCHED_ISO"}, "policy", "Linux has no SCHED_ISO"),
        ({"policy": "SCHED_FAIR"}, "policy", '"SCHED_FAIR" is not known'),
        ({"policy": "SCHED_OTHER", "nice": 20}, "nice", "20 is not a nice value (-20 to 19)"),
        ({"policy": "SCHED_OTHER", "priority": 1}, "priority", "1 is not 0, as SCHED_OTHER needs it"),
        ({"policy": "SCHED_OTHER", "priority": -1}, "priority", "-1 is not 0, as SCHED_OTHER needs it"),
        ({"policy": "SCHED_FIFO"}, "priority", "0 is not 1 to 99, as SCHED_FIFO needs it"),
        ({"policy": "SCHED_FIFO", "priority": 100}, "priority", "100 is not 1 to 99"),
        ({"policy": "SCHED_IDLE", "runtime": 5}, "runtime", "SCHED_IDLE takes none"),
        ({"policy": "SCHED_OTHER", "flags": ["FAST"]}, "flags[0]", '"FAST" is not known'),
        ({"policy": "SCHED_DEADLINE", "period": -1}, "period", "-1 is not a whole number"),
    ],
)
def test_a_bad_scheduler_is_refused(scheduler: Any, name: str, reason: str) -> None:
    assert refused(f"scheduler.{name}", scheduler=scheduler).startswith(reason)


def test_an_io_priority_is_read() -> None:
    priority = {"class": "IOPRIO_CLASS_IDLE"}
    assert read(process(ioPriority=priority)).io_priority == IoPriority(kind="IOPRIO_CLASS_IDLE")


@pytest.mark.parametrize(
    ("priority", "name"),
    [
        ({}, "class"),
        ({"class": "IOPRIO_CLASS_NONE"}, "class"),
        ({"class": "IOPRIO_CLASS_BE", "priority": 8}, "priority"),
    ],
)
def test_a_bad_io_priority_is_refused(priority: Any, name: str) -> None:
    refused(f"ioPriority.{name}", ioPriority=priority)


def test_cpu_affinity_is_for_other_processes_than_the_first() -> None:
    config = process(execCPUAffinity={"initial": "0, 2-3", "final": ""})
    assert read(config).cpu_affinity == ("", "")
    assert read(config, for_exec=True).cpu_affinity == ("0,2-3", "")


@pytest.mark.parametrize("text", ["a", "3-1", "1,", "0-"])
def test_a_cpu_list_that_is_none_is_refused(text: str) -> None:
    refused("execCPUAffinity.final", execCPUAffinity={"final": text})


def test_what_windows_has_is_ignored_in_silence() -> None:
    config = process(commandLine="sh", user={"username": "x"})
    assert read_all(config) == (read(process(user={})), ())


def test_a_process_json_says_what_differs_from_the_container() -> None:
    assert read_exec({"cwd": "/", "args": ["id"]}) == {"argv": ("id",), "cwd": "/", "terminal": False}


def test_a_whole_process_json_changes_every_field_of_the_spec() -> None:
    fields = read_exec(ocibundle.full()["process"])
    spec = ContainerSpec(id="c", name="c", argv=("x",), rootfs=Rootfs(lower="/r"), no_new_privileges=False)
    changed = spec.replace(**fields)
    assert {name for name in ContainerSpec.fields if getattr(changed, name) != getattr(spec, name)} == set(
        fields
    )
    assert fields["cpu_affinity"] == ("0", "0-1")


def test_a_user_without_further_groups_has_none_in_exec() -> None:
    assert read_exec({"cwd": "/", "args": ["id"], "user": {"uid": 1, "gid": 2}})["groups"] == ()


def test_an_error_in_process_json_names_its_path() -> None:
    with pytest.raises(UsageError, match=r"^read process\.json user\.uid: 4294967296 is not an id"):
        read_exec({"cwd": "/", "args": ["id"], "user": {"uid": 2**32, "gid": 0}})


def test_a_process_may_come_as_an_object() -> None:
    fields, warnings = read_process({"cwd": "/", "args": ["id"], "what": 1}, grantable=frozenset())
    assert fields["argv"] == ("id",)
    assert warnings == ("what: unknown property, ignored",)
    with pytest.raises(UsageError, match=r"args\[0\]: has a NUL character"):
        read_process({"cwd": "/", "args": ["a\0b"]}, grantable=frozenset())
