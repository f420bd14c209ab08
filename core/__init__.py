"""gocker: a container runtime whose every limit and isolation is a plug-in.

For programs: `gocker.run`, `gocker.arun` and `gocker.Container`, shaped after subprocess; docs/embedding.md. To
import this costs nothing: each name is loaded when it is first asked for.
"""

TYPE_CHECKING = False  # type checkers take it for True; to import typing costs more than all of this
if TYPE_CHECKING:
    from gocker.embedding.aio import arun as arun
    from gocker.embedding.container import Container as Container
    from gocker.embedding.failures import ContainerError as ContainerError
    from gocker.embedding.failures import TimeoutExpired as TimeoutExpired
    from gocker.embedding.request import DEVNULL as DEVNULL
    from gocker.embedding.request import PIPE as PIPE
    from gocker.embedding.request import STDOUT as STDOUT
    from gocker.embedding.result import CompletedContainer as CompletedContainer
    from gocker.embedding.running import run as run
    from gocker.errors import GockerError as GockerError
    from gocker.receipt import Verdict as Verdict

__version__ = "0.1.0"

_PLACES = {
    "run": "embedding.running",
    "arun": "embedding.aio",
    "Container": "embedding.container",
    "CompletedContainer": "embedding.result",
    "ContainerError": "embedding.failures",
    "TimeoutExpired": "embedding.failures",
    "PIPE": "embedding.request",
    "STDOUT": "embedding.request",
    "DEVNULL": "embedding.request",
    "GockerError": "errors",
    "Verdict": "receipt",
}
"""Public names and the modules that they are in."""


if not TYPE_CHECKING:  # for which every name would be there

    def __getattr__(name: str) -> object:
        place = _PLACES.get(name)
        if place is None:
            raise AttributeError(f"module 'gocker' has no attribute {name!r}")
        from importlib import import_module

        value: object = getattr(import_module(f"gocker.{place}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
