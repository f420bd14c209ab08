"""The step that chooses the execution domain."""

from __future__ import annotations

from gocker.errors import UsageError
from gocker.kernel.syscalls import call
from gocker.lowering import Code
from gocker.plan import Context, Step

_NAMES = {0x0000: "LINUX", 0x0008: "LINUX32"}  # include/uapi/linux/personality.h
_MAX = 0xFFFFFFFE  # 0xffffffff asks, and sets nothing


class SetPersonality(Step):
    """Choose what kind of system the program sees; LINUX32 makes uname(2) name a 32-bit machine."""

    op = "personality"

    persona: int  # domain and flags of personality(2)

    def describe(self) -> str:
        """`setarch linux32`."""
        return f"setarch {_NAMES.get(self.persona, hex(self.persona)).lower()}"

    def execute(self, ctx: Context) -> None:
        """personality(2): kept over exec."""
        call("personality", self.persona)

    def emit(self, code: Code) -> None:
        """The same."""
        code.call("personality", self.persona)


def personality_step(persona: int) -> SetPersonality:
    """The step; raise UsageError for what is no personality."""
    if not 0 <= persona <= _MAX:
        raise UsageError("set personality", str(persona), f"not from 0 to {_MAX}")
    return SetPersonality(persona=persona)
