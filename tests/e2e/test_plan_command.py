"""`gocker plan`: the steps that `gocker run` with the same arguments takes, and nothing touched."""

from __future__ import annotations

import json
import os
import re

import pytest
from command import Gocker

OPTIONS = (
    "--limit",
    "memory=100m",
    "-h",
    "web",
    "-e",
    "SECRET=hush",
    "--tmpfs",
    "/run",
    "-u",
    "1000",
    "--name",
    "planned",
)
ID = re.compile(r"\b[0-9a-f]{16}\b")


def without_ids(text: str) -> str:
    """An id is another one each time."""
    return ID.sub("ID", text)


def lines(text: str) -> list[tuple[str, str]]:
    """(phase, what the step says of itself), in order, of the text form; checks the numbers."""
    found: list[tuple[str, str]] = []
    phase = ""
    for line in text.splitlines():
        if line.startswith("# "):
            phase = line[2:]
        else:
            number, _, words = line.strip().partition(" ")
            assert int(number) == len(found) + 1
            found.append((phase, words))
    return found


def tree(path: str) -> list[str]:
    return sorted(
        f"{directory}/{name}" for directory, folders, files in os.walk(path) for name in (*folders, *files)
    )


def test_it_is_what_run_does(gocker: Gocker) -> None:
    planned = gocker("plan", *OPTIONS, "base", "true")
    assert planned.code == 0, planned
    ran = gocker.run(*OPTIONS, "base", "true")
    assert ran.code == 0, ran
    shown = gocker(
        "audit",
        "show",
        "--container",
        ran.report["container"],
        "--event",
        "container.create",
        "--format",
        "json",
    )
    steps = json.loads(shown.out)["steps"]
    assert [without_ids(f"{phase}: {words}") for phase, words in lines(planned.out)] == [
        without_ids(step) for step in steps
    ]


def test_dry_run_is_the_same(gocker: Gocker) -> None:
    plan = gocker("plan", *OPTIONS, "base", "true")
    dry = gocker("run", "--dry-run", *OPTIONS, "base", "true")
    assert dry.code == 0
    digests = re.compile("sha256:[0-9a-f]{64}\n")
    assert without_ids(digests.sub("", dry.out)) == without_ids(digests.sub("", plan.out))


def test_phases_come_in_their_order_and_the_exec_last(gocker: Gocker) -> None:
    out = gocker("plan", *OPTIONS, "base", "true").out
    steps = lines(out)
    assert list(dict.fromkeys(phase for phase, _ in steps)) == ["host", "parent", "init", "remove"]
    init = [words for phase, words in steps if phase == "init"]
    assert init[-1].startswith("exec ")
    assert init[-2].startswith("seccomp ")
    assert re.fullmatch("# sha256:[0-9a-f]{64}", out.splitlines()[-1])


def test_each_limit_is_a_step(gocker: Gocker) -> None:
    out = gocker("plan", "--limit", "memory=100m", "--limit", "pids=7", "base", "true").out
    assert re.search(r"echo 104857600 > /\S+/gocker/[0-9a-f]{16}/memory\.(limit_in_bytes|max)\n", out)
    assert re.search(r"echo 7 > /\S+/gocker/[0-9a-f]{16}/pids\.max\n", out)


def test_values_of_the_environment_are_not_shown(gocker: Gocker) -> None:
    for form in ("text", "json"):
        out = gocker("plan", "--format", form, *OPTIONS, "base", "true").out
        assert "hush" not in out
        assert "SECRET" in out


def test_json_has_every_step_with_its_op(gocker: Gocker) -> None:
    plan = json.loads(gocker("plan", "--format", "json", *OPTIONS, "base", "true", "a b\n\udcff").out)
    assert list(plan) == ["version", "container", "name", "phases", "digest"]
    assert (plan["version"], plan["name"]) == (1, "planned")
    assert list(plan["phases"]) == ["host", "parent", "init", "remove"]
    steps = [step for phase in plan["phases"].values() for step in phase]
    assert all(step["op"] for step in steps)
    assert steps[[step["op"] for step in steps].index("exec")]["argv"] == ["true", "a b\n\udcff"]
    text = gocker("plan", *OPTIONS, "base", "true", "a b\n\udcff").out
    assert len(lines(text)) == len(steps)


