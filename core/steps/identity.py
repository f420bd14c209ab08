"""Steps that turn the container's first process into the program: keys, ids, privileges, filter, exec.

The order is SECURITY R9's; `parent_steps`, `first_steps` and `last_steps` are the one place that
writes it down.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from gocker.errors import ExecError, GockerError, KernelError
from gocker.kernel import caps, ids, rlimit, stub
from gocker.kernel.inroot import (
    DIRECTORY,
    IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_XDEV,
    make_directory,
    openat2,
)
from gocker.kernel.keyring import join_session_keyring
from gocker.kernel.mount import DEVPTS_MAGIC, PROC_MAGIC, file_system_magic
from gocker.kernel.process import PR_SET_DUMPABLE
from gocker.kernel.seccomp import install_filter
from gocker.kernel.syscalls import prctl
from gocker.model import ContainerSpec
from gocker.plan import Context, Step
from gocker.steps.program import find_program
from gocker.steps.users import parse_id, read_database, resolve_user, split_user

_SYS_ADMIN, _SYS_RESOURCE = "CAP_SYS_ADMIN", "CAP_SYS_RESOURCE"
_PIPEFS_MAGIC = 0x50495045  # include/uapi/linux/magic.h
_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_")

Limits = tuple[tuple[str, int, int], ...]
"""(name as in "nofile", soft, hard) of each resource limit."""


def quote(text: str) -> str:
    """`text` as a shell would want it, in one line: as bash's $'...' where it has control characters."""
    if text and _SAFE.issuperset(text):
        return text
    if all(char.isprintable() or _is_byte(char) for char in text):
        return "'" + text.replace("'", "'\\''") + "'"
    return "$'" + "".join(map(_escaped, text)) + "'"


def _is_byte(char: str) -> bool:
    """One that is no part of a text: surrogateescape keeps it as it is."""
    return "\udc80" <= char <= "\udcff"


def _escaped(char: str) -> str:
    if char in "\\'":
        return f"\\{char}"
    if char.isprintable() or _is_byte(char):
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode()) if char != "\n" else "\\n"


def _words(names: tuple[str, ...]) -> str:
    """`-all,+chown,+kill`: a capability set as setpriv(1) takes it."""
    return ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in names)])


class RaiseRlimits(Step):
    """Lift hard limits that are too low for SetRlimits, which later has no privilege and lowers only.

    In the parent phase, where gocker has CAP_SYS_RESOURCE in the first user namespace.
    """

    op = "raise-rlimits"

    limits: Limits

    def describe(self) -> str:
        """`prlimit --pid CHILD --nofile=:4096`."""
        words = [f"--{name}=:{rlimit.format_value(hard)}" for name, _, hard in self.limits]
        return " ".join(["prlimit --pid CHILD", *words])

    def execute(self, ctx: Context) -> None:
        """prlimit(2) of the child, or of this process where there is none."""
        for name, _, hard in self.limits:
            now_soft, now_hard = rlimit.get_rlimit(ctx.pid, name)
            if hard > now_hard:
                _set_rlimit(ctx.pid, name, now_soft, hard)


class SetRlimits(Step):
    """Set the resource limits: late, since few files or little memory must not stop gocker itself."""

    op = "rlimits"

    limits: Limits

    def describe(self) -> str:
        """`prlimit --pid $$ --nofile=1024:4096`."""
        value = rlimit.format_value
        words = [f"--{name}={value(soft)}:{value(hard)}" for name, soft, hard in self.limits]
        return " ".join(["prlimit --pid $$", *words])

    def execute(self, ctx: Context) -> None:
        """prlimit(2) of this process."""
        for name, soft, hard in self.limits:
            _set_rlimit(0, name, soft, hard)


