"""R9: what a program must not have left of its caller, and what the filter must not let through."""

from __future__ import annotations

import ctypes
import os
import platform
import pty
from typing import Any

from . import host
from .lab import SECRET, Bundle, Done, Lab, Unclear, Verdict, broken, held, not_applicable
from .suite import attack

GROUP = 4242
KEY = "gattack-key"
SYS_ADMIN = 21
NOTHING: dict[str, list[str]] = {
    "bounding": [],
    "effective": [],
    "permitted": [],
    "inheritable": [],
    "ambient": [],
}


def sleeping(lab: Lab, bundle: Bundle | None = None) -> None:
    """A container that does nothing, to `exec` in."""
    chosen = bundle or lab.bundle()
    chosen.run_inside("sleep", "40")
    lab.up(chosen)


def capability_sets(done: Done) -> dict[str, int]:
    """CapInh, CapPrm, CapEff, CapBnd, CapAmb as numbers."""
    done.must_run()
    sets = {name: done.value(f"status.Cap{name}") for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
    if not all(sets.values()):
        raise Unclear("no capabilities in /proc/self/status")
    return {name: int(text, 16) for name, text in sets.items()}


def _judge_sets(done: Done, names: tuple[str, ...]) -> Verdict:
    sets = capability_sets(done)
    full = [f"Cap{name} {sets[name]:x}" for name in names if sets[name]]
    return broken(", ".join(full)) if full else held("empty")


def _give_inheritable() -> None:
    host.inherit_capability(SYS_ADMIN)


@attack("R9", "CVE-2022-29162, CVE-2022-27650")
def inheritable_capabilities_in_run(lab: Lab) -> Verdict:
    """The caller has inheritable and ambient capabilities, the configuration has none."""
    return _judge_sets(lab.run(lab.bundle(), before=_give_inheritable), ("Inh", "Amb"))


@attack("R9", "CVE-2022-29162, CVE-2022-27650")
def inheritable_capabilities_in_exec(lab: Lab) -> Verdict:
    """The same for `exec`."""
    sleeping(lab)
    return _judge_sets(lab.exec(["/bin/inside", "look"], before=_give_inheritable), ("Inh", "Amb"))


@attack("R9", "CVE-2022-29162")
def inheritable_capabilities_by_option(lab: Lab) -> Verdict:
    """`exec --cap CAP_KILL` must not make it inheritable."""
    sleeping(lab)
    done = lab.call("exec", "--cap", "CAP_KILL", "c1", "/bin/inside", "look", before=_give_inheritable)
    if not done.ran and ("cap" in done.err.lower() or "option" in done.err.lower()):
        return not_applicable(f"no such option: {done.refusal}")
    return _judge_sets(done, ("Inh", "Amb"))


@attack("R9", "no capabilities named means none")
def capabilities_unnamed_in_run(lab: Lab) -> Verdict:
    """process.capabilities is left out."""
    bundle = lab.bundle()
    bundle.spec["process"].pop("capabilities")
    return _judge_sets(lab.run(bundle), ("Eff", "Prm", "Inh", "Amb", "Bnd"))


@attack("R9", "no capabilities named means none")
def capabilities_unnamed_in_exec(lab: Lab) -> Verdict:
    """The same for `exec` with a process of its own, in a container that has none."""
    bundle = lab.bundle()
    bundle.spec["process"].pop("capabilities")
    sleeping(lab, bundle)
    return _judge_sets(
        lab.exec(["/bin/inside", "look"], capabilities=None), ("Eff", "Prm", "Inh", "Amb", "Bnd")
    )


@attack("R9", "bounding set")
def capabilities_beyond_the_bounding_set(lab: Lab) -> Verdict:
    """All sets are empty: is the bounding set?"""
    bundle = lab.bundle()
    bundle.spec["process"]["capabilities"] = NOTHING
    return _judge_sets(lab.run(bundle), ("Bnd", "Prm", "Eff"))


@attack("R9", "bounding set")
def capabilities_in_exec_are_bounded(lab: Lab) -> Verdict:
    """The same for `exec`."""
    sleeping(lab)
    return _judge_sets(lab.exec(["/bin/inside", "look"], capabilities=NOTHING), ("Bnd", "Prm", "Eff"))


def _set_user_id_program(bundle: Bundle) -> None:
    with open(bundle.path("bin/inside"), "rb") as file:
        bundle.file("bin/more", file.read(), 0o4755)


@attack("R9", "no_new_privs")
def set_user_id_program_in_run(lab: Lab) -> Verdict:
    """User 1000 runs a set-user-id program of the image under noNewPrivileges."""
    bundle = lab.bundle()
    _set_user_id_program(bundle)
    bundle.spec["process"] |= {"user": {"uid": 1000, "gid": 1000}, "args": ["/bin/more", "look"]}
    done = lab.run(bundle).must_run()
    return broken("is root") if done.value("euid") == "0" else held(f"is {done.value('euid')}")


@attack("R9", "no_new_privs")
def set_user_id_program_in_exec(lab: Lab) -> Verdict:
    """The same for `exec`."""
    bundle = lab.bundle()
    _set_user_id_program(bundle)
    sleeping(lab, bundle)
    done = lab.exec(["/bin/more", "look"], user={"uid": 1000, "gid": 1000}).must_run()
    return broken("is root") if done.value("euid") == "0" else held(f"is {done.value('euid')}")


def _join_group() -> None:
    os.setgroups([GROUP])


@attack("R9", "groups of the caller")
def groups_in_run(lab: Lab) -> Verdict:
    """The caller is in a group that the configuration does not name."""
    bundle = lab.bundle()
    bundle.spec["process"]["user"] = {"uid": 1000, "gid": 1000}
    done = lab.run(bundle, before=_join_group).must_run()
    return (
        broken("kept the group") if str(GROUP) in done.values("group") else held("no group of the caller's")
    )


@attack("R9", "groups of the caller")
def groups_in_exec(lab: Lab) -> Verdict:
    """The same for `exec`."""
    sleeping(lab)
    done = lab.exec(["/bin/inside", "look"], user={"uid": 1000, "gid": 1000}, before=_join_group).must_run()
    return (
        broken("kept the group") if str(GROUP) in done.values("group") else held("no group of the caller's")
    )


@attack("R8", "annotations of the image steer the runtime")
def groups_by_annotation(lab: Lab) -> Verdict:
    """An annotation asks for the caller's groups to be kept."""
    bundle = lab.bundle()
    bundle.spec["annotations"] = {"run.oci.keep_original_groups": "1"}
    bundle.spec["process"]["user"] = {"uid": 1000, "gid": 1000}
    done = lab.run(bundle, before=_join_group).must_run()
    return (
        broken("kept the group") if str(GROUP) in done.values("group") else held("no group of the caller's")
    )


@attack("R9", "session keyring")
def keyring_in_run(lab: Lab) -> Verdict:
    """Search the session keyring for a key of the caller's."""
    host.join_keyring_with(KEY, SECRET.encode())
    bundle = lab.bundle()
    bundle.run_inside("key", KEY)
    done = lab.run(bundle).must_run()
    return broken("found the caller's key") if done.value("key") == "found" else held(done.value("key"))


@attack("R9", "session keyring")
def keyring_in_exec(lab: Lab) -> Verdict:
    """The same for `exec`."""
    sleeping(lab)
    host.join_keyring_with(KEY, SECRET.encode())
    done = lab.exec(["/bin/inside", "key", KEY]).must_run()
    return broken("found the caller's key") if done.value("key") == "found" else held(done.value("key"))


def _with_terminal_of_caller(lab: Lab, bundle: Bundle) -> tuple[Done, bytes]:
    master, slave = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        ctypes.CDLL(None).ioctl(slave, 0x540E, 0)  # TIOCSCTTY

    done = lab.run(bundle, stdin=slave, before=take_terminal)
    os.set_blocking(slave, False)
    import termios

    mode = termios.tcgetattr(slave)
    mode[3] &= ~(termios.ICANON | termios.ECHO)
    termios.tcsetattr(slave, termios.TCSANOW, mode)
    try:
        pushed = os.read(slave, 100)
    except BlockingIOError:
        pushed = b""
    os.close(master)
    os.close(slave)
    return done, pushed


@attack("R9", "CVE-2017-5226")
def terminal_of_the_caller(lab: Lab) -> Verdict:
    """Without a terminal of its own, is the caller's its controlling terminal?"""
    bundle = lab.bundle()
    done, _ = _with_terminal_of_caller(lab, bundle)
    done.must_run()
    return broken("opened the caller's /dev/tty") if done.value("tty") == "open" else held(done.value("tty"))


@attack("R9", "CVE-2017-5226")
def input_pushed_to_the_caller(lab: Lab) -> Verdict:
    """Push a character into the caller's terminal with TIOCSTI, no filter asked for."""
    bundle = lab.bundle()
    bundle.run_inside("tiocsti")
    done, pushed = _with_terminal_of_caller(lab, bundle)
    done.must_run()
    if done.value("tiocsti") == "pushed":
        return broken(f"pushed {pushed!r}")
    return held(done.value("tiocsti"))


def filtered(lab: Lab, rules: list[dict[str, Any]]) -> Bundle:
    """A bundle with a filter that allows all but `rules`, for the machine's own calls alone."""
    bundle = lab.bundle()
    bundle.spec["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": [{"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}[platform.machine()]],
        "syscalls": [{"action": "SCMP_ACT_ERRNO", "errnoRet": 1} | rule for rule in rules],
    }
    return bundle


KEYCTL = [{"names": ["keyctl", "add_key", "request_key"]}]
ALG = [{"names": ["socket"], "args": [{"index": 0, "value": 38, "op": "SCMP_CMP_EQ"}]}]
STI = [
    {
        "names": ["ioctl"],
        "args": [{"index": 1, "value": 0xFFFFFFFF, "valueTwo": 0x5412, "op": "SCMP_CMP_MASKED_EQ"}],
    }
]


@attack("R9", "seccomp")
def filter_in_run(lab: Lab) -> Verdict:
    """Call keyctl although the filter answers EPERM."""
    bundle = filtered(lab, KEYCTL)
    bundle.run_inside("key", KEY)
    done = lab.run(bundle).must_run()
    return (
        held("EPERM") if done.value("key") == "EPERM" else broken(f"the kernel answers {done.value('key')}")
    )


@attack("R9", "seccomp")
def filter_in_exec(lab: Lab) -> Verdict:
    """The same for `exec`."""
    sleeping(lab, filtered(lab, KEYCTL))
    done = lab.exec(["/bin/inside", "key", KEY]).must_run()
    return (
        held("EPERM") if done.value("key") == "EPERM" else broken(f"the kernel answers {done.value('key')}")
    )


@attack("R9", "CVE-2026-31431")
def filter_of_af_alg(lab: Lab) -> Verdict:
    """Open a socket of AF_ALG although the filter answers EPERM for that family."""
    bundle = filtered(lab, ALG)
    bundle.run_inside("alg")
    done = lab.run(bundle).must_run()
    return (
        held("EPERM") if done.value("alg") == "EPERM" else broken(f"the kernel answers {done.value('alg')}")
    )


@attack("R9", "CVE-2017-5226")
def filter_of_tiocsti(lab: Lab) -> Verdict:
    """Call TIOCSTI although the filter answers EPERM for it."""
    bundle = filtered(lab, STI)
    bundle.run_inside("tiocsti")
    done = lab.run(bundle).must_run()
    answer = done.value("tiocsti")
    return held("EPERM") if answer == "EPERM" else broken(f"the kernel answers {answer}")


@attack("R9", "foreign ABIs")
def filter_and_i386_calls(lab: Lab) -> Verdict:
    """Go round the filter by int 0x80: calls of i386, which its architectures do not name."""
    if platform.machine() != "x86_64":
        return not_applicable("this machine has no i386 calls")
    bundle = filtered(lab, KEYCTL)
    bundle.run_inside("i386")
    done = lab.run(bundle).must_run()
    if done.value("i386").isdigit():
        return broken("getpid of i386 answers")
    return held(done.value("i386") or "killed")


@attack("R9", "foreign ABIs")
def filter_and_i386_calls_in_exec(lab: Lab) -> Verdict:
    """The same in `exec`."""
    if platform.machine() != "x86_64":
        return not_applicable("this machine has no i386 calls")
    sleeping(lab, filtered(lab, KEYCTL))
    done = lab.exec(["/bin/inside", "i386"]).must_run()
    if done.value("i386").isdigit():
        return broken("getpid of i386 answers")
    return held(done.value("i386") or "killed")


@attack("R9", "foreign ABIs")
def filter_and_x32_calls(lab: Lab) -> Verdict:
    """Go round the filter by the bit of x32: does such a call get as far as the kernel's table?"""
    if platform.machine() != "x86_64":
        return not_applicable("this machine has no x32 calls")
    bundle = filtered(lab, KEYCTL)
    bundle.run_inside("x32")
    done = lab.run(bundle).must_run()
    answer = done.value("x32")
    return (
        broken(f"the kernel answers {answer}")
        if answer in {"reached", "ENOSYS"}
        else held(answer or "killed")
    )


@attack("R9", "seccomp that cannot be")
def filter_with_an_unknown_action(lab: Lab) -> Verdict:
    """The filter's action is none: does the program run without a filter?"""
    bundle = filtered(lab, KEYCTL)
    bundle.spec["linux"]["seccomp"]["defaultAction"] = "SCMP_ACT_GATTACK"
    done = lab.run(bundle)
    return broken("ran without its filter") if done.ran else held(f"refused: {done.refusal}")


@attack("R9", "seccomp")
def filter_without_no_new_privileges(lab: Lab) -> Verdict:
    """User 1000, no_new_privs not asked for: is the filter there all the same?"""
    bundle = filtered(lab, KEYCTL)
    bundle.spec["process"] |= {"noNewPrivileges": False, "user": {"uid": 1000, "gid": 1000}}
    bundle.run_inside("key", KEY)
    done = lab.run(bundle).must_run()
    return (
        held("EPERM") if done.value("key") == "EPERM" else broken(f"the kernel answers {done.value('key')}")
    )