@pytest.mark.parametrize("command", [("plan",), ("run", "--dry-run"), ("plan", "--format", "json")])
def test_nothing_is_touched(gocker: Gocker, tmp_path: os.PathLike[str], command: tuple[str, ...]) -> None:
    env = {
        "GOCKER_ROOT": f"{tmp_path}/data",
        "GOCKER_STATE": f"{tmp_path}/state",
        "GOCKER_AUDIT_LOG": f"{tmp_path}/audit.jsonl",
    }
    rootfs = f"{tmp_path}/rootfs"
    os.mkdir(rootfs)
    files = ("--cidfile", f"{tmp_path}/cid", "-v", f"{tmp_path}:/v")
    before = tree(str(tmp_path))
    for image in (("base",), ("--rootfs", rootfs)):
        ran = gocker(*command, *files, *image, "true", env=env)
        assert (ran.code, ran.err) == (0, ""), ran
    assert tree(str(tmp_path)) == before


def test_a_path_with_control_characters_takes_one_line(gocker: Gocker, tmp_path: os.PathLike[str]) -> None:
    odd = f"{tmp_path}/a\n# host\x1b[2J"
    os.mkdir(odd)
    ran = gocker("plan", "-v", f"{odd}:/x", "base", "true")
    assert ran.code == 0
    assert r"/a\x0a# host\x1b[2J /x" in ran.out
    lines(ran.out)


def test_the_image_base_need_not_be_there(gocker: Gocker, tmp_path: os.PathLike[str]) -> None:
    there = gocker("plan", "base", "true").out
    absent = gocker("plan", "base", "true", env={"GOCKER_ROOT": f"{tmp_path}/data"}).out
    digest = re.compile(r"lowerdir=\S+/(sha256-[0-9a-f]{64})")
    assert digest.search(there)[1] == digest.search(absent)[1]  # type: ignore[index]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--limit", "memory=5m", "base", "true"), "minimum of 6m"),
        (("--limit", "nosuch=1", "base", "true"), "find controller plug-in nosuch"),
        (("nosuch", "true"), "find image nosuch"),
        (("base",), "no command was given"),
        (("-v", "/nosuch:/x", "base", "true"), "make it first"),
        (("--sysctl", "kernel.panic=1", "base", "true"), "not per namespace"),
        (("-v", "/tmp:/proc", "base", "true"), "must stay the container's own"),
        (("--nosuch",), "plan: no such option"),
    ],
)
def test_what_run_refuses_before_its_first_step_is_refused_here(
    gocker: Gocker, options: tuple[str, ...], reason: str
) -> None:
    for command in ("plan", "run"):
        ran = gocker(command, *options)
        assert (ran.code, ran.out, ran.err.count("\n")) == (125, "", 1), ran
        assert reason.replace("plan:", f"{command}:") in ran.err


CHANGES: dict[tuple[str, ...], str] = {
    ("--read-only",): "mount -o remount,bind,ro /",
    ("--init",): "gocker-init true",
    ("-t",): "/dev/console",
    ("--userns", "private"): "0 100000 65536",
    ("--ulimit", "nofile=9:10"): "--nofile=9:10",
    ("--oom-score-adj", "7"): "--adjust 7",
    ("--sysctl", "net.ipv4.ip_forward=1"): "sysctl -w net.ipv4.ip_forward=1",
    ("--tmpfs", "/x:size=1m"): "tmpfs /x",
    ("-w", "/srv"): "cd /srv",
    ("-u", "a:b"): "--reuid a --regid b",
    ("--cap-drop", "ALL"): "# if root: none",
    ("--uts", "ns:/proc/1/ns/uts"): "nsenter --uts=/proc/1/ns/uts",
    ("--timens", "private", "--boottime", "5"): "--boottime 5",
    ("--cgroup-parent", "/slurm"): "/slurm/gocker/",
    ("--hostname", "web"): "hostname web",
}


@pytest.fixture(scope="module")
def plain(places: object, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The plan without any option."""
    return Gocker(str(tmp_path_factory.mktemp("command")))("plan", "base", "true").out


@pytest.mark.parametrize("options", CHANGES, ids=" ".join)
def test_an_option_shows(gocker: Gocker, plain: str, options: tuple[str, ...]) -> None:
    text = CHANGES[options]
    assert text not in plain
    ran = gocker("plan", *options, "base", "true")
    assert (ran.code, text in ran.out) == (0, True), ran.out


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--security-opt", "seccomp=unconfined"), "seccomp --profile"),
        (("--security-opt", "no-new-privileges=false"), "setpriv --no-new-privs"),
        (("--privileged",), "devices"),
        (("--network", "host"), "--network"),
        (("--pid", "host"), "--pid"),
        (("--cgroupns", "host"), "unshare --cgroup"),
    ],
)
def test_what_an_option_leaves_out_is_not_there(
    gocker: Gocker, plain: str, option: tuple[str, ...], words: str
) -> None:
    assert words in plain
    ran = gocker("plan", *option, "base", "true")
    assert (ran.code, words in ran.out) == (0, False), ran.out
