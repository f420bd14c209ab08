"""What each built-in namespace handler asks for, refuses, and lets --sysctl set."""

from __future__ import annotations

from typing import Any

import pytest

from gocker.api import NamespaceContext, NamespaceHandler
from gocker.errors import UsageError
from gocker.kernel import process
from gocker.model import ContainerSpec, IdMap, NamespaceRequest, Rootfs
from gocker.plugins.cgroup import Cgroup
from gocker.plugins.ipc import Ipc
from gocker.plugins.mount import Mount
from gocker.plugins.network import Network
from gocker.plugins.pid import Pid
from gocker.plugins.time import Time
from gocker.plugins.user import User
from gocker.plugins.uts import Uts
from gocker.testing import FakeKernel

ALL: list[NamespaceHandler] = [Uts(), Ipc(), Pid(), Mount(), Network(), Cgroup(), User(), Time()]
LARGEST = 2**32 - 2


def context(handler: NamespaceHandler, verb: str, mode: str = "private", **fields: Any) -> NamespaceContext:
    path = "/proc/7/ns/x" if mode == "path" else ""
    values: dict[str, Any] = {
        "id": "c",
        "name": "web",
        "argv": ("true",),
        "namespaces": (NamespaceRequest(kind=handler.name, mode=mode, path=path),),
    }
    spec = ContainerSpec(**{**values, **fields})
    return NamespaceContext(spec=spec, join_path=path or None, kernel=FakeKernel(verb))


def asked(handler: NamespaceHandler, verb: str, **fields: Any) -> list[tuple[str, ...]]:
    ctx = context(handler, verb, **fields)
    getattr(handler, verb)(ctx)
    assert isinstance(ctx.kernel, FakeKernel)
    return ctx.kernel.calls


def refusal(handler: NamespaceHandler, mode: str = "private", **fields: Any) -> str:
    with pytest.raises(UsageError) as caught:
        handler.set(context(handler, "set", mode, **fields))
    return str(caught.value)


def ids(*triples: tuple[int, int, int]) -> tuple[IdMap, ...]:
    return tuple(IdMap(inside=inside, outside=outside, count=count) for inside, outside, count in triples)


@pytest.mark.parametrize("handler", ALL, ids=lambda handler: handler.name)
def test_the_flag_is_that_of_clone(handler: NamespaceHandler) -> None:
    flags = {
        "uts": process.CLONE_NEWUTS,
        "ipc": process.CLONE_NEWIPC,
        "pid": process.CLONE_NEWPID,
        "mount": process.CLONE_NEWNS,
        "network": process.CLONE_NEWNET,
        "cgroup": process.CLONE_NEWCGROUP,
        "user": process.CLONE_NEWUSER,
        "time": process.CLONE_NEWTIME,
    }
    assert handler.flag == flags[handler.name]


def test_user_is_the_first_and_mount_the_last() -> None:
    ordered = sorted(ALL, key=lambda handler: handler.order)
    assert (ordered[0].name, ordered[-1].name) == ("user", "mount")


@pytest.mark.parametrize(
    "handler", [Ipc(), Pid(), Mount(), Cgroup(), User(), Time()], ids=lambda one: one.name
)
def test_these_ask_for_nothing_inside(handler: NamespaceHandler) -> None:
    assert asked(handler, "apply", hostname="web") == []


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("net.ipv4.ip_forward", "network"),
        ("kernel.shmmax", "ipc"),
        ("kernel.msgmnb", "ipc"),
        ("kernel.sem", "ipc"),
        ("fs.mqueue.msg_max", "ipc"),
        ("kernel.hostname", "uts"),
        ("kernel.domainname", "uts"),
    ],
)
def test_a_sysctl_belongs_to_one_namespace(name: str, owner: str) -> None:
    assert [handler.name for handler in ALL if name.startswith(handler.sysctls)] == [owner]


@pytest.mark.parametrize(
    "name", ["kernel.panic", "vm.swappiness", "fs.file-max", "network", "kernel.core_pattern"]
)
def test_a_sysctl_of_the_host_belongs_to_none(name: str) -> None:
    assert not [handler.name for handler in ALL if name.startswith(handler.sysctls)]


class TestUts:
    def test_both_names_are_set(self) -> None:
        calls = asked(Uts(), "apply", hostname="web", domainname="nis")
        assert calls == [("sethostname", "web"), ("setdomainname", "nis")]

    def test_a_name_that_nobody_gave_is_left_alone(self) -> None:
        assert asked(Uts(), "apply") == []
        assert asked(Uts(), "apply", domainname="nis") == [("setdomainname", "nis")]

    @pytest.mark.parametrize("name", ["x" * 64, "é" * 32, "\udcff" * 64])
    def test_64_bytes_fit(self, name: str) -> None:
        Uts().set(context(Uts(), "set", hostname=name, domainname=name))

    @pytest.mark.parametrize("name", ["x" * 65, "é" * 33, "\udcff" * 65])
    @pytest.mark.parametrize("option", ["hostname", "domainname"])
    def test_65_do_not(self, option: str, name: str) -> None:
        assert refusal(Uts(), **{option: name}) == f"set {option} {name}: longer than the kernel's 64 bytes"