def _set_rlimit(pid: int, name: str, soft: int, hard: int) -> None:
    try:
        rlimit.set_rlimit(pid, name, soft, hard)
    except OSError as error:
        remedy = _needs_resource(error) or "no more than sysctl fs.nr_open" * (name == "nofile")
        target = f"{name}={rlimit.format_value(soft)}:{rlimit.format_value(hard)}"
        raise KernelError.from_os("set ulimit", target, error, remedy=remedy) from error


def _needs_resource(error: OSError) -> str:
    """The remedy where this process lacks the capability for what is above or below the usual."""
    refused = error.errno in {errno.EPERM, errno.EACCES}
    return f"gocker needs {_SYS_RESOURCE} for it" if refused and _SYS_RESOURCE not in caps.permitted() else ""


class OomScoreAdj(Step):
    """Make the container a likelier or less likely victim of the OOM killer; proc_pid_oom_score_adj(5).

    In the parent phase, since init is not dumpable and thus does not own its files in /proc.
    """

    op = "oom-score-adj"

    value: int  # -1000 to 1000

    def describe(self) -> str:
        """`choom --pid CHILD --adjust 500`."""
        return f"choom --pid CHILD --adjust {self.value}"

    def execute(self, ctx: Context) -> None:
        """Write the file, after a proof that it is the kernel's own (SECURITY R5)."""
        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if file_system_magic(proc) != PROC_MAGIC:
                raise KernelError("write", "/proc", "not a proc file system", errno=errno.EXDEV)
            path = f"{ctx.pid or 'self'}/oom_score_adj"
            fd = openat2(proc, path, os.O_WRONLY | os.O_NOFOLLOW, RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS)
        finally:
            os.close(proc)
        try:
            os.write(fd, b"%d" % self.value)
        except OSError as error:
            target = f"oom_score_adj={self.value}"
            raise KernelError.from_os("set", target, error, remedy=_needs_resource(error)) from error
        finally:
            os.close(fd)


class Undumpable(Step):
    """Keep processes inside from looking into this one, its memory and its fds, until exec (R14).

    It is so from its birth (`kernel.spawn`), and made sure of here: a user namespace that was joined has
    changed its ids meanwhile.
    """

    op = "undumpable"

    def describe(self) -> str:
        """`prctl PR_SET_DUMPABLE 0`."""
        return "prctl PR_SET_DUMPABLE 0"

    def execute(self, ctx: Context) -> None:
        """PR_SET_DUMPABLE(2const)."""
        prctl(PR_SET_DUMPABLE, 0)


class SetSid(Step):
    """Lead a session of its own: no terminal of the caller is within reach."""

    op = "setsid"

    def describe(self) -> str:
        """`setsid`."""
        return "setsid"

    def execute(self, ctx: Context) -> None:
        """setsid(2); fine when this process leads one already."""
        try:
            os.setsid()
        except PermissionError:
            if os.getsid(0) != os.getpid():
                raise


class JoinSessionKeyring(Step):
    """Leave the caller's session keyring for the container's; core/kernel/keyring.py says when not."""

    op = "session-keyring"

    name: str  # one for each container

    def describe(self) -> str:
        """`keyctl session NAME`."""
        return f"keyctl session {quote(self.name)}"

    def execute(self, ctx: Context) -> None:
        """KEYCTL_JOIN_SESSION_KEYRING."""
        join_session_keyring(self.name)


class Umask(Step):
    """Set the file mode creation mask."""

    op = "umask"

    mask: int = 0o022

    def describe(self) -> str:
        """`umask 0022`."""
        return f"umask {self.mask:04o}"

    def execute(self, ctx: Context) -> None:
        """umask(2)."""
        os.umask(self.mask)


