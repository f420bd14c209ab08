"""`gocker-oci version`."""

from __future__ import annotations

from gocker import __version__
from gocker.model import OCI_VERSION


def command(root: str, *, arguments: tuple[str, ...]) -> int:  # noqa: ARG001 - every verb is called so
    """Print it, and which specification is followed."""
    print(f"gocker-oci version {__version__}\nspec: {OCI_VERSION}")
    return 0