class TestNetwork:
    def test_loopback_is_set_up(self) -> None:
        assert asked(Network(), "apply") == [("link_up", "lo")]


class TestMount:
    def test_a_new_one_needs_a_root(self) -> None:
        assert refusal(Mount()) == "plan mount namespace web: a new one needs a root file system"
        Mount().set(context(Mount(), "set", rootfs=Rootfs(lower="/srv")))

    def test_that_of_the_host_keeps_its_own(self) -> None:
        assert "the host's mount namespace keeps its own root" in refusal(
            Mount(), "host", rootfs=Rootfs(lower="/srv")
        )
        Mount().set(context(Mount(), "set", "host"))

    @pytest.mark.parametrize("rootfs", [None, Rootfs(lower="/srv")])
    def test_one_that_is_joined_may_get_one(self, rootfs: Rootfs | None) -> None:
        Mount().set(context(Mount(), "set", "path", rootfs=rootfs))


class TestTime:
    def test_offsets_of_both_clocks_pass(self) -> None:
        Time().set(context(Time(), "set", time_offsets=(("boottime", -5, 0), ("monotonic", 1, 999999999))))

    def test_other_clocks_have_none(self) -> None:
        message = refusal(Time(), time_offsets=(("realtime", 1, 0),))
        assert message == "offset clock realtime: only monotonic and boottime have offsets"

    @pytest.mark.parametrize("nanoseconds", [-1, 10**9])
    def test_nanoseconds_are_less_than_a_second(self, nanoseconds: int) -> None:
        assert "is not in 0 to 999999999 nanoseconds" in refusal(
            Time(), time_offsets=(("boottime", 1, nanoseconds),)
        )

    @pytest.mark.parametrize("mode", ["host", "path"])
    def test_offsets_need_a_namespace_that_is_new(self, mode: str) -> None:
        assert "needs a new time namespace" in refusal(Time(), mode, time_offsets=(("boottime", 1, 0),))
        Time().set(context(Time(), "set", mode))


class TestUser:
    def test_the_maps_are_written_in_one_go_each_groups_first(self) -> None:
        calls = asked(User(), "set_child", uid_map=ids((0, 100000, 10), (10, 0, 1)), gid_map=ids((0, 5, 1)))
        assert calls == [
            ("write_file", "/proc/{pid}/gid_map", "0 5 1\n"),
            ("write_file", "/proc/{pid}/uid_map", "0 100000 10\n10 0 1\n"),
        ]

    @pytest.mark.parametrize(
        "entries",
        [
            ids((0, 100000, 65536)),
            ids((0, 0, LARGEST + 1)),
            ids((0, 5, 1), (1, 100000, 10)),
            ids((1, 100000, 10), (0, 5, 1)),
            ids((0, LARGEST, 1)),
        ],
    )
    def test_a_map_with_root_and_nothing_twice_passes(self, entries: tuple[IdMap, ...]) -> None:
        User().set(context(User(), "set", uid_map=entries, gid_map=entries))

    @pytest.mark.parametrize(
        ("entries", "reason"),
        [
            ((), "id 0 of the container is not mapped"),
            (ids((1, 100000, 5)), "id 0 of the container is not mapped"),
            (ids((0, 100000, 0)), "id 0 of the container is not mapped"),
            (ids((0, 5, 1), (1, 9, 0)), "ids and counts are whole and positive"),
            (ids((0, -1, 1)), "ids and counts are whole and positive"),
            (ids((-1, 5, 2)), "ids and counts are whole and positive"),
            (ids((0, 0, LARGEST + 2)), f"an id above {LARGEST}"),
            (ids((0, LARGEST, 2)), f"an id above {LARGEST}"),
            (ids((0, 5, 1), (LARGEST, 6, 2)), f"an id above {LARGEST}"),
            (ids((0, 100, 10), (5, 200, 10)), "id 5 inside is mapped twice"),
            (ids((0, 100, 10), (10, 105, 10)), "id 105 outside is mapped twice"),
            (ids((10, 105, 10), (0, 100, 10)), "id 105 outside is mapped twice"),
        ],
    )
    @pytest.mark.parametrize("kind", ["uid", "gid"])
    def test_any_other_is_refused(self, kind: str, entries: tuple[IdMap, ...], reason: str) -> None:
        maps: dict[str, Any] = {"uid_map": ids((0, 1, 1)), "gid_map": ids((0, 1, 1)), f"{kind}_map": entries}
        message = refusal(User(), **maps)
        assert message.startswith(f"map {kind}s")
        assert reason in message
        assert message.endswith(f"(for example --{kind}map 0:100000:65536)")

    @pytest.mark.parametrize("mode", ["host", "path"])
    @pytest.mark.parametrize("kind", ["uid", "gid"])
    def test_one_that_is_not_new_takes_no_map(self, kind: str, mode: str) -> None:
        message = refusal(User(), mode, **{f"{kind}_map": ids((0, 1, 1))})
        assert message == f"map {kind}s web: only a new user namespace takes a map (--userns private)"
        User().set(context(User(), "set", mode))
