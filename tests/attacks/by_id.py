"""R10: numbers that are no ids, and an image that answers who the user is."""

from __future__ import annotations

import os
from typing import Any

from .lab import Done, Lab, Verdict, broken, held
from .suite import attack


def verdict_on_id(done: Done, wanted: str = "") -> Verdict:
    """An id that cannot be must be refused."""
    if done.crash:
        return broken(done.crash)
    if done.ran:
        return broken(
            f"ran as {done.value('uid')}:{done.value('gid')} groups {','.join(done.values('group')) or '-'}"
        )
    return held(f"refused: {done.refusal}")


def _run_as(lab: Lab, **user: Any) -> Verdict:
    bundle = lab.bundle()
    bundle.spec["process"]["user"] = {"uid": 1000, "gid": 1000} | user
    return verdict_on_id(lab.run(bundle))


@attack("R10", "CVE-2024-40635")
def uid_of_2_32(lab: Lab) -> Verdict:
    """The user is 4294967296, which is 0 in 32 bits."""
    return _run_as(lab, uid=1 << 32)


@attack("R10", "CVE-2024-40635")
def uid_of_2_32_less_1(lab: Lab) -> Verdict:
    """The user is 4294967295, which setresuid(2) takes as `leave it`."""
    return _run_as(lab, uid=(1 << 32) - 1)


@attack("R10", "CVE-2024-40635")
def uid_below_0(lab: Lab) -> Verdict:
    """The user is -1."""
    return _run_as(lab, uid=-1)


@attack("R10", "ids are integers")
def uid_is_a_boolean(lab: Lab) -> Verdict:
    """The user is `false`, which is 0 for some."""
    return _run_as(lab, uid=False)


@attack("R10", "ids are integers")
def uid_is_a_fraction(lab: Lab) -> Verdict:
    """The user is 0.5."""
    return _run_as(lab, uid=0.5)


@attack("R10", "ids are integers")
def uid_is_text(lab: Lab) -> Verdict:
    """The user is "0"."""
    return _run_as(lab, uid="0")


@attack("R10", "CVE-2024-40635")
def gid_of_2_32(lab: Lab) -> Verdict:
    """The group is 4294967296."""
    return _run_as(lab, gid=1 << 32)


@attack("R10", "CVE-2024-40635")
def additional_gid_of_2_32(lab: Lab) -> Verdict:
    """An additional group is 4294967296."""
    return _run_as(lab, additionalGids=[1 << 32])


def _exec_as(lab: Lab, user: str) -> Done:
    bundle = lab.bundle()
    bundle.run_inside("sleep", "30")
    lab.up(bundle)
    return lab.call("exec", "--user", user, "c1", "/bin/inside", "look")


@attack("R10", "CVE-2024-40635")
def exec_as_2_32(lab: Lab) -> Verdict:
    """`exec --user 4294967296`."""
    return verdict_on_id(_exec_as(lab, "4294967296"))


@attack("R10", "CVE-2024-40635")
def exec_as_2_32_less_1(lab: Lab) -> Verdict:
    """`exec --user 4294967295`."""
    return verdict_on_id(_exec_as(lab, "4294967295"))


@attack("R10", "CVE-2024-40635")
def exec_as_group_of_2_32(lab: Lab) -> Verdict:
    """`exec --user 1000:4294967296`."""
    return verdict_on_id(_exec_as(lab, "1000:4294967296"))


@attack("R10", "CVE-2026-30892")
def exec_as_one(lab: Lab) -> Verdict:
    """`exec --user 1` is user 1, not root."""
    done = _exec_as(lab, "1").must_run()
    return broken("runs as root") if done.value("uid") == "0" else held(f"runs as {done.value('uid')}")


@attack("R10", "CVE-2024-40635")
def exec_with_a_process_of_uid_2_32(lab: Lab) -> Verdict:
    """`exec --process` with the user 4294967296."""
    bundle = lab.bundle()
    bundle.run_inside("sleep", "30")
    lab.up(bundle)
    return verdict_on_id(lab.exec(["/bin/inside", "look"], user={"uid": 1 << 32, "gid": 0}))


@attack("R10", "CVE-2024-9676")
def passwd_is_a_fifo(lab: Lab) -> Verdict:
    """The image's /etc/passwd is a FIFO: does `run` wait for ever?"""
    bundle = lab.bundle()
    os.mkfifo(bundle.path("etc/passwd"), 0o644)
    os.mkfifo(bundle.path("etc/group"), 0o644)
    bundle.spec["process"]["user"] = {"uid": 1000, "gid": 1000}
    done = lab.run(bundle, timeout=5)
    if done.timed_out:
        return broken("waits for the image")
    return held("ran" if done.ran else f"refused: {done.refusal}")


@attack("R10", "CVE-2024-9676")
def passwd_is_a_fifo_in_exec(lab: Lab) -> Verdict:
    """The same for `exec`."""
    bundle = lab.bundle()
    bundle.run_inside("sleep", "30")
    lab.up(bundle)
    os.mkfifo(bundle.path("etc/passwd"), 0o644)
    os.mkfifo(bundle.path("etc/group"), 0o644)
    done = lab.exec(["/bin/inside", "look"], user={"uid": 1000, "gid": 1000}, timeout=5)
    if done.timed_out:
        return broken("waits for the image")
    return held("ran" if done.ran else f"refused: {done.refusal}")


@attack("R10", "CVE-2026-47262")
def passwd_is_huge(lab: Lab) -> Verdict:
    """The image's /etc/passwd is one line of 512 MiB that takes no room: how much memory does `run` take?"""
    bundle = lab.bundle()
    with open(bundle.path("etc/passwd"), "wb") as file:
        file.truncate(1 << 29)
    bundle.spec["process"]["user"] = {"uid": 1000, "gid": 1000}
    done = lab.run(bundle, timeout=6)
    if done.timed_out:
        return broken(f"no end after {done.seconds:.0f} s")
    if done.rss_mib > 256:
        return broken(f"took {done.rss_mib} MiB")
    if done.crash:
        return broken(done.crash)
    return held(f"{done.rss_mib} MiB")
