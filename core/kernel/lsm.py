"""Which security modules are in force on this host."""

from __future__ import annotations

import os

from gocker.kernel.mount import file_system_magic

_SELINUX_MAGIC = 0xF97CFF8C  # include/uapi/linux/magic.h


def apparmor_enabled(parameter: str = "/sys/module/apparmor/parameters/enabled") -> bool:
    """Whether AppArmor is; source: the kernel's security/apparmor/lsm.c, module parameter `enabled`."""
    try:
        fd = os.open(parameter, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return os.read(fd, 8).strip() == b"Y"
    finally:
        os.close(fd)


def selinux_enabled(mountpoint: str = "/sys/fs/selinux") -> bool:
    """Whether SELinux is: then its file system is mounted there. Source: selinux(8)."""
    try:
        fd = os.open(mountpoint, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return file_system_magic(fd) == _SELINUX_MAGIC
    finally:
        os.close(fd)