class Chdir(Step):
    """Enter the working directory, after pivot_root; a missing one is made, root's and 0755, as by docker."""

    op = "chdir"

    path: str  # absolute, inside
    create: bool = True

    def describe(self) -> str:
        """`mkdir -p PATH && cd PATH`."""
        path = quote(self.path)
        return f"mkdir -p {path} && cd {path}" if self.create and self.path != "/" else f"cd {path}"

    def execute(self, ctx: Context) -> None:
        """Enter by fd, through no magic link (SECURITY R2), and prove that it lies inside (R4)."""
        root = os.open("/", DIRECTORY | os.O_CLOEXEC)
        try:
            fd = self._open(root)
        finally:
            os.close(root)
        try:
            os.fchdir(fd)
        finally:
            os.close(fd)
        require_inside()

    def _open(self, root: int) -> int:
        try:
            try:
                return openat2(root, self.path, DIRECTORY, IN_ROOT)
            except FileNotFoundError:
                if not self.create:
                    raise
                return make_directory(root, self.path)
        except (OSError, GockerError) as error:
            if isinstance(error, GockerError):
                raise GockerError("enter", self.path, error.reason, errno=error.errno) from error
            raise GockerError.from_os("enter", self.path, error) from error


def require_inside() -> None:
    """Raise KernelError unless the working directory lies below the root directory."""
    cwd = ids.raw_getcwd()
    if not cwd.startswith(b"/"):
        raise KernelError("enter", os.fsdecode(cwd), "it lies outside the container", errno=errno.EXDEV)


class DropBounding(Step):
    """Take all other capabilities out of the bounding set: no exec can bring them back."""

    op = "bounding-set"

    keep: tuple[str, ...]  # CAP_ names

    def describe(self) -> str:
        """`setpriv --bounding-set -all,+chown,...`."""
        return f"setpriv --bounding-set {_words(self.keep)}"

    def execute(self, ctx: Context) -> None:
        """PR_CAPBSET_DROP for each."""
        caps.drop_bounding(self.keep)


class SetUser(Step):
    """Take on the user and the groups, by the container's own /etc/passwd and /etc/group."""

    op = "set-user"

    user: str = ""  # "" is root; "uid", "uid:gid", "name", "name:group"
    groups: tuple[str, ...] = ()  # further ones, by name or number
    terminal: bool = False  # 0, 1 and 2 are a terminal of the container's own

    def describe(self) -> str:
        """`setpriv --reuid USER --regid GROUP --init-groups`."""
        user, _, group = self.user.partition(":")
        words = [f"--reuid {quote(user or '0')}"]
        words.append(f"--regid {quote(group)}" if group else "--init-groups")
        if self.groups:
            words.append(f"--groups +{quote(',+'.join(self.groups))}")
        return " ".join(["setpriv", *words])

    def execute(self, ctx: Context) -> None:
        """Resolve, then setgroups, setresgid, setresuid. The permitted capabilities stay for now."""
        root = os.open("/", DIRECTORY | os.O_CLOEXEC)
        try:
            who = resolve_user(self.user, self.groups, lambda path: read_database(root, path))
        finally:
            os.close(root)
        _give_stdio(who.uid, terminal=self.terminal)
        ids.set_ids(who.uid, who.gid, who.groups)
        ctx.home = who.home


def _give_stdio(uid: int, *, terminal: bool) -> None:
    """Let the user own the pipes and the terminal that are 0, 1 and 2, so that it can open /dev/stdout.

    Nothing else: a file or a terminal of the caller's stays the caller's.
    """
    theirs = {_PIPEFS_MAGIC, DEVPTS_MAGIC} if terminal else {_PIPEFS_MAGIC}
    for fd in (0, 1, 2):
        info = os.fstat(fd)
        if info.st_uid == uid or file_system_magic(fd) not in theirs:
            continue
        try:
            os.fchown(fd, uid, -1)
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EINVAL}:  # its owner is not mapped here
                raise


