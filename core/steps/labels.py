"""Steps that ask a security module for a label: of the program, from its exec on.

The last hop makes two execs (docs/adr/0005-exec-stub.md): the label holds from the stub's on, and a
profile must let it exec the program.
"""

from __future__ import annotations

import errno
import os

from gocker.errors import KernelError, UsageError
from gocker.kernel.lsm import apparmor_enabled, selinux_enabled
from gocker.lowering import Code, Label
from gocker.model import ContainerSpec
from gocker.plan import Context, Step
from gocker.steps import quote
from gocker.steps.procfs import emit_write_proc, write_proc

_CONTEXTS = frozenset({"context", "fscontext", "defcontext", "rootcontext"})  # mount(8)
_LABELLED_BY_POLICY = frozenset({"proc", "sysfs"})
_ATTRIBUTE = "attr/exec"
_APPARMOR = "attr/apparmor/exec"  # Linux 5.8; where there are several modules the plain one is another's


class ApparmorProfile(Step):
    """Ask AppArmor to confine the program."""

    op = "apparmor-profile"

    profile: str

    def describe(self) -> str:
        """`aa-exec --profile NAME`."""
        return f"aa-exec --profile {quote(self.profile)}"

    def execute(self, ctx: Context) -> None:
        """Write to the procfs that is this container's own (SECURITY R5)."""
        command = f"exec {self.profile}"
        try:
            try:
                _write_own(ctx, _APPARMOR, command)
            except FileNotFoundError:
                _write_own(ctx, _ATTRIBUTE, command)
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception, _: object = None) -> Exception:
        if not isinstance(error, OSError):
            return error
        remedy = "load it: apparmor_parser" if error.errno == errno.ENOENT else ""
        return KernelError.from_os("apply AppArmor profile", self.profile, error, remedy=remedy)

    def emit(self, code: Code) -> None:
        """The same."""
        command = f"exec {self.profile}"
        older, done = code.label(), code.label()
        with code.explained(self._refused):
            _emit_own(code, _APPARMOR, command, older)
            code.jump(done)
            code.place(older)
            _emit_own(code, _ATTRIBUTE, command)
        code.place(done)


class SelinuxLabel(Step):
    """Ask SELinux to run the program in a domain."""

    op = "selinux-label"

    label: str  # user:role:type:level

    def describe(self) -> str:
        """`runcon LABEL`."""
        return f"runcon {quote(self.label)}"

    def execute(self, ctx: Context) -> None:
        """Write to the procfs that is this container's own (SECURITY R5)."""
        try:
            _write_own(ctx, _ATTRIBUTE, self.label)
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception, _: object = None) -> Exception:
        return (
            KernelError.from_os("apply SELinux label", self.label, error)
            if isinstance(error, OSError)
            else error
        )

    def emit(self, code: Code) -> None:
        """The same."""
        with code.explained(self._refused):
            _emit_own(code, _ATTRIBUTE, self.label)


def _write_own(ctx: Context, path: str, value: str) -> None:
    write_proc(ctx, f"{os.getpid()}/{path}", value)


def _emit_own(code: Code, path: str, value: str, missing: Label | None = None) -> None:
    """As `_write_own`; to `missing` where there is no such file."""
    place = code.data(64 + len(path))
    end = code.builtin("number", place, code.call("getpid"), 10)
    code.builtin("text", end, f"/{path}".encode())
    emit_write_proc(code, place, value, missing)


def label_steps(
    spec: ContainerSpec, *, apparmor: bool | None = None, selinux: bool | None = None
) -> tuple[Step, ...]:
    """The steps for what `spec` asks for; `apparmor` and `selinux` say what is enabled, None asks the host.

    Raise UsageError where the module is not enabled: a container that is to be confined does not start.
    """
    steps: list[Step] = []
    if spec.apparmor_profile:
        if not (apparmor_enabled() if apparmor is None else apparmor):
            raise _missing("apply AppArmor profile", spec.apparmor_profile, "AppArmor")
        steps.append(ApparmorProfile(profile=_plain("apply AppArmor profile", spec.apparmor_profile)))
    if spec.selinux_label:
        if not (selinux_enabled() if selinux is None else selinux):
            raise _missing("apply SELinux label", spec.selinux_label, "SELinux")
        steps.append(SelinuxLabel(label=_plain("apply SELinux label", spec.selinux_label)))
    return tuple(steps)


def labelled_options(
    label: str, kind: str, options: tuple[str, ...], *, selinux: bool | None = None
) -> tuple[str, ...]:
    """The mount options of a new file system of `kind` with the SELinux context `label`, unless they name one.

    Quotes around it are those of mount(8), which fsconfig(2) would take for part of the label. Where SELinux
    is not enabled (`selinux`; None asks the host) nobody looks at labels, and there are none. Raise UsageError.
    """
    words = tuple(_unquoted(word) for word in options)
    if (
        not (selinux_enabled() if selinux is None else selinux)
        or kind in _LABELLED_BY_POLICY
        or any(word.partition("=")[0] in _CONTEXTS for word in words)
    ):
        return words
    return (*words, f"context={_plain('mount with label', label)}")


def _unquoted(word: str) -> str:
    name, equals, value = word.partition("=")
    return f"{name}={value.strip(chr(34))}" if equals and name in _CONTEXTS else word


def _missing(operation: str, target: str, module: str) -> UsageError:
    return UsageError(operation, target, f"{module} is not enabled in this kernel", remedy="leave it out")


def _plain(operation: str, text: str) -> str:
    if not text.isprintable():
        raise UsageError(operation, repr(text), "it has control characters")
    return text
