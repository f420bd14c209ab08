"""Steps that take privileges away: the bounding set, the other sets of capabilities, no_new_privs."""

from __future__ import annotations

import os

from gocker.kernel import caps, ids
from gocker.lowering import Code, Failure
from gocker.plan import Context, Step

_SYS_ADMIN = "CAP_SYS_ADMIN"


def _words(names: tuple[str, ...]) -> str:
    """`-all,+chown,+kill`: a capability set as setpriv(1) takes it."""
    return ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in names)])


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

    def emit(self, code: Code) -> None:
        """The same."""
        numbers = {caps.NUMBERS[name] for name in self.keep}

        def explain(failure: Failure) -> Exception:
            return caps.not_in_kernel(int(failure.text))

        code.builtin("drop_bounding", sum(1 << number for number in numbers), explain=explain)


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

    def emit(self, code: Code) -> None:
        """The same, for root and for others."""
        root, done = code.label(), code.label()
        code.jump_if(code.call("geteuid"), 0, root)
        self._emit_sets(code, self.ambient, self.ambient)
        code.jump(done)
        code.place(root)
        self._emit_sets(code, self.effective, self.permitted)
        code.place(done)

    def _emit_sets(self, code: Code, effective: tuple[str, ...], permitted: tuple[str, ...]) -> None:
        if self.until_filter and _SYS_ADMIN not in effective:
            effective, permitted = (*effective, _SYS_ADMIN), (*permitted, _SYS_ADMIN)
        header, data = caps.sets(effective, permitted, self.inheritable)
        code.call("prctl", caps.PR_CAP_AMBIENT, caps.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)

        def explain(error: Exception, failure: Failure) -> Exception:
            if not isinstance(error, PermissionError):
                return error
            held = {name for number, name in enumerate(caps.NAMES) if failure.permitted >> number & 1}
            return caps.refused(permitted, held, error)

        with code.explained(explain):
            code.call("capset", code.data(header), code.data(data))
            for name in self.ambient:
                code.call("prctl", caps.PR_CAP_AMBIENT, caps.PR_CAP_AMBIENT_RAISE, caps.NUMBERS[name], 0, 0)


class NoNewPrivileges(Step):
    """No set-user-id program or file capability gives anything from here on."""

    op = "no-new-privileges"

    def describe(self) -> str:
        """`setpriv --no-new-privs`."""
        return "setpriv --no-new-privs"

    def execute(self, ctx: Context) -> None:
        """PR_SET_NO_NEW_PRIVS(2const)."""
        ids.set_no_new_privileges()

    def emit(self, code: Code) -> None:
        """The same."""
        code.call("prctl", ids.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
