"""R4: open descriptors and working directories outside."""

from __future__ import annotations

import os

from .lab import HOST, SECRET, SECRET_FILE, Bundle, Lab, Verdict, broken, held, text_of
from .suite import attack

NUMBERS = range(3, 17)


@attack("R4", "CVE-2024-21626")
def descriptors_in_run(lab: Lab) -> Verdict:
    """Read a file of the host through descriptors that `run` leaves open."""
    bundle = lab.bundle()
    bundle.run_inside("secret-by-fds", SECRET_FILE)
    done = lab.run(bundle).must_run()
    return broken("read the host's file") if SECRET in done.out else held("none leads out")


@attack("R4", "CVE-2024-21626")
def descriptors_in_exec(lab: Lab) -> Verdict:
    """The same for `exec`."""
    bundle = lab.bundle()
    bundle.run_inside("sleep", "30")
    lab.up(bundle)
    done = lab.exec(["/bin/inside", "secret-by-fds", SECRET_FILE]).must_run()
    return broken("read the host's file") if SECRET in done.out else held("none leads out")


@attack("R4", "CVE-2024-21626")
def descriptors_of_the_caller(lab: Lab) -> Verdict:
    """The caller has a directory of the host open and does not ask for it to be preserved."""
    bundle = lab.bundle()
    bundle.run_inside("look")
    fd = os.open(HOST, os.O_RDONLY)
    os.dup2(fd, 9)
    os.set_inheritable(9, True)
    done = lab.run(bundle, pass_fds=[9]).must_run()
    kept = [line for line in done.values("fd") if HOST in line or line.startswith("9 ")]
    return broken(f"descriptor {kept[0]}") if kept else held("closed")


@attack("R4", "any descriptor at all")
def any_descriptor(lab: Lab) -> Verdict:
    """Is anything but 0, 1 and 2 open in `run`?"""
    return _none_left(lab.run(lab.bundle()).must_run().out)


@attack("R4", "any descriptor at all")
def any_descriptor_after_start(lab: Lab) -> Verdict:
    """The same for `create` and `start`, whose program waits for a signal from outside."""
    output = lab.up(lab.bundle(), wait_for="program=done")
    return _none_left(text_of(output))


@attack("R4", "any descriptor at all")
def any_descriptor_in_exec(lab: Lab) -> Verdict:
    """The same for `exec`."""
    bundle = lab.bundle()
    bundle.run_inside("sleep", "30")
    lab.up(bundle)
    return _none_left(lab.exec(["/bin/inside", "look"]).must_run().out)


def _none_left(text: str) -> Verdict:
    left = [line for line in text.splitlines() if line.startswith("fd=") and "/proc/self/status" not in line]
    return broken(f"descriptor {left[0]}") if left else held("0, 1 and 2")


@attack("R4", "CVE-2024-21626")
def descriptors_by_preserve_fds(lab: Lab) -> Verdict:
    """--preserve-fds 30 where the caller has one: are the runtime's own among the others?"""
    bundle = lab.bundle()
    bundle.run_inside("secret-by-fds", SECRET_FILE)
    fd = os.open("/dev/null", os.O_RDONLY)
    os.dup2(fd, 3)
    os.set_inheritable(3, True)
    done = lab.run(bundle, "c1", "--preserve-fds", "30", pass_fds=[3])
    if SECRET in done.out:
        return broken("read the host's file")
    return held("none leads out" if done.ran else f"refused: {done.refusal}")


@attack("R4", "LISTEN_FDS of the image")
def descriptors_by_the_images_environment(lab: Lab) -> Verdict:
    """The image's environment, not the caller's, says LISTEN_FDS=32."""
    bundle = lab.bundle()
    bundle.spec["process"]["env"] += ["LISTEN_FDS=32", "LISTEN_PID=1"]
    fd = os.open(HOST, os.O_RDONLY)
    os.dup2(fd, 9)
    os.set_inheritable(9, True)
    done = lab.run(bundle, pass_fds=[9]).must_run()
    kept = [line for line in done.values("fd") if HOST in line or line.startswith("9 ")]
    return broken(f"descriptor {kept[0]}") if kept else held("closed")


@attack("R4", "CVE-2024-21626")
def cwd_by_descriptor(lab: Lab) -> Verdict:
    """The working directory is /proc/self/fd/N, for many N."""
    return _cwd_of_run(lab, "/proc/self/fd/{}")


@attack("R4", "CVE-2024-21626")
def cwd_by_a_link_to_a_descriptor(lab: Lab) -> Verdict:
    """The same by links of the image."""
    return _cwd_of_run(lab, "/data/{}")