class SetCapabilities(Step):
    """Keep only these capabilities; a user that is not root keeps those alone that are ambient."""

    op = "set-capabilities"

    effective: tuple[str, ...] = ()  # CAP_ names, as in the other sets
    permitted: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()
    until_filter: bool = False  # keep CAP_SYS_ADMIN too: the seccomp filter goes in without no_new_privs

    def describe(self) -> str:
        """`setpriv --inh-caps -all --ambient-caps -all ...`."""
        admin = "  # and sys_admin until exec, for the seccomp filter" if self.until_filter else ""
        words = ",".join(name.removeprefix("CAP_").lower() for name in self.permitted)
        sets = f"--inh-caps {_words(self.inheritable)} --ambient-caps {_words(self.ambient)}"
        return f"setpriv {sets}  # if root: {words or 'none'}{admin}"

    def execute(self, ctx: Context) -> None:
        """capset(2). What `until_filter` adds is not in the bounding set, or not root's: exec drops it.

        The exec would take from a user that is not root what is not ambient; until then it would
        stand above the user's own rights.
        """
        root = os.geteuid() == 0
        effective = self.effective if root else self.ambient
        permitted = self.permitted if root else self.ambient
        if self.until_filter and _SYS_ADMIN not in effective:
            effective, permitted = (*effective, _SYS_ADMIN), (*permitted, _SYS_ADMIN)
        caps.set_capabilities(effective, permitted, self.inheritable, self.ambient)


class NoNewPrivileges(Step):
    """No set-user-id program or file capability gives anything from here on."""

    op = "no-new-privileges"

    def describe(self) -> str:
        """`setpriv --no-new-privs`."""
        return "setpriv --no-new-privs"

    def execute(self, ctx: Context) -> None:
        """PR_SET_NO_NEW_PRIVS(2const)."""
        ids.set_no_new_privileges()


class FindProgram(Step):
    """Look the command up as the container's user, before few files or a filter stand in the way."""

    op = "find-program"

    name: str
    path: str | None = None  # the container's PATH, None when it has none

    def describe(self) -> str:
        """`command -v NAME`."""
        where = "" if "/" in self.name or self.path is None else f"PATH={quote(self.path)} "
        return f"{where}command -v {quote(self.name)}"

    def execute(self, ctx: Context) -> None:
        """Leave the path to Exec; raise ExecError."""
        ctx.program = find_program(self.name, self.path)


class CloseFds(Step):
    """Let exec close all but 0, 1, 2; the status socket goes as far as the stub (SECURITY R4)."""

    op = "close-fds"

    def describe(self) -> str:
        """`close-on-exec fds from 4 on, fd 3 in the stub`."""
        return f"close on exec every fd from {stub.STATUS_FD + 1} on"

    def execute(self, ctx: Context) -> None:
        """close_range(2); the stub closes STATUS_FD on exec itself, or does not run the program."""
        ids.close_on_exec_from(stub.STATUS_FD + 1)
        os.set_inheritable(stub.STATUS_FD, True)


class InstallSeccomp(Step):
    """Put the seccomp filter in force. The plan shows its digest; the program itself stays in memory."""

    op = "seccomp"

    profile: str  # "default" or the path of a profile
    digest: str  # sha256:HEX of the program
    instructions: int
    flags: int  # SECCOMP_FILTER_FLAG_*
    program: bytes  # struct sock_filter[]; not in to_json

    def describe(self) -> str:
        """`seccomp --profile default` with the size of its program."""
        return (
            f"seccomp --profile {quote(self.profile)}  # {self.instructions} instructions, {self.digest[:19]}"
        )

    def execute(self, ctx: Context) -> None:
        """seccomp(SECCOMP_SET_MODE_FILTER)."""
        try:
            install_filter(self.program, self.flags)
        except OSError as error:
            remedy = "--security-opt no-new-privileges" if error.errno == errno.EACCES else ""
            raise KernelError.from_os("install seccomp filter", self.profile, error, remedy=remedy) from error

    def to_json(self) -> dict[str, Any]:
        """Without the program."""
        data = super().to_json()
        del data["program"]
        return data


