"""Steps that take privileges away: the bounding set, the other sets of capabilities, no_new_privs."""

from __future__ import annotations

import os

from gocker.kernel import caps, ids
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
