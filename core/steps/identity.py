"""The order in which the container's first process becomes the program, and the first small steps of it.

The order is SECURITY R9's; `parent_steps`, `first_steps` and `last_steps` are the one place that
writes it down. Steps that few containers ask for are imported with the plan that has them.
"""

from __future__ import annotations

import errno
import os

from gocker import lowering
from gocker.errors import GockerError, KernelError
from gocker.kernel import ids, keyring
from gocker.kernel.inroot import DIRECTORY, IN_ROOT, make_directory, openat2
from gocker.kernel.process import PR_SET_DUMPABLE
from gocker.kernel.syscalls import prctl
from gocker.lowering import Code, Failure
from gocker.model import ContainerSpec
from gocker.plan import Context, Step
from gocker.steps import quote
from gocker.steps.capabilities import DropBounding, NoNewPrivileges, SetCapabilities
from gocker.steps.exec import CloseFds, Exec, InstallSeccomp
from gocker.steps.program import FindProgram
from gocker.steps.users import SetUser, parse_id, split_user


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

    def emit(self, code: Code) -> None:
        """The same."""
        code.call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)


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

    def emit(self, code: Code) -> None:
        """The same."""
        leads, done = code.label(), code.label()
        code.call("setsid")
        code.catch(errno.EPERM, leads)
        code.jump(done)
        code.place(leads)
        code.jump_if(code.builtin("same", code.call("getsid", 0), code.call("getpid")), 1, done)
        code.builtin("fail", errno.EPERM, 0)
        code.place(done)


class JoinSessionKeyring(Step):
    """Leave the caller's session keyring for the container's; core/kernel/keyring.py says when not."""

    op = "session-keyring"

    name: str  # one for each container

    def describe(self) -> str:
        """`keyctl session NAME`."""
        return f"keyctl session {quote(self.name)}"

    def execute(self, ctx: Context) -> None:
        """KEYCTL_JOIN_SESSION_KEYRING."""
        keyring.join_session_keyring(self.name)

    def emit(self, code: Code) -> None:
        """The same."""

        def explain(error: Exception, _: Failure) -> Exception:
            return keyring.refused(self.name, error) if isinstance(error, OSError) else error

        with code.explained(explain):
            code.call("keyctl", keyring.JOIN, os.fsencode(self.name))
            for number in keyring.NO_KEYS:
                code.catch(number)


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

    def emit(self, code: Code) -> None:
        """The same."""
        code.call("umask", self.mask)


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
            raise self._explained(error) from error

    def _explained(self, error: Exception, _: object = None) -> Exception:
        if isinstance(error, GockerError):
            return GockerError("enter", self.path, error.reason, errno=error.errno)
        return GockerError.from_os("enter", self.path, error) if isinstance(error, OSError) else error

    def emit(self, code: Code) -> None:
        """The same; with the raw getcwd(2)."""
        root = lowering.open_root(code)
        missing, there = code.label(), code.label()
        with code.explained(self._explained):
            fd = lowering.openat2(code, root, self.path, DIRECTORY, IN_ROOT)
            if self.create:
                code.catch(errno.ENOENT, missing)
                code.jump(there)
                code.place(missing)
                code.builtin("directory", root, os.fsencode(self.path), 0o755, into=fd)
                code.place(there)
        lowering.close(code, root)
        code.call("fchdir", fd)
        lowering.close(code, fd)
        inside = code.label()
        cwd = code.data(ids.PATH_MAX)
        code.call("getcwd", cwd, ids.PATH_MAX)
        code.jump_if(code.load(cwd, 1), ord("/"), inside)
        code.builtin("fail", errno.EXDEV, 1, cwd, explain=lambda failure: _outside(failure.text))
        code.place(inside)


def require_inside() -> None:
    """Raise KernelError unless the working directory lies below the root directory."""
    cwd = ids.raw_getcwd()
    if not cwd.startswith(b"/"):
        raise _outside(os.fsdecode(cwd))


def _outside(cwd: str) -> KernelError:
    return KernelError("enter", cwd, "it lies outside the container", errno=errno.EXDEV)


def parent_steps(spec: ContainerSpec) -> tuple[Step, ...]:
    """For the parent phase, after the clone. Raise UsageError for what no kernel can be told."""
    steps: list[Step] = []
    if spec.preserve_fds:
        from gocker.steps.preserve import PreserveFds

        steps.append(PreserveFds(count=spec.preserve_fds))
    if spec.cpu_affinity[0]:
        from gocker.steps.scheduling import early_steps

        steps += early_steps(spec)
    if spec.rlimits or spec.oom_score_adj is not None:
        from gocker.steps.limits import limit_steps

        steps += limit_steps(spec)
    return tuple(steps)


def first_steps(spec: ContainerSpec) -> tuple[Step, ...]:
    """For the start of the init phase, in the new namespaces and as their root."""
    steps = (Undumpable(), SetSid())
    return (*steps, JoinSessionKeyring(name=spec.id)) if spec.session_keyring else steps


def last_steps(
    spec: ContainerSpec, seccomp: InstallSeccomp | None, waits: tuple[Step, ...] = ()
) -> tuple[Step, ...]:
    """For the end of the init phase, after pivot_root; `seccomp` is from `gocker.seccomp.seccomp_step`.

    `waits` stand between creation and start: when all that can be known beforehand to fail has been tried.

    Raise UsageError for a user or group that cannot be one, and for what no kernel can be told.
    """
    split_user(spec.user)
    for group in spec.groups:
        parse_id(group)
    until_filter = seccomp is not None and not spec.no_new_privileges
    environment = dict(spec.env)
    steps: list[Step] = [
        Umask(mask=spec.umask),
        Chdir(path=spec.cwd, create=spec.rootfs is not None),
        *_rare_steps(spec),
        DropBounding(keep=spec.capabilities.bounding),
        SetUser(user=spec.user, groups=spec.groups, only=spec.only_groups, terminal=spec.terminal),
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
    steps.append(FindProgram(name=spec.argv[0], path=environment.get("PATH")))
    if spec.cpu_affinity[1] or spec.scheduler or spec.io_priority:
        from gocker.steps.scheduling import late_steps

        steps += late_steps(spec)
    steps += waits
    if spec.rlimits:
        from gocker.steps.limits import rlimits_step

        steps.append(rlimits_step(spec))
    steps.append(CloseFds(preserve=spec.preserve_fds))
    if seccomp:
        steps.append(seccomp)
    listens = bool(spec.preserve_fds) and "LISTEN_FDS" in environment
    steps.append(
        Exec(argv=spec.argv, env=spec.env, init=spec.init, preserve=spec.preserve_fds, listen=listens)
    )
    return tuple(steps)


def _rare_steps(spec: ContainerSpec) -> tuple[Step, ...]:
    """What the program inherits, and what few ask for; while this process has its privileges."""
    steps: list[Step] = []
    if spec.apparmor_profile or spec.selinux_label:
        from gocker.steps.labels import label_steps

        steps += label_steps(spec)
    if spec.memory_policy:
        from gocker.steps.memorypolicy import memory_policy_step

        steps.append(memory_policy_step(spec.memory_policy))
    if spec.personality is not None:
        from gocker.steps.personality import personality_step

        steps.append(personality_step(spec.personality))
    return tuple(steps)
