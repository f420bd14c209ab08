"""Users resolved, programs found, and what the identity steps say of themselves."""

from __future__ import annotations

import errno
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gocker.errors import ExecError, GockerError, UsageError
from gocker.kernel import caps
from gocker.model import ContainerSpec, Rlimit, plain_capabilities
from gocker.plan import Plan
from gocker.steps import identity, quote
from gocker.steps.capabilities import SetCapabilities
from gocker.steps.exec import InstallSeccomp
from gocker.steps.program import DEFAULT_PATH, find_program
from gocker.steps.users import Identity, parse_id, read_database, resolve_user, split_user

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
daemon:x:1:1::/usr/sbin:/bin/sh
app:x:1000:1001:App,,,:/home/app:/bin/sh
caf\xe9:x:1002:1002::/caf\xe9:/bin/sh
1000:x:7:7::/seven:/bin/sh
huge:x:4294967296:0::/:/bin/sh
minus:x:-1:0::/:/bin/sh
empty:x::0::/:/bin/sh
nohome:x:1003:1003:::/bin/sh
short:x:5
::0:0:::

app:x:6:6::/second:/bin/sh
"""
GROUP = b"""root:x:0:
bin:x:1:root,daemon
staff:x:50:app,daemon
video:x:44:app
app:x:1001:
many:x:4294967295:app
broken:x
"""


def resolve(user: str, *extra: str, passwd: bytes = PASSWD, group: bytes = GROUP) -> Identity:
    return resolve_user(user, extra, {"etc/passwd": passwd, "etc/group": group}.__getitem__)


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, (0, 1), "/root"),
        ("root", 0, 0, (0, 1), "/root"),
        ("0", 0, 0, (0, 1), "/root"),
        ("app", 1000, 1001, (1001, 50, 44), "/home/app"),
        ("1000", 1000, 1001, (1001, 50, 44), "/home/app"),
        ("app:staff", 1000, 50, (50,), "/home/app"),
        ("app:9", 1000, 9, (9,), "/home/app"),
        ("1000:9", 1000, 9, (9,), "/home/app"),
        ("55", 55, 0, (0,), "/"),
        ("55:66", 55, 66, (66,), "/"),
        ("4294967294:4294967294", 4294967294, 4294967294, (4294967294,), "/"),
        ("caf\udce9", 1002, 1002, (1002,), "/caf\udce9"),
        ("nohome", 1003, 1003, (1003,), "/"),
    ],
)
def test_a_user_is_resolved_as_docker_does(
    user: str, uid: int, gid: int, groups: tuple[int, ...], home: str
) -> None:
    assert resolve(user) == Identity(uid=uid, gid=gid, groups=groups, home=home)


def test_further_groups_come_by_name_or_number_and_once() -> None:
    assert resolve("app", "video", "staff", "77", "1001").groups == (1001, 50, 44, 77)


def test_without_files_numbers_do() -> None:
    assert resolve("5:6", "7", passwd=b"", group=b"") == Identity(uid=5, gid=6, groups=(6, 7), home="/")
    assert resolve("", passwd=b"", group=b"") == Identity(uid=0, gid=0, groups=(0,), home="/")


@pytest.mark.parametrize("user", ["nobody", "huge", "minus", "empty", "short", "app ", "App"])
def test_a_name_without_a_sound_line_is_not_there(user: str) -> None:
    with pytest.raises(UsageError, match=f"find user {user.strip()}: not in the container's /etc/passwd"):
        resolve(user)


@pytest.mark.parametrize("text", ["nogroup", "many", "broken"])
def test_a_group_without_a_sound_line_is_not_there(text: str) -> None:
    with pytest.raises(UsageError, match="not in the container's /etc/group"):
        resolve("app", text)
    with pytest.raises(UsageError, match="not in the container's /etc/group"):
        resolve(f"app:{text}")


NO_IDS = ["4294967295", "4294967296", "18446744073709551616", "-1", "+1", "0" * 11]


@pytest.mark.parametrize("text", NO_IDS)
def test_a_number_that_is_no_id_is_an_error_and_not_root(text: str) -> None:
    for user in (text, f"{text}:0", f"0:{text}"):
        with pytest.raises(UsageError, match="not from 0 to 4294967294"):
            resolve(user)
    with pytest.raises(UsageError, match="not from 0 to 4294967294"):
        resolve("0:0", text)


@pytest.mark.parametrize("text", ["1_000", "\u0661", "1e3", "0x10", "1.0", " 1", "True", "\u00b2"])
def test_what_only_looks_like_a_number_is_a_name(text: str) -> None:
    assert parse_id(text) is None


@pytest.mark.parametrize("text", [":", ":5", "app:", "a:b:c", "a\nb", "a\0b"])
def test_a_user_of_another_shape_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="not USER or USER:GROUP"):
        split_user(text)


@pytest.fixture
def root(tmp_path: Path) -> Callable[[str], bytes]:
    (tmp_path / "etc").mkdir()

    def read(path: str) -> bytes:
        fd = os.open(tmp_path, os.O_PATH)
        try:
            return read_database(fd, path)
        finally:
            os.close(fd)

    return read


def test_a_missing_database_is_empty(root: Callable[[str], bytes], tmp_path: Path) -> None:
    assert root("etc/passwd") == b""
    (tmp_path / "etc/passwd").write_bytes(PASSWD)
    assert root("etc/passwd") == PASSWD
    assert root("etc/passwd/below") == b""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.symlink_to("/etc/passwd"), "it is a symbolic link"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.mkdir(), "not a regular file"),
        (lambda path: path.write_bytes(bytes((10 << 20) + 1)), "larger than 10 MiB"),
    ],
)
def test_a_hostile_database_is_an_error_unless_numbers_do(
    make: Callable[[Path], object], message: str, root: Callable[[str], bytes], tmp_path: Path
) -> None:
    make(tmp_path / "etc/passwd")
    make(tmp_path / "etc/group")
    for user in ("", "app", "5"):
        with pytest.raises(GockerError, match=message) as caught:
            resolve_user(user, (), root)
        assert caught.value.remedy == "give numbers: --user UID:GID"
    assert resolve_user("5:6", ("7",), root) == Identity(uid=5, gid=6, groups=(6, 7), home="/")
    with pytest.raises(GockerError, match=message):
        resolve_user("5:staff", (), root)


def make_tool(path: Path, text: str | bytes = "#!/bin/sh\n", mode: int = 0o755) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return str(path)


def failure(name: str, path: str | None = None) -> ExecError:
    with pytest.raises(ExecError) as caught:
        find_program(name, path)
    return caught.value


def test_the_first_fit_in_path_is_taken(tmp_path: Path) -> None:
    second = make_tool(tmp_path / "b/tool")
    make_tool(tmp_path / "c/tool")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/tool").mkdir()
    search = ":".join(f"{tmp_path}/{name}" for name in ("none", "a", "b", "c"))
    assert find_program("tool", search) == second


def test_without_a_path_dockers_is_searched() -> None:
    assert DEFAULT_PATH.split(":")[0] == "/usr/local/sbin"
    assert find_program("sh", None) in {"/usr/bin/sh", "/bin/sh"}


@pytest.mark.parametrize("search", ["", ".", ":", "bin:./bin"])
def test_only_absolute_directories_count(
    search: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tool(tmp_path / "tool")
    make_tool(tmp_path / "bin/tool")
    monkeypatch.chdir(tmp_path)
    assert failure("tool", search).exit_code == 127


def test_a_name_with_a_slash_is_a_path_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tool(tmp_path / "bin/tool")
    monkeypatch.chdir(tmp_path)
    assert find_program("bin/tool", "/nowhere") == "bin/tool"
    assert find_program(f"{tmp_path}/bin/tool", None) == f"{tmp_path}/bin/tool"


@pytest.mark.parametrize(
    ("name", "number", "code"),
    [
        ("nosuch", errno.ENOENT, 127),
        ("", errno.ENOENT, 127),
        ("/nosuch", errno.ENOENT, 127),
        ("/etc", errno.EACCES, 126),
        ("/dev/null", errno.EACCES, 126),
        ("/etc/passwd", errno.EACCES, 126),
        ("/etc/passwd/x", errno.ENOTDIR, 126),
    ],
)
def test_what_cannot_be_started_is_named_with_dockers_exit_code(name: str, number: int, code: int) -> None:
    error = failure(name)
    assert (error.errno, error.exit_code) == (number, code)
    assert name in str(error)


def test_one_that_is_there_but_not_executable_is_not_said_to_be_missing(tmp_path: Path) -> None:
    make_tool(tmp_path / "a/tool", mode=0o644)
    error = failure("tool", f"{tmp_path}/a:/nowhere")
    assert (error.errno, error.target) == (errno.EACCES, f"{tmp_path}/a/tool")
    good = make_tool(tmp_path / "b/tool")
    assert find_program("tool", f"{tmp_path}/a:{tmp_path}/b") == good


LOOPS = [
    "/proc/self/exe",
    f"/proc/{os.getpid()}/exe",
    "/proc/thread-self/exe",
    "/proc/self/../self/exe",
    "/proc/self/root/proc/self/exe",
]


@pytest.mark.parametrize("target", LOOPS)
def test_gockers_own_program_is_no_interpreter(target: str, tmp_path: Path) -> None:
    error = failure(make_tool(tmp_path / "a", f"#!{target}\n"))
    assert (error.errno, error.exit_code) == (errno.ELOOP, 126)
    assert f"by its interpreter {target} a link of /proc to gocker's own program" in str(error)
    (tmp_path / "one").symlink_to(target)
    (tmp_path / "two").symlink_to("one")
    assert failure(make_tool(tmp_path / "b", f"#! \t{tmp_path}/two -x\n")).errno == errno.ELOOP


@pytest.mark.parametrize("target", LOOPS)
def test_gockers_own_program_is_no_program(target: str, tmp_path: Path) -> None:
    assert failure(target).errno == errno.ELOOP
    (tmp_path / "tool").symlink_to(target)
    assert failure("tool", str(tmp_path)).errno == errno.ELOOP


def test_a_loop_behind_another_script_is_seen(tmp_path: Path) -> None:
    inner = make_tool(tmp_path / "inner", "#!/proc/self/exe\n")
    assert failure(make_tool(tmp_path / "outer", f"#!{inner}\n")).errno == errno.ELOOP


def test_scripts_that_interpret_each_other_are_left_to_the_kernel(tmp_path: Path) -> None:
    path = str(tmp_path / "self")
    assert find_program(make_tool(tmp_path / "self", f"#!{path}\n"), None) == path


@pytest.mark.parametrize(
    ("line", "number", "text"),
    [
        ("#!/no/such -x\n", errno.ENOENT, "'/no/such': ENOENT"),
        ("#!/bin/sh\r\n", errno.ENOENT, "DOS line ends"),
        ("#!/etc/passwd\n", errno.EACCES, "'/etc/passwd': EACCES"),
        ("#!/etc\n", errno.EACCES, "'/etc': EACCES"),
        ("#!\n", errno.ENOEXEC, "no interpreter after #!"),
        ("#!   ", errno.ENOEXEC, "no interpreter after #!"),
    ],
)
def test_a_script_without_its_interpreter_names_it(line: str, number: int, text: str, tmp_path: Path) -> None:
    error = failure(make_tool(tmp_path / "script", line))
    assert error.errno == number
    assert text in str(error)
    assert f"{tmp_path}/script" in str(error)


def elf(interpreter: bytes, *, bits: int = 64) -> bytes:
    """An ELF file that is nothing but a header and a PT_INTERP."""
    text = interpreter + b"\0"
    if bits == 64:
        head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
            "<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0
        )
        return head + struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(text), len(text), 1) + text
    head = b"\x7fELF\x01\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIIIIIHHHHHH", 3, 3, 1, 0, 52, 0, 0, 52, 32, 1, 0, 0, 0
    )
    return head + struct.pack("<IIIIIIII", 3, 84, 0, 0, len(text), len(text), 4, 1) + text


@pytest.mark.parametrize("bits", [32, 64])
def test_an_elf_file_without_its_interpreter_names_it(bits: int, tmp_path: Path) -> None:
    error = failure(make_tool(tmp_path / "tool", elf(b"/lib/ld-musl.so.1", bits=bits)))
    assert error.errno == errno.ENOENT
    assert "its interpreter '/lib/ld-musl.so.1': ENOENT" in str(error)
    assert failure(make_tool(tmp_path / "loop", elf(b"/proc/self/exe", bits=bits))).errno == errno.ELOOP
    good = make_tool(tmp_path / "good", elf(b"/bin/sh", bits=bits))
    assert find_program(good, None) == good


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x7fELF",
        b"\x7fELF\x02\x01\x01" + bytes(20),
        elf(b"")[:70],
        elf(b"/x")[:-30],
        b"\x7fELF\x02\x01\x01".ljust(32, b"\0") + b"\xff" * 40,
        b"\x7fELF\x02\x02" + bytes(80),
    ],
)
def test_a_file_that_is_no_program_is_left_to_the_kernel(content: bytes, tmp_path: Path) -> None:
    path = make_tool(tmp_path / "noise", content)
    assert find_program(path, None) == path


def test_bytes_of_a_name_survive(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    with open(name, "w") as file:
        file.write("#!/bin/sh\n")
    os.chmod(name, 0o755)
    assert find_program(name, None) == name


SPEC = ContainerSpec(
    id="0123",
    name="x",
    argv=("printf", "%s\n", "it's", "caf\udce9"),
    env=(("PATH", "/bin"), ("TOKEN", "hunter2")),
    user="app:staff",
    groups=("video",),
    cwd="/work dir",
    capabilities=plain_capabilities(("CAP_CHOWN", "CAP_KILL")),
    rlimits=(Rlimit(name="nofile", soft=10, hard=20), Rlimit(name="core", soft=0, hard=(1 << 64) - 1)),
    oom_score_adj=500,
)
FILTER = InstallSeccomp(
    profile="default",
    digest="sha256:" + "ab" * 32,
    instructions=1,
    flags=0,
    program=b"\x06\0\0\0\0\0\xff\x7f",
)


def test_steps_read_like_the_shell() -> None:
    steps = [*identity.parent_steps(SPEC), *identity.first_steps(SPEC), *identity.last_steps(SPEC, FILTER)]
    assert [step.describe() for step in steps] == [
        "prlimit --pid CHILD --nofile=:20 --core=:unlimited",
        "choom --pid CHILD --adjust 500",
        "prctl PR_SET_DUMPABLE 0",
        "setsid",
        "keyctl session 0123",
        "umask 0022",
        "cd '/work dir'",
        "setpriv --bounding-set -all,+chown,+kill",
        "setpriv --reuid app --regid staff --groups +video",
        "setpriv --inh-caps -all --ambient-caps -all  # if root: chown,kill",
        "setpriv --no-new-privs",
        "PATH=/bin command -v printf",
        "prlimit --pid $$ --nofile=10:20 --core=0:unlimited",
        "close on exec every fd from 4 on",
        "seccomp --profile default  # 1 instructions, sha256:abababababab",
        "exec env -i PATH=... TOKEN=... printf $'%s\\n' 'it'\\''s' 'caf\udce9'",
    ]


def test_privileges_go_in_the_order_that_keeps_them_gone() -> None:
    """SECURITY R9: bounding set, ids, capset, no_new_privs, seccomp, exec; a missing directory before ids."""
    order = [step.op for step in identity.last_steps(SPEC, FILTER)]
    assert order == [
        "umask",
        "chdir",
        "bounding-set",
        "set-user",
        "set-capabilities",
        "no-new-privileges",
        "find-program",
        "rlimits",
        "close-fds",
        "seccomp",
        "exec",
    ]
    assert [step.op for step in identity.first_steps(SPEC)] == ["undumpable", "setsid", "session-keyring"]


@pytest.mark.parametrize(
    ("no_new_privs", "seccomp", "kept"), [(True, FILTER, False), (False, FILTER, True), (False, None, False)]
)
def test_sys_admin_is_kept_only_for_a_filter_without_no_new_privs(
    no_new_privs: bool, seccomp: InstallSeccomp | None, kept: bool
) -> None:
    spec = SPEC.replace(no_new_privileges=no_new_privs)
    steps = {step.op: step for step in identity.last_steps(spec, seccomp)}
    capabilities = steps["set-capabilities"]
    assert isinstance(capabilities, SetCapabilities)
    assert capabilities.until_filter is kept
    assert ("sys_admin until exec" in capabilities.describe()) is kept
    assert ("no-new-privileges" in steps) is no_new_privs
    assert ("seccomp" in steps) is (seccomp is not None)


@pytest.mark.parametrize(
    "changes", [{"user": "4294967296"}, {"user": "0:-1"}, {"user": ":"}, {"groups": ("4294967295",)}]
)
def test_a_user_that_cannot_be_is_refused_before_anything_is_done(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        identity.last_steps(SPEC.replace(**changes), FILTER)


def test_a_plain_container_gets_no_empty_steps() -> None:
    spec = ContainerSpec(
        id="a", name="a", argv=("true",), capabilities=plain_capabilities(caps.DOCKER_DEFAULT)
    )
    assert identity.parent_steps(spec) == ()
    assert "rlimits" not in [step.op for step in identity.last_steps(spec, None)]
    described = [step.describe() for step in identity.last_steps(spec, None)]
    assert "cd /" in described
    assert "setpriv --reuid 0 --init-groups" in described
    assert "command -v true" in described


def test_the_plan_holds_no_value_of_the_environment_and_no_filter_program() -> None:
    plan = Plan(container="a", name="a", init=identity.last_steps(SPEC, FILTER))
    text = plan.canonical.decode()
    assert "TOKEN" in text
    assert "hunter2" not in text
    assert "program" not in json.loads(text)["phases"]["init"][-2]
    assert "hunter2" not in " ".join(step.describe() for step in plan.init)


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("a", "a"),
        ("", "''"),
        ("a b", "'a b'"),
        ("$x", "'$x'"),
        ("a/b-c.d", "a/b-c.d"),
        ("a\nb'\\", r"$'a\nb\'\\'"),
        ("\x1b[2J\x85", r"$'\x1b[2J\xc2\x85'"),
        ("\udcff é", "'\udcff é'"),
    ],
)
def test_words_are_quoted_for_a_shell(text: str, quoted: str) -> None:
    assert quote(text) == quoted
