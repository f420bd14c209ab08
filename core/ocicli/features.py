"""`gocker-oci features`."""

from __future__ import annotations

import json

from gocker.oci.features import features


def command(root: str, *, arguments: tuple[str, ...]) -> int:  # noqa: ARG001 - every verb is called so
    """Print the document."""
    print(json.dumps(features(), indent=2))
    return 0
