"""R12: environments that are not what the configuration says."""

from __future__ import annotations

from .lab import MARK, Lab, Verdict, broken, held
from .suite import attack


@attack("R12", "CVE-2020-14370")
def environment_of_the_caller_in_run(lab: Lab) -> Verdict:
    """Is there anything of the caller's environment?"""
    done = lab.run(lab.bundle()).must_run()
    return broken("the caller's variables are there") if MARK in done.out else held("none of the caller's")


@attack("R12", "CVE-2020-14370")
def environment_of_the_caller_in_exec(lab: Lab) -> Verdict:
    """The same for `exec`."""
    bundle = lab.bundle()
    bundle.run_inside("sleep", "30")
    lab.up(bundle)
    done = lab.exec(["/bin/inside", "look"]).must_run()
    return broken("the caller's variables are there") if MARK in done.out else held("none of the caller's")


@attack("R12", "CVE-2026-57231")
def variable_without_value(lab: Lab) -> Verdict:
    """An entry is `GATTACK_HOST` alone, another `GATTACK*`: some take the caller's value for it."""
    bundle = lab.bundle()
    bundle.spec["process"]["env"] += ["GATTACK_HOST", "GATTACK*", "=value"]
    done = lab.run(bundle)
    if done.ran:
        return broken("took an entry that is none" + (" and the caller's value" if MARK in done.out else ""))
    return broken(done.crash) if done.crash else held(f"refused: {done.refusal}")


@attack("R12", "CVE-2026-57231")
def variable_is_expanded(lab: Lab) -> Verdict:
    """An entry is `X=${GATTACK_HOST} $GATTACK_HOST`."""
    bundle = lab.bundle()
    bundle.spec["process"]["env"] += ["X=${GATTACK_HOST} $GATTACK_HOST"]
    done = lab.run(bundle).must_run()
    return broken("expanded with the caller's value") if f"env=X={MARK}" in done.out else held("as it is")


@attack("R12", "NUL in a variable")
def variable_with_nul(lab: Lab) -> Verdict:
    """An entry has a NUL in it."""
    bundle = lab.bundle()
    bundle.spec["process"]["env"] += ["A=B\0C=D"]
    done = lab.run(bundle)
    if done.crash:
        return broken(done.crash)
    return broken("cut the entry short") if done.ran else held(f"refused: {done.refusal}")
