"""`gocker-oci spec`."""

from __future__ import annotations

import json
import os

from gocker.errors import GockerError
from gocker.hierarchy import read_host
from gocker.oci.default import default_config

_NAME = "config.json"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def command(root: str, *, arguments: tuple[str, ...], bundle: str, rootless: bool) -> int:  # noqa: ARG001
    """Write it; what is there already stays."""
    path = os.path.join(os.path.abspath(bundle), _NAME)
    user = (os.geteuid(), os.getegid()) if rootless else None
    config = default_config(user, cgroups=read_host().mode == "v2")
    text = json.dumps(config, indent="\t")
    try:
        fd = os.open(path, _NEW, 0o666)
        with open(fd, "w", encoding="ascii") as file:
            file.write(f"{text}\n")
    except OSError as error:
        remedy = "remove it, or name another --bundle" if isinstance(error, FileExistsError) else ""
        raise GockerError.from_os("write spec", path, error, remedy=remedy) from error
    return 0
