"""Capability names, docker's sets of them, and --ulimit."""

from __future__ import annotations

import pytest

from gocker.errors import UsageError
from gocker.kernel import caps, rlimit
from gocker.model import Rlimit


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("CAP_CHOWN", 0),
        ("CAP_KILL", 5),
        ("CAP_NET_RAW", 13),
        ("CAP_SYS_ADMIN", 21),
        ("CAP_SYSLOG", 34),
        ("CAP_CHECKPOINT_RESTORE", 40),
    ],
)
def test_a_name_has_the_kernels_number(name: str, number: int) -> None:
    assert caps.NUMBERS[name] == number
    assert len(caps.NAMES) == 41


@pytest.mark.parametrize("text", ["net_admin", "NET_ADMIN", "cap_net_admin", "CAP_NET_ADMIN"])
def test_a_capability_may_be_written_with_or_without_cap(text: str) -> None:
    assert caps.capability_name(text) == "CAP_NET_ADMIN"


@pytest.mark.parametrize("text", ["", "everything", "CAP_", "CAP_ALL", "net admin"])
def test_an_unknown_capability_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="no such capability"):
        caps.capability_name(text)


DEFAULT = set(caps.DOCKER_DEFAULT)
EVERY = set(caps.docker_capabilities((), (), privileged=True))


@pytest.mark.parametrize(
    ("add", "drop", "chosen"),
    [
        ((), (), DEFAULT),
        (("net_admin",), (), DEFAULT | {"CAP_NET_ADMIN"}),
        ((), ("mknod", "CAP_KILL"), DEFAULT - {"CAP_MKNOD", "CAP_KILL"}),
        (("kill",), ("kill",), DEFAULT),
        ((), ("ALL",), set()),
        (("chown",), ("all",), {"CAP_CHOWN"}),
        (("ALL",), (), EVERY),
        (("all",), ("sys_admin",), EVERY - {"CAP_SYS_ADMIN"}),
        (("ALL",), ("ALL",), EVERY),
        (("CAP_ALL",), (), EVERY),
    ],
)
def test_dockers_options_choose_a_set(add: tuple[str, ...], drop: tuple[str, ...], chosen: set[str]) -> None:
    assert set(caps.docker_capabilities(add, drop, privileged=False)) == chosen


def test_the_set_is_in_kernel_order_without_repetition() -> None:
    names = caps.docker_capabilities(("net_admin", "NET_ADMIN"), (), privileged=False)
    assert [caps.NUMBERS[name] for name in names] == sorted({caps.NUMBERS[name] for name in names})


def test_privileged_gives_all_that_there_are_whatever_else_is_said() -> None:
    assert set(caps.docker_capabilities((), ("ALL",), privileged=True)) == EVERY
    assert len(EVERY) <= caps.last_cap() + 1
    assert {"CAP_CHOWN", "CAP_SETPCAP"} <= EVERY


@pytest.mark.parametrize(
    ("add", "drop"), [(("nonsense",), ()), ((), ("nonsense",)), (("ALL", "nonsense"), ())]
)
def test_an_unknown_name_in_an_option_is_an_error(add: tuple[str, ...], drop: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="nonsense"):
        caps.docker_capabilities(add, drop, privileged=False)


UNLIMITED = rlimit.UNLIMITED


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("nofile=1024:4096", Rlimit(name="nofile", soft=1024, hard=4096)),
        ("nofile=1024", Rlimit(name="nofile", soft=1024, hard=1024)),
        ("NOFILE=1:2", Rlimit(name="nofile", soft=1, hard=2)),
        ("RLIMIT_CORE=0", Rlimit(name="core", soft=0, hard=0)),
        ("core=-1", Rlimit(name="core", soft=UNLIMITED, hard=UNLIMITED)),
        ("stack=8388608:-1", Rlimit(name="stack", soft=8388608, hard=UNLIMITED)),
        ("as=unlimited", Rlimit(name="as", soft=UNLIMITED, hard=UNLIMITED)),
        (f"fsize={UNLIMITED}", Rlimit(name="fsize", soft=UNLIMITED, hard=UNLIMITED)),
    ],
)
def test_a_ulimit_is_a_name_and_one_or_two_values(text: str, limit: Rlimit) -> None:
    assert rlimit.parse_ulimit(text) == limit


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no resource is called ''"),
        ("nosuch=1", "no resource is called 'nosuch'"),
        ("nofile", r"not NAME=SOFT\[:HARD\]"),
        ("nofile=", r"not NAME=SOFT\[:HARD\]"),
        ("nofile=1:", r"not NAME=SOFT\[:HARD\]"),
        ("nofile=:1", r"not NAME=SOFT\[:HARD\]"),
        ("nofile=2:1", "soft limit is above the hard"),
        ("nofile=-1:1", "soft limit is above the hard"),
        ("nofile=-2", "not a whole number"),
        ("nofile=1k", "not a whole number"),
        ("nofile=1.5", "not a whole number"),
        ("nofile=\u0661", "not a whole number"),
        ("nofile=18446744073709551616", "not a whole number"),
        ("nofile=1:2:3", "not a whole number"),
    ],
)
def test_a_bad_ulimit_is_an_error(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        rlimit.parse_ulimit(text)


def test_names_of_limits_have_the_kernels_numbers() -> None:
    import resource

    for name, number in rlimit.NUMBERS.items():
        constant = getattr(resource, f"RLIMIT_{name.upper()}", None)
        assert constant in {None, number}
    assert rlimit.get_rlimit(0, "nofile") == resource.getrlimit(resource.RLIMIT_NOFILE)
