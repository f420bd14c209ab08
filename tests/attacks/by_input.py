"""R13: configurations that are no such thing; a runtime says so in a line and ends."""

from __future__ import annotations

import json
import os
from typing import Any

from .lab import Bundle, Done, Lab, Verdict, broken, held, text_of
from .suite import attack

MARKER = "/lab/host/marker"


def orderly(done: Done) -> Verdict:
    """Refused, in words."""
    if done.crash:
        return broken(done.crash)
    if done.ran or done.code == 0:
        return broken("took it for a configuration")
    return held(f"refused: {done.refusal}")


def _run_raw(lab: Lab, raw: bytes, timeout: float = 8) -> Done:
    bundle = lab.bundle()
    bundle.raw = raw
    return lab.run(bundle, timeout=timeout)


@attack("R13", "runc 1.1.5 panics")
def config_is_null(lab: Lab) -> Verdict:
    """config.json is `null`; then `[]`, `0`, `\"\"`, nothing at all, `{}`, and parts of it are null."""
    whole = [b"null", b"[]", b"0", b'""', b"", b"{}", b'{"ociVersion":"1.0.2"}']
    for key in ("process", "root", "linux"):
        bundle = lab.bundle(f"without-{key}")
        whole.append(json.dumps(bundle.spec | {key: None}).encode())
    for number, raw in enumerate(whole):
        bundle = lab.bundle(f"b{number}")
        bundle.raw = raw
        done = lab.run(bundle, f"c{number}")
        if done.crash:
            return broken(f"{done.crash} at {raw[:40].decode()!r}")
        if done.ran and raw in whole[:7]:
            return broken(f"ran {raw[:40].decode()!r}")
    return held(f"refused: {done.refusal}")


@attack("R13", "the same for process.json")
def process_is_null(lab: Lab) -> Verdict:
    """`exec --process` with `null`, `[]`, `{}` and an empty argument list."""
    bundle = lab.bundle()
    bundle.run_inside("sleep", "30")
    lab.up(bundle)
    done = None
    for raw in (
        "null",
        "[]",
        "0",
        "{}",
        '{"args": null}',
        '{"args": [], "cwd": "/"}',
        '{"args": [1], "cwd": "/"}',
    ):
        with open("/lab/tmp/hostile.json", "w", encoding="utf-8") as file:
            file.write(raw)
        done = lab.call("exec", "--process", "/lab/tmp/hostile.json", "c1")
        if done.crash:
            return broken(f"{done.crash} at {raw!r}")
    return held(f"refused: {done.refusal if done else ''}")


