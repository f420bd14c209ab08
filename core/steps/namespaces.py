"""What namespace plug-ins ask for inside: names, interfaces, sysctls."""

from __future__ import annotations

import _socket  # `socket` itself builds enums for 2 ms at import
import os
import struct
from fcntl import ioctl

from gocker.errors import GockerError, UsageError
from gocker.kernel.syscalls import setdomainname, sethostname
from gocker.lowering import Code, NotLoweredError
from gocker.plan import Context, Step
from gocker.steps.procfs import emit_write_proc, write_proc

# linux/sockios.h, linux/if.h; netdevice(7)
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_IFREQ = struct.Struct("=16sH22x")  # struct ifreq: 40 bytes on 64-bit
_IFNAMSIZ = 16


class SetHostname(Step):
    """Set the hostname of the UTS namespace."""

    op = "set-hostname"

    name: str

    def describe(self) -> str:
        """`hostname NAME`."""
        return f"hostname {self.name}"

    def execute(self, ctx: Context) -> None:
        """sethostname(2)."""
        sethostname(os.fsencode(self.name))

    def emit(self, code: Code) -> None:
        """The same."""
        name = os.fsencode(self.name)
        code.call("sethostname", code.data(name + b"\0"), len(name))


class SetDomainname(Step):
    """Set the NIS domain name of the UTS namespace."""

    op = "set-domainname"

    name: str

    def describe(self) -> str:
        """`domainname NAME`."""
        return f"domainname {self.name}"

    def execute(self, ctx: Context) -> None:
        """setdomainname(2)."""
        setdomainname(os.fsencode(self.name))

    def emit(self, code: Code) -> None:
        """The same."""
        name = os.fsencode(self.name)
        code.call("setdomainname", code.data(name + b"\0"), len(name))


class LinkUp(Step):
    """Set a network interface up."""

    op = "link-up"

    name: str

    def describe(self) -> str:
        """`ip link set NAME up`."""
        return f"ip link set {self.name} up"

    def execute(self, ctx: Context) -> None:
        """Raise OSError: ENODEV when there is no such interface."""
        name = os.fsencode(self.name)
        if len(name) >= _IFNAMSIZ:
            raise UsageError("set interface up", self.name, f"the name is longer than {_IFNAMSIZ - 1} bytes")
        control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        try:
            answer = ioctl(control.fileno(), _SIOCGIFFLAGS, _IFREQ.pack(name, 0))
            _, flags = _IFREQ.unpack(answer)
            ioctl(control.fileno(), _SIOCSIFFLAGS, _IFREQ.pack(name, flags | _IFF_UP))
        finally:
            control.close()

    def emit(self, code: Code) -> None:
        """The same."""
        name = os.fsencode(self.name)
        if len(name) >= _IFNAMSIZ:
            raise NotLoweredError("the name of the interface is too long")
        request = code.data(_IFREQ.pack(name, 0))
        control = code.call("socket", _socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, 0)
        fd = code.register()
        code.set(fd, control)
        code.call("ioctl", fd, _SIOCGIFFLAGS, request)
        flags = code.builtin("or", code.load(request + _IFNAMSIZ, 2), _IFF_UP)
        code.store(flags, request + _IFNAMSIZ, 2)
        code.call("ioctl", fd, _SIOCSIFFLAGS, request)
        code.close(fd)
        code.release(fd)


class Sysctl(Step):
    """Write a kernel parameter of the container's own namespaces."""

    op = "sysctl"

    name: str
    value: str

    def describe(self) -> str:
        """`sysctl -w NAME=VALUE`."""
        return f"sysctl -w {self.name}={self.value}"

    def execute(self, ctx: Context) -> None:
        """Write below the own procfs, which ReadonlyPaths has not covered yet; raise GockerError."""
        path = "sys/" + "/".join(sysctl_parts(self.name))
        try:
            write_proc(ctx, path, self.value)
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception, _: object = None) -> Exception:
        if not isinstance(error, OSError):
            return error
        return GockerError.from_os("set sysctl", f"{self.name}={self.value}", error)

    def emit(self, code: Code) -> None:
        """The same."""
        with code.explained(self._refused):
            emit_write_proc(code, "sys/" + "/".join(sysctl_parts(self.name)), self.value)


def sysctl_parts(name: str) -> tuple[str, ...]:
    """The path of a sysctl below /proc/sys in parts: `net.ipv4.ip_forward`, `net/ipv4/ip_forward`.

    As in sysctl(8), the first `.` or `/` separates and the other one stands for a dot in a name:
    `net.ipv4.conf.eth0/100.forwarding`, `net/ipv4/conf/eth0.100/forwarding`. Parts that are empty,
    `.` or `..` and names of one part raise UsageError.
    """
    slash = "/" in name and "." not in name.partition("/")[0]
    separator, other = ("/", ".") if slash else (".", "/")
    parts = tuple(part.replace(other, ".") for part in name.split(separator))
    if len(parts) < 2 or "\0" in name or not all(part.strip(".") for part in parts):
        raise UsageError(
            "set sysctl", name, "not the name of a sysctl", remedy="for example net.ipv4.ip_forward=1"
        )
    return parts
