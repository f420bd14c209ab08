"""Root file systems made by somebody who means harm: busybox, and whatever the test plants."""

from __future__ import annotations

import os
import shutil
import stat
from typing import Any

from command import Gocker, Ran

BUSYBOX = "/bin/busybox"


class Image:
    """A directory with a static busybox; `outside` lies beside it and must not change."""

    def __init__(self, base: os.PathLike[str] | str) -> None:
        self.path = f"{base}/image"
        self.outside = f"{base}/outside"
        os.makedirs(f"{self.path}/bin")
        os.mkdir(self.outside)
        shutil.copy(BUSYBOX, f"{self.path}/bin/busybox")
        os.symlink("busybox", f"{self.path}/bin/sh")
        self.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        with open(f"{self.outside}/secret", "w") as file:
            file.write("secret\n")
        self._before = self._look()

    def link(self, name: str, target: str) -> Image:
        """Plant a symbolic link, in the place of what is there."""
        self._clear(name)
        os.symlink(target, f"{self.path}/{name}")
        return self

    def file(self, name: str, text: str | bytes, mode: int = 0o755) -> Image:
        """Plant a file."""
        self._clear(name)
        with open(f"{self.path}/{name}", "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        os.chmod(f"{self.path}/{name}", mode)
        return self

    def node(self, name: str, kind: int, major: int = 0, minor: int = 0) -> Image:
        """Plant a device file or a fifo; `kind` is S_IFBLK, S_IFCHR or S_IFIFO."""
        self._clear(name)
        os.mknod(f"{self.path}/{name}", kind | 0o666, os.makedev(major, minor))
        return self

    def run(self, gocker: Gocker, script: str, *options: str, **more: Any) -> Ran:
        """`script` by its shell, with busybox's own commands."""
        words = ("--rootfs", self.path, *options, "/bin/busybox", "sh", "-c", script)
        return gocker("run", *words, **more)

    def untouched(self) -> bool:
        """Whether `outside` is as it was."""
        return self._look() == self._before

    def _clear(self, name: str) -> None:
        path = f"{self.path}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)

    def _look(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for directory, names, files in os.walk(self.outside):
            for name in (*names, *files):
                path = f"{directory}/{name}"
                status = os.lstat(path)
                content = b""
                if stat.S_ISREG(status.st_mode):
                    with open(path, "rb") as file:
                        content = file.read()
                found[path] = (status.st_mode, status.st_uid, status.st_gid, content)
        return found