class Exec(Step):
    """Become the program, by way of the stub in a sealed memfd (SECURITY R1)."""

    op = "exec"

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()  # HOME is added from passwd when it is not there
    init: bool = False  # as the child of a PID 1 that forwards signals and reaps

    def describe(self) -> str:
        """`exec PROGRAM ARGS`, with the names of the environment."""
        names = " ".join(f"{quote(name)}=..." for name, _ in self.env)
        words = ["exec env -i", names, "gocker-init" if self.init else "", *map(quote, self.argv)]
        return " ".join(word for word in words if word)

    def execute(self, ctx: Context) -> None:
        """execveat(2) of the stub; it execs the program and says on STATUS_FD when that fails."""
        program = ctx.program or find_program(self.argv[0], dict(self.env).get("PATH"))
        env = self.env
        if ctx.home and not any(name == "HOME" for name, _ in env):
            env = (*env, ("HOME", ctx.home))
        fd = ctx.fds.get("stub", -1)
        mode = stub.INIT if self.init else stub.EXEC
        try:
            stub.exec_stub(fd if fd >= 0 else stub.stub_fd(), mode, program, self.argv, env)
        except OSError as error:
            remedy = "shorten the arguments or the environment" if error.errno == errno.E2BIG else ""
            raise ExecError("exec", program, _reason(error), remedy=remedy, errno=error.errno or 0) from error

    def to_json(self) -> dict[str, Any]:
        """With the names of the environment, not its values."""
        return {**super().to_json(), "env": [name for name, _ in self.env]}


def _reason(error: OSError) -> str:
    return GockerError.from_os("exec", "", error).reason


def parent_steps(spec: ContainerSpec) -> tuple[Step, ...]:
    """For the parent phase, after the clone."""
    steps: list[Step] = []
    if spec.rlimits:
        steps.append(RaiseRlimits(limits=_limits(spec)))
    if spec.oom_score_adj is not None:
        steps.append(OomScoreAdj(value=spec.oom_score_adj))
    return tuple(steps)


def first_steps(spec: ContainerSpec) -> tuple[Step, ...]:
    """For the start of the init phase, in the new namespaces and as their root."""
    return Undumpable(), SetSid(), JoinSessionKeyring(name=spec.id)


def last_steps(
    spec: ContainerSpec, seccomp: InstallSeccomp | None, waits: tuple[Step, ...] = ()
) -> tuple[Step, ...]:
    """For the end of the init phase, after pivot_root; `seccomp` is from `gocker.seccomp.seccomp_step`.

    `waits` stand between creation and start: when all that can be known beforehand to fail has been tried.

    Raise UsageError for a user or group that cannot be one.
    """
    split_user(spec.user)
    for group in spec.groups:
        parse_id(group)
    until_filter = seccomp is not None and not spec.no_new_privileges
    environment = dict(spec.env)
    steps: list[Step] = [
        Umask(mask=spec.umask),
        Chdir(path=spec.cwd, create=spec.rootfs is not None),
        DropBounding(keep=spec.capabilities.bounding),
        SetUser(user=spec.user, groups=spec.groups, terminal=spec.terminal),
        SetCapabilities(
            effective=spec.capabilities.effective,
            permitted=spec.capabilities.permitted,
            inheritable=spec.capabilities.inheritable,
            ambient=spec.capabilities.ambient,
            until_filter=until_filter,
        ),
    ]
    if spec.no_new_privileges:
        steps.append(NoNewPrivileges())
    steps += (FindProgram(name=spec.argv[0], path=environment.get("PATH")), *waits)
    if spec.rlimits:
        steps.append(SetRlimits(limits=_limits(spec)))
    steps.append(CloseFds())
    if seccomp:
        steps.append(seccomp)
    steps.append(Exec(argv=spec.argv, env=spec.env, init=spec.init))
    return tuple(steps)


def _limits(spec: ContainerSpec) -> Limits:
    return tuple((limit.name, limit.soft, limit.hard) for limit in spec.rlimits)
