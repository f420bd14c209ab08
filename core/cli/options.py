"""What click makes of the options that `run` and `plan` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from gocker.cli.flags import Flags

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def options_of(flags: Flags) -> Decorator:
    """Add the options, and the arguments, to a command's function, which gets them as keywords."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        function = click.argument(
            "arguments", nargs=-1, type=click.UNPROCESSED, metavar="[IMAGE] [COMMAND] [ARG]..."
        )(function)
        for names, attributes in reversed(flags):
            function = click.option(*names, **_for_click(**attributes))(function)
        return function

    return decorate


def _for_click(*, between: tuple[int, int] | None = None, **attributes: Any) -> dict[str, Any]:
    return {**attributes, "type": click.IntRange(*between)} if between else attributes


class Command(click.Command):
    """A command that completes options as long as none of the arguments is there: then they are the program's."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Nothing after the image."""
        return [] if ctx.params.get("arguments") else super().shell_complete(ctx, incomplete)


CONTEXT = {"allow_interspersed_args": False}
"""Options of COMMAND are its own: the first argument ends gocker's."""