def _cwd_of_run(lab: Lab, pattern: str) -> Verdict:
    last = ""
    for number in NUMBERS:
        bundle = lab.bundle(f"b{number}")
        bundle.link(f"data/{number}", f"/proc/self/fd/{number}")
        bundle.spec["process"]["cwd"] = pattern.format(number)
        bundle.run_inside("secret-by-cwd", SECRET_FILE)
        done = lab.run(bundle, f"c{number}")
        if SECRET in done.out:
            return broken(f"read the host's file from {pattern.format(number)}")
        last = "no way out" if done.ran else f"refused: {done.refusal}"
    return held(last)


@attack("R4", "CVE-2024-21626")
def cwd_of_exec_by_descriptor(lab: Lab) -> Verdict:
    """`exec` with the working directory /proc/self/fd/N, for many N."""
    bundle = lab.bundle()
    bundle.run_inside("sleep", "30")
    lab.up(bundle)
    last = ""
    for number in NUMBERS:
        done = lab.exec(["/bin/inside", "secret-by-cwd", SECRET_FILE], cwd=f"/proc/self/fd/{number}")
        if SECRET in done.out:
            return broken(f"read the host's file from /proc/self/fd/{number}")
        last = "no way out" if done.ran else f"refused: {done.refusal}"
    return held(last)


@attack("R4", "false /proc before exec")
def false_proc_keeps_descriptors_open(lab: Lab) -> Verdict:
    """The container mounts a /proc without a list of descriptors; `exec` shall close them all the same."""
    bundle = _with_false_proc(lab, "empty")
    lab.up(bundle, wait_for="fake=ready")
    done = lab.exec(["/bin/inside", "secret-by-fds", SECRET_FILE])
    if SECRET in done.out:
        return broken("read the host's file")
    return held("none leads out" if done.ran else f"refused: {done.refusal}")


@attack("R5", "false /proc before exec")
def false_proc_makes_exec_wait(lab: Lab) -> Verdict:
    """The container mounts a /proc whose numbers are FIFOs: does `exec` wait for ever?"""
    bundle = _with_false_proc(lab, "waiting")
    lab.up(bundle, wait_for="fake=ready")
    done = lab.exec(["/bin/inside", "look"], timeout=5)
    if done.timed_out:
        return broken("exec waits for the container")
    return held("ran" if done.ran else f"refused: {done.refusal}")


def _with_false_proc(lab: Lab, kind: str) -> Bundle:
    bundle = lab.bundle()
    capabilities = bundle.spec["process"]["capabilities"]
    for name in ("bounding", "effective", "permitted"):
        capabilities[name] = [*capabilities[name], "CAP_SYS_ADMIN"]
    bundle.spec["linux"].pop("maskedPaths")
    bundle.spec["linux"].pop("readonlyPaths")
    bundle.run_inside("fake-proc", kind)
    return bundle


@attack("R4", "CVE-2024-21626")
def cwd_of_exec_by_a_link_to_a_descriptor(lab: Lab) -> Verdict:
    """The same by links of the image."""
    bundle = lab.bundle()
    for number in NUMBERS:
        bundle.link(f"data/{number}", f"/proc/self/fd/{number}")
    bundle.run_inside("sleep", "30")
    lab.up(bundle)
    last = ""
    for number in NUMBERS:
        done = lab.exec(["/bin/inside", "secret-by-cwd", SECRET_FILE], cwd=f"/data/{number}")
        if SECRET in done.out:
            return broken(f"read the host's file from /data/{number}")
        last = "no way out" if done.ran else f"refused: {done.refusal}"
    return held(last)


@attack("R4", "process.cwd")
def cwd_is_relative(lab: Lab) -> Verdict:
    """The working directory is relative: to what?"""
    bundle = lab.bundle()
    bundle.spec["process"]["cwd"] = "tmp"
    done = lab.run(bundle)
    return broken("ran") if done.ran else held(f"refused: {done.refusal}")


@attack("R4", "streams that are closed")
def streams_closed_by_the_caller(lab: Lab) -> Verdict:
    """The caller has closed 0, 1 and 2: what the runtime opens next would be the program's streams."""
    bundle = lab.bundle()
    bundle.run_inside("into", "/tmp/report", "secret-by-fds", SECRET_FILE)

    def close_all() -> None:
        os.closerange(0, 3)

    done = lab.run(bundle, before=close_all)
    report = bundle.path("tmp/report")
    if os.path.exists(report) and SECRET in text_of(report):
        return broken("read the host's file through a stream")
    return held("none leads out" if os.path.exists(report) else f"refused: {done.refusal}")
