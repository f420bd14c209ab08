"""The exec stub as bytes, and the records that it writes."""

from __future__ import annotations

import errno
import fcntl
import importlib.util
import os
import shutil
import socket
import struct
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from gocker.errors import KernelError, UsageError
from gocker.kernel import stub

TREE = Path(__file__).parents[2]
MACHINES = ["x86_64", "aarch64"]
ELF_MACHINE = {"x86_64": 62, "aarch64": 183}
COMPILER = "12.2.0"  # what the committed bytes were compiled by: Debian 12's gcc
QEMU = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_stub", TREE / "core/stub/build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("packet", "kind", "value"),
    [
        (struct.pack("=II", 1, errno.ENOENT), stub.EXEC_FAILED, errno.ENOENT),
        (struct.pack("=II", 2, 0xFFFF), stub.ENDED, 0xFFFF),
        (struct.pack("=II", 3, 0), stub.STARTED, 0),
    ],
)
def test_a_record_is_a_kind_and_a_value(packet: bytes, kind: int, value: int) -> None:
    assert stub.parse_record(packet) == stub.StatusRecord(kind=kind, value=value)


@pytest.mark.parametrize(
    "packet", [b"", b"\x01\0\0\0", b"\x01\0\0\0\0\0\0", b"\x01" + bytes(8), bytes(8), b"\x04" + bytes(7)]
)
def test_anything_else_is_no_record(packet: bytes) -> None:
    with pytest.raises(KernelError, match="not a record of the exec stub"):
        stub.parse_record(packet)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_stub_is_one_static_segment_that_cannot_be_written(machine: str) -> None:
    elf = stub.stub_elf(machine)
    assert elf[:7] == b"\x7fELF\x02\x01\x01"
    kind, number = struct.unpack_from("<HH", elf, 16)
    assert (kind, number) == (2, ELF_MACHINE[machine])  # ET_EXEC: no interpreter, nothing to relocate
    start, size, count = *struct.unpack_from("<Q", elf, 32), *struct.unpack_from("<HH", elf, 54)
    headers = {}
    for i in range(count):
        kind, flags = struct.unpack_from("<II", elf, start + i * size)
        headers[kind] = flags
    assert headers == {1: 5, 0x6474E551: 6}  # PT_LOAD read and execute, PT_GNU_STACK not executable
    assert len(elf) < 2048


@pytest.mark.parametrize("machine", MACHINES)
def test_the_committed_bytes_are_what_the_source_compiles_to(machine: str, build: ModuleType) -> None:
    compiler = shutil.which(build.COMPILERS[machine])
    if not compiler:
        pytest.skip(
            f"{build.COMPILERS[machine]} is missing: apt-get install gcc-{machine.replace('_', '-')}-linux-gnu"
        )
    version = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, check=True)
    elf = build.compile_stub(machine)
    if version.stdout.strip() != COMPILER:
        pytest.skip(
            f"the source compiles; its bytes are compared by gcc {COMPILER}, here is {version.stdout}"
        )
    assert elf == stub.stub_elf(machine)


def test_a_machine_without_a_stub_is_an_error_that_names_those_with() -> None:
    with pytest.raises(KernelError, match="riscv64: gocker has one for x86_64 and aarch64 only"):
        stub.stub_elf("riscv64")


def test_the_stub_is_made_once_and_sealed() -> None:
    fd = stub.stub_fd()
    assert stub.stub_fd() == fd
    assert fd >= 10
    assert not os.get_inheritable(fd)
    assert os.fstat(fd).st_mode & 0o7777 == 0o111
    assert os.pread(fd, 4096, 0) == stub.stub_elf(os.uname().machine)
    for attack in (
        lambda: os.pwrite(fd, b"x", 0),
        lambda: os.ftruncate(fd, 0),
        lambda: os.ftruncate(fd, 1 << 20),
        lambda: fcntl.fcntl(fd, 1033, 1),  # F_ADD_SEALS
    ):
        with pytest.raises(PermissionError):
            attack()


def test_a_stub_that_someone_closed_is_made_anew() -> None:
    fd = stub.stub_fd()
    os.close(fd)
    again = os.dup2(os.open("/dev/null", os.O_RDONLY), fd)
    try:
        assert stub.stub_fd() != again
    finally:
        os.close(again)


@pytest.mark.parametrize(("argv", "env"), [(["a\0b"], []), (["a"], [("X", "y\0z")])])
def test_a_nul_byte_is_refused_before_the_exec(argv: list[str], env: list[tuple[str, str]]) -> None:
    with pytest.raises(UsageError, match="NUL"):
        stub.exec_stub(stub.stub_fd(), stub.EXEC, "/bin/true", argv, env)


def emulate(
    path: Path, mode: str, *argv: str, status: int = stub.STATUS_FD
) -> tuple[int, bytes, list[bytes]]:
    """Exit status, output and records of the arm64 stub under qemu, whose socket is the fd `status`."""
    assert QEMU
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read, write = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), status), (os.POSIX_SPAWN_DUP2, write, 1)]
    pid = os.posix_spawn(QEMU, [QEMU, "-0", mode, str(path), *argv], os.environ, file_actions=actions)
    theirs.close()
    os.close(write)
    with open(read, "rb") as output:
        text = output.read()
    records = []
    while packet := ours.recv(64):
        records.append(packet)
    ours.close()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text, records


@pytest.fixture
def arm64(tmp_path: Path) -> Path:
    if not QEMU:
        pytest.skip("qemu-aarch64-static is missing: apt-get install qemu-user-static")
    path = tmp_path / "stub"
    path.write_bytes(stub.stub_elf("aarch64"))
    path.chmod(0o755)
    return path


def test_the_arm64_stub_execs_a_program(arm64: Path) -> None:
    assert emulate(arm64, stub.EXEC, "3", "/bin/echo", "echo", "a b", "c") == (0, b"a b c\n", [])


def test_the_arm64_stub_is_told_where_its_socket_is(arm64: Path) -> None:
    code, _, records = emulate(arm64, stub.EXEC, "77", "/no/such", "such", status=77)
    assert (code, records) == (127, [struct.pack("<II", stub.EXEC_FAILED, errno.ENOENT)])


@pytest.mark.parametrize("number", ["", "x", "-1", "4294967299", "3x", "99"])
def test_the_arm64_stub_does_nothing_without_its_socket(arm64: Path, number: str) -> None:
    assert emulate(arm64, stub.EXEC, number, "/bin/echo", "echo", "ran") == (125, b"", [])


def test_the_arm64_stub_reports_a_failed_exec(arm64: Path) -> None:
    code, _, records = emulate(arm64, stub.EXEC, "3", "/no/such", "such")
    assert (code, records) == (127, [struct.pack("<II", stub.EXEC_FAILED, errno.ENOENT)])


def test_the_arm64_stub_is_a_pid_1(arm64: Path) -> None:
    code, output, records = emulate(arm64, stub.INIT, "3", "/bin/sh", "sh", "-c", "echo hi; exit 3")
    assert (code, output) == (3, b"hi\n")
    assert records == [struct.pack("<II", stub.STARTED, 0), struct.pack("<II", stub.ENDED, 3 << 8)]


def test_the_arm64_stub_does_nothing_under_another_name(arm64: Path) -> None:
    assert emulate(arm64, "/proc/self/exe", "/bin/echo", "echo", "ran") == (126, b"", [])