@attack("R13", "CVE-2022-31030")
def config_is_deep(lab: Lab) -> Verdict:
    """An annotation, 100000 arrays deep."""
    raw = json.dumps(lab.bundle("spec").spec)[:-1].encode()
    return orderly(_run_raw(lab, raw + b', "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"))


@attack("R13", "CVE-2022-31030, CVE-2023-25153")
def config_is_huge(lab: Lab) -> Verdict:
    """A member that nobody knows, of 8 million small objects: how much memory does it take?"""
    raw = json.dumps(lab.bundle("spec").spec)[:-1].encode()
    done = _run_raw(lab, raw + b', "x": [' + b"{}," * 8_000_000 + b"0]}", timeout=10)
    if done.crash:
        return broken(done.crash)
    if done.rss_mib > 128:
        return broken(f"took {done.rss_mib} MiB")
    return held(f"{done.rss_mib} MiB" + ("" if done.ran else f", refused: {done.refusal}"))


@attack("R13", "not UTF-8")
def config_is_not_utf_8(lab: Lab) -> Verdict:
    """The configuration has bytes that are no UTF-8, and half of a surrogate pair in an argument."""
    for number, piece in enumerate((b"\xff\xfe", b"\\ud800")):
        bundle = lab.bundle(f"b{number}")
        bundle.raw = json.dumps(bundle.spec).encode().replace(b'"look"', b'"look", "' + piece + b'"')
        done = lab.run(bundle, f"c{number}")
        if done.crash:
            return broken(done.crash)
    return held("ran" if done.ran else f"refused: {done.refusal}")


@attack("R13", "wrong types")
def config_of_wrong_types(lab: Lab) -> Verdict:
    """Members of other types than the specification says, one at a time."""
    changes: list[tuple[list[str], Any]] = [
        (["process", "args"], [1, 2]),
        (["process", "args"], []),
        (["process", "args"], "/bin/inside"),
        (["process", "cwd"], 5),
        (["process", "env"], {"A": "B"}),
        (["process", "user"], []),
        (["process", "capabilities"], "CAP_KILL"),
        (["mounts"], {"destination": "/data"}),
        (["mounts"], [None]),
        (["hostname"], ["x"]),
        (["root"], "rootfs"),
        (["root", "path"], ["rootfs"]),
        (["linux", "namespaces"], "pid"),
        (["linux", "namespaces"], [None]),
        (["linux", "resources"], []),
        (["linux", "cgroupsPath"], 1),
        (["linux", "maskedPaths"], [1]),
        (["hooks"], []),
        (["annotations"], [1]),
    ]
    ran = []
    for number, (path, value) in enumerate(changes):
        bundle = lab.bundle(f"b{number}")
        place = bundle.spec
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        done = lab.run(bundle, f"c{number}", timeout=4)
        if done.crash:
            return broken(f"{done.crash} at {'.'.join(path)}={json.dumps(value)}")
        if done.ran:
            ran.append(".".join(path))
    return held(f"refused, but {' '.join(ran)}" if ran else "refused")


@attack("R13", "NUL in a path")
def paths_with_nul(lab: Lab) -> Verdict:
    """Paths with a NUL in them, which is where some stop reading: program, root, mounts, working directory."""
    changes: list[tuple[str, Any]] = [
        ("process", {"args": ["/bin/inside\0/x", "look"]}),
        ("process", {"cwd": "/\0/x"}),
        ("root", {"path": "rootfs\0x"}),
        ("mounts", {"destination": "/data\0/../../x", "type": "tmpfs", "source": "tmpfs"}),
        ("linux", {"cgroupsPath": f"/{lab.token}/x\0/../y"}),
    ]
    for number, (key, value) in enumerate(changes):
        bundle = lab.bundle(f"b{number}")
        if key == "mounts":
            bundle.spec[key].append(value)
        else:
            bundle.spec[key] |= value
        done = lab.run(bundle, f"c{number}")
        if done.crash:
            return broken(f"{done.crash} at {key}")
        if done.ran:
            return broken(f"ran in spite of a NUL in {key}")
    return held(f"refused: {done.refusal}")


@attack("R13", "ambiguous")
def member_in_another_case(lab: Lab) -> Verdict:
    """Hooks are called `Hooks`: who checks the configuration sees none, does the runtime?"""
    bundle = lab.bundle()
    bundle.spec["HooKs"] = _hooks()
    return _no_hook(lab, bundle)


@attack("R13", "ambiguous")
def member_that_is_there_twice(lab: Lab) -> Verdict:
    """`hooks` is there twice, the last one empty, which is what counts elsewhere."""
    bundle = lab.bundle()
    text = json.dumps(bundle.spec | {"hooks": _hooks()})[:-1]
    bundle.raw = (text + ', "hooks": {}}').encode()
    return _no_hook(lab, bundle)


def _hooks() -> dict[str, Any]:
    hook = {"path": "/usr/bin/touch", "args": ["touch", MARKER]}
    return {"prestart": [hook], "createRuntime": [hook], "poststart": [hook]}


def _no_hook(lab: Lab, bundle: Bundle) -> Verdict:
    done = lab.run(bundle)
    if os.path.exists(MARKER):
        return broken("ran a hook on the host that others do not see")
    return held("ran no hook" if done.ran else f"refused: {done.refusal}")


@attack("R13", "hooks are absolute")
def hook_by_relative_path(lab: Lab) -> Verdict:
    """A hook's path is relative, a program of that name lies in the bundle, which is where the caller stands."""
    bundle = lab.bundle()
    path = f"{bundle.directory}/touch-it"
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\ntouch {MARKER}\n")
    os.chmod(path, 0o755)
    hook = {"path": "./touch-it", "args": ["touch-it"]}
    bundle.spec["hooks"] = {"prestart": [hook], "createRuntime": [hook], "poststart": [hook]}

    def stand_there() -> None:
        os.chdir(bundle.directory)

    done = lab.run(bundle, before=stand_there)
    if os.path.exists(MARKER):
        return broken("ran a program of the bundle on the host")
    return held("did not run it" if done.ran else f"refused: {done.refusal}")


@attack("R13", "hooks end")
def hook_that_does_not_end(lab: Lab) -> Verdict:
    """A hook with a timeout of 1 s sleeps for 20 s."""
    bundle = lab.bundle()
    hook = {"path": "/bin/sleep", "args": ["sleep", "20"], "timeout": 1}
    bundle.spec["hooks"] = {"prestart": [hook]}
    done = lab.run(bundle, timeout=6)
    return broken("waits for the hook") if done.timed_out else held(f"refused: {done.refusal}")


@attack("R13", "one line, no control characters")
def error_with_escapes(lab: Lab) -> Verdict:
    """The program's name has escape sequences for the terminal in it: are they in the error?"""
    bundle = lab.bundle()
    bundle.spec["process"]["args"] = ["/nowhere\x1b]0;gattack\x07\x1b[2J\nfalse line"]
    done = lab.run(bundle)
    if "\x1b" in done.err or "\x07" in done.err:
        return broken("writes them to the terminal")
    return broken(done.crash) if done.crash else held(f"refused: {done.refusal}")


@attack("R13", "what is read is a plain file")
def config_is_a_fifo(lab: Lab) -> Verdict:
    """config.json is a FIFO: does `run` wait for ever?"""
    bundle = lab.bundle()
    os.mkfifo(f"{bundle.directory}/config.json")
    done = lab.run(bundle, timeout=4)
    return broken("waits for the bundle") if done.timed_out else held(f"refused: {done.refusal}")


@attack("R13", "CVE-2024-9676")
def namespace_path_is_a_fifo(lab: Lab) -> Verdict:
    """A namespace's path is a FIFO: does `run` wait for ever?"""
    bundle = lab.bundle()
    os.mkfifo("/lab/host/fifo")
    bundle.without_namespace("network")
    bundle.spec["linux"]["namespaces"].append({"type": "network", "path": "/lab/host/fifo"})
    done = lab.run(bundle, timeout=4)
    if done.timed_out:
        return broken("waits for it")
    return broken("ran without its namespace") if done.ran else held(f"refused: {done.refusal}")


@attack("R13", "namespaces are what they are called")
def namespace_path_of_another_kind(lab: Lab) -> Verdict:
    """The path of the network namespace is that of a UTS namespace."""
    bundle = lab.bundle()
    bundle.without_namespace("network")
    bundle.spec["linux"]["namespaces"].append({"type": "network", "path": f"/proc/{os.getpid()}/ns/uts"})
    done = lab.run(bundle)
    return (
        broken("ran, in a network namespace that nobody asked for")
        if done.ran
        else held(f"refused: {done.refusal}")
    )


@attack("R13", "namespaces that cannot be")
def namespace_that_is_unknown(lab: Lab) -> Verdict:
    """A namespace is of a kind that is not known: does the program run without it?"""
    bundle = lab.bundle()
    bundle.spec["linux"]["namespaces"].append({"type": "gattack"})
    done = lab.run(bundle)
    return broken("ran without it") if done.ran else held(f"refused: {done.refusal}")


@attack("R13", "the same for resources")
def resources_are_null(lab: Lab) -> Verdict:
    """`update --resources` with `null`, `[]`, text where numbers are, and 100000 arrays."""
    bundle = lab.bundle()
    bundle.run_inside("sleep", "30")
    lab.up(bundle)
    done = None
    deep = "[" * 100_000 + "]" * 100_000
    for raw in ("null", "[]", "{", '{"pids": null}', '{"pids": []}', '{"memory": {"limit": "x"}}', deep):
        with open("/lab/tmp/hostile.json", "w", encoding="utf-8") as file:
            file.write(raw)
        done = lab.call("update", "--resources", "/lab/tmp/hostile.json", "c1")
        if done.crash:
            return broken(f"{done.crash} at {raw[:30]!r}")
    return held(f"refused: {done.refusal if done else ''}")


@attack("R13", "one line, no control characters")
def log_is_forged(lab: Lab) -> Verdict:
    """The program's name has a line break and a line of a JSON log in it: is there such a line?"""
    bundle = lab.bundle()
    forged = {"level": "info", "msg": "gattack", "time": "2026-01-01T00:00:00Z"}
    bundle.spec["process"]["args"] = [f"/nowhere\n{json.dumps(forged)}\n"]
    bundle.write()
    log = "/lab/tmp/log"
    done = lab.call("--log", log, "--log-format", "json", "run", "--bundle", bundle.directory, "c1")
    text = text_of(log) if os.path.exists(log) else ""
    for line in text.splitlines():
        try:
            if json.loads(line).get("msg") == "gattack":
                return broken("a line of the log is the image's")
        except ValueError:
            return broken("a line of the log is no JSON")
    return held("one entry" if text else f"no log: {done.refusal}")


@attack("R13", "an error is one line")
def command_line_of_nonsense(lab: Lab) -> Verdict:
    """Verbs and options that are none, and none at all."""
    lines = [
        (),
        ("gattack",),
        ("run",),
        ("run", "--bundle"),
        ("run", "--bundle", "/nowhere", "c1"),
        ("run", "--bundle", "/lab/host/secret", "c1"),
        ("start",),
        ("start", "nobody"),
        ("kill", "nobody", "KILL"),
        ("delete", "nobody"),
        ("state", "nobody"),
        ("exec", "nobody", "true"),
        ("exec", "--process", "/nowhere", "nobody"),
        ("--gattack",),
        ("create", "--pid-file", "/nowhere/pid", "--bundle", "/nowhere", "\udcff"),
    ]
    done = None
    for words in lines:
        done = lab.call(*words)
        if done.crash:
            return broken(f"{done.crash} at {' '.join(words)!r}")
        if done.code == 0 and words and words[0] != "--gattack":
            return broken(f"0 for {' '.join(words)!r}")
    return held(f"refused: {done.refusal if done else ''}")


@attack("R13", "limits that cannot be")
def rlimit_that_is_unknown(lab: Lab) -> Verdict:
    """A resource limit of a name that is none: does the program run without it?"""
    bundle = lab.bundle()
    bundle.spec["process"]["rlimits"] = [{"type": "RLIMIT_GATTACK", "soft": 1, "hard": 1}]
    done = lab.run(bundle)
    return broken("ran without it") if done.ran else held(f"refused: {done.refusal}")


@attack("R13", "what is read is a plain file")
def process_is_a_fifo(lab: Lab) -> Verdict:
    """`exec --process` with a FIFO: does it wait for ever?"""
    bundle = lab.bundle()
    bundle.run_inside("sleep", "30")
    lab.up(bundle)
    os.mkfifo("/lab/tmp/process")
    done = lab.call("exec", "--process", "/lab/tmp/process", "c1", timeout=4)
    return broken("waits for it") if done.timed_out else held(f"refused: {done.refusal}")


@attack("R13", "namespaces that cannot be")
def namespace_that_is_there_twice(lab: Lab) -> Verdict:
    """The network namespace is there twice, once new and once the host's."""
    bundle = lab.bundle()
    bundle.spec["linux"]["namespaces"].append({"type": "network", "path": f"/proc/{os.getpid()}/ns/net"})
    done = lab.run(bundle)
    return broken("ran, with one of them") if done.ran else held(f"refused: {done.refusal}")


@attack("R14", "namespaces that cannot be")
def no_mount_namespace(lab: Lab) -> Verdict:
    """There is no mount namespace: are mounts made on the host?"""
    bundle = lab.bundle()
    bundle.without_namespace("mount")
    done = lab.run(bundle)
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        points = [line.split()[4] for line in file if bundle.rootfs in line]
    if points:
        return broken(f"mounted {points[0]} on the host")
    return held("the host has none" if done.ran else f"refused: {done.refusal}")


@attack("R13", "an error is one line")
def arguments_that_are_too_long(lab: Lab) -> Verdict:
    """An argument of 200 KB, which no program can be given."""
    bundle = lab.bundle()
    bundle.spec["process"]["args"] = ["/bin/inside", "look", "x" * 200_000]
    return orderly(lab.run(bundle))
